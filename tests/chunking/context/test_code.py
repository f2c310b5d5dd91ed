"""Contexts for source code: symbols keep their own payload, and both halves of a chunk keep its context."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag_index.chunking.code.chunker import CodeChunker
from rag_index.documents.batches import ContextCounts
from tests.chunking.context.conftest import page

pytest.importorskip("tree_sitter_python")

SOURCE = '''\
"""Calls."""

def first(a):
    """The first."""
    return [
        a,
        a + 1,
    ]


def second(b):
    """The second."""
    return b * 2
'''


@pytest.fixture
def documents():
    return replace(page(SOURCE), payloads=[b'{"language":"python"}'])


def test_symbols_get_contexts_and_keep_their_payload(server, make_chunker, documents):
    chunker = replace(make_chunker(server), inner=CodeChunker(60, 10.0))
    (plain,) = chunker.inner.chunk(documents)
    (document,) = chunker.chunk(documents)
    assert len(plain.chunks) > 2
    assert (document.chunks, document.payloads, document.symbols) == (plain.chunks, plain.payloads, plain.symbols)
    assert all(document.contexts)
    assert document.context_counts == ContextCounts(made=len(document.chunks))
    assert chunker.fingerprint.startswith(f"{chunker.inner.fingerprint}/context-")
    shorter = chunker.split_chunk(document, 1)
    assert len(shorter.chunks) == len(shorter.contexts) == len(shorter.payloads) == len(document.chunks) + 1
    assert shorter.contexts == [*document.contexts[:2], *document.contexts[1:]]
    questions = [request.texts[0] for request in server.generates()]
    assert all('"""The second."""' in text for text in questions)
