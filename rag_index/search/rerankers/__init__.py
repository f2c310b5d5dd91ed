"""Rerankers read a query and a text together, and say how well they fit. `reranker_opener` opens that of the settings.

One is a server, a plug-in, or a CrossEncoder of sentence-transformers inside the process, which needs the extra
`sentence-transformers` and with it torch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urldefrag, urlsplit

import httpx

from rag_index.core.connections import why_failed
from rag_index.core.extras import install_command
from rag_index.core.settings.plugins import RERANKERS, installed, load_plugin
from rag_index.errors import RerankerError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.core.settings import Settings

__all__ = ["Reranker", "reranker_opener"]

COMMON, TEI = "/v1/rerank", "/rerank"
CONNECT_SECONDS = 5.0
MAX_ANSWER = 4 << 20
"""Bytes of an answer: a number for each text, and the texts themselves from some servers."""


class Reranker(Protocol):
    """The interface of a reranker. One thread at a time uses it."""

    def score(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """Return a number for each text, in order: the higher, the better it fits the query.

        Numbers of one query are compared with each other and with nothing else. Whatever is raised leaves the hits in
        the order that they had.
        """

    def close(self) -> None:
        """Release the model."""


def reranker_opener(settings: Settings) -> Callable[[], Reranker] | None:
    """Return a function that opens the reranker which the settings name; None if they name none.

    That is a server if it is an address, a plug-in of this name, or a CrossEncoder. The function raises RerankerError
    if a library is not installed or a model cannot be loaded, SettingsError if the plug-in cannot be, and whatever
    that raises.
    """
    return None if settings.retrieve.reranker is None else partial(_open, settings)


def _open(settings: Settings) -> Reranker:
    model = str(settings.retrieve.reranker)
    if model in installed(RERANKERS):
        plugin: Callable[[Settings], Reranker] = load_plugin(RERANKERS, model, "[retrieve] reranker")
        return plugin(settings)
    if model.startswith(("http://", "https://")):
        return RerankServer(model, settings.retrieve.timeout)
    return ModelReranker(model, settings.embedder.device)


class ModelReranker:
    """A Reranker that uses a CrossEncoder in this process. A text longer than its limit is judged by its beginning."""

    def __init__(self, name: str, device: str) -> None:
        """Load the model of a folder or a name on the model hub. Raises RerankerError if that fails."""
        try:
            from sentence_transformers import CrossEncoder
            from transformers.utils import logging
        except ImportError as exc:
            raise RerankerError(
                f"reranker {name!r} needs a library that cannot be imported ({one_line(exc)}): "
                f"{install_command('sentence-transformers')}"
            ) from exc

        logging.disable_progress_bar()
        self._name, chosen = name, None if device == "auto" else device
        try:
            self._model: Any = CrossEncoder(str(Path(name).expanduser()), device=chosen)
        except (OSError, ValueError, RuntimeError, AssertionError) as exc:
            raise RerankerError(
                f"no reranker can be loaded from {name!r} on {device!r} ({one_line(exc)}): set reranker to the folder "
                "or name of one, and [embedder] device to one that this machine has"
            ) from exc
        if (labels := self._model.config.num_labels) != 1:
            raise RerankerError(f"{name} gives {labels} numbers for a text, and not one: set reranker to another model")

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the model's number for each text, in order. Raises RerankerError if it fails."""
        try:
            pairs = [(query, text) for text in texts]
            return list(map(float, self._model.predict(pairs, show_progress_bar=False)))
        except (RuntimeError, TypeError, ValueError) as exc:  # out of memory, or half a character
            raise RerankerError(f"{self._name} cannot judge the hits ({one_line(exc)})") from exc

    def close(self) -> None:
        """Release the model."""
        self._model = None


class RerankServer:
    """A Reranker behind HTTP: `/v1/rerank` of llama.cpp, vLLM, Infinity and others, or `/rerank` of TEI.

    The address may name a model: `http://gpu:8000#bge-reranker-v2-m3`.
    """

    def __init__(self, address: str, timeout: float) -> None:
        """Prepare the client; the first call connects. `timeout` is that of a whole answer, in seconds."""
        from rag_index.components.stores.server.link import BoundedTransport, refuse_compressed

        url, self._model = urldefrag(address)
        parts = urlsplit(url)
        self._place = f"the reranker at {parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._url, self._path = url.rstrip("/").removesuffix(COMMON), COMMON
        self._client = httpx.Client(
            timeout=httpx.Timeout(timeout, connect=CONNECT_SECONDS),
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [refuse_compressed]},
            transport=BoundedTransport(url, timeout, MAX_ANSWER),
        )

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return the server's number for each text, in order. Raises RerankerError if it does not give one for each."""
        response = self._ask(query, texts)
        if response.status_code == httpx.codes.NOT_FOUND and self._path == COMMON:
            self._path = TEI
            response = self._ask(query, texts)
        if response.is_error:
            words = one_line(response.text)
            raise RerankerError(f"{self._place} answers {self._path} with status {response.status_code}: {words}")
        try:
            found = response.json()
            rows = found["results"] if isinstance(found, dict) else found
            scores = {int(row["index"]): float(row.get("relevance_score", row.get("score"))) for row in rows}
            return [scores[number] for number in range(len(texts))]
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise RerankerError(
                f"{self._place} does not give a number for each of {len(texts)} texts: is it a reranker?"
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
            raise RerankerError(f"{self._place} does not answer in time: raise [retrieve] timeout") from exc
        except (httpx.RequestError, httpx.InvalidURL) as exc:
            why = why_failed(exc, self._url) or f"start it, or correct reranker ({exc})"
            raise RerankerError(f"{self._place} cannot be reached: {why}") from exc
