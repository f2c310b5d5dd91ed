"""What is said of a server that answers, and cannot be used for its TLS, its address or a proxy."""

import asyncio
import ssl
from contextlib import closing

import jwt
import pytest

from rag_index.components.embedders import open_embedder
from rag_index.components.stores.server.link import Link
from rag_index.core import connections
from rag_index.core.settings import EmbedderSettings
from rag_index.errors import RagIndexError
from rag_index.search.frameworks import Service
from rag_index.search.rerankers import RerankServer
from rag_index.search.service.tokens import IssuerKeys
from tests.fakes.tls import TlsServer

AWAY = ("running", "accepts no connection", "start it")


def embedder(kind):
    def ask(url):
        opened = open_embedder(EmbedderSettings(kind=kind, model="m", hosts=[url], timeout=5))
        with closing(opened):
            opened.identity()

    return ask


def issuer(url):
    asyncio.run(IssuerKeys(url).verify(jwt.encode({"sub": "ann"}, "k" * 32)))


CLIENTS = {
    "ollama": embedder("ollama"),
    "openai": embedder("openai"),
    "qdrant": lambda url: Link(url, patience=0, grpc_port=0).call(lambda client: client.get_collections()),
    "reranker": lambda url: RerankServer(url, 5.0).score("a query", ["a text"]),
    "service": lambda url: Service(url, timeout=5.0).search_sync("a query"),
    "issuer": issuer,
}


@pytest.fixture(params=CLIENTS)
def said_of(request, caplog):
    """Return a function that asks an address in one of the ways that there are, and returns what is said of it."""

    def ask(url):
        with pytest.raises(RagIndexError) as error:
            CLIENTS[request.param](url)
        return f"{error.value} {caplog.text if request.param == 'issuer' else ''}"

    return ask


@pytest.fixture
def trusting(monkeypatch):
    """Return a function that has this process trust a certificate."""

    def trust(file):
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        connections.tls_context.cache_clear()

    yield trust
    monkeypatch.undo()
    connections.tls_context.cache_clear()


def is_told(message, *words):
    assert all(word in message for word in words), message
    assert not any(word in message for word in AWAY), message


def test_a_certificate_that_nobody_knows_is_named(said_of, tmp_path):
    with TlsServer(tmp_path) as server:
        is_told(said_of(server.url), "certificate is not trusted (self-signed certificate)", "set SSL_CERT_FILE")


def test_a_certificate_of_another_name_is_named(said_of, tmp_path, trusting):
    with TlsServer(tmp_path, name="other.example") as server:
        trusting(server.certificate)
        is_told(said_of(server.url), "not valid for 'localhost'", "with a name of the certificate")


def test_a_certificate_that_has_expired_is_named(said_of, tmp_path, trusting):
    with TlsServer(tmp_path, days=-1) as server:
        trusting(server.certificate)
        is_told(said_of(server.url), "certificate has expired", "renew it")


def test_a_server_that_demands_a_certificate_is_named(said_of, tmp_path, trusting):
    with TlsServer(tmp_path, client=True) as server:
        trusting(server.certificate)
        is_told(said_of(server.url), "demands a certificate of its client")


def test_https_where_http_is_spoken_is_named(said_of):
    with TlsServer() as server:
        is_told(said_of(server.url), "speaks no TLS", "write http://")


def test_http_where_https_is_spoken_is_named(said_of, tmp_path):
    with TlsServer(tmp_path) as server:
        is_told(said_of(server.url.replace("https", "http")), "write https://")


def test_a_proxy_that_is_down_is_named(said_of, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:s3cret@127.0.0.1:1")
    said = said_of("https://search.invalid")
    assert "the proxy http://127.0.0.1:1 that the environment names accepts no connection" in said
    assert "put search.invalid into NO_PROXY" in said
    assert "s3cret" not in said


def test_an_end_that_breaks_off_is_no_fault_of_tls():
    assert connections.why_failed(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "https://gpu") == ""
