"""Queries that are embedded together: those that wait when a host becomes free go there in one request."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rag_index.documents.vectors import broken_reason
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    HostUnreachable,
    RagIndexError,
    RateLimited,
    TextRefused,
    TextTooLong,
)
from rag_index.hosts.calls import Recovery

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.endpoint import Endpoint, KnownModel
    from rag_index.hosts.pool import Clock, Host, Pool

LATE_FACTOR = 4.0
"""Multiple of the expected time after which a request is late: other queries do not wait for its host."""

MIN_OVERDUE = 1.0
"""Seconds after which a late request is overdue: its queries are sent to another host as well."""

MIN_SHARE = 16
"""The smallest share of queries: with fewer, none are kept back for a host that is busy."""

FAULT_TRIES = 3
"""Failures of a query that was sent alone, after which it is at fault: its host answered a plain text in between."""

SAME_MOMENT = 0.001
"""Seconds that a query waits for others. Callers who ask at once are not served one at a time by the first hosts."""
CLOSING_POLL = 0.05
log = logging.getLogger("rag_index.embedders")


@dataclass(slots=True, eq=False)
class Query:
    """A text without its prefix, and the future of its vector. Whoever cancels the future wants it no longer."""

    text: str
    future: Future[NDArray[np.float32]] = field(default_factory=Future)
    failures: int = 0
    """Failures when it was sent alone."""
    failed_on: Host | None = None
    """The host where it failed last. It is sent alone then, to another host if there is one."""

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
class _Request:
    """A request that a host has not answered yet."""

    queries: list[Query]
    host: Host
    started: float
    late_at: float
    overdue_at: float
    repeated: bool = False
    """Whether its queries were sent to another host as well."""

    @property
    def wanted(self) -> list[Query]:
        """The queries that somebody still waits for."""
        return [query for query in self.queries if query.wanted]


class QueryStream:
    """The queries that wait, and the hosts that embed them. All methods must be called on one event loop.

    Each host gets one request at a time: its share of the queries that wait when it is free. Besides:

    - A host gets queries only once its model was compared, not long ago, and has embedded a plain text since its last
      failure. The others do the work meanwhile.
    - The queries of a request that failed because of one of them are sent again, each alone.
    - The queries of a request that is overdue are sent to another host as well. The first answer counts.
    - A query that nobody waits for any more is not sent, and not sent again.
    - If no host can be used, every query says why, and the next one tries all of them afresh: the pauses between tries
      suit runs, which can wait. Only a pause that the hosts asked for is kept.
    """

    def __init__(
        self,
        new_pool: Callable[[], Pool],
        model: KnownModel,
        clock: Clock,
        *,
        prefix: str,
        max_texts: int,
        max_chars: int,
    ) -> None:
        self._new_pool, self._model, self._clock = new_pool, model, clock
        self._prefix, self._max_texts, self._max_chars = prefix, max_texts, max_chars
        self._pool = new_pool()
        self._waiting: deque[Query] = deque()
        self._under_way: list[_Request] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, queries: Sequence[Query]) -> None:
        """Start embedding these queries, with those that come at the same moment, as soon as a host is free."""
        self._waiting.extend(queries)
        asyncio.get_running_loop().call_later(SAME_MOMENT, self._go_on)

    async def close(self) -> None:
        """Wait until nobody waits for a query any more, and end the requests under way."""
        while any(query.wanted for query in self._waiting) or any(request.wanted for request in self._under_way):
            await asyncio.sleep(CLOSING_POLL)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer:
            self._timer.cancel()

    def _go_on(self) -> None:
        """Check hosts, send what can be sent, and come back when there may be something to do."""
        now = self._clock.now()
        self._waiting = deque(dict.fromkeys(query for query in self._waiting if query.wanted))
        self._repeat_overdue(now)
        if self._waiting:
            self._check_hosts(now)
            while self._waiting and self._send_share(now):
                pass
        if self._waiting and not self._tasks and self._pool.all_resting(now):
            self._give_up(now)
        self._set_timer(now)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._go_on()

    def _set_timer(self, now: float) -> None:
        if self._timer:
            self._timer.cancel()
        moments = [at for one in self._under_way for at in (one.late_at, one.overdue_at) if at > now]
        rested = self._pool.wake_at(now) if self._waiting else None
        if rested is not None:
            moments.append(rested)
        self._timer = None
        if moments:
            self._timer = asyncio.get_running_loop().call_later(min(moments) - now, self._go_on)

    # Requests

    def _send_share(self, now: float) -> bool:
        """Send the next request, and return whether there is a host for it.

        Free hosts get equal shares. Many queries are not all for the one host that is free now: others will be soon.
        """
        used = self._pool.in_use(now)
        free = sum(host.free_slots(now) > 0 for host in used)
        if not free:
            return False
        count, first = len(self._waiting), self._waiting[0]
        share = min(self._max_texts, -(-count // free), max(MIN_SHARE, -(-count // len(used))))
        queries, room = [first], self._max_chars - self._chars([first])
        for query in list(takewhile(lambda one: one.failed_on is None, self._waiting))[1:share]:
            room -= self._chars([query])
            if room < 0:
                break
            queries.append(query)
        silent = [one.host for one in self._under_way if one.late_at <= now]
        waiting = self._chars(self._waiting)
        host = self._pool.pick(
            now,
            chars=self._chars(queries),
            waiting=waiting,
            alone=first.failed_on is not None,
            avoid=first.failed_on,
            silent=silent,
        )
        if host is not None:
            for _ in queries:
                self._waiting.popleft()
            self._send(queries, host, now)
        return host is not None

    def _chars(self, queries: Sequence[Query] | deque[Query]) -> int:
        return sum(len(self._prefix) + len(query.text) for query in queries)

    def _send(self, queries: list[Query], host: Host, now: float) -> None:
        late = LATE_FACTOR * (host.pace.seconds(self._chars(queries)) or 0.0)
        request = _Request(queries, host, now, now + late, now + max(MIN_OVERDUE, late))
        self._under_way.append(request)
        host.in_flight += 1
        self._start(self._embed(request))

    def _repeat_overdue(self, now: float) -> None:
        """Send the queries of overdue requests to a second host, if one is free."""
        for request in self._under_way.copy():
            queries = request.wanted
            if request.repeated or request.overdue_at > now or not queries:
                continue
            chars, slow = self._chars(queries), request.host
            host = self._pool.pick(now, chars=chars, waiting=chars, avoid=slow, silent=[slow])
            if host is not None and host is not slow:
                request.repeated = True
                self._send(queries, host, now)

    async def _embed(self, request: _Request) -> None:
        host, queries = request.host, request.queries
        try:
            vectors = await host.endpoint.embed([self._prefix + query.text for query in queries])
        except (TextTooLong, TextRefused, BadVectors) as exc:
            if not isinstance(exc, TextTooLong):
                host.revoke_admission()
            self._record_failure(request, queries, exc)
        except RagIndexError as exc:
            self._host_failed(host, exc, request.started)
            if isinstance(exc, EmbedderUnavailable) and not isinstance(exc, HostUnreachable | RateLimited):
                self._record_failure(request, queries, exc)
            else:
                self._waiting.extendleft(reversed(queries))
        except Exception as exc:  # noqa: BLE001 - whoever waits has it
            for query in queries:
                query.settle(exc)
        else:
            self._accept(request, vectors)
        finally:
            self._under_way.remove(request)
            host.in_flight -= 1

    def _accept(self, request: _Request, vectors: Sequence[NDArray[np.float32]]) -> None:
        """Give the queries those vectors that can be right, and send the others again."""
        host, sound = request.host, True
        for query, vector in zip(request.queries, vectors, strict=True):
            why = broken_reason(vector, self._model.dimension)
            if why is None:
                query.settle(vector)
                continue
            sound = False
            error = BadVectors(f"{host.url} returned a vector of {why} for the text {query.text[:60]!r}")
            self._record_failure(request, [query], error)
        if sound:
            host.record_success(self._chars(request.queries), self._clock.now() - request.started)
        else:
            host.revoke_admission()

    def _record_failure(self, request: _Request, queries: Sequence[Query], error: Exception) -> None:
        """Have queries that failed sent again, each alone. One that is at fault gets its error."""
        for query in queries:
            query.failed_on = request.host
            query.failures += len(request.queries) == 1
            if query.failures < (1 if isinstance(error, TextTooLong) else FAULT_TRIES):
                self._waiting.append(query)
            elif isinstance(error, EmbedderUnavailable):
                query.settle(TextRefused(f"{error} (each time this text is sent; {request.host.url} embeds others)"))
            else:
                query.settle(error)

    # Hosts: only those with the right model get queries

    def _check_hosts(self, now: float) -> None:
        """Try out the hosts that failed, and compare the models of those whose last comparison is too old."""
        for host in self._pool.to_probe(now):
            host.being_probed = True
            self._start(self._check(host, self._model.try_out))
        for host in self._pool.in_use(now):
            if host.free_slots(now) > 0 and now - host.checked_at > host.endpoint.compare_seconds:
                host.being_probed = True
                self._start(self._check(host, self._model.compare))

    async def _check(self, host: Host, check: Callable[[Endpoint], Awaitable[None]]) -> None:
        started = self._clock.now()
        try:
            async with self._model.in_time(host.endpoint):
                await check(host.endpoint)
        except RagIndexError as exc:
            self._host_failed(host, exc, started)
        else:
            host.admit(self._clock.now())
        finally:
            host.being_probed = False

    def _host_failed(self, host: Host, error: Exception, started: float) -> None:
        if isinstance(error, RateLimited):
            host.record_rate_limit(error, error.retry_after, started, self._clock)
        elif isinstance(error, EmbedderUnavailable | BadVectors):
            host.record_failure(error, started, self._clock)
        else:
            if not host.down:
                log.warning("queries are embedded without %s: %s", host.url, error)
            host.put_aside(error, self._clock)

    def _give_up(self, now: float) -> None:
        """Tell every query why no host can be used."""
        answered = [host.error for host in self._pool.hosts if not isinstance(host.error, EmbedderUnavailable | None)]
        reason: Exception
        try:
            Recovery(self._pool, 0.0).next_check(now)
        except RagIndexError as exc:
            reason = answered[0] if answered and answered[0] else exc
            for query in self._waiting:
                query.settle(reason)
            self._waiting.clear()
            if not isinstance(reason, RateLimited):
                self._pool = self._new_pool()
