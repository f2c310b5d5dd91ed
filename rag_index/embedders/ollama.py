"""The embedder that asks one or several Ollama servers."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from rag_index.embedders import EmbedderIdentity
from rag_index.embedders.batches import make_batches
from rag_index.embedders.dispatch import Dispatch, OllamaStats
from rag_index.errors import BadVectors, EmbedderUnavailable, ModelChanged, RagIndexError, TextRefused
from rag_index.hosts.endpoint import Endpoint, ModelDetails, plain_model_name
from rag_index.hosts.loop import EventLoopThread
from rag_index.hosts.model import KnownModel, plain_vector
from rag_index.hosts.pool import FAILURES, FIRST_PAUSE, Clock, Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.stats import RequestStats
    from rag_index.settings import EmbedderSettings

__all__ = ["HostReport", "OllamaEmbedder"]

log = logging.getLogger("rag_index.embedders")


@dataclass(frozen=True, slots=True)
class HostReport:
    """What one host answered when it was asked for its model; `error` where it could not be used."""

    url: str
    digest: str | None = None
    dimension: int | None = None
    context_length: int | None = None
    error: RagIndexError | None = None


class OllamaEmbedder:
    """An Embedder over Ollama's /api/embed, with `requests_in_flight` requests under way at each of its hosts.

    `home` and `workers` say which of the hosts are its own (see Pool). `expected` is the identity that the run began
    with: a host with another digest raises ModelChanged; without it, the first host that answers decides.

    The requests run on an event loop of its own, in a thread, so that it can be called from any thread, with a
    running loop or without; calls from several threads take turns. It raises, beside what Embedder says, ModelMissing
    and ModelChanged from every method.
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
        self._clock = clock or Clock()
        self._endpoints = [Endpoint(url, settings) for url in settings.hosts]
        self._pool = Pool(self._endpoints, home=home, workers=max(1, workers), in_flight=settings.requests_in_flight)
        self._model = KnownModel(settings.model)
        if expected is not None:
            self._model.digest, self._model.dimension = expected.digest, expected.dimension
        self._loop = EventLoopThread("rag-index-ollama")
        self._turn = asyncio.Lock()
        self._stats = OllamaStats()
        self.stats: RequestStats = self._stats
        self.context_length: int | None = None
        """Tokens that the model takes, once `identity` was asked."""

    @property
    def texts_by_host(self) -> dict[str, int]:
        """How many texts each host embedded so far."""
        return dict(self._stats.texts_by_host)

    def reports(self) -> list[HostReport]:
        """Ask every host for its model, with a real embed. Raises nothing: errors are in the reports."""
        return self._loop.run(self._reports())

    def identity(self) -> EmbedderIdentity:
        """What the model is, from every host that answers; one of several that does not is only warned of.

        Raises:
            EmbedderUnavailable: no host answers.
            ModelMissing, BadVectors, EmbedderError: a host cannot be used.
            ModelChanged: hosts have different models of this name.
        """
        reports = self.reports()
        answered = [report for report in reports if not isinstance(report.error, EmbedderUnavailable)]
        for report in answered or reports:
            if report.error is not None:
                raise report.error
        for report in reports:
            if report.error is not None:
                log.warning("going on without one of %d Ollama hosts: %s", len(reports), report.error)
        first = answered[0]
        if len({(report.digest, report.dimension) for report in answered}) > 1:
            raise self._hosts_differ(answered)
        if self._model.digest is None:
            self._model.digest, self._model.dimension = first.digest, first.dimension
        self.context_length = first.context_length
        return EmbedderIdentity(
            kind="ollama",
            model=plain_model_name(self._settings.model),
            digest=first.digest or "",
            dimension=first.dimension or 0,
            document_prefix=self._settings.document_prefix or "",
            query_prefix=self._settings.query_prefix or "",
        )

    def _hosts_differ(self, reports: Sequence[HostReport]) -> ModelChanged:
        having = ", ".join(
            f"{report.url} weights {(report.digest or '')[:12]} ({report.dimension}-d)" for report in reports
        )
        name = self._settings.model
        return ModelChanged(f"hosts have different models named {name}: {having}; run `ollama pull {name}` on each")

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """One entry a text, in order: its vector, TextTooLong, TextRefused or BadVectors.

        Hosts that are down are waited for up to `wait_for_recovery` seconds; then EmbedderUnavailable or RateLimited
        names them all.
        """
        return self._embed(texts, self._settings.document_prefix or "", self._settings.wait_for_recovery)

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query. Raises what `embed_documents` would have as its entry; waits for no recovery."""
        entry = self._embed([text], self._settings.query_prefix or "", 0.0)[0]
        if isinstance(entry, Exception):
            raise entry
        return entry

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.running:
            self._loop.run(self._close_endpoints())
            self._loop.stop()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an OllamaEmbedder stays in its process: send its EmbedderSettings, and open it there")

    def _embed(self, texts: Sequence[str], prefix: str, patience: float) -> list[NDArray[np.float32] | Exception]:
        entries: list[NDArray[np.float32] | Exception | None] = [_unsendable(text) for text in texts]
        rows = [row for row, entry in enumerate(entries) if entry is None]
        if rows:
            embedded = self._loop.run(self._dispatched([prefix + texts[row] for row in rows], patience))
            for row, entry in zip(rows, embedded, strict=True):
                entries[row] = entry
        return [entry for entry in entries if entry is not None]

    async def _dispatched(self, texts: list[str], patience: float) -> list[NDArray[np.float32] | Exception]:
        batches = make_batches(
            texts,
            max_texts=self._settings.batch_texts,
            max_chars=self._settings.batch_chars,
            hosts=len(self._pool.own),
        )
        dispatch = Dispatch(
            self._pool, self._model, self._stats, self._clock, texts=texts, batches=batches, patience=patience
        )
        async with self._turn:  # also after an interrupted call, which may still be ending
            return await dispatch.run()

    async def _reports(self) -> list[HostReport]:
        return list(await asyncio.gather(*(self._report(endpoint) for endpoint in self._endpoints)))

    async def _report(self, endpoint: Endpoint) -> HostReport:
        failure: RagIndexError | None = None
        for attempt in range(FAILURES):
            if attempt:
                await self._clock.sleep(self._clock.spread(FIRST_PAUSE * 2**attempt))
            try:
                details: ModelDetails = await endpoint.details()
                vector = await plain_vector(endpoint, self._settings.model)
            except (EmbedderUnavailable, BadVectors) as exc:
                failure = exc
            except RagIndexError as exc:
                return HostReport(endpoint.url, error=exc)
            else:
                return HostReport(endpoint.url, details.digest, vector.size, details.context_length)
        return HostReport(endpoint.url, error=failure)

    async def _close_endpoints(self) -> None:
        for endpoint in self._endpoints:
            await endpoint.close()


def _unsendable(text: str) -> TextRefused | None:
    """Why a text cannot be sent at all."""
    if not text:
        return TextRefused("the text is empty; an Ollama server would make a vector of nothing")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        return TextRefused(f"the text is no valid Unicode and cannot be sent: {exc}")
    return None
