"""The built-in model, loaded once for each process of the tests: loading and hashing it takes a fifth of a second."""

from __future__ import annotations

from functools import cache

from rag_index.embedders import local

__all__ = ["keep_model"]


def keep_model() -> None:
    """Keep the model once it is loaded, and the hash of its files. Nothing changes either of them."""
    local.load = cache(local.load)
    local._digest = cache(local._digest)
