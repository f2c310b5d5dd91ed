"""Requests to the hosts of a pool, and what is done about failed ones: retries, waits for hosts, trials of texts."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rag_index import errors
from rag_index.components.hosts.endpoint import Endpoint, KnownModel, noticing_work
from rag_index.components.hosts.host_pool import Clock, Host, Pool, RequestStats
from rag_index.core.recovery import Call, add_downtime, asking

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable


log = logging.getLogger("rag_index.embedders")
MAX_SLEEP = 1.0
"""The seconds after which a call looks at its hosts at the latest."""
SUSPECT_TRIES = 2
"""Failures of a request after which all others go first, and it is tried on one host only."""
TRIAL_FAILURES = 3
"""Failures in a row on one host that prove a text at fault, if the host answers a plain request after each."""
ALONE_LIMIT = 10
"""Failures of a text after which it is at fault even if no host answered a plain request after each. Otherwise, a text
that kills the whole server would be sent for ever."""


@dataclass(slots=True, kw_only=True)
class Request:
    """What is sent in one request, and its failures so far."""

    tries: int = 0
    """Failures that a text may have caused."""
    error: Exception | None = None
    failed_at: float = -math.inf
    """When a text may have made it fail; it is forgotten once it is known what that proves."""
    host: Host | None = None
    """The host where it failed last: it goes to any other one once, and then to this one alone."""
    proofs: int = 0
    """Failures in a row on that host after each of which it answered a plain request. If it fails there, too, the host
    is at fault."""


@dataclass(slots=True)
class AskedHosts:
    """The hosts that calls share, the model that these must have, what failed there, and the counts of requests since
    the beginning."""

    pool: Pool
    model: KnownModel
    stats: RequestStats = field(default_factory=RequestStats)
    clock: Clock = field(default_factory=Clock)
    failed: dict[bytes, Request] = field(default_factory=dict)
    """The last request that failed with a text, by the text's name: a call that is made again goes on from there."""


Req = TypeVar("Req", bound=Request)


class HostCalls(ABC, Generic[Req]):
    """A call that consists of requests to the hosts of a pool. Subclasses implement the requests. The pool handles
    hosts that refuse connections, ask for a pause or return nonsense. What has failed twice is sent alone, once all
    else is sent, and the plain requests after its failures show whether the host or the text is at fault."""

    def __init__(
        self, asked: AskedHosts, *, requests: Iterable[Req] = (), patience: float, one_by_one: bool = False
    ) -> None:
        """With `one_by_one`, each request has failed on another day: it is sent alone, between two plain texts, and is
        at fault after one failure."""
        self._pool, self._model, self._stats, self._clock = asked.pool, asked.model, asked.stats, asked.clock
        self._failed, self._patience = asked.failed, patience
        self._one_by_one, self._most_tries = one_by_one, 1 if one_by_one else ALONE_LIMIT
        self._waiting: deque[Req] = deque(sorted(requests, key=lambda request: request.tries))
        self._suspects: list[Req] = []
        """Requests that failed twice: all others go first."""
        self._tasks: set[asyncio.Task[object]] = set()
        self._timer: asyncio.Future[None] | None = None
        self._in_flight = 0
        self._busy_since = self._began = 0.0
        self._call: Call | None = None

    @abstractmethod
    async def _ask(self, request: Req, host: Host) -> Any:
        """Send a request to a host and return the answer. Raises the errors of `Endpoint`."""

    @abstractmethod
    def _accept(self, request: Req, host: Host, answer: Any, started: float) -> None:
        """Use what a host has answered to a request that was sent at `started`."""

    @abstractmethod
    def _refused(self, request: Req, host: Host, error: Exception) -> None:
        """Deal with a request that a host refuses because of its texts."""

    @abstractmethod
    def _blame(self, request: Req, host: Host) -> None:
        """Deal with a request that is at fault, since the host is well."""

    def _names(self, request: Req) -> Iterable[bytes]:
        """Return what tells the texts of a request from others, in the calls of this process."""
        return ()

    def _is_suspect(self, request: Req) -> bool:
        """Return whether a request failed so often that it is at fault, since a host answers a plain request now."""
        return request.proofs >= TRIAL_FAILURES or request.tries >= self._most_tries

    def _unusable(self, host: Host, error: errors.RagIndexError, started: float) -> None:
        """Deal with a host that answers and cannot be used, such as one with another model: end the call."""
        raise error

    async def run_to_end(self) -> None:
        """Run until all requests are sent and answered, and say meanwhile whom the process waits for. Raises
        EmbedderUnavailable or RateLimited if no host recovers in time, and the errors of the model if a host answers
        but cannot be used."""
        self._began = self._clock.now()
        self._pool.ask_again(self._began)
        with asking(self._pool.name, patience=self._pool.usual_silence) as self._call:
            async with noticing_work(self._call, self._asked):
                await self._work()

    def _asked(self) -> list[Endpoint]:
        return [host.endpoint for host in self._pool.hosts if host.in_flight or host.being_probed]

    def wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def _work(self) -> None:
        self._pool.wakers.append(self.wake)
        try:
            while self._is_unfinished():
                now = self._clock.now()
                self._check_hosts(now)
                self._send_what_fits(now)
                self._send_suspects(now)
                if self._is_unfinished():
                    await self._wait_for_event(now)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks.clear()
            self._pool.wakers.remove(self.wake)

    def _is_unfinished(self) -> bool:
        return bool(self._waiting or self._suspects or self._in_flight)

    def _others_wait(self) -> bool:
        """Return whether there are requests that have not failed twice."""
        return bool(self._waiting)

    async def _wait_for_event(self, now: float) -> None:
        """Wait until a task ends, a host may be probed again, or it is time to give up."""
        moments = [now + MAX_SLEEP, *(host.not_before for host in self._pool.hosts if host.not_before > now)]
        if not self._in_flight and (given_up := self._end_of_patience(now)) is not None:
            moments.append(given_up)
        self._timer = asyncio.ensure_future(self._clock.sleep(max(0.0, min(moments) - now)))
        try:
            done, _ = await asyncio.wait({*self._tasks, self._timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._timer.cancel()
        for task in done & self._tasks:
            self._tasks.discard(task)
            task.result()

    # Requests

    def _send_what_fits(self, now: float) -> None:
        while self._waiting:
            request = self._waiting[0]
            host = self._pool.pick(now, alone=self._goes_alone(request), avoid=request.host)
            if host is None:
                return
            self._waiting.popleft()
            self._send_to(request, host, now)

    def _send_suspects(self, now: float) -> None:
        """Send what failed twice, alone, if nothing else is to be sent."""
        for request in () if self._others_wait() else list(self._suspects):
            host = self._host_for(request, now)
            if host is None or request not in self._suspects:  # or it was given up with the one before
                continue
            self._suspects.remove(request)
            self._send_to(request, host, now)

    def _host_for(self, request: Req, now: float) -> Host | None:
        """Return the host for what failed twice: the last one, unless that rests or failed at a plain request, too."""
        last = request.host
        if last is None or last.plain_failed_at > request.failed_at or last not in self._pool.in_use(now):
            return self._pool.pick(now, alone=True, avoid=last)
        return last if last.free_slots(now) and not last.in_flight else None

    def _send_to(self, request: Req, host: Host, now: float) -> None:
        """Send a request to a host that is well, unless its failures prove it at fault."""
        is_proof = host is request.host and host.plain_failed_at <= request.failed_at
        request.proofs = request.proofs + 1 if is_proof else 0
        request.failed_at = -math.inf
        if self._is_suspect(request):
            self._blame(request, host)
            return
        host.busy_since = host.busy_since if host.in_flight else now
        self._busy_since = self._busy_since if self._in_flight else now
        host.alone = self._goes_alone(request)
        host.in_flight += 1
        self._in_flight += 1
        self._stats.requests += 1
        self._start_task(self._send(request, host, now))

    def _goes_alone(self, request: Req) -> bool:
        """Return whether nothing else may be under way at the host of a request."""
        return self._one_by_one or request.tries > 0

    def _require_plain_text(self) -> None:
        """Let each host embed a plain text before it gets more."""
        for host in self._pool.hosts:
            host.revoke_admission()

    async def _send(self, request: Req, host: Host, started: float) -> None:
        try:
            answer = await self._ask(request, host)
        except errors.RateLimited as exc:
            self._host_failed(host, exc, started)
            self._repeat(request)
        except errors.EmbedderUnavailable as exc:
            self._host_failed(host, exc, started)
            if isinstance(exc, errors.RequestTimedOut):
                self._timed_out(request, host, started)
            if isinstance(exc, errors.HostUnreachable):
                self._repeat(request)
            else:
                self._record_failure(request, host, exc)
        except (errors.TextTooLong, errors.TextRefused, errors.BadVectors) as exc:
            self._refused(request, host, exc)
        except errors.RagIndexError as exc:
            self._unusable(host, exc, started)
            self._repeat(request)
        else:
            self._accept(request, host, answer, started)
        finally:
            now = self._clock.now()
            host.in_flight -= 1
            host.alone = False
            self._in_flight -= 1
            if not host.in_flight:
                self._stats.asked_seconds += now - host.busy_since
            if not self._in_flight:
                self._stats.busy_seconds += now - self._busy_since
            self._pool.wake()

    def _timed_out(self, request: Req, host: Host, started: float) -> None:
        """Give a host less at a time, because a request sent at `started` timed out."""
        host.record_timeout(started, self._clock.now())

    def _repeat(self, request: Req) -> None:
        self._stats.retries += 1
        self._waiting.appendleft(request)

    def _start_task(self, work: Coroutine[None, None, object]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def _record_failure(self, request: Req, host: Host, error: Exception) -> None:
        """Count a failure that either the host or a text caused, and have the request sent again."""
        request.tries += 1
        request.host, request.error, request.failed_at = host, error, self._clock.now()
        if self._one_by_one:
            self._require_plain_text()
        self._stats.retries += 1
        if self._patience:
            self._failed.update(dict.fromkeys(self._names(request), request))
        if request.tries < SUSPECT_TRIES:
            self._waiting.appendleft(request)
            return
        self._suspects.append(request)
        if request.tries == SUSPECT_TRIES:
            log.warning("a request failed twice, so all others go first: %s", error)

    def _forget(self, request: Req) -> None:
        """Forget the failures of a request that has its answer."""
        for name in self._names(request) if self._failed else ():
            self._failed.pop(name, None)

    # Hosts: are they well, and do they have the right model?

    def _check_hosts(self, now: float) -> None:
        """Try out the hosts that failed, and compare the models of those whose last comparison is too old."""
        wanted = [(host, True) for host in self._pool.to_probe(now)]
        for host in self._pool.in_use(now):
            if host.free_slots(now) > 0 and now - host.checked_at > host.endpoint.compare_seconds:
                wanted.append((host, False))
        for host, plain in wanted:
            host.being_probed = True
            self._start_task(self._probe(host, now, plain=plain))

    async def _probe(self, host: Host, started: float, *, plain: bool) -> bool:
        """Compare a host's model, with `plain` also let it embed a plain text, and return whether it is well. One that
        was silent is asked first whether it answers at all, which costs little."""
        try:
            if isinstance(host.error, errors.RequestTimedOut) and not await host.endpoint.is_alive():
                raise errors.RequestTimedOut(f"{host.url} is silent, also when it is asked for nothing but an answer")
            await (self._model.try_out if plain else self._model.compare)(host.endpoint)
        except (errors.EmbedderUnavailable, errors.BadVectors) as exc:
            self._host_failed(host, exc, started)
            if not isinstance(exc, errors.RateLimited):
                host.plain_failed_at = self._clock.now()
        except errors.RagIndexError as exc:
            self._unusable(host, exc, started)
        else:
            host.checked_at = self._clock.now()
            if plain:
                host.admit(host.checked_at)
                self._host_answered(host, started)
            return True
        finally:
            host.being_probed = False
            self._pool.wake()
        return False

    def _host_failed(self, host: Host, error: Exception, started: float) -> None:
        asks_pause = isinstance(error, errors.RateLimited)
        if isinstance(error, errors.RateLimited):
            self._stats.rate_limited += 1
            host.record_rate_limit(error, started, self._clock)
        else:
            host.record_failure(error, started, self._clock)
            others = [one for one in self._pool.hosts if one is not host]
            others_work = any(one.in_flight or one.answers(self._clock.now()) for one in others)
            if self._pool.failing_since is None and not others_work:
                self._pool.failing_since = started
        if self._call is not None:
            answered = asks_pause or isinstance(error, errors.BadVectors)
            self._call.failed(error, answered=answered, asks_pause=asks_pause)

    def _host_answered(self, host: Host, started: float) -> None:
        """Record that a host has answered well a request that was sent at `started`, which ends the wait for it."""
        now = self._clock.now()
        self._pool.learn_silence(now - started)
        if self._call is not None:
            self._call.answered(self._pool.usual_silence)
        if self._pool.all_resting_since is not None:
            log.warning("%s accepts texts again after %.0f s", host.url, now - self._pool.all_resting_since)
            self._pool.all_resting_since = None
        if self._pool.failing_since is not None:
            add_downtime(now - max(self._pool.failing_since, self._began))
            self._pool.failing_since = None

    def _end_of_patience(self, now: float) -> float | None:
        """Return when the wait for hosts that all rest ends; None while some host accepts texts, or is being probed.
        The pool remembers since when they rest, so that calls one after the other share one wait. Raises
        EmbedderUnavailable if it is over, or if no host will be back before that. If every host has the same reason,
        raises RateLimited or BadVectors instead."""
        pool = self._pool
        reasons = "; ".join(str(host.error or f"{host.url} is paused") for host in pool.hosts)
        if pool.all_resting_since is None:
            if not all(host.resting(now) for host in pool.hosts):
                return None
            pool.all_resting_since = now
            if self._patience:
                log.warning("no host accepts texts: %s", reasons)
        if any(host.being_probed for host in pool.hosts):
            return None
        until = pool.all_resting_since + self._patience
        if now < until and any(host.not_before <= until or host.down for host in pool.hosts):
            return until
        message = f"no host could be used: {reasons}"
        if all(isinstance(host.error, errors.BadVectors) for host in pool.hosts):
            raise errors.BadVectors(message)
        if all(isinstance(host.error, errors.RateLimited) for host in pool.hosts):
            raise errors.RateLimited(message, max(0.0, min(host.not_before for host in pool.hosts) - now))
        raise errors.EmbedderUnavailable(message)
