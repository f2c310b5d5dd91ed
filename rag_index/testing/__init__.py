"""Test classes for plug-ins: subclass one in your package's tests, say how to make yours, and run pytest.

rag-index's own embedders, chunkers and rerankers pass the same tests.
"""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("rag_index.testing.contracts")

from rag_index.testing.contracts import ChunkerContract, EmbedderContract, RerankerContract  # noqa: E402 - pytest first

__all__ = ["ChunkerContract", "EmbedderContract", "RerankerContract"]
