"""The embedder that sends texts to one or several servers."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.embedders import EmbedderIdentity
from rag_index.embedders.dispatch import Dispatch, Query, QueryStream
from rag_index.hosts.endpoint import (
    Endpoint,
    KnownModel,
    ModelDetails,
    agreed_report,
    plain_model_name,
    plain_vector,
    survey_hosts,
)
from rag_index.hosts.event_loop import EventLoopThread
from rag_index.hosts.host_pool import Clock, Pool, RequestStats
from rag_index.hosts.ollama_client import OllamaEndpoint
from rag_index.hosts.openai_client import OpenAIEndpoint
from rag_index.hosts.retries import AskedHosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.settings import EmbedderSettings

log = logging.getLogger("rag_index.embedders")


class ServerEmbedder:
    """An Embedder that calls servers with up to `requests_in_flight` requests at a time per host.

    `home` and `workers` determine which of the hosts are its own (see Pool). `expected` is the identity that the run
    began with: a host with another digest raises ModelChanged. Without it, the first host that answers decides.

    The requests run on a separate event loop in a thread. The embedder can therefore be called from any thread, with
    or without a running loop; calls from several threads take turns. Every method may raise ModelMissing and
    ModelChanged in addition to the errors that Embedder documents.
    """

    def __init__(
        self,
        settings: EmbedderSettings,
        *,
        home: int = 0,
        workers: int = 1,
        expected: EmbedderIdentity | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._endpoints: list[Endpoint] = [
            OpenAIEndpoint(url, settings)
            if settings.kind == "openai"
            else OllamaEndpoint(url, settings, settings.dimensions)
            for url in settings.hosts
        ]
        pool = Pool(self._endpoints, home=home, workers=max(1, workers), in_flight=settings.requests_in_flight)
        self._model = KnownModel(settings.model, patience=settings.start_timeout)
        if expected is not None:
            self._model.digest, self._model.dimension = expected.digest, expected.dimension
        self.stats = RequestStats()
        self._hosts = AskedHosts(pool, self._model, self.stats, clock or Clock())
        self._loop = EventLoopThread("rag-index-embedder")
        self._turn = asyncio.Lock()
        new_pool = partial(Pool, self._endpoints, home=0, workers=1, in_flight=1)
        self._queries = QueryStream(self._hosts, settings, new_pool)

    def identity(self) -> EmbedderIdentity:
        """Ask every host. If only some answer, the others are logged as warnings. Raises as `agreed_report`."""
        seconds, setting = self._settings.start_timeout, "[embedder] start_timeout"
        asked = survey_hosts(self._endpoints, self._measure_dimension, seconds=seconds, setting=setting)
        report = agreed_report(self._loop.run(asked), self._settings.model, log)
        if self._model.digest is None:
            self._model.digest, self._model.dimension = report.digest, report.dimension
        model = plain_model_name(self._settings.model)
        return EmbedderIdentity.of(self._settings, model, report.digest, report.dimension or 0)

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Wait up to `wait_for_recovery` seconds for a host if all are down, then raise with the reason of each."""
        given = self._settings
        dispatch = Dispatch(self._hosts, given, given.document_prefix, patience=given.wait_for_recovery)

        async def run() -> list[NDArray[np.float32] | Exception]:
            async with self._turn:  # an interrupted call may still be ending
                return await dispatch.run(texts)

        return self._loop.run(run())

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Do not wait for hosts that are down."""
        vector: NDArray[np.float32] = self._loop.run(self._take_all([text]))[0]
        return vector

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        return self._loop.run(self._take_all(texts, return_exceptions=True))

    def take_queries(self, queries: Sequence[Query]) -> None:
        """Start embedding queries, together with others that wait, and return at once. Any thread may call this.

        A server gets a query once its model was compared with the expected one. Each query gets its vector or its own
        error: TextTooLong, TextRefused or BadVectors if the text is the reason, and EmbedderUnavailable, RateLimited,
        ModelMissing, ModelChanged or EmbedderError if no server can be used.
        """
        self._loop.call_soon(self._queries.add, tuple(queries))  # the caller may change the list meanwhile

    def close(self) -> None:
        """Close the connections and end the thread, after the queries under way."""
        if self._loop.running:
            self._loop.run(self._close_endpoints())
            self._loop.stop()

    async def _take_all(self, texts: Sequence[str], **options: bool) -> list[Any]:
        queries = [Query(text) for text in texts]
        self._queries.add(queries)
        return await asyncio.gather(*(asyncio.wrap_future(query.future) for query in queries), **options)

    async def _measure_dimension(self, endpoint: Endpoint, _: ModelDetails) -> int:
        return (await plain_vector(endpoint, self._settings.model)).size

    async def _close_endpoints(self) -> None:
        await self._queries.close()
        for endpoint in self._endpoints:
            await endpoint.close()
