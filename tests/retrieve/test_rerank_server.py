"""A reranker behind HTTP: the two dialects, and what a server does wrong. The hits are there in any case."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rag_index import Retriever
from tests.retrieve.desk import Desk, found

QUERY = "printer offline after update"


class RerankingServer(ThreadingHTTPServer):
    """A server that likes short texts. `fault` is what it does wrong."""

    def __init__(self, path: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path, self.fault, self.bodies = path, "", []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: RerankingServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path != self.server.path:
            return self._send(404, {"error": "not found"})
        self.server.bodies.append(body)
        if self.server.fault == "status":
            return self._send(503, {"error": "Loading model"})
        if self.server.fault == "words":
            return self._send(200, {"answer": "a chat model"})
        name = "relevance_score" if self.path == "/v1/rerank" else "score"
        rows = [{"index": at, name: -len(text)} for at, text in enumerate(body.get("documents") or body["texts"])]
        rows = rows[1:] if self.server.fault == "short" else rows[::-1]  # by score, not in the order of the texts
        return self._send(200, {"results": rows} if self.path == "/v1/rerank" else rows)

    def _send(self, status: int, answer: object) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory, template) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"), template=template).fill()


@pytest.fixture(params=["/v1/rerank", "/rerank"])
def server(request) -> RerankingServer:
    with RerankingServer(request.param) as server:
        yield server
        server.shutdown()


def search(desk: Desk, reranker: str, **options):
    settings = desk.settings
    retrieve = settings.retrieve.model_copy(update={"reranker": reranker})
    with Retriever(settings.model_copy(update={"retrieve": retrieve})) as retriever:
        return retriever.search_sync(QUERY, **options)


def test_the_hits_are_in_the_order_of_the_server(desk, server):
    result = search(desk, f"{server.url}/#a-model", limit=5)
    assert (result.reranked, result.rerank_error) == (True, "")
    lengths = [len(hit.text) for hit in result.hits]
    assert lengths == sorted(lengths)
    assert [hit.rerank_score for hit in result.hits] == [-length for length in lengths]
    [body, *_] = server.bodies
    assert body["query"] == QUERY
    assert body.get("model") == ("a-model" if server.path == "/v1/rerank" else None)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("status", "with status 503: .*Loading model"),
        ("words", "does not give a number for each of .* texts: is it a reranker"),
        ("short", "does not give a number for each of .* texts"),
    ],
)
def test_whatever_the_server_does_the_hits_are_those_of_fusion(desk, server, fault, message):
    server.fault = fault
    result = search(desk, server.url, limit=5)
    assert not result.reranked
    assert found(result) == found(search(desk, server.url, limit=5, rerank=False))
    assert re.search(message, result.rerank_error)


def test_a_server_that_is_not_there_is_named_without_its_password(desk):
    with RerankingServer("/v1/rerank") as server:
        address = server.url.replace("http://", "http://kim:secret@")
        server.shutdown()
    result = search(desk, address, limit=2)
    assert len(result.hits) == 2
    assert "the reranker at http://127.0.0.1:" in result.rerank_error
    assert "cannot be reached" in result.rerank_error
    assert "secret" not in result.rerank_error
