"""Writes contexts of chunks, or takes them from the cache: what a worker process holds open for it."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.engine import make_url

from rag_index.chunking.context.asking import Asking, Wanted
from rag_index.chunking.context.cache import ContextCache, hash_of
from rag_index.chunking.context.prompt import passages
from rag_index.chunking.context.service import GeneratingModel
from rag_index.hosts.endpoint import Endpoint
from rag_index.hosts.loop import EventLoopThread
from rag_index.hosts.pool import Clock, Pool
from rag_index.hosts.stats import RequestStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import SecretStr

    from rag_index.chunking.context.service import Recipe, Servers

__all__ = ["ContextWriter", "Written", "process_writer"]


@dataclass(frozen=True, slots=True)
class Written:
    """The contexts of one document's chunks: "" where one has none, and then why."""

    contexts: list[str]
    reasons: list[str]
    cached: int
    """Of the contexts, those that were there already."""


class ContextWriter:
    """Asks `servers` for contexts. Calls from several threads take turns. `home` is a number that differs between
    processes, so that they do not all begin with the same host."""

    def __init__(
        self, servers: Servers, recipe: Recipe, cache: SecretStr, *, home: int = 0, clock: Clock | None = None
    ) -> None:
        self._servers, self._recipe = servers, recipe
        self._clock = clock or Clock()
        self._cache = ContextCache(make_url(cache.get_secret_value()), recipe.fingerprint)
        self._endpoints = [Endpoint(url, servers) for url in servers.hosts]
        self._pool = Pool(self._endpoints, home=home, workers=1, in_flight=servers.requests_in_flight)
        self._model = GeneratingModel(servers.model, recipe.digest, num_ctx=recipe.num_ctx)
        self._loop, self._turn = EventLoopThread("rag-index-contexts"), threading.Lock()
        self.stats = RequestStats()

    def write(self, documents: Sequence[tuple[str, Sequence[str]]]) -> list[Written]:
        """The contexts of each document's chunks. Equal documents and chunks are asked for once.

        Raises EmbedderUnavailable (RateLimited) where no host recovers in time, ModelMissing, ModelChanged and
        EmbedderError. What was written by then is in the cache.
        """
        with self._turn:
            known = {key: self._cache.known(key) for key in {hash_of(text) for text, _ in documents}}
            wanted: dict[tuple[bytes, bytes], Wanted] = {}
            room = self._recipe.num_ctx - self._recipe.num_predict
            for text, chunks in documents:
                key = hash_of(text)
                for passage in passages(text, chunks):
                    chunk = hash_of(passage.chunk)
                    if chunk not in known[key]:
                        wanted.setdefault((key, chunk), Wanted(passage, room))
            if wanted:
                self._ask(wanted)
        return [_written(text, chunks, known, wanted) for text, chunks in documents]

    def close(self) -> None:
        """Close the connections and end the thread."""
        with self._turn:
            if self._loop.running:
                self._loop.run(self._close_endpoints())
                self._loop.stop()
            self._cache.close()

    def _ask(self, wanted: dict[tuple[bytes, bytes], Wanted]) -> None:
        keys = {id(one): key for key, one in wanted.items()}
        asking = Asking(
            self._pool,
            self._model,
            self.stats,
            self._clock,
            recipe=self._recipe,
            wanted=list(wanted.values()),
            most=self._servers.requests_in_flight,
            patience=self._servers.patience,
            tell=lambda one: self._cache.put(*keys[id(one)], one.context),
        )
        self._loop.run(asking.run())

    async def _close_endpoints(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.close()


def _written(
    text: str,
    chunks: Sequence[str],
    known: dict[bytes, dict[bytes, str]],
    wanted: dict[tuple[bytes, bytes], Wanted],
) -> Written:
    key = hash_of(text)
    hashes = [hash_of(chunk) for chunk in chunks]
    asked = [wanted.get((key, chunk)) for chunk in hashes]
    contexts = [known[key][chunk] if one is None else one.context for chunk, one in zip(hashes, asked, strict=True)]
    reasons = [one.reason if one else "" for one in asked]
    return Written(contexts, reasons, sum(one is None for one in asked))


class _Process:
    """The one global: connections, and what is known of hosts that are ill, are worth keeping between shards."""

    made_for: tuple[Servers, Recipe, SecretStr] | None = None
    writer: ContextWriter | None = None
    lock = threading.Lock()


def process_writer(servers: Servers, recipe: Recipe, cache: SecretStr, *, home: int) -> ContextWriter:
    """This process's writer, made on first use and again when another is asked for."""
    with _Process.lock:
        wanted = (servers, recipe, cache)
        if _Process.writer is None or _Process.made_for != wanted:
            if _Process.writer is not None:
                _Process.writer.close()
            _Process.writer = ContextWriter(servers, recipe, cache, home=home)
            _Process.made_for = wanted
        return _Process.writer
