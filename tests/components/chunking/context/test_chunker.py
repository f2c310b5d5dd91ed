"""Contexts of chunks from a server on loopback: what is requested, how many at once, and what is cached."""

import pickle
from dataclasses import replace

import pytest
from sqlalchemy.engine import make_url

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.chunking.context import ContextCache, Recipe
from rag_index.core.documents.batches import ContextCounts
from rag_index.core.documents.canonical import hash_text
from tests.components.chunking.context.conftest import numbered, page
from tests.fakes.ollama import FakeOllama


def test_ten_chunks_are_asked_at_a_time(server, make_chunker):
    server.together = 10  # the server answers none before ten are in flight
    (document,) = make_chunker(server, requests_in_flight=10).chunk(page(numbered(20)))
    assert document.context_counts == ContextCounts(made=20)
    assert max(request.in_flight for request in server.generates()) == 10


@pytest.mark.parametrize("concurrency", [1, 4])
def test_at_most_concurrency_requests_are_in_flight_over_all_hosts(make_chunker, concurrency):
    with FakeOllama(model="fake-talk") as one, FakeOllama(model="fake-talk") as other:
        one.seconds_per_answer = other.seconds_per_answer = 0.1
        (document,) = make_chunker(one, other, requests_in_flight=concurrency).chunk(page(numbered(16)))
        assert document.context_counts.made == 16
        asked = [*one.generates(), *other.generates()]
        assert len(asked) == 16
        assert max(sum(first.at <= r.at < first.at + 0.1 for r in asked) for first in asked) <= concurrency
        if concurrency > 1:
            assert one.generates()
            assert other.generates()


def test_what_decides_contexts_changes_the_fingerprint_and_the_cache_key(server, make_chunker):
    before, after = make_chunker(server, requests_in_flight=2, timeout=9.0), make_chunker(server, num_ctx=2048)
    assert before.fingerprint == make_chunker(server).fingerprint
    assert before.fingerprint != after.fingerprint
    assert before.fingerprint.startswith(before.inner.fingerprint)
    before.chunk(page(numbered(3)))
    assert after.chunk(page(numbered(3)))[0].context_counts == ContextCounts(made=3)


def test_contexts_that_earlier_versions_wrote_stay_valid():
    """They cost hours. This is what the version before wrote of the same model, with the settings that nobody set."""
    assert Recipe("d1" * 32, 8192).fingerprint == "9ad3d9b9a74c6b23"


def test_a_pickled_chunker_is_small_and_its_repr_has_no_secret(server, make_chunker):
    chunker = make_chunker(server)
    chunker.chunk(page(numbered(2)))
    packed = pickle.dumps(chunker)
    assert len(packed) < 5000
    assert pickle.loads(packed) == chunker
    assert "ledger.db" not in repr(chunker)
    assert pickle.loads(packed).chunk(page(numbered(2)))[0].context_counts.cached == 2


SOURCE = """\
def first(a):
    return [
        a,
        a + 1,
        a + 2,
    ]


def second(b):
    return b * 2
"""


def test_symbols_get_contexts_and_keep_their_payload_and_halves_of_a_chunk_its_context(server, make_chunker):
    documents = replace(page(SOURCE), payloads=[b'{"language":"python"}'])
    chunker = replace(make_chunker(server), inner=CodeChunker(60, 10.0))
    (plain,) = chunker.inner.chunk(documents)
    (document,) = chunker.chunk(documents)
    assert len(plain.chunks) > 2
    assert (document.chunks, document.payloads) == (plain.chunks, plain.payloads)
    assert all(document.contexts)
    shorter = chunker.split_chunk(document, 1)
    assert len(shorter.chunks) == len(shorter.contexts) == len(shorter.payloads) == len(document.chunks) + 1
    assert shorter.contexts == [*document.contexts[:2], *document.contexts[1:]]


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:s3cret@127.0.0.1:9/none", "sqlite:////nowhere/ledger.db"])
def test_a_ledger_that_cannot_be_used_is_warned_about_once_without_its_password(caplog, url):
    cache, document = ContextCache(make_url(url), "recipe"), hash_text("document")
    assert cache.known([document]) == {document: {}}
    cache.put(document, hash_text("one"), "context")
    assert caplog.text.count("contexts are not kept for the next run") == 1
    assert "127.0.0.1:9/none" in caplog.text or "there is no /nowhere/ledger.db on this machine" in caplog.text
    assert "s3cret" not in caplog.text
