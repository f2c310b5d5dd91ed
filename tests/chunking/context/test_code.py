"""Contexts for source code: symbols keep their own payload, halves keep their context."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rag_index.chunking.code.chunker import CodeCutter
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


def test_symbols_get_contexts_and_keep_what_is_theirs(server, make_cutter, documents):
    cutter = replace(make_cutter(server), inner=CodeCutter(60, 10.0))
    (plain,) = cutter.inner.cut(documents)
    (cut,) = cutter.cut(documents)
    assert len(plain.chunks) > 2
    assert (cut.chunks, cut.payloads, cut.symbols) == (plain.chunks, plain.payloads, plain.symbols)
    assert all(cut.contexts)
    assert cut.context_counts == ContextCounts(made=len(cut.chunks))
    assert cutter.fingerprint.startswith(f"{cutter.inner.fingerprint}/context-")
    shown = [request.texts[0] for request in server.generates()]
    assert all('"""The second."""' in text for text in shown)


def test_a_symbol_in_halves_keeps_its_context(server, make_cutter, documents):
    cutter = replace(make_cutter(server), inner=CodeCutter(200, 10.0))
    (cut,) = cutter.cut(documents)
    halved = cutter.halved(cut, 1)
    assert len(halved.chunks) == len(halved.contexts) == len(halved.payloads) == len(cut.chunks) + 1
    assert halved.contexts == [cut.contexts[0], cut.contexts[1], *cut.contexts[1:]]
