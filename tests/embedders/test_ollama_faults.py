"""Faults of an Ollama server: what is tried again, who is at fault, and that no vector is ever wrong."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

from rag_index.embedders import open_embedder
from rag_index.embedders.servers import ServerEmbedder
from rag_index.errors import (
    BadVectors,
    EmbedderError,
    EmbedderUnavailable,
    ModelChanged,
    ModelMissing,
    RateLimited,
    TextRefused,
    TextTooLong,
)
from rag_index.settings import EmbedderSettings
from tests.fakes.embedders import FAST
from tests.fakes.ollama import FakeOllama, vector_of
from tests.waiting import when

TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(50)]
POISON = "poison in this one"


@pytest.fixture
def embedder(server, make_embedder):
    """Return an embedder that has embedded once, so that a fault for the next request hits a batch."""
    embedder = make_embedder(server, wait_for_recovery=200.0, clock=FAST)
    embedder.embed_query("warm up")
    server.clear()
    return embedder


def right(entries, texts=TEXTS, prefix=""):
    assert len(entries) == len(texts)
    for entry, text in zip(entries, texts, strict=True):
        assert not isinstance(entry, Exception), entry
        assert entry.dtype == np.float32
        assert np.array_equal(entry, np.asarray(vector_of(prefix + text), dtype=np.float32))


def right_but_for(kind, entries, texts, *bad):
    """Check that the bad texts have this error, and all others their own vector."""
    assert [number for number, entry in enumerate(entries) if isinstance(entry, Exception)] == sorted(bad)
    assert {type(entries[number]) for number in bad} == {kind}
    good = [number for number in range(len(texts)) if number not in bad]
    right([entries[number] for number in good], [texts[number] for number in good])


# No faults


def test_every_text_gets_its_vector_in_order_in_bounded_arrays(server, make_embedder):
    embedder = make_embedder(server, batch_texts=10, batch_chars=200, requests_in_flight=1)
    right(embedder.embed_documents(TEXTS))
    sent = [request.texts for request in server.embeds()]
    assert all(len(texts) <= 10 and (len(texts) == 1 or sum(map(len, texts)) <= 200) for texts in sent)
    lengths = [len(text) for texts in sent[1:] for text in texts]
    assert lengths == sorted(lengths, reverse=True)
    assert embedder.stats.requests == len(sent) - 1
    assert embedder.stats.retries == 0
    assert embedder.stats.busy_seconds > 0


def test_requests_have_the_prefix_and_the_options(server, make_embedder):
    embedder = make_embedder(server, document_prefix="doc: ", query_prefix="ask: ", num_thread=3, keep_alive="7m")
    right(embedder.embed_documents(["one"]), ["one"], prefix="doc: ")
    assert np.array_equal(embedder.embed_query("one"), np.asarray(vector_of("ask: one"), dtype=np.float32))
    body = server.embeds()[-1].body
    assert (body["truncate"], body["options"], body["keep_alive"]) == (False, {"num_thread": 3}, "7m")


def test_identity(server, make_embedder):
    embedder = make_embedder(server, document_prefix="doc: ")
    identity = embedder.identity()
    assert (identity.kind, identity.model, identity.digest) == ("ollama", server.model, server.digest)
    assert (identity.dimension, identity.document_prefix) == (8, "doc: ")
    assert embedder.context_length == 2048
    tagged = ServerEmbedder(EmbedderSettings(kind="ollama", model=server.model + ":latest", hosts=[server.url]))
    assert tagged.identity().model == server.model
    tagged.close()


def test_it_works_inside_a_running_loop_and_in_threads(server, make_embedder):
    embedder = make_embedder(server)

    async def within():
        return embedder.embed_documents(TEXTS)

    right(asyncio.run(within()))
    results = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: embedder.embed_documents(TEXTS)})) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    for entries in results.values():
        right(entries)


def test_an_interrupt_ends_the_call_and_the_next_one_works(server, make_embedder):
    embedder = make_embedder(server)
    embedder.embed_query("warm up")
    server.clear()
    server.fault("hang")
    with pytest.raises(KeyboardInterrupt), when(server.embeds, lambda: os.kill(os.getpid(), signal.SIGINT)):
        embedder.embed_documents(TEXTS)
    server.clear()
    right([embedder.embed_query("again")], ["again"])


def test_a_text_that_cannot_be_sent_is_refused_without_a_request(server, make_embedder):
    texts = ["one", "", "broken \ud800", "two"]
    right_but_for(TextRefused, make_embedder(server).embed_documents(texts), texts, 1, 2)


def test_it_cannot_be_pickled_and_may_be_closed_twice(server):
    embedder = open_embedder(EmbedderSettings(kind="ollama", model=server.model, hosts=[server.url]))
    with pytest.raises(TypeError, match="EmbedderSettings"):
        pickle.dumps(embedder)
    embedder.embed_query("x")
    embedder.close()
    embedder.close()


# Faults of the server


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("status", {"code": 500}),
        ("status", {"code": 503}),
        ("status", {"code": 502, "html": True, "words": "Bad Gateway"}),
        ("status", {"code": 408}),
        ("status", {"code": 400, "words": 'do embedding request: Post "http://127.0.0.1:1/embedding": EOF'}),
        ("reset", {}),
        ("half", {}),
        ("html", {}),
        ("few", {}),
        ("nan", {}),
        ("null", {}),
        ("zero", {}),
        ("dimension", {}),
    ],
)
def test_a_fault_that_passes_is_tried_again(server, embedder, kind, options):
    server.fault(kind, times=2, **options)
    right(embedder.embed_documents(TEXTS))
    assert embedder.stats.retries >= 1


def test_an_answer_that_drips_times_out_too(server, make_embedder):
    """With a timeout per read only, the embedder would wait for ever."""
    embedder = make_embedder(server, timeout=0.3, clock=FAST)
    embedder.embed_query("warm up")
    server.fault("drip")
    with pytest.raises(EmbedderUnavailable, match=r"no answer within 0\.3 s"):
        embedder.embed_documents(["one"])


@pytest.mark.parametrize("kind", ["reset", "half", "html", "hang"])
def test_a_fault_that_persists_ends_the_call_in_bounded_time(server, make_embedder, kind):
    embedder = make_embedder(server, timeout=0.2)
    server.fault(kind)
    with pytest.raises(EmbedderUnavailable, match=server.url):
        embedder.embed_documents(TEXTS)
    assert pickle.loads(pickle.dumps(EmbedderUnavailable("x"))).args == ("x",)


def test_the_message_names_the_last_reason_of_a_server_that_is_down(server, make_embedder):
    embedder = make_embedder(server, wait_for_recovery=0.5)
    server.stop_listening()
    began = time.monotonic()
    with pytest.raises(EmbedderUnavailable, match=rf"within 0\.5 s: {server.url} accepts no connection"):
        embedder.embed_documents(TEXTS)
    assert time.monotonic() - began > 0.5
    with pytest.raises(EmbedderUnavailable):
        embedder.identity()


def test_it_waits_for_a_server_that_comes_back_and_logs_the_wait(server, make_embedder, caplog):
    embedder = make_embedder(server, wait_for_recovery=100.0)
    server.fault("hang", times=1, marker="text 49")
    with (
        caplog.at_level("WARNING", logger="rag_index.embedders"),
        when(
            lambda: any("text 49 " in text for request in server.embeds() for text in request.texts),
            server.stop_listening,
        ),
        when(lambda: "waiting at most 100 s" in caplog.text, server.listen),
    ):
        right(embedder.embed_documents(TEXTS))
    assert "accepts texts again" in caplog.text


def test_a_query_does_not_wait_for_recovery(server, make_embedder):
    embedder = make_embedder(server, wait_for_recovery=600.0)
    server.stop_listening()
    with pytest.raises(EmbedderUnavailable):
        embedder.embed_query("anything")


# 429


@pytest.mark.parametrize("header", [{"Retry-After": "1"}, "date", {}])
def test_429_pauses_and_continues(server, make_embedder, header):
    embedder = make_embedder(server, wait_for_recovery=100.0)
    embedder.embed_query("warm up")
    if header == "date":
        header = {"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))}
    server.fault("status", code=429, times=1, headers=header)
    began = time.monotonic()
    right(embedder.embed_documents(TEXTS))
    assert time.monotonic() - began > 0.8
    assert embedder.stats.rate_limited == 1


def test_a_pause_longer_than_the_patience_is_raised_at_once(server, embedder, make_embedder):
    impatient = make_embedder(server, wait_for_recovery=5.0)
    server.fault("status", code=429, headers={"Retry-After": "3600"})
    with pytest.raises(RateLimited) as raised:
        impatient.embed_documents(TEXTS)
    assert 3500 < raised.value.retry_after <= 3600


# Faults of a text


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("status", {"code": 400, "words": "input length exceeds maximum context length"}, TextTooLong),
        ("status", {"code": 500, "words": "the input length exceeds the context length"}, TextTooLong),
        (
            "status",
            {"code": 500, "words": "input is too large to process. increase the physical batch size"},
            TextTooLong,
        ),
        ("status", {"code": 400, "words": "invalid input type"}, TextRefused),
        ("status", {"code": 413, "html": True, "words": "Request Entity Too Large"}, TextRefused),
        ("status", {"code": 400, "words": "embedding contains NaN or Inf values"}, BadVectors),
        ("status", {"code": 500, "words": "failed to encode response: json: unsupported value: NaN"}, BadVectors),
        ("status", {"code": 500, "words": "do embedding request: EOF"}, TextRefused),
        ("reset", {}, TextRefused),
        ("half", {}, TextRefused),
        ("few", {}, BadVectors),
        ("nan", {}, BadVectors),
        ("null", {}, BadVectors),
        ("zero", {}, BadVectors),
        ("dimension", {}, BadVectors),
    ],
)
def test_the_text_at_fault_is_found_and_no_other_suffers(server, embedder, kind, options, error):
    texts = [*TEXTS]
    bad = [7, 8, 33]
    for number in bad:
        texts[number] += POISON
    server.fault(kind, marker=POISON, **options)
    entries = embedder.embed_documents(texts)
    right_but_for(error, entries, texts, *bad)
    if "words" in options and kind == "status":
        assert options["words"] in str(entries[7])
    assert server.url in str(entries[7])


def test_only_texts_that_are_too_long_are_too_long(server, embedder):
    server.max_chars = 100
    texts = ["long " * 40, *TEXTS, "longer " * 60]
    entries = embedder.embed_documents(texts)
    right_but_for(TextTooLong, entries, texts, 0, len(texts) - 1)
    assert "the input length exceeds the context length" in str(entries[0])
    assert "chunk_chars" in str(entries[0])
    assert embedder.stats.splits > 0
    assert embedder.stats.retries == 0, "a half of a refused batch repeats nothing"


# The model


def test_a_missing_model(server, make_embedder):
    server.model = "another"
    embedder = ServerEmbedder(EmbedderSettings(kind="ollama", model="nomic-embed-text", hosts=[server.url]))
    for call in (embedder.identity, lambda: embedder.embed_documents(TEXTS)):
        with pytest.raises(ModelMissing, match=f"{server.url}.*ollama pull nomic-embed-text"):
            call()
    embedder.close()


def test_a_server_that_is_not_ollama(server, make_embedder):
    server.fault("status", code=404, html=True, words="Not Found", path=None)
    with pytest.raises(EmbedderError, match="is it Ollama"):
        make_embedder(server).embed_documents(TEXTS)
    server.clear()
    server.fault("html", path=None)
    with pytest.raises(EmbedderUnavailable, match="is it Ollama"):
        make_embedder(server).embed_documents(TEXTS)
    server.clear()
    server.fault("status", code=401, words="unauthorized", path=None)
    with pytest.raises(EmbedderError, match="401: unauthorized"):
        make_embedder(server).embed_documents(TEXTS)


def test_a_model_that_cannot_embed_is_not_the_fault_of_a_text(server, make_embedder):
    server.fault("status", code=400, words="this model does not support embeddings")
    with pytest.raises(EmbedderError, match="does not support embeddings"):
        make_embedder(server).embed_documents(TEXTS)
    assert len(server.embeds()) == 1


@pytest.mark.parametrize("kind", ["nan", "zero", "few"])
def test_a_model_that_returns_only_bad_vectors(server, embedder, make_embedder, kind):
    server.fault(kind)
    with pytest.raises(BadVectors, match=server.url):
        make_embedder(server).embed_documents(TEXTS)
    with pytest.raises(BadVectors, match=server.url):
        make_embedder(server).identity()


def test_another_model_after_a_restart_is_noticed_before_any_of_its_vectors_is_kept(server, embedder):
    server.seconds_per_text = 0.01
    restart = when(server.embeds, lambda: server.restart(digest="e2" * 32))
    with restart, pytest.raises(ModelChanged, match=r"e2e2e2e2e2e2.*d1d1d1d1d1d1"):
        embedder.embed_documents(TEXTS * 4)


def test_a_worker_notices_that_its_model_differs_from_the_run(server, make_embedder):
    identity = make_embedder(server).identity()
    server.digest = "e2" * 32
    with pytest.raises(ModelChanged, match=server.url):
        make_embedder(server, expected=identity).embed_documents(TEXTS)


def test_one_of_several_hosts_may_be_down_at_the_start(server, make_embedder, caplog):
    with FakeOllama() as other:
        embedder = make_embedder(server, other)
        server.stop_listening()
        with caplog.at_level("WARNING", logger="rag_index.embedders"):
            assert embedder.identity().digest == other.digest
        assert server.url in caplog.text
        assert [report.error is None for report in embedder.reports()] == [False, True]
        right(embedder.embed_documents(TEXTS))
