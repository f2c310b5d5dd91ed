"""Queries that are embedded together: those that wait when a host becomes free go there in one request."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rag_index.embedders.dispatch import Batch, Dispatch, Text, sendable
from rag_index.errors import EmbedderUnavailable, RagIndexError, RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.endpoint import KnownModel
    from rag_index.hosts.host_pool import Clock, Host, Pool, RequestStats
    from rag_index.settings import EmbedderSettings

LATE_FACTOR = 4.0
"""Multiple of the expected time after which a request is overdue: its queries are sent to another host as well."""
MIN_OVERDUE = 1.0
"""Seconds after which a request is overdue at the earliest."""
SAME_MOMENT = 0.001
"""Seconds that a query waits for others. Callers who ask at once are not served one at a time by the first hosts."""
CLOSING_POLL = 0.05
log = logging.getLogger("rag_index.embedders")


@dataclass(slots=True, eq=False)
class Query(Text):
    """A text without its prefix, and the future of its vector. Whoever cancels the future wants it no longer."""

    future: Future[NDArray[np.float32]] = field(default_factory=Future)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for the vector."""
        return not self.future.done()

    def settle(self, entry: NDArray[np.float32] | Exception) -> None:
        """Give the query its vector or its error, unless it has one, or nobody waits. One thread may do this."""
        if self.future.done() or not self.future.set_running_or_notify_cancel():
            return
        if isinstance(entry, Exception):
            self.future.set_exception(entry)
        else:
            self.future.set_result(entry)


@runtime_checkable
class TakesQueries(Protocol):
    """The interface of an embedder that embeds queries on several servers at once.

    It compares the model of each server with the expected one before that server gets a query.
    """

    def take_queries(self, queries: Sequence[Query]) -> None:
        """Start embedding the queries, with the query prefix, and return at once. Any thread may call this.

        Each query gets its vector or its own error: TextTooLong, TextRefused or BadVectors if the text is the reason,
        and EmbedderUnavailable, RateLimited, ModelMissing, ModelChanged or EmbedderError if no server can be used.
        """


@dataclass(slots=True, eq=False)
class _UnderWay:
    """A request that a host has not answered yet."""

    queries: Sequence[Text]
    host: Host
    overdue_at: float


class QueryStream(Dispatch):
    """The queries that wait, and the hosts that embed them. All methods must be called on one event loop.

    It treats queries as `Dispatch` treats the texts of documents, except that they come one by one:

    - The queries of a request that is overdue are sent to another host as well. The first answer counts.
    - A query that nobody waits for any more is not sent, and not sent again.
    - A host with another model gets no queries, as long as another host is well.
    - If no host can be used, every query says why, and the next one tries all of them afresh: the pauses between tries
      suit runs, which can wait. Only a pause that the hosts asked for is kept.
    """

    fault_tries = 1
    max_sleep = 0.1

    def __init__(
        self,
        new_pool: Callable[[], Pool],
        model: KnownModel,
        stats: RequestStats,
        clock: Clock,
        *,
        settings: EmbedderSettings,
        prefix: str,
    ) -> None:
        super().__init__(new_pool(), model, stats, clock, settings=settings, prefix=prefix, patience=0.0)
        self._new_pool = new_pool
        self._chars = math.inf  # more will come, so that a slow host is better than none
        self._under_way: list[_UnderWay] = []
        self._serving: asyncio.Task[None] | None = None

    def add(self, queries: Sequence[Query]) -> None:
        """Start embedding these queries, with those that come at the same moment, as soon as a host is free."""
        self._texts.extend(sendable(queries))
        asyncio.get_running_loop().call_later(SAME_MOMENT, self._go_on)

    async def close(self) -> None:
        """Wait until nobody waits for a query any more, and end the requests under way."""
        while any(query.wanted for query in self._all_queries()):
            await asyncio.sleep(CLOSING_POLL)
        if self._serving is not None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

    def _all_queries(self) -> list[Text]:
        batches = [*self._waiting, *self._on_trial]
        sent = [query for one in self._under_way for query in one.queries]
        return [*self._texts, *sent, *(query for batch in batches for query in batch.texts)]

    def _go_on(self) -> None:
        if self._serving is None or self._serving.done():
            self._serving = asyncio.get_running_loop().create_task(self._serve())
        elif self._timer is not None:
            self._timer.cancel()

    async def _serve(self) -> None:
        while self._is_unfinished():
            try:
                await self._work()
            except Exception as exc:  # noqa: BLE001 - whoever waits has it, or what a host answered, which knows best
                answers = [one.error for one in self._pool.hosts if not isinstance(one.error, EmbedderUnavailable)]
                error = next(filter(None, answers), exc)
                for query in self._all_queries():
                    query.settle(error)
                for queue in (self._texts, self._waiting, self._on_trial):
                    queue.clear()
                if not isinstance(exc, RateLimited):
                    self._pool = self._new_pool()

    def _send_what_fits(self, now: float) -> None:
        for one in [one for one in self._under_way if one.overdue_at <= now]:
            queries = [query for query in one.queries if query.wanted]
            second = self._pool.pick(now, avoid=one.host) if queries else None
            if second is not None and second is not one.host:
                one.overdue_at = math.inf
                self._send_to(Batch(queries, chars=sum(map(self._length, queries))), second, now)
        self._texts = deque(query for query in self._texts if query.wanted)
        super()._send_what_fits(now)

    async def _send(self, batch: Batch, host: Host, started: float) -> None:
        expected = LATE_FACTOR * host.seconds(batch.chars)
        one = _UnderWay(batch.texts, host, started + max(MIN_OVERDUE, expected))
        self._under_way.append(one)
        try:
            await super()._send(batch, host, started)
        except Exception as exc:  # noqa: BLE001 - whoever waits has it
            for query in one.queries:
                query.settle(exc)
        finally:
            self._under_way.remove(one)

    def _unusable(self, host: Host, error: RagIndexError, started: float) -> None:
        if not host.down:
            log.warning("queries are embedded without %s: %s", host.url, error)
        host.record_failure(error, started, self._clock, at_once=True)
