"""The last stage of a search: a reranker reads the best hits of all indexes and puts them in its own order.

It never costs an answer: if it cannot be opened, is late or fails, the hits stay in the order that fusion gave them.
"""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from rag_index.components.embedders.bm25 import names_of
from rag_index.errors import RerankerError, one_line
from rag_index.search.concurrency import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.search.rerankers import Reranker
    from rag_index.search.results import SearchHit

TEXTS_AT_ONCE = 16
"""Texts in a call of the reranker. Between two calls, one whose search has given up ends."""
MAX_LOAD_SECONDS = 300.0
RETRY_SECONDS = 60.0
"""How long a reranker that could not be opened is left alone: each search would wait for another try."""


class Reranking:
    """A reranker in a thread of its own. It is opened when it is first needed. Safe to use from any event loop."""

    def __init__(self, open_reranker: Callable[[], Reranker], top: int) -> None:
        self.top = top
        self._open = open_reranker
        self._thread = ThreadPoolExecutor(1, "rag-index-rerank")
        self._reranker: Reranker | None = None
        self._failure, self._retry_at = "", 0.0

    async def rerank(self, query: str, hits: list[SearchHit], deadline: Deadline) -> tuple[list[SearchHit], str, float]:
        """Return the hits, those that fit the query best first, with the seconds that took; raise nothing.

        Hits beyond the `top` follow as they are. If the text, which is else empty, says what went wrong, so do all.
        Loading the model does not count for the deadline.
        """
        abandoned, began, error = threading.Event(), time.perf_counter(), ""
        try:
            deadline.at += await self.load()
            began = time.perf_counter()
            call = self._thread.submit(self._scores, query, [_text(hit) for hit in hits[: self.top]], abandoned)
            scores = await deadline.result_of(call)
            scored = [replace(hit, rerank_score=score) for hit, score in zip(hits, scores, strict=False)]
            hits = [*sorted(scored, key=lambda hit: -(hit.rerank_score or 0.0)), *hits[len(scored) :]]
        except Exception as exc:  # noqa: BLE001 - whatever it is, the hits are there
            error = _reason(exc)
        finally:
            abandoned.set()
        return hits, error, time.perf_counter() - began

    async def load(self) -> float:
        """Open the reranker if it is not open, and return the seconds that took. Raises what opening raises."""
        began = time.monotonic()
        if self._reranker is None:
            await Deadline.after(MAX_LOAD_SECONDS).result_of(self._thread.submit(self._load))
        return time.monotonic() - began

    def close(self) -> None:
        """Close the reranker after the call under way, without waiting for it."""
        with suppress(RuntimeError):
            self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _load(self) -> None:
        if self._reranker is None:
            if time.monotonic() < self._retry_at:
                raise RerankerError(self._failure)
            try:
                self._reranker = self._open()
            except BaseException as exc:
                self._failure, self._retry_at = _reason(exc), time.monotonic() + RETRY_SECONDS
                raise RerankerError(self._failure) from exc

    def _close(self) -> None:
        reranker, self._reranker = self._reranker, None
        if reranker is not None:
            reranker.close()

    def _scores(self, query: str, texts: Sequence[str], abandoned: threading.Event) -> list[float]:
        if self._reranker is None:
            raise RerankerError("the retriever is closed")
        scores: list[float] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            if abandoned.is_set():
                raise RerankerError("the search has ended")
            part = texts[start : start + TEXTS_AT_ONCE]
            try:
                found = [float(score) for score in self._reranker.score(query, part)]
            except BaseException as exc:  # a panic of Rust is no Exception, and must not end the search
                raise RerankerError(_reason(exc)) from exc
            if len(found) != len(part):
                raise RerankerError(f"the reranker returned {len(found)} numbers for {len(part)} texts")
            scores += found
        if not all(map(math.isfinite, scores)):
            raise RerankerError("the reranker returned a number that is not finite")
        return scores


def _reason(error: BaseException) -> str:
    return one_line(error) or type(error).__name__


def _text(hit: SearchHit) -> str:
    """Return what the reranker reads: the best chunk, after its title, or for source code its path and names."""
    return "\n".join(filter(None, [names_of(hit.payload), hit.title, hit.text]))
