"""Rerankers score how well a query and a text fit, reading both together. `make_reranker` opens the
one of the settings.

A reranker is a server, a plug-in, or a cross-encoder inside the process, which needs the extra
`fastembed`. A search never fails because of it: if it cannot be opened, is late or fails, the hits
keep the order of fusion (`Reranking`).
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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
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
"""Time limit for the connection, within that of a search. Chosen; nothing depends on it."""
RERANKED_AT_ONCE = 16
"""Texts in a call of the reranker. Between two calls, reranking ends if its search has ended."""
MAX_RERANKER_LOAD_SECONDS = 300.0
"""Time limit for loading a model, which may download it first."""
REOPEN_SECONDS = 60.0
"""Pause after a reranker could not be opened. Without it, each search would wait for another
attempt."""
MAX_RERANKER_ANSWER = 4 << 20
"""Limit of an answer in bytes: a number for each text, and from some servers the texts, too."""


class Reranker(Protocol):
    """The interface of a reranker. One thread at a time uses it."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return a number for each text, in order: the higher, the better it fits the query.

        Only numbers of one query are compared with each other. If an error is raised, the hits keep
        their order.
        """

    def close(self) -> None:
        """Release the model."""


def make_reranker(settings: Settings) -> Reranker:
    """Open the reranker of the settings.

    Raises:
        RerankerError: A library is not installed, or a model cannot be loaded.
        SettingsError: The plug-in cannot be loaded.
        Exception: Whatever the plug-in raises.
    """
    model = str(settings.retrieve.reranker)
    # The name of a plug-in: "my-reranker".
    if model in installed(RERANKERS):
        plugin: Callable[[Settings], Reranker] = load_plugin(
            RERANKERS, model, "[retrieve] reranker"
        )
        return plugin(settings)
    # A server: "http://gpu:8000#bge-reranker-v2-m3".
    if model.startswith(("http://", "https://")):
        return RerankServer(model, settings.retrieve.timeout)
    # The name or the folder of a cross-encoder: "Xenova/ms-marco-MiniLM-L-6-v2".
    return ModelReranker(model)


class ModelReranker:
    """A Reranker with fastembed's TextCrossEncoder in this process, on all processors.

    The model reads only the beginning of a text that is longer than its limit.
    """

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
        # Errors of onnxruntime have no class in common.
        except Exception as exc:
            raise RerankerError(
                f"no reranker can be loaded from {name!r} ({one_line(exc)}): set reranker to the"
                " folder or name of one"
            ) from exc

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the model's number for each text, in order. Raises RerankerError if it fails."""
        try:
            return list(self._model.rerank(query, texts))
        # For example out of memory, or half a character.
        except Exception as exc:
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
        name = str(folder.resolve() / file)
        source = ModelSource(url=folder.resolve().as_uri())
        # fastembed raises ValueError if it has this model already.
        with suppress(ValueError):
            TextCrossEncoder.add_custom_model(
                name, source, model_file=file, additional_files=others
            )
        return name


def _require_one_number(name: str, folder: Path) -> None:
    """Raise RerankerError for a model with several numbers for a text, such as a classifier."""
    with suppress(FileNotFoundError):
        config = json.loads((folder / "config.json").read_text())
        # Without labels, the model has one number.
        labels = config.get("id2label", "1")
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
        """Prepare the client; the first call connects.

        Args:
            timeout: Time limit of an answer in seconds.
        """
        url, self._model = urldefrag(address)
        parts = urlsplit(url)
        # For messages, without user and password.
        _, _, host = parts.netloc.rpartition("@")
        self._place = f"the reranker at {parts.scheme}://{host}"
        self._url = url.rstrip("/").removesuffix(COMMON)
        self._path = COMMON
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=RERANKER_CONNECT_SECONDS),
            transport=BoundedTransport(url, timeout, MAX_RERANKER_ANSWER),
        )

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the server's number for each text, in order.

        Raises RerankerError if the server fails or does not return a number for each text.
        """
        response = self._post(query, texts)
        # TEI has another path, which is used from now on.
        if response.status_code == httpx.codes.NOT_FOUND and self._path == COMMON:
            self._path = TEI
            response = self._post(query, texts)
        if response.is_error:
            reason = one_line(response.text)
            raise RerankerError(
                f"{self._place} answers {self._path} with status {response.status_code}: {reason}"
            )
        try:
            found = response.json()
            # {"results": [{"index": 0, "relevance_score": 0.9}]}, or of TEI [{"index": 0, "score":
            # 0.9}].
            rows = found["results"] if isinstance(found, dict) else found
            scores = dict[int, float]()
            for row in rows:
                score = row.get("relevance_score", row.get("score"))
                scores[int(row["index"])] = float(score)
            return [scores[number] for number in range(len(texts))]
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise RerankerError(
                f"{self._place} does not give a number for each of {len(texts)} texts: is it a"
                " reranker?"
            ) from exc

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, query: str, texts: Sequence[str]) -> httpx.Response:
        """Return the response to one request. Half a character becomes a question mark, as in the
        store.

        Raises RerankerError if there is no response.
        """
        clean_query = _clean(query)
        clean_texts = [_clean(text) for text in texts]
        body: dict[str, Any]
        if self._path == TEI:
            body = {"query": clean_query, "texts": clean_texts, "truncate": True}
        else:
            body = {"query": clean_query, "documents": clean_texts, "top_n": len(texts)}
            if self._model:
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


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


class Reranked(NamedTuple):
    """The result of reranking."""

    hits: list[SearchHit]
    error: str
    """Why the hits are in their former order; "" if they are not."""
    seconds: float
    """How long it took, without loading the model."""


class Reranking:
    """A reranker in a thread of its own, which is opened when it is first needed. Safe to use from
    any event loop."""

    def __init__(self, open_reranker: Callable[[], Reranker], top: int) -> None:
        self.top = top
        self._open = open_reranker
        self._thread = ThreadPoolExecutor(1, "rag-index-rerank")
        self._reranker: Reranker | None = None
        self._failure = ""
        self._retry_at = 0.0

    async def rerank(self, query: str, hits: list[SearchHit], deadline: Deadline) -> Reranked:
        """Return the hits with the best `top` of them in the order of the reranker. Raise nothing.

        If the reranker fails, all hits keep their order. The time for loading the model is added to
        the deadline.
        """
        error = ""
        # Ends the call in the thread if this search ends before it.
        abandoned = threading.Event()
        began = time.perf_counter()
        try:
            deadline.at += await self.load()
            began = time.perf_counter()
            texts = [_text(hit) for hit in hits[: self.top]]
            call = self._thread.submit(self._scores, query, texts, abandoned)
            scores = await deadline.result_of(call)
            hits = _in_order_of(scores, hits)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the hits are there
            error = _reason(exc)
        finally:
            abandoned.set()
        return Reranked(hits, error, time.perf_counter() - began)

    async def load(self) -> float:
        """Open the reranker if it is not open, and return the seconds that took.

        Raises the error of opening it.
        """
        began = time.monotonic()
        if self._reranker is None:
            deadline = Deadline.after(MAX_RERANKER_LOAD_SECONDS)
            await deadline.result_of(self._thread.submit(self._load))
        return time.monotonic() - began

    def close(self) -> None:
        """Close the reranker after the call under way, without waiting for it."""
        with suppress(RuntimeError):
            self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _load(self) -> None:
        """Open the reranker, in its thread."""
        # A search before this one has opened it.
        if self._reranker is not None:
            return
        if time.monotonic() < self._retry_at:
            raise RerankerError(self._failure)
        try:
            self._reranker = self._open()
        except BaseException as exc:
            self._failure = _reason(exc)
            self._retry_at = time.monotonic() + REOPEN_SECONDS
            raise RerankerError(self._failure) from exc

    def _close(self) -> None:
        reranker, self._reranker = self._reranker, None
        if reranker is not None:
            reranker.close()

    def _scores(self, query: str, texts: Sequence[str], abandoned: threading.Event) -> list[float]:
        """Return the number of each text, in the reranker's thread."""
        if self._reranker is None:
            raise RerankerError("the retriever is closed")
        scores: list[float] = []
        for start in range(0, len(texts), RERANKED_AT_ONCE):
            if abandoned.is_set():
                raise RerankerError("the search has ended")
            part = texts[start : start + RERANKED_AT_ONCE]
            try:
                found = [float(score) for score in self._reranker.score(query, part)]
            # A panic of Rust is not an Exception, and must not end the search.
            except BaseException as exc:
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
    """Return the text for the reranker: path and names of source code, the title, the best
    chunk."""
    lines = [names_of(hit.payload), hit.title, hit.text]
    return "\n".join(filter(None, lines))


def _in_order_of(scores: Sequence[float], hits: Sequence[SearchHit]) -> list[SearchHit]:
    """Return the hits, the scored ones first and by their scores. Hits beyond them keep their
    order."""
    scored: list[SearchHit] = []
    for hit, score in zip(hits, scores, strict=False):
        scored.append(replace(hit, rerank_score=score))
    scored.sort(key=lambda hit: -(hit.rerank_score or 0.0))
    return [*scored, *hits[len(scored) :]]
