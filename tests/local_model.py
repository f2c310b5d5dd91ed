"""The built-in model, hashed once for each process of the tests."""

from functools import cache

from rag_index.components.embedders import local


def keep_model() -> None:
    """Keep the hash of the model's files, which nothing changes."""
    local._digest = cache(local._digest)
