"""Contexts of chunks over a server on loopback: what is asked, how much at once, what is kept."""

from __future__ import annotations

import os
import pickle
import time

import pytest

from rag_index.documents.batches import ContextCounts
from tests.chunking.context.conftest import numbered, page
from tests.fakes.ollama import FakeOllama


def test_each_chunk_of_a_document_with_several_gets_a_context(server, make_chunker):
    one, several = make_chunker(server).chunk(page("short", numbered(3)))
    assert (one.chunks, one.contexts, one.context_counts) == (["short"], [], ContextCounts())
    assert len(several.chunks) == len(several.contexts) == 3
    assert len(set(several.contexts)) == 3
    assert all(context.startswith("Context ") for context in several.contexts)
    assert several.context_counts == ContextCounts(made=3)
    assert several.incomplete == ""
    assert several.sent()[1] == f"{several.contexts[1]}\n\n{several.chunks[1]}"


def test_twenty_chunks_at_a_fifth_of_a_second_take_half_a_second_at_most(server, make_chunker):
    """With concurrency 10: two rounds of 0.2 s, and the rest is what asking costs. Where a machine is busy with other
    things, that is the time of the processor, of client and server together."""
    chunker = make_chunker(server, requests_in_flight=10)
    chunker.chunk(page(numbered(2, "warming")))  # imports and connections
    server.seconds_per_answer = 0.2
    server.clear()
    took, worked = [], []
    while len(took) < 8 and min(took, default=1) > 0.5:
        text = numbered(20, f"test {len(took)}")
        began, work = time.perf_counter(), time.process_time()
        (document,) = chunker.chunk(page(text))
        took.append(time.perf_counter() - began)
        worked.append(time.process_time() - work)
        assert document.context_counts == ContextCounts(made=20)
    assert max(request.in_flight for request in server.generates()) == 10
    assert min(took) >= 0.4
    assert min(worked) <= 0.1, worked
    busy = os.getloadavg()[0] > (os.cpu_count() or 1)
    assert busy or min(took) <= 0.5, took


@pytest.mark.parametrize("most", [1, 4])
def test_no_more_than_concurrency_are_under_way_over_all_hosts(make_chunker, most):
    with FakeOllama(model="fake-talk") as one, FakeOllama(model="fake-talk") as other:
        one.seconds_per_answer = other.seconds_per_answer = 0.1
        (document,) = make_chunker(one, other, requests_in_flight=most).chunk(page(numbered(16)))
        assert document.context_counts.made == 16
        asked = [*one.generates(), *other.generates()]
        assert len(asked) == 16
        assert max(sum(first.at <= r.at < first.at + 0.1 for r in asked) for first in asked) <= most
        if most > 1:
            assert one.generates()
            assert other.generates()


def test_nothing_is_asked_for_twice(server, make_chunker):
    (first,) = make_chunker(server).chunk(page(numbered(5)))
    asked = len(server.generates())
    twice = make_chunker(server).chunk(page(numbered(5), numbered(5)))
    assert [document.contexts for document in twice] == [first.contexts] * 2
    assert twice[0].context_counts == ContextCounts(cached=5)
    assert len(server.generates()) == asked == 5


def test_equal_documents_of_a_shard_are_asked_for_once(server, make_chunker):
    first, second = make_chunker(server).chunk(page(numbered(4), numbered(4)))
    assert first.contexts == second.contexts
    assert len(server.generates()) == 4


@pytest.mark.parametrize("changed", [{"prompt": "x {document} y {chunk}"}, {"max_chars": 200}, {"num_ctx": 2048}])
def test_what_decides_contexts_is_in_the_fingerprint_and_not_taken_from_the_cache(server, make_chunker, changed):
    before, after = make_chunker(server), make_chunker(server, **changed)
    assert before.fingerprint != after.fingerprint
    assert before.fingerprint.startswith(before.inner.fingerprint)
    before.chunk(page(numbered(3)))
    assert after.chunk(page(numbered(3)))[0].context_counts == ContextCounts(made=3)


def test_another_model_is_another_fingerprint(server, make_chunker):
    before = make_chunker(server).fingerprint
    server.digest = "e2" * 32
    assert make_chunker(server).fingerprint != before


@pytest.mark.parametrize("changed", [{"requests_in_flight": 2}, {"timeout": 9.0}, {"required": True}])
def test_how_it_is_asked_is_not_in_the_fingerprint(server, make_chunker, changed):
    assert make_chunker(server, **changed).fingerprint == make_chunker(server).fingerprint


def test_a_changed_document_is_asked_for_anew_and_others_are_not(server, make_chunker):
    chunker = make_chunker(server)
    chunker.chunk(page(numbered(3), numbered(3, "other")))
    changed, same = chunker.chunk(page(numbered(4), numbered(3, "other")))
    assert (changed.context_counts, same.context_counts) == (ContextCounts(made=4), ContextCounts(cached=3))


def test_it_travels_small_without_clients_and_shows_no_secret(server, make_chunker):
    chunker = make_chunker(server)
    chunker.chunk(page(numbered(2)))
    packed = pickle.dumps(chunker)
    assert len(packed) < 5000
    assert pickle.loads(packed) == chunker
    assert "contexts.db" not in repr(chunker)
    assert pickle.loads(packed).chunk(page(numbered(2)))[0].context_counts.cached == 2


def test_a_chunk_in_halves_keeps_its_context(server, make_chunker):
    chunker = make_chunker(server)
    (document,) = chunker.chunk(page(numbered(3)))
    halved = chunker.halved(document, 1)
    assert len(halved.chunks) == 4
    assert halved.contexts == [document.contexts[0], document.contexts[1], document.contexts[1], document.contexts[2]]
