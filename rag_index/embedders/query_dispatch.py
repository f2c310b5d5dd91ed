"""Queries that are embedded together: those that wait when a host becomes free go there in one request."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rag_index.embedders.dispatch import Batch, Dispatch, OllamaStats
from rag_index.errors import EmbedderUnavailable, RagIndexError, RateLimited
from rag_index.hosts.calls import CHECK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.ollama_client import KnownModel
    from rag_index.hosts.pool import Clock, Host, Pool

LATE_FACTOR = 4.0
"""Multiple of the expected time after which a request is late: other queries do not wait for its host."""

MIN_OVERDUE = 1.0
"""Seconds after which a late request is overdue: its queries are sent to another host as well."""

MIN_SHARE = 16
"""The smallest share of queries: with fewer, none are kept back for a host that is busy."""

log = logging.getLogger("rag_index.embedders")
CLOSING_POLL = 0.05


class _Texts(dict[int, str]):
    """The texts of the queries that have no vector yet. A query that has one may still be under way at another host."""

    def __missing__(self, row: int) -> str:
        return ""


@dataclass(slots=True, eq=False)
class _UnderWay:
    """A request that a host has not answered yet."""

    batch: Batch
    host: Host
    late_at: float
    overdue_at: float
    repeated: bool = False
    """Whether its queries were sent to another host as well."""


class QueryDispatch(Dispatch):
    """A call that embeds the queries of a queue, to which others are added meanwhile. It ends when none is left.

    Each host gets one request at a time. The rules of `Dispatch` decide whether a host or a query is at fault. Besides:

    - A host that has another model, lacks it or cannot embed at all gets no queries, and the others do the work.
    - A host's model is compared before the host gets a query, if the last comparison is too old.
    - The queries of a request that is overdue are sent to another host as well. The first answer counts.
    - A query that nobody waits for any more is not sent, and not sent again.
    """

    def __init__(
        self,
        pool: Pool,
        model: KnownModel,
        clock: Clock,
        queue: deque[Query],
        *,
        prefix: str,
        max_texts: int,
        max_chars: int,
        stats: OllamaStats | None = None,
    ) -> None:
        self._texts_by_row = _Texts()
        super().__init__(
            pool, model, stats or OllamaStats(), clock, texts=self._texts_by_row, batches=deque(), patience=0.0
        )
        self._queue, self._prefix = queue, prefix
        self._max_texts, self._max_chars = max_texts, max_chars
        self._queries: dict[int, Query] = {}
        self._rows = count()
        self._under_way: list[_UnderWay] = []
        self._arrival = asyncio.Event()
        self._is_listening = False

    async def embed_queue(self) -> None:
        """Embed queries until the queue is empty. Every query is settled then, also if no host can be used.

        Raises what no query is to blame for: the errors of `Dispatch.run`. ModelMissing, ModelChanged, BadVectors and
        EmbedderError are raised only if no host answers well.
        """
        self._pool.all_resting_since = None  # whether hosts rest is found out afresh: nobody waits for them
        try:
            await self._run_to_end()
        except asyncio.CancelledError:
            self._settle_all(EmbedderUnavailable("the embedder is closed"))
            raise
        except RateLimited as exc:
            self._settle_all(exc)
            raise
        except EmbedderUnavailable as exc:
            reason = self._unusable() or exc
            self._settle_all(reason)
            raise reason from exc
        except Exception as exc:
            self._settle_all(exc)
            raise
        finally:
            for host in self._pool.hosts:  # a task that was cancelled before its first step did not do this
                host.in_flight, host.alone, host.being_probed = 0, False, False

    def notice_queries(self) -> None:
        """Take note that queries were added to the queue."""
        self._arrival.set()

    def wanted(self) -> bool:
        """Return whether somebody waits for a query that was taken from the queue."""
        return any(query.wanted for query in self._queries.values())

    # Requests: gather queries and send them

    def _has_unsent(self) -> bool:
        return bool(self._queue or self._waiting)

    def _send_what_fits(self) -> None:
        now = self._clock.now()
        if not self._is_listening:
            self._is_listening = True
            self._start_task(self._listen())
        self._compare_models(now)
        self._repeat_overdue(now)
        super()._send_what_fits()
        while batch := self._gather(now):
            host = self._pick(batch, now)
            if host is None:
                self._put_back(batch)
                return
            self._send_or_blame(batch, host, now)

    async def _listen(self) -> None:
        """Wait for queries; the end of this task wakes the call."""
        await self._arrival.wait()
        self._arrival.clear()
        self._is_listening = False

    def _gather(self, now: float) -> Batch | None:
        """Return the next request: a host's share of the queries that wait. None if no query waits or no host is free.

        Free hosts get equal shares. Many queries are not all for the one host that is free now: others will be soon.
        """
        for query in [query for query in self._queue if not query.wanted]:
            self._queue.remove(query)
        used = self._pool.in_use(now)
        free = sum(host.free_slots(now) > 0 for host in used)
        if not self._queue or not free:
            return None
        waiting = len(self._queue)
        share = min(self._max_texts, -(-waiting // free), max(MIN_SHARE, -(-waiting // len(used))))
        batch = Batch([], 0)
        while self._queue and len(batch.rows) < share:
            text = self._prefix + self._queue[0].text
            if batch.rows and batch.chars + len(text) > self._max_chars:
                break
            row = next(self._rows)
            self._queries[row], self._texts_by_row[row] = self._queue.popleft(), text
            batch.rows.append(row)
            batch.chars += len(text)
        return batch

    def _put_back(self, batch: Batch) -> None:
        for row in reversed(batch.rows):
            self._queue.appendleft(self._queries.pop(row))
            del self._texts_by_row[row]

    def _pick(self, batch: Batch, now: float) -> Host | None:
        silent = [sent.host for sent in self._under_way if sent.late_at <= now]
        waiting = self._chars + sum(len(query.text) for query in self._queue)
        return self._pool.pick(
            now, chars=batch.chars, waiting=waiting, alone=batch.tries > 0, avoid=batch.avoided, silent=silent
        )

    def _send(self, batch: Batch, host: Host, started: float) -> Coroutine[None, None, None]:
        late = LATE_FACTOR * (host.pace.seconds(batch.chars) or 0.0)
        sent = _UnderWay(batch, host, started + late, started + max(MIN_OVERDUE, late))
        self._under_way.append(sent)
        return self._send_watched(sent, started)

    async def _send_watched(self, sent: _UnderWay, started: float) -> None:
        try:
            await super()._send(sent.batch, sent.host, started)
        except RagIndexError as exc:
            self._put_aside(sent.host, exc)
            self._requeue(sent.batch)
        finally:
            self._under_way.remove(sent)

    def _repeat_overdue(self, now: float) -> None:
        """Send the queries of overdue requests to a second host, if one is free."""
        for sent in self._under_way.copy():
            again = Batch(sent.batch.rows, 0)
            if sent.repeated or sent.overdue_at > now or not self._keep_wanted(again):
                continue
            host = self._pool.pick(now, chars=again.chars, waiting=again.chars, avoid=sent.host, silent=[sent.host])
            if host is not None and host is not sent.host:
                sent.repeated = True
                self._send_or_blame(again, host, now)

    def _wake_times(self, now: float) -> list[float | None]:
        limits = [at for sent in self._under_way for at in (sent.late_at, sent.overdue_at) if at > now]
        return [*super()._wake_times(now), *limits]

    # Queries: each gets its vector or its error, once

    def _settle(self, row: int, entry: NDArray[np.float32] | Exception) -> None:
        query = self._queries.pop(row, None)
        self._texts_by_row.pop(row, None)
        if query is not None:
            query.settle(entry)

    def _settle_all(self, error: Exception) -> None:
        for query in [*self._queries.values(), *self._queue]:
            query.settle(error)
        self._queries.clear()
        self._queue.clear()

    def _keep_wanted(self, batch: Batch) -> bool:
        """Leave out the queries that have their vector, or that nobody waits for. Return whether others are left."""
        for row in batch.rows:
            if row in self._queries and not self._queries[row].wanted:
                del self._queries[row], self._texts_by_row[row]
        batch.rows = [row for row in batch.rows if row in self._queries]
        batch.chars = sum(len(self._texts_by_row[row]) for row in batch.rows)
        return bool(batch.rows)

    def _requeue(self, batch: Batch) -> None:
        if self._keep_wanted(batch):
            super()._requeue(batch)

    def _continue_trials(self) -> None:
        self._on_trial = [batch for batch in self._on_trial if self._keep_wanted(batch)]
        super()._continue_trials()

    # Hosts: only those with the right model get queries

    def _recheck_models(self) -> None:
        """Do nothing: `_compare_models` does it before a host gets a query."""

    def _compare_models(self, now: float) -> None:
        for host in self._pool.in_use(now):
            if host.free_slots(now) > 0 and now - host.checked_at > CHECK_SECONDS:
                host.being_probed = True
                self._start_task(self._compare(host))

    async def _compare(self, host: Host) -> None:
        try:
            await self._known_model.compare(host.endpoint)
        except EmbedderUnavailable:
            host.revoke_admission()
        except RagIndexError as exc:
            self._put_aside(host, exc)
        else:
            host.checked_at = self._clock.now()
        finally:
            host.being_probed = False

    async def _probe(self, host: Host) -> None:
        try:
            await super()._probe(host)
        except RagIndexError as exc:
            self._put_aside(host, exc)

    def _put_aside(self, host: Host, error: RagIndexError) -> None:
        if not host.down:
            log.warning("queries are embedded without %s: %s", host.url, error)
        host.put_aside(error, self._clock)

    def _unusable(self) -> Exception | None:
        """Return why a host that answers cannot be used; None if none answers."""
        errors = [host.error for host in self._pool.hosts]
        return next((error for error in errors if error and not isinstance(error, EmbedderUnavailable)), None)


@dataclass(slots=True, eq=False)
class Query:
    """A text without its prefix, and the future of its vector. Whoever cancels the future wants it no longer."""

    text: str
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


class QueryStream:
    """The queue of queries, and the call that embeds them. All methods must be called on one event loop.

    If no host can be used, the next query tries all of them afresh: the pauses between tries suit runs, which can wait.
    Only a pause that the hosts asked for is kept.
    """

    def __init__(self, new_pool: Callable[[], Pool], dispatch: Callable[[Pool, deque[Query]], QueryDispatch]) -> None:
        self._new_pool, self._dispatch = new_pool, dispatch
        self._pool = new_pool()
        self._queue: deque[Query] = deque()
        self._task: asyncio.Task[None] | None = None
        self._call: QueryDispatch | None = None

    def add(self, queries: Sequence[Query]) -> None:
        """Add queries, and start embedding if no call is under way."""
        self._queue.extend(queries)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._embed())
        elif self._call is not None:
            self._call.notice_queries()

    async def close(self) -> None:
        """Wait until nobody waits for a query any more, and end the call under way."""
        if self._task is None:
            return
        while not self._task.done() and self._is_wanted():
            await asyncio.wait([self._task], timeout=CLOSING_POLL)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _embed(self) -> None:
        while self._queue:
            self._call = self._dispatch(self._pool, self._queue)
            try:
                await self._call.embed_queue()
            except RateLimited:
                pass
            except Exception:  # noqa: BLE001 - every query has it
                self._pool = self._new_pool()

    def _is_wanted(self) -> bool:
        return any(query.wanted for query in self._queue) or (self._call is not None and self._call.wanted())
