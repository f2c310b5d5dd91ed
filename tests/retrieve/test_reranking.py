"""Reranking: the best hits in the order of a reranker, and in their old order if it is late or fails."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import pytest

from rag_index import Retriever
from rag_index.cli import main
from rag_index.errors import SettingsError
from rag_index.settings import load_settings
from tests.retrieve.desk import DESK, Desk, found

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

QUERY = "printer offline after update"
EVERYTHING = sum(map(len, DESK.values()))


class Shortest:
    """A reranker that likes short texts. `before` is called before it scores."""

    def __init__(self, before: Callable[[Sequence[str]], object] = len) -> None:
        self.before = before
        self.read: list[str] = []
        self.threads: set[str] = set()
        self.closed = False

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        self.before(texts)
        self.threads.add(threading.current_thread().name)
        self.read += texts
        return [-len(text) for text in texts]

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, template) -> Desk:
    extra = "[retrieve]\nidle_seconds = 0.05\n[run]\nwait = 30"
    return Desk(tmp_path_factory.mktemp("desk"), extra=extra, template=template).fill()


def fused(desk: Desk, **options) -> list[tuple[str, str]]:
    """Return what a search without a reranker finds."""
    with desk.retriever() as retriever:
        result = retriever.search_sync(QUERY, **options)
    assert (result.reranked, result.rerank_error) == (False, "")
    assert "rerank" not in result.timings_ms
    assert all(hit.rerank_score is None for hit in result.hits)
    return found(result)


def test_the_best_hits_of_all_indexes_are_in_the_order_of_the_reranker(desk: Desk) -> None:
    reranker = Shortest()
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        result = retriever.search_sync(QUERY, limit=3)
        plain = retriever.search_sync(QUERY, limit=EVERYTHING, rerank=False)
        metrics = retriever.metrics()
    lengths = sorted(len(row[1]) for rows in DESK.values() for row in rows)
    assert [len(hit.text) for hit in result.hits] == lengths[:3]  # although few of them were among the first three
    assert [hit.rerank_score for hit in result.hits] == [-length for length in lengths[:3]]
    assert (result.reranked, result.rerank_error) == (True, "")
    assert result.timings_ms["rerank"] >= 0
    assert result.fusion == "score"
    fused_scores = {found_hit: hit.score for found_hit, hit in zip(found(plain), plain.hits, strict=True)}
    assert all(hit.score == hit.fused == fused_scores[hit.index, hit.document_id] for hit in result.hits)
    assert not plain.reranked
    assert found(plain) == fused(desk, limit=EVERYTHING)
    assert metrics.stages["rerank"].count == 1
    assert reranker.threads == {"rag-index-rerank_0"}


def test_documents_beyond_the_top_follow_in_their_old_order(desk: Desk) -> None:
    reranker = Shortest()
    settings = load_settings(desk.config, retrieve={"rerank_top": 2})
    with Retriever(settings, open_reranker=lambda: reranker) as retriever:
        result = retriever.search_sync(QUERY, limit=5)
    before = fused(desk, limit=5)
    assert len(reranker.read) == 2
    assert set(found(result)[:2]) == set(before[:2])
    assert len(result.hits[0].text) < len(result.hits[1].text)
    assert found(result)[2:] == before[2:]
    assert [hit.rerank_score is None for hit in result.hits] == [False, False, True, True, True]


def test_a_reranker_that_is_late_costs_no_answer(desk: Desk) -> None:
    hanging = threading.Event()
    reranker = Shortest(lambda texts: hanging.wait(60))
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        retriever.search_sync(QUERY, rerank=False)
        result = retriever.search_sync(QUERY, limit=5, timeout=1)
        assert found(result) == fused_in(retriever, limit=5)
        assert (result.reranked, result.rerank_error) == (False, "timed out after 1 s")
        assert result.errors == {}
        assert result.to_json()["rerank_error"] == "timed out after 1 s"
        hanging.set()
        assert retriever.search_sync(QUERY, limit=5, timeout=60).reranked


def fused_in(retriever: Retriever, **options) -> list[tuple[str, str]]:
    return found(retriever.search_sync(QUERY, rerank=False, **options))


def test_a_call_whose_search_has_given_up_ends_before_its_next_texts(tmp_path, template) -> None:
    many = {"comments": [(n, f"printer {n} is offline") for n in range(40)]}
    desk = Desk(tmp_path / "desk").fill(many)
    hanging, calls = threading.Event(), []
    reranker = Shortest(lambda texts: (calls.append(len(texts)), hanging.wait(60)))
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        retriever.search_sync("printer", rerank=False)
        assert retriever.search_sync("printer", timeout=1).rerank_error
        hanging.set()
        assert retriever.search_sync("printer", timeout=60).reranked
    assert calls == [16, 16, 16, 8]  # one of the first search, and three of the second


@pytest.mark.parametrize(
    ("score", "reason"),
    [
        (lambda texts: 1 / 0, "division by zero"),
        (lambda texts: [1.0], f"the reranker returned 1 numbers for {EVERYTHING} texts"),
        (lambda texts: [float("nan")] * len(texts), "the reranker returned a number that is not finite"),
        (lambda texts: ["high"] * len(texts), "could not convert string to float: 'high'"),
        (lambda texts: None, "'NoneType' object is not iterable"),
    ],
)
def test_a_reranker_that_fails_costs_no_answer(desk: Desk, score, reason: str) -> None:
    reranker = Shortest()
    reranker.score = lambda query, texts: score(texts)
    with Retriever(desk.settings, open_reranker=lambda: reranker) as retriever:
        result = retriever.search_sync(QUERY)
        assert found(result) == fused_in(retriever)
    assert (result.reranked, result.rerank_error) == (False, reason)


def test_loading_the_model_does_not_count_in_the_time_of_a_search(desk: Desk) -> None:
    loading = threading.Event()

    def open_reranker() -> Shortest:
        loading.wait(2)
        return Shortest()

    async def main() -> tuple[bool, bool]:
        async with Retriever(desk.settings, open_reranker=open_reranker) as retriever:
            await retriever.search(QUERY, rerank=False)
            first = await retriever.search(QUERY, timeout=1.5)
            return first.reranked, (await retriever.search(QUERY)).reranked

    assert asyncio.run(main()) == (True, True)


def test_it_is_opened_by_warm_up_and_closed_with_the_retriever(desk: Desk) -> None:
    reranker, opened = Shortest(), []

    async def main() -> None:
        async with Retriever(desk.settings, open_reranker=lambda: opened.append(1) or reranker) as retriever:
            assert not opened
            await retriever.warm_up()
            assert len(opened) == 1
            await retriever.search(QUERY)

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("rag-index-rerank"):
            thread.join(10)
    assert reranker.closed
    assert len(opened) == 1


def test_a_reranker_that_does_not_exist_cannot_be_asked_for(desk: Desk) -> None:
    with desk.retriever() as retriever, pytest.raises(SettingsError, match=r"set \[retrieve\] reranker"):
        retriever.search_sync(QUERY, rerank=True)


def test_a_missing_library_is_an_error_at_the_start_that_names_the_command(desk: Desk) -> None:
    with pytest.raises(SettingsError, match=r"'mini' needs .* pip install 'rag-index\[sentence-transformers\]'"):
        desk.retriever(retrieve={"reranker": "mini"})
    config = desk.config.read_text().replace("[retrieve]\n", '[retrieve]\nreranker = "mini"\n')
    changed = desk.folder / "reranked.toml"
    changed.write_text(config)
    search = ["--config", str(changed), "search", QUERY, "--limit", "1", "--json"]
    code, _, err = run(search)
    assert (code, "pip install 'rag-index[sentence-transformers]'" in err) == (2, True)
    code, out, _ = run([*search, "--no-rerank"])
    assert code == 0
    assert len(json.loads(out)["hits"]) == 1


def run(arguments: list[str]) -> tuple[object, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, out.getvalue(), err.getvalue()
