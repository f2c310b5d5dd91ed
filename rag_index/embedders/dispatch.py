"""One call to embed: its batches go to the hosts of a pool, and what comes back is judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.documents.vectors import broken_reason
from rag_index.embedders.batches import FAULT_TRIES, Batch
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    HostUnreachable,
    RateLimited,
    TextRefused,
    TextTooLong,
)
from rag_index.hosts.calls import HostCalls
from rag_index.hosts.stats import RequestStats

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.model import KnownModel
    from rag_index.hosts.pool import Clock, Host, Pool

__all__ = ["Dispatch", "OllamaStats"]


@dataclass(slots=True)
class OllamaStats(RequestStats):
    """The counts, and how many texts each host embedded. Busy seconds have at least one request under way."""

    texts_by_host: dict[str, int] = field(default_factory=dict)


class Dispatch(HostCalls):
    """Embeds `texts` once: `await Dispatch(…).run()` gives an entry for each.

    Whose fault a failure is, is decided so. A host that refuses connections, asks for a pause or answers nonsense is
    the pool's business, and the batch is sent again. A batch that ends in a fault of the server three times, or alone
    in a broken vector or a refusal twice, is suspected; only when a host has answered a plain text well after that,
    it is halved, and a text that is alone by then gets its error. So a server that is ill is waited for, and a text
    that makes it ill is found. Too long a text is believed at once.
    """

    def __init__(
        self,
        pool: Pool,
        model: KnownModel,
        stats: OllamaStats,
        clock: Clock,
        *,
        texts: Sequence[str],
        batches: deque[Batch],
        patience: float,
    ) -> None:
        super().__init__(pool, model, stats, clock, patience=patience)
        self._model, self._by_host = model, stats.texts_by_host
        self._texts, self._waiting = texts, batches
        self._entries: list[NDArray[np.float32] | Exception | None] = [None] * len(texts)
        self._chars = sum(batch.chars for batch in batches)

    async def run(self) -> list[NDArray[np.float32] | Exception]:
        """One entry a text. Raises EmbedderUnavailable or RateLimited where no host recovers within `patience`
        seconds, ModelMissing, ModelChanged, BadVectors or EmbedderError where a host answers, and cannot be used.
        """
        await self._done()
        return [entry for entry in self._entries if entry is not None]

    def _unsent(self) -> bool:
        return bool(self._waiting)

    # Batches: send, and judge what comes back

    def _send_some(self) -> None:
        while self._waiting:
            batch = self._waiting[0]
            now = self._clock.now()
            host = self._pool.pick(now, chars=batch.chars, waiting=self._chars, alone=batch.tries > 0)
            if host is None:
                return
            self._waiting.popleft()
            self._chars -= batch.chars
            if batch.suspect and (host.admitted_at or 0.0) >= batch.failed_at:
                self._convict(batch, host)
                continue
            self._begun(host, now, alone=batch.tries > 0)
            self._start(self._send(batch, host, now))

    async def _send(self, batch: Batch, host: Host, started: float) -> None:
        self._stats.requests += 1
        self._stats.retries += batch.sends > 0
        batch.sends += 1
        try:
            vectors = await host.endpoint.embed([self._texts[row] for row in batch.rows])
        except RateLimited as exc:
            self._stats.rate_limited += 1
            host.limited(exc, exc.retry_after, started, self._clock)
            self._wait_again(batch)
        except EmbedderUnavailable as exc:
            host.failed(exc, started, self._clock)
            if not isinstance(exc, HostUnreachable):
                batch.failed(exc, self._clock.now())
            self._wait_again(batch)
        except (TextTooLong, TextRefused, BadVectors) as exc:
            self._narrow(batch, host, exc)
        else:
            self._accept(batch, host, vectors, self._clock.now() - started)
        finally:
            self._ended(host)

    def _wait_again(self, *batches: Batch) -> None:
        for batch in reversed(batches):
            self._waiting.appendleft(batch)
            self._chars += batch.chars

    def _narrow(self, batch: Batch, host: Host, error: Exception) -> None:
        """Something is wrong with a text of a batch, says the host: look for it in the halves."""
        if len(batch.rows) > 1:
            self._wait_again(*batch.halves())
        elif isinstance(error, TextTooLong):
            self._entries[batch.rows[0]] = error
        else:
            batch.failed(error, self._clock.now())
            host.doubted()
            self._wait_again(batch)

    def _accept(self, batch: Batch, host: Host, vectors: list[NDArray[np.float32]], seconds: float) -> None:
        """Keep the vectors that can be right; texts of the others are tried again, each alone."""
        broken = []
        for row, vector in zip(batch.rows, vectors, strict=True):
            why = broken_reason(vector, self._model.dimension)
            if why is None:
                self._entries[row] = vector
                continue
            error = BadVectors(f"{host.url} answers a vector of {why} for the text {self._texts[row][:60]!r}")
            again = Batch([row], len(self._texts[row]), batch.sends, batch.tries if len(batch.rows) == 1 else 0)
            again.failed(error, self._clock.now())
            broken.append(again)
        if broken:
            host.doubted()
            self._wait_again(*broken)
        else:
            host.succeeded(batch.chars, seconds)
        self._by_host[host.url] = self._by_host.get(host.url, 0) + len(batch.rows) - len(broken)
        if len(broken) < len(batch.rows):
            self._recovery.over(host, self._clock.now())

    def _convict(self, batch: Batch, host: Host) -> None:
        """The host is well: the reason lies in the batch. Halve it, or give its one text its error."""
        if len(batch.rows) > 1:
            self._wait_again(*batch.halves(tries=FAULT_TRIES - 1))
            return
        error = batch.error
        if isinstance(error, EmbedderUnavailable):
            error = TextRefused(f"{error} (whenever this text is sent; {host.url} embeds others)")
        self._entries[batch.rows[0]] = error
