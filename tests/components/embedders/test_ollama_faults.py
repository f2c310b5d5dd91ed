"""Servers that embed, Ollama and others: what is tried again, who is at fault, and that no vector
is ever wrong. Whose fault a failure is, in every order of events, is the matter of
test_server_calls.py."""

import asyncio
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

from rag_index.components.embedders import open_embedder
from rag_index.components.hosts.clients import OllamaEndpoint, embeddings_address
from rag_index.core.recovery import outages
from rag_index.core.reports.metrics import MAX_RETRIED
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import (
    BadVectors,
    EmbedderError,
    EmbedderUnavailable,
    ModelChanged,
    ModelMissing,
    RateLimited,
    TextEndsServer,
    TextRefused,
    TextTooLong,
)
from tests.fakes.embedders import make_embedder, server, short_rests
from tests.fakes.hosts import assert_own_vectors
from tests.fakes.ollama import FakeOllama
from tests.waiting import when

__all__ = ["make_embedder", "server", "short_rests"]

TEXTS = [f"text {number} " + "word " * (number % 7) for number in range(50)]
POISON = "poison in this one"


@pytest.fixture
def embedder(server, make_embedder, short_rests):
    """Return an embedder that has embedded once, so that a fault for the next request hits a
    batch."""
    embedder = make_embedder(server, patience=200.0)
    embedder.embed_documents(["warm up"])
    server.clear()
    return embedder


def right_but_for(kind, entries, texts, *bad):
    """Check that the bad texts have this error, and all others their own vector."""
    assert [
        number for number, entry in enumerate(entries) if isinstance(entry, Exception)
    ] == sorted(bad)
    assert {type(entries[number]) for number in bad} == {kind}
    good = [number for number in range(len(texts)) if number not in bad]
    assert_own_vectors([entries[number] for number in good], [texts[number] for number in good])


def test_every_text_gets_its_vector_in_order_in_bounded_arrays(server, make_embedder):
    embedder = make_embedder(server, batch_texts=10, batch_chars=200, requests_in_flight=1)
    entries = embedder.embed_documents(TEXTS)
    assert_own_vectors(entries, TEXTS)
    assert {entry.dtype for entry in entries} == {np.dtype(np.float32)}
    sent = [request.texts for request in server.embeds()]
    assert all(
        len(texts) <= 10 and (len(texts) == 1 or sum(map(len, texts)) <= 200) for texts in sent
    )
    lengths = [len(text) for texts in sent[1:] for text in texts]
    assert lengths == sorted(lengths, reverse=True)
    assert (embedder.stats.requests, embedder.stats.retries) == (len(sent) - 1, 0)
    assert embedder.stats.asked_seconds >= embedder.stats.embed_seconds > 0


def test_the_identity_and_what_is_sent(server, make_embedder):
    embedder = make_embedder(server, document_prefix="doc: ", query_prefix="ask: ", num_thread=3)
    identity = embedder.identity()
    assert (identity.kind, identity.model, identity.digest) == (
        "ollama",
        server.model,
        server.digest,
    )
    assert (identity.dimension, identity.document_prefix) == (8, "doc: ")
    assert_own_vectors(embedder.embed_documents(["one"]), ["doc: one"])
    assert_own_vectors(embedder.embed_queries(["one", "two"]), ["ask: one", "ask: two"])
    body = server.embeds()[-1].body
    assert (body["truncate"], body["options"], body["keep_alive"]) == (
        False,
        {"num_thread": 3},
        "30m",
    )
    assert make_embedder(server, model=server.model + ":latest").identity().model == server.model


def test_it_works_inside_a_running_loop(server, make_embedder):
    embedder = make_embedder(server)

    async def within():
        return embedder.embed_documents(TEXTS)

    assert_own_vectors(asyncio.run(within()), TEXTS)
    embedder.close()  # the fixture closes it once more


def test_an_interrupt_ends_the_call_and_the_next_one_works(server, embedder):
    for call in (embedder.embed_documents, embedder.embed_queries):
        server.clear()
        server.fault("hang")
        with (
            pytest.raises(KeyboardInterrupt),
            when(server.embeds, lambda: os.kill(os.getpid(), signal.SIGINT)),
        ):
            call(TEXTS)
        server.restart()
        server.clear()
        assert_own_vectors(call(["again"]), ["again"])


def test_a_text_that_cannot_be_sent_is_refused_without_a_request(server, make_embedder):
    texts, embedder = ["one", "", "broken \ud800", "two"], make_embedder(server)
    right_but_for(TextRefused, embedder.embed_documents(texts), texts, 1, 2)
    right_but_for(TextRefused, embedder.embed_queries(texts), texts, 1, 2)


@pytest.mark.parametrize(
    ("status", "words", "headers", "error"),
    [
        (500, "oops", {}, EmbedderUnavailable),
        (408, "late", {}, EmbedderUnavailable),
        (
            400,
            'do embedding request: Post "http://127.0.0.1:1/embedding": EOF',
            {},
            EmbedderUnavailable,
        ),
        (429, "slow down", {}, RateLimited),
        (503, "busy", {"retry-after": "7"}, RateLimited),
        (503, "server busy, please try again", {}, RateLimited),
        (503, "down", {}, EmbedderUnavailable),
        (400, "input length exceeds maximum context length", {}, TextTooLong),
        (500, "input is too large to process. increase the physical batch size", {}, TextTooLong),
        (413, "`inputs` must have less than 512 tokens. Given: 600", {}, TextTooLong),
        (400, "invalid input type", {}, TextRefused),
        (500, "failed to encode response: json: unsupported value: NaN", {}, BadVectors),
        (404, "model 'm' not found, try pulling it first", {}, ModelMissing),
        (404, "404 page not found", {}, EmbedderError),
    ],
)
def test_an_answer_tells_who_is_at_fault(status, words, headers, error):
    found = OllamaEndpoint("http://a:1", EmbedderSettings(kind="ollama", model="m"))._refusal(
        status, words, headers
    )
    assert type(found) is error
    assert words in str(found) or error is ModelMissing
    assert getattr(found, "retry_after", None) == (7.0 if headers else None)


@pytest.mark.parametrize("kind", ["reset", "half", "html", "few", "nan", "null", "dimension"])
def test_a_fault_that_passes_is_tried_again(server, embedder, kind):
    server.fault(kind, times=2)
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert embedder.stats.retries >= 1


def test_an_answer_that_drips_times_out_too(server, make_embedder):
    """With a timeout per read only, the embedder would wait for ever."""
    embedder = make_embedder(server, timeout=0.3, patience=2.0)
    embedder.embed_documents(["warm up"])
    server.fault("drip")
    with pytest.raises(EmbedderUnavailable, match=r"no answer within 0\.3 s"):
        embedder.embed_documents(["one"])


def test_the_message_names_the_last_reason_of_a_server_that_is_down(server, make_embedder):
    embedder = make_embedder(server, patience=0.5)
    server.stop_listening()
    began = time.monotonic()
    with pytest.raises(
        EmbedderUnavailable, match=rf"no host could be used: {server.url} accepts no connection"
    ):
        embedder.embed_documents(TEXTS)
    assert time.monotonic() - began > 0.5
    for call in (
        embedder.identity,
        lambda: make_embedder(server, patience=600.0).embed_query("no wait"),
    ):
        with pytest.raises(EmbedderUnavailable):
            call()


def test_it_waits_for_a_server_that_comes_back_and_logs_the_wait(server, make_embedder, caplog):
    embedder = make_embedder(server, patience=100.0)
    server.fault("hang", times=1, marker="text 49")
    stop = when(
        lambda: "text 49 " in str([request.texts for request in server.embeds()]),
        server.stop_listening,
    )
    go_on = when(lambda: "no host accepts texts" in caplog.text, server.listen)
    with caplog.at_level("WARNING", logger="rag_index.embedders"), stop, go_on:
        assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert "accepts texts again" in caplog.text


@pytest.mark.parametrize(
    ("path", "said"), [("/api/embed", "waiting for Ollama at "), (None, " does not answer, ")]
)
def test_a_server_that_computes_is_told_from_one_that_is_silent(server, make_embedder, path, said):
    """After an eighth of `timeout`."""
    embedder = make_embedder(server, patience=100.0, timeout=8.0)
    embedder.embed_documents(["warm up"])
    server.fault("hang", path=path)
    with when(
        lambda: said in str([one.sentence() for one in outages()]),
        lambda: (server.clear(), server.restart()),
    ):
        assert_own_vectors(embedder.embed_documents(["one"]), ["one"])
    assert server.url not in str(outages())


def test_429_pauses_as_long_as_it_asks_unless_that_is_longer_than_the_patience(
    server, embedder, make_embedder
):
    server.fault("status", code=429, times=1, headers={"Retry-After": "0.5"})
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert embedder.stats.rate_limited == 1
    first, *_, last = server.embeds()
    assert last.at - first.at > 0.4
    server.fault("status", code=429, headers={"Retry-After": "3600"})
    with pytest.raises(RateLimited) as raised:
        make_embedder(server, patience=5.0).embed_documents(TEXTS)
    assert 3500 < raised.value.retry_after <= 3600


@pytest.mark.parametrize(
    ("kind", "options", "error"),
    [
        ("status", {"code": 500, "words": "do embedding request: EOF"}, TextEndsServer),
        ("status", {"code": 400, "words": "invalid input"}, TextRefused),
        pytest.param("reset", {}, TextEndsServer, marks=pytest.mark.long),
        ("null", {}, BadVectors),
        pytest.param("zero", {}, BadVectors, marks=pytest.mark.long),
    ],
)
def test_the_text_at_fault_is_found_and_no_other_suffers(server, embedder, kind, options, error):
    texts, bad = [*TEXTS], [7, 8, 33]
    for number in bad:
        texts[number] += POISON
    server.fault(kind, marker=POISON, **options)
    entries = embedder.embed_documents(texts)
    right_but_for(error, entries, texts, *bad)
    assert options.get("words", "") in str(entries[7])
    assert server.url in str(entries[7])
    assert embedder.stats.retries / embedder.stats.requests < MAX_RETRIED, (
        "nothing that the servers could do better"
    )


def test_only_texts_that_are_too_long_are_too_long(server, embedder):
    server.max_chars = 100
    texts = ["long " * 40, *TEXTS, "longer " * 60]
    entries = embedder.embed_documents(texts)
    right_but_for(TextTooLong, entries, texts, 0, len(texts) - 1)
    assert "the input length exceeds the context length" in str(entries[0])
    assert "chunk_chars" in str(entries[0])
    assert embedder.stats.retries == 0, "a half of a refused batch repeats nothing"


def test_a_missing_model(server, make_embedder):
    embedder = make_embedder(server, model="nomic-embed-text")
    for call in (
        embedder.identity,
        lambda: embedder.embed_documents(TEXTS),
        lambda: embedder.embed_query("x"),
    ):
        with pytest.raises(ModelMissing, match=f"{server.url}.*ollama pull nomic-embed-text"):
            call()


@pytest.mark.parametrize(
    ("kind", "options", "error", "words"),
    [
        (
            "status",
            {"code": 404, "html": True, "words": "Not Found"},
            EmbedderError,
            "is it Ollama",
        ),
        ("html", {}, EmbedderUnavailable, "is it Ollama"),
        ("status", {"code": 401, "words": "unauthorized"}, EmbedderError, "401: unauthorized"),
        (
            "status",
            {"code": 400, "words": "no embeddings here"},
            EmbedderError,
            "even 'a plain text",
        ),
        ("zero", {}, BadVectors, "http://127.0.0.1:"),
    ],
)
def test_a_server_that_cannot_embed_is_not_the_fault_of_a_text(
    server, make_embedder, kind, options, error, words
):
    server.fault(kind, path=None if "Ollama" in words else "/api/embed", **options)
    embedder = make_embedder(server)
    for call in (lambda: embedder.embed_documents(TEXTS), embedder.identity):
        with pytest.raises(error, match=words):
            call()


def test_another_model_after_a_restart_is_noticed_before_any_of_its_vectors_is_kept(
    server, embedder
):
    server.seconds_per_text = 0.01
    restart = when(server.embeds, lambda: server.restart(digest="e2" * 32))
    with restart, pytest.raises(ModelChanged, match=r"e2e2e2e2e2e2.*d1d1d1d1d1d1"):
        embedder.embed_documents(TEXTS * 4)


def test_an_answer_that_is_redirected_or_too_large_is_refused(server, embedder, monkeypatch):
    with FakeOllama() as other:
        server.fault("status", code=307, headers={"Location": f"{other.url}/api/embed"}, times=1)
        with pytest.raises(EmbedderError, match=f"answers 307: name {other.url}"):
            embedder.embed_documents(TEXTS)
        assert not other.requests
    monkeypatch.setattr("rag_index.components.hosts.endpoint.MAX_ANSWER", 100)
    with pytest.raises(EmbedderUnavailable, match="answers more than 0 MB"):
        embedder.embed_query("a text")


def test_one_of_several_hosts_may_be_down_at_the_start(server, make_embedder, caplog):
    with FakeOllama() as other:
        embedder = make_embedder(server, other)
        server.stop_listening()
        with caplog.at_level("WARNING", logger="rag_index.embedders"):
            assert embedder.identity().digest == other.digest
        assert server.url in caplog.text
        assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            {"digest": "e2" * 32},
            ModelChanged,
            r"weights d1d1d1d1d1d1 \(8-d\).*weights e2e2e2e2e2e2.*ollama pull fake",
        ),
        ({"model": "another"}, ModelMissing, "ollama pull fake-embed"),
    ],
)
def test_a_host_with_another_model_or_without_it_ends_the_start(
    server, make_embedder, given, error, words
):
    with FakeOllama(**given) as other, pytest.raises(error, match=words):
        make_embedder(server, other).identity()


def embedded_at_once(embedder, calls):
    """Return what each call returned, each of which has a thread."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(embedder.embed_documents, calls))


def test_the_next_call_sends_its_first_texts_while_the_last_ones_of_another_are_embedded(
    server, make_embedder
):
    embedder = make_embedder(
        server, timeout=300.0
    )  # a request that is sent again would make two as well
    embedder.embed_documents(["warm up"])
    server.together = 2  # neither call gets its answer before both have asked
    for text, entries in zip("12", embedded_at_once(embedder, [["1"], ["2"]]), strict=True):
        assert_own_vectors(entries, [text])


def test_a_fault_in_one_call_costs_the_others_nothing(server, make_embedder):
    embedder = make_embedder(server, batch_texts=4, patience=30.0)
    embedder.embed_documents(["warm up"])
    server.fault("status", code=400, words="refused", marker="text 7 of call 1")
    server.fault("reset", times=3)
    calls = [[f"text {number} of call {call}" for number in range(40)] for call in range(4)]
    for call, entries in enumerate(embedded_at_once(embedder, calls)):
        refused = [number for number, entry in enumerate(entries) if isinstance(entry, TextRefused)]
        assert refused == ([7] if call == 1 else [])


@pytest.fixture
def make(make_embedder):
    """Return a function that opens an embedder of these servers."""
    return partial(make_embedder, kind="openai")


def test_an_address_may_end_anywhere():
    for url, address in (
        ("http://host:8000", "http://host:8000/v1/embeddings"),
        ("http://host:8000/v1", "http://host:8000/v1/embeddings"),
        ("https://host/openai/v1", "https://host/openai/v1/embeddings"),
        ("https://host/v1/embeddings", "https://host/v1/embeddings"),
    ):
        assert embeddings_address(url) == address, url


@pytest.mark.parametrize("answer", ["float32", "refused", "ignored", "float64"])
def test_vectors_are_asked_for_in_base64_where_the_server_gives_the_same_ones(server, make, answer):
    server.base64 = answer
    embedder = make(server)
    assert embedder.identity().dimension == server.dimension
    server.requests.clear()
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert {"encoding_format" in request.body for request in server.embeds()} == {
        answer == "float32"
    }


def test_the_servers_own_limit_of_texts_is_learnt(server, make):
    """A refusal is needed for each halving, and no more of them afterwards."""
    server.max_texts = 4
    embedder = make(server, requests_in_flight=1)
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    server.requests.clear()
    assert_own_vectors(embedder.embed_documents(TEXTS), TEXTS)
    assert max(len(request.texts) for request in server.embeds()) == 4


def test_a_key_is_sent_and_never_shown(server, make, monkeypatch):
    server.api_key = "sk-right"
    with pytest.raises(EmbedderError, match=r"401.*set .embedder. api_key_env"):
        make(server).identity()
    monkeypatch.setenv("MY_KEY", "sk-wrong")
    embedder = make(server, api_key_env="MY_KEY")
    with pytest.raises(EmbedderError, match="correct the key in MY_KEY") as refused:
        embedder.identity()
    assert "sk-wrong" not in str(refused.value)
    monkeypatch.setenv("MY_KEY", "sk-right\n")
    settings = EmbedderSettings(
        kind="openai", model=server.model, url=server.url, api_key_env="MY_KEY"
    )
    assert "sk-right" not in f"{settings!r} {settings.model_dump_json()}"
    assert_own_vectors(make(server, api_key_env="MY_KEY").embed_documents(TEXTS), TEXTS)
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(EmbedderError, match=r"MY_KEY .* is not set"):
        make(server, api_key_env="MY_KEY")


def test_what_is_wrong_is_said_in_words(server, make):
    with pytest.raises(ModelMissing, match=r"no model 'other'.*correct"):
        make(server, model="other").identity()
    server.fault("status", code=404, words="Not Found", html=True)
    with pytest.raises(EmbedderError, match="404: Not Found; is it the embedding server"):
        make(server).identity()
    server.clear()
    server.fault("status", code=301, headers={"Location": "https://elsewhere/v1"})
    with pytest.raises(EmbedderError, match="301: name https://elsewhere/v1"):
        make(server).identity()
    server.stop_listening()
    with pytest.raises(EmbedderUnavailable, match="is the embedding server running there"):
        make(server).identity()


@pytest.mark.parametrize("kind", ["openai", "ollama", "local"])
def test_each_kind_cuts_vectors_to_unit_length(server, kind):
    given = {} if kind == "local" else {"model": server.model, "hosts": [server.url]}
    dimensions = 64 if kind == "local" else 5
    embedder = open_embedder(EmbedderSettings(kind=kind, dimensions=dimensions, **given))
    whole = open_embedder(EmbedderSettings(kind=kind, **given))
    for short, long in zip(
        embedder.embed_documents(TEXTS), whole.embed_documents(TEXTS), strict=True
    ):
        assert short.shape == (dimensions,)
        assert np.allclose(short, long[:dimensions] / np.linalg.norm(long[:dimensions]), atol=1e-6)
    assert embedder.identity().fingerprint != whole.identity().fingerprint
    embedder.close(), whole.close()
