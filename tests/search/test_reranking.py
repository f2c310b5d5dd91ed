"""Reranking: the best hits in the order of a reranker, and in their old order if it is late or
fails."""

import asyncio
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rag_index import Retriever
from rag_index.errors import RerankerError, install_command
from rag_index.search import retriever as retriever_module
from rag_index.search.frameworks import found_in
from rag_index.search.rerankers import ModelReranker, RerankServer
from rag_index.search.service.mcp_tools import search_text
from tests.fakes.onnx_models import CROSS_ENCODER, write_model
from tests.project import run_here
from tests.search.desk import DESK, Desk, found, sample

QUERY = "printer offline after update"
EVERYTHING = sum(map(len, DESK.values()))


def panic() -> None:
    """Do as a library in Rust does."""
    raise type("Panic", (BaseException,), {})("it panicked")


class Shortest:
    """A reranker that likes short texts. `before` is called before it scores."""

    def __init__(self, before: Callable[[Sequence[str]], object] = len) -> None:
        self.before, self.read, self.threads = before, list[str](), set[str]()

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        self.before(texts)
        self.threads.add(threading.current_thread().name)
        self.read += texts
        return [-len(text) for text in texts]

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory, template):
    return Desk(tmp_path_factory.mktemp("desk"), template=template).fill()


@pytest.fixture(scope="module")
def reranker():
    return Shortest()


@pytest.fixture(scope="module")
def retriever(desk, reranker):
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        yield retriever


@pytest.fixture(scope="module")
def fused(retriever):
    """What is found without a reranker."""
    result = retriever.search_sync(QUERY, limit=EVERYTHING, rerank=False)
    assert (result.reranked, result.rerank_error) == (False, "")
    assert "rerank" not in result.timings_ms
    assert all(hit.rerank_score is None for hit in result.hits)
    return result


def test_the_best_hits_of_all_indexes_are_in_the_order_of_the_reranker(retriever, reranker, fused):
    result = retriever.search_sync(QUERY, limit=3)
    lengths = sorted(len(row[1]) for rows in DESK.values() for row in rows)
    assert [len(hit.text) for hit in result.hits] == lengths[
        :3
    ]  # although few of them were among the first three
    assert [hit.rerank_score for hit in result.hits] == [-length for length in lengths[:3]]
    assert (result.reranked, result.rerank_error, result.fusion) == (True, "", "score")
    scores = {one: hit.score for one, hit in zip(found(fused), fused.hits, strict=True)}
    assert all(hit.score == hit.fused == scores[hit.index, hit.document_id] for hit in result.hits)
    assert sample(retriever, "search_seconds_count", stage="rerank") == 1
    assert reranker.threads == {"rag-index-rerank_0"}


def test_documents_beyond_the_top_follow_in_their_old_order(desk, fused, monkeypatch):
    reranker = Shortest()
    monkeypatch.setattr(retriever_module, "RERANK_TOP", 2)
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        result = retriever.search_sync(QUERY, limit=5)
    assert len(reranker.read) == 2
    assert set(found(result)[:2]) == set(found(fused)[:2])
    assert len(result.hits[0].text) < len(result.hits[1].text)
    assert found(result)[2:] == found(fused)[2:5]
    assert [hit.rerank_score is None for hit in result.hits] == [False, False, True, True, True]


def test_a_reranker_that_is_late_costs_no_answer_and_ends_before_its_next_texts(tmp_path):
    many = {"comments": [(n, f"printer {n} is offline") for n in range(40)]}
    desk = Desk(tmp_path / "desk", names=("comments",)).fill(many)
    hanging, calls = threading.Event(), []
    reranker = Shortest(lambda texts: (calls.append(len(texts)), hanging.wait(60)))
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        expected = found(retriever.search_sync("printer", rerank=False))
        late = retriever.search_sync("printer", timeout=1.5)
        assert (found(late), late.reranked, late.errors) == (expected, False, {})
        assert late.rerank_error == late.to_json()["rerank_error"] == "timed out after 1.5 s"
        hanging.set()
        assert retriever.search_sync("printer", timeout=60).reranked
    assert calls == [16, 16, 16, 8]  # one of the first search, and three of the second


def test_a_reranker_that_fails_costs_no_answer(retriever, reranker, fused, monkeypatch):
    for score, reason in (
        (lambda texts: 1 / 0, "division by zero"),
        (lambda texts: panic(), "it panicked"),
        (lambda texts: None, "'NoneType' object is not iterable"),
        (lambda texts: [1.0], f"the reranker returned 1 numbers for {EVERYTHING} texts"),
        (
            lambda texts: [float("nan")] * len(texts),
            "the reranker returned a number that is not finite",
        ),
        (lambda texts: ["high"] * len(texts), "could not convert string to float: 'high'"),
    ):
        monkeypatch.setattr(reranker, "score", lambda query, texts, score=score: score(texts))
        result = retriever.search_sync(QUERY, limit=EVERYTHING)
        assert found(result) == found(fused)
        assert (result.reranked, result.rerank_error) == (False, reason)


def test_a_reranker_whose_library_is_missing_costs_no_hit_and_every_answer_says_so_once(
    desk, fused, caplog, monkeypatch
):
    monkeypatch.setitem(sys.modules, "fastembed.rerank.cross_encoder", None)
    changed, install = desk.folder / "reranked.toml", install_command("fastembed")
    changed.write_text(
        desk.config.read_text().replace("[retrieve]\n", '[retrieve]\nreranker = "mini"\n')
    )
    search = ["search", QUERY, "--limit", "2"]
    said, errors = run_here(changed, *search)
    assert len(said.splitlines()) == 4
    assert (
        errors.count("the hits are not reranked: reranker 'mini' needs")
        == errors.count(install)
        == 1
    )
    answer = json.loads(run_here(changed, *search, "--json")[0])
    assert [(hit["index"], hit["document_id"]) for hit in answer["hits"]] == found(fused)[:2]
    assert install in answer["rerank_error"]
    assert "rerank_error" not in json.loads(run_here(changed, *search, "--json", "--no-rerank")[0])
    with Retriever.from_settings(changed) as retriever:
        asyncio.run(retriever.warm_up())
        said_at_start = caplog.text.count("searches are not reranked: reranker 'mini' needs")
        assert said_at_start == 1, "who starts a service sees it"
        result = retriever.search_sync(QUERY, limit=2, rerank=True)
    assert search_text(result).count("The hits are not reranked: reranker 'mini' needs") == 1
    [(_, _, metadata), _], said = found_in(result)
    assert install in metadata["rerank_error"] == said["rerank_error"]


def test_a_cross_encoder_in_the_process_judges_the_hits(tmp_path):
    reranker = ModelReranker(str(write_model(tmp_path / "cross", CROSS_ENCODER)))
    scores = reranker.score("w7", ["w8", "w31 w8", "w9"])
    assert sorted(range(3), key=lambda one: -scores[one]) == [1, 2, 0]
    with pytest.raises(RerankerError, match="cannot judge the hits"):
        reranker.score("w7", ["half \ud800"])
    with pytest.raises(RerankerError, match="is no folder, and not in fastembed's list"):
        ModelReranker("no-such-model")
    (tmp_path / "cross" / "config.json").write_text('{"id2label": {"0": "no", "1": "yes"}}')
    with pytest.raises(RerankerError, match="several numbers for a text"):
        ModelReranker(str(tmp_path / "cross"))


class RerankingServer(ThreadingHTTPServer):
    """A server that likes short texts. `fault` is what it does wrong."""

    def __init__(self, path: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path, self.fault, self.bodies = path, "", []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

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
        if self.server.fault in ("slow", "endless"):
            part, pause = (b" ", 0.1) if self.server.fault == "slow" else (b" " * 1_000_000, 0)
            return self._send(200, [], *[part] * 60, pause=pause)
        if self.server.fault == "words":
            return self._send(200, {"answer": "a chat model"})
        name = "relevance_score" if self.path == "/v1/rerank" else "score"
        rows = [
            {"index": at, name: -len(text)}
            for at, text in enumerate(body.get("documents") or body["texts"])
        ]
        rows = (
            rows[1:] if self.server.fault == "short" else rows[::-1]
        )  # by score, not in the order of the texts
        return self._send(200, {"results": rows} if self.path == "/v1/rerank" else rows)

    def _send(self, status: int, answer: object, *before: bytes, pause: float = 0) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content) + sum(map(len, before))))
        if self.server.fault == "gzip":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        with suppress(OSError):  # the client has gone
            for part in (*before, content):
                self.wfile.write(part)
                time.sleep(pause)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank"])
def test_a_server_orders_the_hits_and_whatever_it_does_wrong_they_are_those_of_fusion(
    desk, fused, path
):
    with RerankingServer(path) as server:
        retrieve = {"reranker": f"{server.url}/#a-model"}
        with desk.retriever(retrieve=retrieve) as retriever:
            result = retriever.search_sync(QUERY, limit=5)
            assert (result.reranked, result.rerank_error) == (True, "")
            lengths = [len(hit.text) for hit in result.hits]
            assert lengths == sorted(lengths)
            assert [hit.rerank_score for hit in result.hits] == [-length for length in lengths]
            assert server.bodies[0]["query"] == QUERY
            assert server.bodies[0].get("model") == ("a-model" if path == "/v1/rerank" else None)
            for server.fault, message in (
                ("status", "with status 503: .*Loading model"),
                ("words", "does not give a number for each of .* texts: is it a reranker"),
                ("short", "does not give a number for each of .* texts"),
            ):
                result = retriever.search_sync(QUERY, limit=5)
                assert (result.reranked, found(result)) == (False, found(fused)[:5])
                assert re.search(message, result.rerank_error)
        server.shutdown()


def test_an_answer_of_a_server_has_one_time_limit_and_one_size():
    with RerankingServer("/v1/rerank") as server:
        for server.fault, said in (
            ("slow", "in time"),
            ("endless", "more than 4 MB"),
            ("gzip", "compressed .gzip."),
        ):
            with (
                closing(RerankServer(server.url, 0.5)) as reranker,
                pytest.raises(RerankerError, match=said),
            ):
                reranker.score(QUERY, ["a text"])
        server.shutdown()


def test_a_server_that_is_not_there_is_named_without_its_password(desk):
    with RerankingServer("/v1/rerank") as server:
        address = server.url.replace("http://", "http://kim:secret@")
        server.shutdown()
    with desk.retriever(retrieve={"reranker": address}) as retriever:
        result = retriever.search_sync(QUERY, limit=2)
    assert len(result.hits) == 2
    assert re.match(r"the reranker at http://127.0.0.1:\d+ cannot be reached", result.rerank_error)
    assert "secret" not in result.rerank_error
