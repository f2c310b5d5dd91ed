"""Contexts of chunks from a server on loopback: which are written, cached or missing, and what a run asks first."""

import pickle

import pytest
from sqlalchemy.engine import make_url

from rag_index.components.chunking import open_chunker
from rag_index.components.chunking.context import ContextCache, ContextChunker, check_model
from rag_index.core.documents.batches import ContextCounts
from rag_index.core.documents.canonical import hash_text
from rag_index.errors import EmbedderError, EmbedderUnavailable, RateLimited
from tests.components.chunking.context.conftest import numbered, page, servers_of
from tests.fakes.ollama import FakeOllama
from tests.project import SETTINGS


def test_what_decides_contexts_changes_the_fingerprint_and_the_cache_key(server, make_chunker):
    before, after = make_chunker(server, requests_in_flight=2, timeout=9.0), make_chunker(server, num_ctx=2048)
    assert before.fingerprint == make_chunker(server).fingerprint
    assert before.fingerprint != after.fingerprint
    assert before.fingerprint.startswith(before.inner.fingerprint)
    before.chunk(page(numbered(3)))
    assert after.chunk(page(numbered(3)))[0].context_counts == ContextCounts(made=3)


def test_a_pickled_chunker_is_small_and_its_repr_has_no_secret(server, make_chunker):
    chunker = make_chunker(server)
    chunker.chunk(page(numbered(2)))
    packed = pickle.dumps(chunker)
    assert len(packed) < 5000
    assert pickle.loads(packed) == chunker
    assert "ledger.db" not in repr(chunker)
    assert pickle.loads(packed).chunk(page(numbered(2)))[0].context_counts.cached == 2


@pytest.mark.parametrize("url", ["postgresql+psycopg://me:s3cret@127.0.0.1:9/none", "sqlite:////nowhere/ledger.db"])
def test_a_ledger_that_cannot_be_used_is_warned_about_once_without_its_password(caplog, url):
    cache, document = ContextCache(make_url(url), "recipe"), hash_text("document")
    assert cache.known([document]) == {document: {}}
    cache.put(document, hash_text("one"), "context")
    assert caplog.text.count("contexts are not kept for the next run") == 1
    assert "127.0.0.1:9/none" in caplog.text or "there is no /nowhere/ledger.db on this machine" in caplog.text
    assert "s3cret" not in caplog.text


MARKED = {"path": "/api/generate", "marker": "number 001 of a text.\n</passage"}
BAD = [  # test_prompt.py has all reasons
    ({"response": ""}, "the answer is empty"),
    ({"response": "cut off in the mid", "done_reason": "length"}, "too long"),
]


@pytest.mark.parametrize(("options", "reason"), BAD)
def test_an_answer_that_cannot_be_used_leaves_its_chunk_without_context(server, make_chunker, options, reason):
    server.fault("generated", path="/api/generate", marker="number 001 of a text.\n</passage", **options)
    (document,) = make_chunker(server).chunk(page(numbered(3)))
    assert document.contexts[1] == ""
    assert document.contexts[0]
    assert document.contexts[2]
    assert document.incomplete.startswith("1 of 3 chunks have no context: ")
    assert reason in document.incomplete
    assert document.context_counts == ContextCounts(made=2, missing=1)
    asked = [r for r in server.generates() if "number 001 of a text.\n</passage" in r.texts[0]]
    assert [r.body["options"]["temperature"] for r in asked] == [0]


def test_a_model_that_did_not_read_all_of_the_question_gives_no_context(server, make_chunker):
    """Each sign is a token here, twice the estimate: the server's count shows that it left something out."""
    server.chars_per_token = 1.0
    (document,) = make_chunker(server, num_ctx=1024).chunk(page(numbered(60)))
    assert document.context_counts == ContextCounts(missing=60)
    assert "and 874 fit" in document.incomplete


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (("status", {"code": 500, "words": "boom"}), "answers 500: boom"),
        (("hang", {"seconds": 2}), "gave no answer within 1 s"),
        (("reset", {}), "broke the connection"),
        (("generated", {"response": 7}), "JSON that Ollama would not return"),
    ],
)
def test_a_chunk_that_a_server_fails_at_costs_no_other_context(server, make_chunker, fault, reason):
    kind, options = fault
    server.fault(kind, **MARKED, **options)
    (document,) = make_chunker(server, timeout=1.0, patience=20.0).chunk(page(numbered(6)))
    assert [bool(context) for context in document.contexts] == [True, False, True, True, True, True]
    assert reason in document.incomplete


def test_servers_that_do_not_recover_fail_the_shard_and_written_contexts_are_kept(server, make_chunker):
    pause = {"code": 429, "headers": {"Retry-After": "100"}}
    server.fault("status", path="/api/generate", marker="number 003 of a text.\n</passage", **pause)
    with pytest.raises(RateLimited, match="no host could be used"):
        make_chunker(server, requests_in_flight=1).chunk(page(numbered(6)))
    server.clear()
    (document,) = make_chunker(server, requests_in_flight=2).chunk(page(numbered(6)))
    assert document.context_counts == ContextCounts(made=3, cached=3)
    assert len(server.generates()) == 3


def test_the_model_is_made_to_write_a_word(server):
    recipe = check_model(servers_of(server))
    assert (recipe.digest, recipe.num_ctx) == (server.digest, server.context_length)
    (asked,) = [request for request in server.requests if request.path == "/api/generate"]
    assert asked.body["options"] == {"num_ctx": 2048, "num_predict": 1, "temperature": 0}


@pytest.mark.parametrize(
    ("code", "words", "kind", "message"),
    [
        (500, "model requires more system memory (9 GiB)", EmbedderUnavailable, "requires more system memory"),
        (400, '"fake-talk" does not support generate', EmbedderError, "fake-talk cannot write contexts; name one"),
    ],
)
def test_a_model_that_does_not_load_or_cannot_write_is_found_before_the_run(server, code, words, kind, message):
    server.fault("status", code=code, path="/api/generate", words=words)
    with pytest.raises(kind, match=message):
        check_model(servers_of(server))


# From settings


def write(project, server, *, embedder="", table=""):
    context = f'[indexes.context]\nmodel = "fake-talk"\n{table}\n'
    project.write_settings(SETTINGS.format(extra=embedder) + context)
    return project.settings


def chunker_of(settings):
    return open_chunker(settings, settings.indexes[0])


def test_hosts_are_by_default_those_of_an_ollama_embedder(project, server):
    embedder = f'[embedder]\nkind = "ollama"\nmodel = "e"\nnum_thread = 3\nhosts = ["{server.url}"]'
    chunker = chunker_of(write(project, server, embedder=embedder))
    assert isinstance(chunker, ContextChunker)
    servers = chunker.servers
    assert (servers.hosts, servers.num_thread) == ([server.url], 3)
    with FakeOllama(model="fake-talk") as other:
        chunker = chunker_of(write(project, server, embedder=embedder, table=f'hosts = ["{other.url}"]'))
        assert chunker.servers.hosts == [other.url]
