"""The embedder that sends texts to one or several servers."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.embedders.dispatch import Dispatch, Queries
from rag_index.components.embedders.identity import EmbedderIdentity
from rag_index.components.hosts.clients import OllamaEndpoint, OpenAIEndpoint
from rag_index.components.hosts.endpoint import (
    Endpoint,
    KnownModel,
    ModelDetails,
    agreed_model,
    plain_model_name,
    plain_vector,
)
from rag_index.components.hosts.host_pool import Clock, Pool, RequestStats
from rag_index.components.hosts.retries import AskedHosts
from rag_index.core.machine import EventLoopThread
from rag_index.core.recovery import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings

log = logging.getLogger("rag_index.embedders")


class ServerEmbedder:
    """An Embedder that calls servers, each with a fixed number of requests at a time (`hosts.host_pool`).

    `patience` is for how many seconds a call waits where no host answers, by default a try's.

    `home` and `workers` determine which of the hosts are its own (see Pool). `expected` is the identity that the run
    began with: a host with another digest raises ModelChanged. Without it, the first host that answers decides.

    The requests run on a separate event loop in a thread. The embedder can therefore be called from any thread, with
    or without a running loop. Calls from several threads take turns, which overlap: the next one sends its first texts
    while the last ones of the one before are embedded. `stats` are those of the calling thread. Every method may raise
    ModelMissing and ModelChanged in addition to the errors that Embedder documents.
    """

    def __init__(
        self,
        settings: EmbedderSettings,
        *,
        home: int = 0,
        workers: int = 1,
        expected: EmbedderIdentity | None = None,
        clock: Clock | None = None,
        patience: float | None = None,
    ) -> None:
        self._settings, self._patience = settings, PATIENCE if patience is None else patience
        self._endpoints: list[Endpoint] = [
            OpenAIEndpoint(url, settings)
            if settings.kind == "openai"
            else OllamaEndpoint(url, settings, settings.dimensions)
            for url in settings.hosts
        ]
        number, usual = settings.requests_in_flight, self._endpoints[0].usual_requests
        in_flight = usual if number == "auto" else number
        self._pool = Pool(self._endpoints, home=home, workers=max(1, workers), in_flight=in_flight)
        self._model = KnownModel(settings.model)
        if expected is not None:
            self._model.digest, self._model.dimension = expected.digest, expected.dimension
        self._own = threading.local()
        self._hosts = AskedHosts(self._pool, self._model, clock=clock or Clock())
        self._loop = EventLoopThread("rag-index-embedder")
        self._turn = asyncio.Lock()
        new_pool = partial(Pool, self._endpoints, home=0, workers=1, in_flight=in_flight)
        self._queries = Queries(self._hosts, settings, new_pool)

    @property
    def stats(self) -> RequestStats:
        stats: RequestStats = self._own.__dict__.setdefault("stats", RequestStats())
        return stats

    def identity(self) -> EmbedderIdentity:
        """Ask every host. If only some answer, the others are logged as warnings. Raises as `agreed_model`."""
        given = self._settings
        found = self._loop.run(
            agreed_model(self._endpoints, self._measure_dimension, given, log, setting="[embedder] timeout")
        )
        if self._model.digest is None:
            self._model.digest, self._model.dimension = found.digest, found.dimension
        return EmbedderIdentity.of(given, plain_model_name(given.model), found.digest, found.dimension or 0)

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Wait up to `patience` seconds for a host if all are down, then raise with the reason of each. A later call
        goes on from there: hosts are tried out first, and texts that failed come last."""
        return self._embed(texts, one_by_one=False)

    def embed_one_by_one(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Embed the texts of one document, one of which ended a server on another day: each alone, between two plain
        texts. One failure is enough to hold a text at fault, and the others then have its error. Raises as
        `embed_documents`."""
        return self._embed(texts, one_by_one=True)

    def _embed(self, texts: Sequence[str], *, one_by_one: bool) -> list[NDArray[np.float32] | Exception]:
        given, stats, came = self._settings, self.stats, time.perf_counter()
        asked = replace(self._hosts, stats=stats)

        async def run() -> list[NDArray[np.float32] | Exception]:
            await self._turn.acquire()  # an interrupted call may still be ending
            with ExitStack() as turn:
                turn.callback(self._turn.release)
                stats.waited_seconds += time.perf_counter() - came
                prefix, patience = given.document_prefix, self._patience
                dispatch = Dispatch(asked, given, prefix, patience=patience, one_by_one=one_by_one)
                return await dispatch.run(texts, all_sent=turn.close)

        return self._loop.run(run())

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Do not wait for hosts that are down."""
        [entry] = self.embed_queries([text])
        if isinstance(entry, Exception):
            raise entry
        return entry

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Embed queries beside those of other threads. A server gets one once its model was compared with the expected
        one."""
        return self._loop.run(self._queries.embed(texts))

    def close(self) -> None:
        """Close the connections and end the thread. Queries under way raise concurrent.futures.CancelledError."""
        if self._loop.running:
            for endpoint in self._endpoints:
                self._loop.run(endpoint.close())
            self._loop.stop()

    async def _measure_dimension(self, endpoint: Endpoint, _: ModelDetails) -> int:
        return (await plain_vector(endpoint, self._settings.model)).size
