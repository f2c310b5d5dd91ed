"""The servers that write contexts: which they are, and what a run asks them before it begins."""

import pytest

from rag_index.care.doctor import examine
from rag_index.components.chunking import open_chunker
from rag_index.components.chunking.context import ContextChunker, check_model
from rag_index.errors import EmbedderError, EmbedderUnavailable
from tests.components.chunking.context.conftest import servers_of
from tests.fakes.ollama import FakeOllama
from tests.project import SETTINGS


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


def test_the_model_gets_no_more_context_than_it_takes(project, server):
    hosts = f'hosts = ["{server.url}"]'
    assert chunker_of(write(project, server, table=hosts)).recipe.num_ctx == server.context_length == 2048
    server.context_length = 100_000
    assert chunker_of(write(project, server, table=hosts)).recipe.num_ctx == 8192


def test_the_doctor_needs_no_server_for_contexts(project, server):
    settings = write(project.fill(3), server, table=f'hosts = ["{server.url}"]')
    assert project.run().state == "completed"
    server.stop_listening()
    diagnosis = examine(settings)
    assert (diagnosis.findings, diagnosis.advice) == ([], [])
