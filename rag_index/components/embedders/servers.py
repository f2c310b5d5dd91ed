"""The embedder that sends texts to one or several servers."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, ClassVar

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
from rag_index.components.hosts.host_call import HostCall
from rag_index.components.hosts.host_pool import HostPool
from rag_index.core.documents.vectors import broken_reason
from rag_index.core.documents.work import Work
from rag_index.core.machine import EventLoopThread
from rag_index.core.recovery import PATIENCE
from rag_index.errors import BadVectors, EmbedderUnavailable, TextEndsServer, TextRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.components.hosts.host import Host
    from rag_index.core.settings import EmbedderSettings

QUERY_PATIENCE = 0.5
"""Seconds for which a query waits where every server fails: time for one rest and one check."""
log = logging.getLogger("rag_index.embedders")


class EmbeddingCall(HostCall[str]):
    """One call to embed texts, each of which is sent with a prefix. An entry is a vector, or why a
    text has none."""

    def __init__(
        self,
        texts: Sequence[str],
        settings: EmbedderSettings,
        model: KnownModel,
        stats: Work,
        *,
        prefix: str | None,
        one_by_one: bool = False,
    ) -> None:
        self._prefix = prefix or ""
        self._model = model
        refused: dict[str, TextRefused] = {}
        sendable: list[str] = []
        for text in texts:
            why = why_not_sendable(text)
            if why is None:
                sendable.append(text)
            else:
                refused[text] = why
        super().__init__(sendable, stats, one_by_one=one_by_one)
        self.most_items, self.most_chars = settings.usual_request
        self.entries.update(refused)

    def length(self, item: str) -> int:
        return len(self._prefix) + len(item)

    async def ask(self, endpoint: Endpoint, items: Sequence[str]) -> list[NDArray[np.float32]]:
        texts = [self._prefix + text for text in items]
        return await endpoint.embed(texts)

    def why_broken(self, item: str, answer: NDArray[np.float32], host: Host) -> BadVectors | None:
        why = broken_reason(answer, self._model.dimension)
        if why is None:
            return None
        return BadVectors(f"{host.url} returned a vector of {why} for a text")

    def fault(self, error: Exception, host: Host) -> Exception:
        if not isinstance(error, EmbedderUnavailable):
            return error
        return TextEndsServer(
            f"{error} (each time this text is sent; {host.url} embeds other texts)"
        )


class QueryCall(EmbeddingCall):
    """One call to embed queries, for a caller who waits. Models are compared once before, not again
    for each query."""

    confirms: ClassVar[bool] = False


def why_not_sendable(text: str) -> TextRefused | None:
    """Return the error of a text that no request is sent for; None for other texts."""
    if not text:
        return TextRefused(
            "the text is empty, and a server would return a meaningless vector for it"
        )
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        return TextRefused(f"the text is not valid Unicode and cannot be sent: {exc}")
    return None


class ServerEmbedder:
    """An Embedder that calls servers, each with a fixed number of requests at a time
    (`hosts.host_pool`).

    `patience` is for how many seconds a call waits where no host answers, by default a try's.

    `home` and `workers` determine which of the hosts are its own (see HostPool). `expected` is the
    identity that the run began with: a host with another digest raises ModelChanged. Without it,
    the first host that answers decides.

    The requests run on a separate event loop in a thread. The embedder can therefore be called from
    any thread, with or without a running loop. Texts are sent in the order of the calls: the next
    call sends its first texts while the last ones of the call before it are embedded. Queries are
    embedded beside all of them. `stats` are those of the calling thread. Every method may raise
    ModelMissing and ModelChanged in addition to the errors that Embedder documents.
    """

    def __init__(
        self,
        settings: EmbedderSettings,
        *,
        home: int = 0,
        workers: int = 1,
        expected: EmbedderIdentity | None = None,
        patience: float | None = None,
    ) -> None:
        self._settings = settings
        self._endpoints = [_endpoint(url, settings) for url in settings.hosts]
        in_flight = settings.requests_in_flight
        if in_flight == "auto":
            in_flight = self._endpoints[0].usual_requests
        self._model = KnownModel(settings.model)
        if expected is not None:
            self._model.digest = expected.digest
            self._model.dimension = expected.dimension
        self._own = threading.local()
        self._loop = EventLoopThread("rag-index-embedder")
        self._documents = HostPool(
            self._endpoints,
            self._model,
            home=home,
            workers=max(1, workers),
            in_flight=in_flight,
            patience=PATIENCE if patience is None else patience,
        )
        self._queries = HostPool(
            self._endpoints,
            self._model,
            in_flight=in_flight,
            patience=QUERY_PATIENCE,
            for_queries=True,
        )

    @property
    def stats(self) -> Work:
        stats: Work = self._own.__dict__.setdefault("stats", Work())
        return stats

    def identity(self) -> EmbedderIdentity:
        """Ask every host. If only some answer, the others are logged as warnings. Raises as
        `agreed_model`."""
        settings = self._settings
        agreement = agreed_model(
            self._endpoints, self._measure_dimension, settings, log, setting="[embedder] timeout"
        )
        found = self._loop.run(agreement)
        if self._model.digest is None:
            self._model.digest = found.digest
            self._model.dimension = found.dimension
        name = plain_model_name(settings.model)
        return EmbedderIdentity.of(settings, name, found.digest, found.dimension or 0)

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Wait up to `patience` seconds for a host if all are down, then raise with the reason of
        each. A later call with these texts goes on from there: hosts are checked first, and texts
        that failed come last."""
        return self._embed(texts, one_by_one=False)

    def embed_one_by_one(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Embed the texts of one document, one of which ended a server on another day: each alone,
        between two plain texts. One failure is enough to hold a text at fault, and the others then
        have its error. Raises as `embed_documents`."""
        return self._embed(texts, one_by_one=True)

    def _embed(
        self, texts: Sequence[str], *, one_by_one: bool
    ) -> list[NDArray[np.float32] | Exception]:
        prefix = self._settings.document_prefix
        call = EmbeddingCall(
            texts, self._settings, self._model, self.stats, prefix=prefix, one_by_one=one_by_one
        )
        self._loop.run(self._documents.run(call))
        return [call.entries[text] for text in texts]

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query as `Embedder.embed_query`, without waiting for hosts that
        are down."""
        [entry] = self.embed_queries([text])
        if isinstance(entry, Exception):
            raise entry
        return entry

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Embed queries beside those of other threads. A server gets one once its model was
        compared with the expected one."""
        prefix = self._settings.query_prefix
        call = QueryCall(texts, self._settings, self._model, Work(), prefix=prefix)
        self._loop.run(self._queries.run(call))
        return [call.entries[text] for text in texts]

    def close(self) -> None:
        """Close the connections and end the thread. Queries under way raise
        concurrent.futures.CancelledError."""
        if self._loop.running:
            for endpoint in self._endpoints:
                self._loop.run(endpoint.close())
            self._loop.stop()

    async def _measure_dimension(self, endpoint: Endpoint, details: ModelDetails) -> int:
        vector = details.plain_vector
        if vector is None:
            vector = await plain_vector(endpoint, self._settings.model)
        return vector.size


def _endpoint(url: str, settings: EmbedderSettings) -> Endpoint:
    """Return the client of a server of the kind that the settings name."""
    if settings.kind == "openai":
        return OpenAIEndpoint(url, settings)
    return OllamaEndpoint(url, settings, settings.dimensions)
