"""Work that is shared out to the hosts of a pool: which are well, who is asked again, how long is waited for them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

from rag_index.errors import BadVectors, EmbedderUnavailable, RateLimited, WrongDimension
from rag_index.hosts.recovery import Recovery

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rag_index.hosts.endpoint import Endpoint
    from rag_index.hosts.pool import Clock, Host, Pool
    from rag_index.hosts.stats import RequestStats

__all__ = ["HostCalls", "HostModel"]

CHECK_SECONDS = 15.0
"""How old the comparison of a host's model may be when a call begins."""
LONGEST_SLEEP = 1.0


class HostModel(Protocol):
    """The model that all hosts must agree on."""

    async def compare(self, endpoint: Endpoint) -> None:
        """Raises ModelChanged where a host has another model, and what `Endpoint.details` raises."""

    async def try_out(self, endpoint: Endpoint) -> None:
        """Compare, and see that the host does its work. Raises as `compare`, and what the work raises."""


class HostCalls(ABC):
    """One call, made of requests that go to the hosts of a pool: `_unsent` and `_send` are what they are.

    A host that refuses connections, asks for a pause or answers nonsense is the pool's business; whose fault another
    failure is, is decided by the kind of call.
    """

    def __init__(self, pool: Pool, model: HostModel, stats: RequestStats, clock: Clock, *, patience: float) -> None:
        self._pool, self._stats, self._clock = pool, stats, clock
        self._recovery = Recovery(pool, patience)
        self._known_model = model
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent = self._comparing = 0
        self._busy_since = 0.0

    @abstractmethod
    def _unsent(self) -> bool:
        """Whether requests wait to be sent."""

    @abstractmethod
    def _send_some(self) -> None:
        """Start (`_start`) the requests that some host has room for now."""

    async def _done(self) -> None:
        """Until all is sent and answered.

        Raises EmbedderUnavailable or RateLimited where no host recovers in time, and what a host's model raises where
        it answers, and cannot be used.
        """
        try:
            self._recheck()
            while self._unfinished():
                self._ask_hosts()
                self._send_some()
                if self._unfinished():
                    await self._something_happens()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _unfinished(self) -> bool:
        return bool(self._unsent() or self._sent or self._comparing)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def _begun(self, host: Host, now: float, *, alone: bool) -> None:
        """A request is on its way to a host."""
        host.busy_since = host.busy_since if host.in_flight else now
        host.in_flight += 1
        host.alone = alone
        self._busy_since = self._busy_since if self._sent else now
        self._sent += 1
        self._stats.in_flight += 1

    def _ended(self, host: Host) -> None:
        """It was answered, or failed."""
        host.in_flight -= 1
        host.alone = False
        if not host.in_flight:
            seconds = self._stats.host_seconds
            seconds[host.url] = seconds.get(host.url, 0.0) + self._clock.now() - host.busy_since
        self._sent -= 1
        self._stats.in_flight -= 1
        if not self._sent:
            self._stats.busy_seconds += self._clock.now() - self._busy_since

    async def _something_happens(self) -> None:
        """Until an answer is there, a host may be asked again, or it is time to say something or to give up."""
        now = self._clock.now()
        wake = [self._pool.wake_at(now), None if self._sent else self._recovery.look(now)]
        seconds = min([LONGEST_SLEEP, *(at - now for at in wake if at is not None)])
        timer = asyncio.ensure_future(self._clock.sleep(max(0.0, seconds)))
        try:
            done, _ = await asyncio.wait({*self._tasks, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        for task in done - {timer}:
            self._tasks.discard(task)
            task.result()

    # Is a host well, and is its model the one?

    def _recheck(self) -> None:
        """Compare models again where that is long ago, while requests are under way."""
        now = self._clock.now()
        for host in self._pool.in_use(now):
            if host.admitted_at is not None and now - host.checked_at > CHECK_SECONDS:
                self._comparing += 1
                self._start(self._compare(host))

    async def _compare(self, host: Host) -> None:
        try:
            await self._known_model.compare(host.endpoint)
        except EmbedderUnavailable:
            host.doubted()
        finally:
            self._comparing -= 1
        host.checked_at = self._clock.now()

    def _ask_hosts(self) -> None:
        for host in self._pool.to_ask(self._clock.now()):
            host.asking = True
            self._start(self._ask(host))

    async def _ask(self, host: Host) -> None:
        """Try the host's model out; it is admitted, or has failed once more."""
        started = self._clock.now()
        try:
            await self._known_model.try_out(host.endpoint)
        except RateLimited as exc:
            self._stats.rate_limited += 1
            host.limited(exc, exc.retry_after, started, self._clock)
        except (EmbedderUnavailable, BadVectors) as exc:
            host.failed(exc, started, self._clock)
            if isinstance(exc, WrongDimension) and host.down:
                raise
        else:
            now = self._clock.now()
            host.admitted(now)
            self._recovery.over(host, now)
        finally:
            host.asking = False
