"""Rerankers read a query and a text together, and say how well they fit. `make_reranker` opens that
of the settings.

One is a server, a plug-in, or a cross-encoder inside the process, which needs the extra
`fastembed`. It never costs an answer: if it cannot be opened, is late or fails, the hits stay in
the order that fusion gave them (`Reranking`).
"""

from __future__ import annotations

import json
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urldefrag, urlsplit

import httpx

from rag_index.components.embedders.bm25 import names_of
from rag_index.core.connections import BoundedTransport, why_failed
from rag_index.core.settings.plugins import RERANKERS, installed, load_plugin
from rag_index.errors import ModelMissing, RerankerError, install_command, one_line
from rag_index.search.concurrency import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.core.settings import Settings
    from rag_index.search.results import SearchHit

__all__ = ["Reranker", "make_reranker"]

COMMON, TEI = "/v1/rerank", "/rerank"
RERANKER_CONNECT_SECONDS = 5.0
RERANKED_AT_ONCE = 16
"""Texts in a call of the reranker. Between two calls, one whose search has given up ends."""
MAX_RERANKER_LOAD_SECONDS = 300.0
REOPEN_SECONDS = 60.0
"""How long a reranker that could not be opened is left alone: each search would wait for another
try."""
MAX_RERANKER_ANSWER = 4 << 20
"""Bytes of an answer: a number for each text, and the texts themselves from some servers."""


class Reranker(Protocol):
    """The interface of a reranker. One thread at a time uses it."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return a number for each text, in order: the higher, the better it fits the query.

        Numbers of one query are compared with each other and with nothing else. Whatever is raised
        leaves the hits in the order that they had.
        """

    def close(self) -> None:
        """Release the model."""


def make_reranker(settings: Settings) -> Reranker:
    """Open the reranker that the settings name: a plug-in of this name, a server at an address, or
    a cross-encoder.

    Raises RerankerError if a library is not installed or a model cannot be loaded, SettingsError if
    the plug-in cannot be, and whatever that raises.
    """
    model = str(settings.retrieve.reranker)
    if model in installed(RERANKERS):
        plugin: Callable[[Settings], Reranker] = load_plugin(
            RERANKERS, model, "[retrieve] reranker"
        )
        return plugin(settings)
    if model.startswith(("http://", "https://")):
        return RerankServer(model, settings.retrieve.timeout)
    return ModelReranker(model)


class ModelReranker:
    """A Reranker that uses fastembed's TextCrossEncoder in this process, on all of its processors.
    A text longer than its limit is judged by its beginning."""

    def __init__(self, name: str) -> None:
        """Load the model of a folder or a name. Raises RerankerError if that fails."""
        from rag_index.components.embedders.model_files import EXTRA, find_model

        try:
            from fastembed.rerank.cross_encoder import TextCrossEncoder
        except ImportError as exc:
            raise RerankerError(
                f"reranker {name!r} needs a library that cannot be imported ({one_line(exc)}):"
                f" {install_command(EXTRA)}"
            ) from exc

        self._name = name
        try:
            files = find_model(_CrossEncoders(), name)
            _require_one_number(name, files.folder)
            with files.options() as options:
                self._model: Any = TextCrossEncoder(**options)
        except RerankerError:
            raise
        except ModelMissing as exc:
            raise RerankerError(str(exc)) from exc
        except Exception as exc:  # errors of onnxruntime have no class in common
            raise RerankerError(
                f"no reranker can be loaded from {name!r} ({one_line(exc)}): set reranker to the"
                " folder or name of one"
            ) from exc

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the model's number for each text, in order. Raises RerankerError if it fails."""
        try:
            return list(self._model.rerank(query, texts))
        except Exception as exc:  # out of memory, or half a character
            raise RerankerError(f"{self._name} cannot judge the hits ({one_line(exc)})") from exc

    def close(self) -> None:
        """Release the model."""
        self._model = None


class _CrossEncoders:
    """The cross-encoders of fastembed, as a `Library` of models."""

    purpose, setting, needs_pooling = "reranker", "reranker", False

    def listed(self) -> list[dict[str, Any]]:
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        listed: list[dict[str, Any]] = TextCrossEncoder.list_supported_models()
        return listed

    def pooling_of(self, name: str) -> str:
        return ""

    def register(self, folder: Path, weights: Sequence[str], pooling: str) -> str:
        from fastembed.common.model_description import ModelSource
        from fastembed.rerank.cross_encoder import TextCrossEncoder

        file, *others = weights
        name, source = str(folder.resolve() / file), ModelSource(url=folder.resolve().as_uri())
        with suppress(ValueError):  # it is known already
            TextCrossEncoder.add_custom_model(
                name, source, model_file=file, additional_files=others
            )
        return name


def _require_one_number(name: str, folder: Path) -> None:
    """Raise RerankerError for a model that gives several numbers for a text: a classifier, or one
    that compares."""
    with suppress(FileNotFoundError):
        labels = json.loads((folder / "config.json").read_text()).get("id2label", "1")
        if len(labels) != 1:
            raise RerankerError(
                f"{name} gives several numbers for a text: set reranker to another model"
            )


class RerankServer:
    """A Reranker behind HTTP: `/v1/rerank` of llama.cpp, vLLM, Infinity and others, or `/rerank` of
    TEI.

    The address may name a model: `http://gpu:8000#bge-reranker-v2-m3`.
    """

    def __init__(self, address: str, timeout: float) -> None:
        """Prepare the client; the first call connects. `timeout` is that of a whole answer, in
        seconds."""
        url, self._model = urldefrag(address)
        parts = urlsplit(url)
        self._place = f"the reranker at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._url, self._path = url.rstrip("/").removesuffix(COMMON), COMMON
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=RERANKER_CONNECT_SECONDS),
            transport=BoundedTransport(url, timeout, MAX_RERANKER_ANSWER),
        )

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the server's number for each text, in order. Raises RerankerError if it does not
        give one for each."""
        response = self._ask(query, texts)
        if response.status_code == httpx.codes.NOT_FOUND and self._path == COMMON:
            self._path = TEI
            response = self._ask(query, texts)
        if response.is_error:
            words = one_line(response.text)
            raise RerankerError(
                f"{self._place} answers {self._path} with status {response.status_code}: {words}"
            )
        try:
            found = response.json()
            rows = found["results"] if isinstance(found, dict) else found
            scores = {
                int(row["index"]): float(row.get("relevance_score", row.get("score")))
                for row in rows
            }
            return [scores[number] for number in range(len(texts))]
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise RerankerError(
                f"{self._place} does not give a number for each of {len(texts)} texts: is it a"
                " reranker?"
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, query: str, texts: Sequence[str]) -> httpx.Response:
        """Send one request. Text that is no Unicode goes as question marks, as in the store."""
        clean = [text.encode("utf-8", "replace").decode() for text in (query, *texts)]
        body: dict[str, Any] = {"query": clean[0], "documents": clean[1:], "top_n": len(texts)}
        if self._path == TEI:
            body = {"query": clean[0], "texts": clean[1:], "truncate": True}
        elif self._model:
            body["model"] = self._model
        try:
            return self._client.post(self._url + self._path, json=body)
        except httpx.TimeoutException as exc:
            raise RerankerError(
                f"{self._place} does not answer in time: raise [retrieve] timeout"
            ) from exc
        except (httpx.RequestError, httpx.InvalidURL) as exc:
            why = why_failed(exc, self._url) or f"start it, or correct reranker ({exc})"
            raise RerankerError(f"{self._place} cannot be reached: {why}") from exc


class Reranking:
    """A reranker in a thread of its own. It is opened when it is first needed. Safe to use from any
    event loop."""

    def __init__(self, open_reranker: Callable[[], Reranker], top: int) -> None:
        self.top = top
        self._open = open_reranker
        self._thread = ThreadPoolExecutor(1, "rag-index-rerank")
        self._reranker: Reranker | None = None
        self._failure, self._retry_at = "", 0.0

    async def rerank(
        self, query: str, hits: list[SearchHit], deadline: Deadline
    ) -> tuple[list[SearchHit], str, float]:
        """Return the hits, those that fit the query best first, with the seconds that took; raise
        nothing.

        Hits beyond the `top` follow as they are. If the text, which is else empty, says what went
        wrong, so do all. Loading the model does not count for the deadline.
        """
        abandoned, began, error = threading.Event(), time.perf_counter(), ""
        try:
            deadline.at += await self.load()
            began = time.perf_counter()
            call = self._thread.submit(
                self._scores, query, [_text(hit) for hit in hits[: self.top]], abandoned
            )
            scores = await deadline.result_of(call)
            scored = [
                replace(hit, rerank_score=score) for hit, score in zip(hits, scores, strict=False)
            ]
            hits = [
                *sorted(scored, key=lambda hit: -(hit.rerank_score or 0.0)),
                *hits[len(scored) :],
            ]
        except Exception as exc:  # noqa: BLE001 - whatever it is, the hits are there
            error = _reason(exc)
        finally:
            abandoned.set()
        return hits, error, time.perf_counter() - began

    async def load(self) -> float:
        """Open the reranker if it is not open, and return the seconds that took. Raises what
        opening raises."""
        began = time.monotonic()
        if self._reranker is None:
            await Deadline.after(MAX_RERANKER_LOAD_SECONDS).result_of(
                self._thread.submit(self._load)
            )
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
                self._failure, self._retry_at = _reason(exc), time.monotonic() + REOPEN_SECONDS
                raise RerankerError(self._failure) from exc

    def _close(self) -> None:
        reranker, self._reranker = self._reranker, None
        if reranker is not None:
            reranker.close()

    def _scores(self, query: str, texts: Sequence[str], abandoned: threading.Event) -> list[float]:
        if self._reranker is None:
            raise RerankerError("the retriever is closed")
        scores: list[float] = []
        for start in range(0, len(texts), RERANKED_AT_ONCE):
            if abandoned.is_set():
                raise RerankerError("the search has ended")
            part = texts[start : start + RERANKED_AT_ONCE]
            try:
                found = [float(score) for score in self._reranker.score(query, part)]
            except (
                BaseException
            ) as exc:  # a panic of Rust is no Exception, and must not end the search
                raise RerankerError(_reason(exc)) from exc
            if len(found) != len(part):
                raise RerankerError(
                    f"the reranker returned {len(found)} numbers for {len(part)} texts"
                )
            scores += found
        if not all(map(math.isfinite, scores)):
            raise RerankerError("the reranker returned a number that is not finite")
        return scores


def _reason(error: BaseException) -> str:
    return one_line(error) or type(error).__name__


def _text(hit: SearchHit) -> str:
    """Return what the reranker reads: the best chunk, after its title, or for source code its path
    and names."""
    return "\n".join(filter(None, [names_of(hit.payload), hit.title, hit.text]))
