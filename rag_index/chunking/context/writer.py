"""The contexts of chunks, from the cache or from a model, and the connections that a worker process keeps for them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from rag_index.chunking.context.cache import ContextCache
from rag_index.chunking.context.prompt import passages
from rag_index.chunking.context.requests import ContextRequest, ContextRequests
from rag_index.chunking.context.service import GeneratingModel
from rag_index.documents.canonical import hash_text
from rag_index.hosts.loop import EventLoopThread
from rag_index.hosts.ollama_client import Endpoint
from rag_index.hosts.pool import Clock, Pool
from rag_index.hosts.stats import RequestStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

    from rag_index.chunking.context.service import Recipe, Servers

__all__ = ["ContextWriter", "DocumentContexts", "process_writer"]


@dataclass(frozen=True, slots=True)
class DocumentContexts:
    """The contexts of one document's chunks, and the reasons for those that are missing; "" for none."""

    contexts: list[str]
    reasons: list[str]
    cached: int
    """The number of contexts that were found in the cache."""


class ContextWriter:
    """Gets contexts from the cache or from `servers`. Calls from several threads take turns.

    `home` is a number that differs between processes, so that they do not all begin with the same host.
    """

    def __init__(
        self, servers: Servers, recipe: Recipe, cache: SecretStr, *, home: int = 0, clock: Clock | None = None
    ) -> None:
        self._servers, self._recipe = servers, recipe
        self._clock = clock or Clock()
        self._cache = ContextCache(make_url(cache.get_secret_value()), recipe.fingerprint)
        self._endpoints = [Endpoint(url, servers) for url in servers.hosts]
        self._pool = Pool(self._endpoints, home=home, workers=1, in_flight=servers.requests_in_flight)
        self._model = GeneratingModel(
            servers.model, recipe.digest, patience=2 * servers.timeout, num_ctx=recipe.num_ctx
        )
        self._loop, self._lock = EventLoopThread("rag-index-contexts"), threading.Lock()
        self.stats = RequestStats()

    def write(self, documents: Sequence[tuple[bytes, str, Sequence[str]]]) -> list[DocumentContexts]:
        """Return the contexts of each document, given as text hash, text and chunks. Equal ones are requested once.

        Raises EmbedderUnavailable (or its kind RateLimited) if no host recovers in time, ModelMissing, ModelChanged
        and EmbedderError. The contexts that were written before the error are in the cache.
        """
        with self._lock:
            known = self._cache.known({key for key, _, _ in documents})
            requests: dict[tuple[bytes, bytes], ContextRequest] = {}
            for key, text, chunks in documents:
                for passage in passages(text, chunks):
                    chunk = hash_text(passage.chunk)
                    if chunk not in known[key]:
                        requests.setdefault((key, chunk), ContextRequest(passage, self._recipe.question_tokens))
            if requests:
                self._send(requests)
        return [_document_contexts(key, chunks, known, requests) for key, _, chunks in documents]

    def close(self) -> None:
        """Close the connections and end the thread."""
        with self._lock:
            if self._loop.running:
                self._loop.run(self._close_endpoints())
                self._loop.stop()
            self._cache.close()

    def _send(self, requests: dict[tuple[bytes, bytes], ContextRequest]) -> None:
        keys = {id(request): key for key, request in requests.items()}
        batch = ContextRequests(
            self._pool,
            self._model,
            self.stats,
            self._clock,
            recipe=self._recipe,
            requests=list(requests.values()),
            max_in_flight=self._servers.requests_in_flight,
            patience=self._servers.patience,
            on_context=lambda request: self._cache.put(*keys[id(request)], request.context),
        )
        self._loop.run(batch.run())

    async def _close_endpoints(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.close()


def _document_contexts(
    key: bytes,
    chunks: Sequence[str],
    known: dict[bytes, dict[bytes, str]],
    requests: dict[tuple[bytes, bytes], ContextRequest],
) -> DocumentContexts:
    hashes = [hash_text(chunk) for chunk in chunks]
    sent = [requests.get((key, chunk)) for chunk in hashes]
    contexts = [known[key][chunk] if one is None else one.context for chunk, one in zip(hashes, sent, strict=True)]
    reasons = [request.reason if request else "" for request in sent]
    return DocumentContexts(contexts, reasons, sum(request is None for request in sent))


class _Process:
    """The only global state: connections, and which hosts are ill, are worth keeping between shards."""

    made_for: tuple[Servers, Recipe, SecretStr] | None = None
    writer: ContextWriter | None = None
    lock = threading.Lock()


def process_writer(servers: Servers, recipe: Recipe, cache: SecretStr, *, home: int) -> ContextWriter:
    """Return this process's writer. It is made on first use, and replaced when it is needed for other arguments."""
    with _Process.lock:
        arguments = (servers, recipe, cache)
        if _Process.writer is None or _Process.made_for != arguments:
            if _Process.writer is not None:
                _Process.writer.close()
            _Process.writer = ContextWriter(servers, recipe, cache, home=home)
            _Process.made_for = arguments
        return _Process.writer
