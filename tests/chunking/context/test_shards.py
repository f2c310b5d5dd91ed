"""Shards of an index with contexts: small from the first one on, whatever speed was measured without contexts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from rag_index.documents.batches import DocumentBatch
from rag_index.indexing.sharding import FIRST_RATE, MAX_CHARS, Sharder, first_rate, max_chars
from rag_index.settings import ParallelSettings

PLAIN, WITH = (SimpleNamespace(kind="sql", context=context) for context in (None, object()))


@pytest.mark.parametrize("kind", FIRST_RATE)
def test_the_first_rate(kind):
    assert first_rate(kind, PLAIN, None) == FIRST_RATE[kind]
    assert first_rate(kind, PLAIN, 7e6) == 7e6
    assert first_rate(kind, WITH, None) == first_rate(kind, WITH, 7e6) == 1000.0
    assert first_rate(kind, WITH, 300.0) == 300.0


@pytest.mark.parametrize(("index", "chars"), [(PLAIN, MAX_CHARS), (WITH, 100_000)])
def test_a_shard_is_bounded_however_fast_earlier_ones_were(index, chars):
    texts = ["x" * 1000] * 12_000
    page = DocumentBatch([str(i) for i in range(len(texts))], texts, *[[b""] * len(texts)] * 3)
    parallel = ParallelSettings(max_shard_documents=len(texts))
    sharder = Sharder("n", parallel, chars_per_second=1e7, workers=1, max_chars=max_chars(index))
    assert next(sharder.add(page)).chars == chars
