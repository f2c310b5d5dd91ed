"""A call whose requests are distributed over the hosts of a pool: probes of hosts, waits for them, trials of texts."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    HostUnreachable,
    RateLimited,
    TextRefused,
    TextTooLong,
    WrongDimension,
)
from rag_index.hosts.pool import MAX_FAILURES
from rag_index.outages import asking

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from rag_index.hosts.endpoint import KnownModel
    from rag_index.hosts.pool import Clock, Host, Pool, RequestStats
    from rag_index.outages import Call

MIN_WAIT_SECONDS = 5.0
"""How long a call waits at least, even if earlier calls have used up the patience: enough to probe each host."""

LOG_SECONDS = 30.0
"""Time between two log lines while no host accepts texts."""

log = logging.getLogger("rag_index.embedders")
MAX_SLEEP = 1.0
ROAMING_TRIES = 2
"""Failures of a text before it is tried on one host only."""
TRIAL_FAILURES = 3
"""Failures in a row on one host that prove a text at fault, if the host answers a plain request after each."""
ALONE_LIMIT = 10
"""Failures of a text after which it is at fault even if no host answered a plain request after each. Otherwise, a text
that kills the whole server would be sent for ever."""


class Recovery:
    """The wait of one call while every host of its pool rests.

    The pool stores since when all hosts have been resting, so that successive calls share one wait instead of each
    starting its own. Only a host that answers well ends the wait (`host_answered`), not one whose rest is over.
    """

    def __init__(self, pool: Pool, patience: float) -> None:
        self._pool, self._patience = pool, patience
        self._began: float | None = None
        self._log_at = 0.0

    def next_check(self, now: float) -> float | None:
        """Return when to call this again, or None while some host accepts texts. Call it with no request in flight.

        Raises EmbedderUnavailable if the patience is used up, or if no host will be back before that. If every host has
        the same reason, raises RateLimited or BadVectors instead.
        """
        if self._pool.all_resting_since is None:
            if not self._pool.all_resting(now):
                return None
            self._pool.all_resting_since = now
        if self._began is None:
            self._began = self._log_at = now
        since = self._pool.all_resting_since
        until = max(since + self._patience, self._began + min(self._patience, MIN_WAIT_SECONDS))
        resumes = [host.not_before if not host.down else now for host in self._pool.hosts]
        if now >= until or min(resumes) > until:
            raise self._unavailable(now)
        if now >= self._log_at:
            waited = f" ({now - since:.0f} s so far)" if now > since else ""
            log.warning("no host accepts texts, waiting at most %g s%s: %s", self._patience, waited, self._reasons())
            self._log_at = now + LOG_SECONDS
        return min(until, self._log_at)

    def host_answered(self, host: Host, now: float) -> None:
        """End the wait, because this host has answered well."""
        if self._pool.all_resting_since is not None:
            log.warning("%s accepts texts again after %.0f s", host.url, now - self._pool.all_resting_since)
            self._pool.all_resting_since = self._began = None

    def _reasons(self) -> str:
        return "; ".join(str(host.error or f"{host.url} is paused") for host in self._pool.hosts)

    def _unavailable(self, now: float) -> Exception:
        errors = [host.error for host in self._pool.hosts]
        waited = f" within {self._patience:g} s" if self._patience else ""
        message = f"no host could be used{waited}: {self._reasons()}"
        if all(isinstance(error, BadVectors) for error in errors):
            return BadVectors(message)
        if all(isinstance(error, RateLimited) for error in errors):
            return RateLimited(message, max(0.0, min(host.not_before for host in self._pool.hosts) - now))
        return EmbedderUnavailable(message)


@dataclass(slots=True)
class Trial:
    """A host on which a text failed, and the failures there since."""

    host: Host
    plain_failures: int
    """The value of `Host.plain_failures` when the trial began."""
    failures: int = 1

    @property
    def host_failed(self) -> bool:
        """Whether the host has failed at a plain request since the trial began."""
        return self.host.plain_failures > self.plain_failures

    @property
    def proven(self) -> bool:
        """Whether the text is at fault if the host answers one more plain request."""
        return self.failures >= TRIAL_FAILURES


@dataclass(slots=True, kw_only=True)
class Request:
    """What is sent in one request, and its failures so far."""

    chars: int = 1
    """Its size, from which the pool estimates how long a host takes for it."""
    sends: int = 0
    tries: int = 0
    """Failures that a text may have caused."""
    error: Exception | None = None
    failed_at: float = 0.0
    trial: Trial | None = None

    @property
    def single(self) -> bool:
        """Whether there is only one text, so that no other can be at fault."""
        return True

    @property
    def suspect(self) -> bool:
        """Whether the request failed so often that it is at fault if any host answers a plain request now."""
        return self.tries >= ALONE_LIMIT

    def record_failure(self, error: Exception, now: float) -> None:
        """Count a request that ended with an error."""
        self.tries += 1
        self.error, self.failed_at = error, now

    def put_on_trial(self, host: Host) -> bool:
        """Count a failure on `host`, and return whether to try the text on that host only.

        This is never the case for several texts.
        """
        if not self.single:
            return False
        if self.trial is None or self.trial.host is not host or self.trial.host_failed:
            self.trial = Trial(host, host.plain_failures)
        else:
            self.trial.failures += 1
        return self.tries >= ROAMING_TRIES

    @property
    def avoided(self) -> Host | None:
        """The host where the text failed last: it goes to any other one first."""
        return self.trial.host if self.trial is not None else None


Req = TypeVar("Req", bound=Request)


class HostCalls(ABC, Generic[Req]):
    """A call that consists of requests to the hosts of a pool. Subclasses implement the requests.

    The pool handles hosts that refuse connections, ask for a pause or return nonsense. For other failures, a `Trial`
    shows whether the host or a text is at fault.
    """

    def __init__(
        self,
        pool: Pool,
        model: KnownModel,
        stats: RequestStats,
        clock: Clock,
        *,
        requests: Iterable[Req],
        patience: float,
    ) -> None:
        self._pool, self._stats, self._clock = pool, stats, clock
        self._waiting: deque[Req] = deque(requests)
        self._chars = sum(request.chars for request in self._waiting)
        self._recovery = Recovery(pool, patience)
        # A request and probes may use up their time before all hosts rest, and the patience begins.
        self._limit = (
            patience and patience + max(host.endpoint.timeout for host in pool.hosts) + MAX_FAILURES * model.patience
        )
        self._known_model = model
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_trial: list[Req] = []
        self._in_flight = self._comparing = 0
        self._busy_since = 0.0
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

    async def _run_to_end(self) -> None:
        """Run until all requests are sent and answered.

        Raises EmbedderUnavailable or RateLimited if no host recovers in time, and the errors of the model if a host
        answers but cannot be used.
        """
        with asking(self._pool.name, patience=self._pool.usual_silence, limit=self._limit) as self._call:
            try:
                self._recheck_models()
                while self._is_unfinished():
                    self._probe_hosts()
                    self._continue_trials()
                    self._send_what_fits()
                    if self._is_unfinished():
                        await self._wait_for_event()
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)

    def _is_unfinished(self) -> bool:
        return bool(self._waiting or self._on_trial or self._in_flight or self._comparing)

    def _has_room(self) -> bool:
        """Return whether another request may be in flight."""
        return True

    def _send_what_fits(self) -> None:
        """Send the requests for which a host has a free slot now."""
        while self._waiting and self._has_room():
            request, now = self._waiting[0], self._clock.now()
            host = self._pool.pick(
                now, chars=request.chars, waiting=self._chars, alone=request.tries > 0, avoid=request.avoided
            )
            if host is None:
                return
            self._waiting.popleft()
            self._chars -= request.chars
            self._send_to(request, host, now)

    def _send_to(self, request: Req, host: Host, now: float) -> None:
        """Send a request to a host, unless it failed so often that this host's being well proves it at fault."""
        if request.suspect and (host.admitted_at or 0.0) >= request.failed_at:
            self._blame(request, host)
            return
        self._request_started(host, now, alone=request.tries > 0)
        self._start_task(self._send(request, host, now))

    async def _send(self, request: Req, host: Host, started: float) -> None:
        """Send a request, and deal with its outcome. `_request_started` was called before."""
        self._stats.requests += 1
        self._stats.retries += request.sends > 0
        request.sends += 1
        try:
            answer = await self._ask(request, host)
        except RateLimited as exc:
            self._host_paused(host, exc, started)
            self._requeue(request)
        except EmbedderUnavailable as exc:
            self._host_failed(host, exc, started)
            if isinstance(exc, HostUnreachable):
                request.trial = None
                self._requeue(request)
            else:
                self._record_failure(request, host, exc)
        except (TextTooLong, TextRefused, BadVectors) as exc:
            self._refused(request, host, exc)
        else:
            self._accept(request, host, answer, started)
        finally:
            self._request_ended(host)

    def _requeue(self, request: Req) -> None:
        """Put a request first among those that wait."""
        self._waiting.appendleft(request)
        self._chars += request.chars

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def _request_started(self, host: Host, now: float, *, alone: bool) -> None:
        """Record that a request is sent to the host."""
        host.busy_since = host.busy_since if host.in_flight else now
        host.in_flight += 1
        host.alone = alone
        self._busy_since = self._busy_since if self._in_flight else now
        self._in_flight += 1
        self._stats.in_flight += 1

    def _request_ended(self, host: Host) -> None:
        """Record that a request to the host was answered or failed."""
        host.in_flight -= 1
        host.alone = False
        if not host.in_flight:
            seconds = self._stats.host_seconds
            seconds[host.url] = seconds.get(host.url, 0.0) + self._clock.now() - host.busy_since
        self._in_flight -= 1
        self._stats.in_flight -= 1
        if not self._in_flight:
            self._stats.busy_seconds += self._clock.now() - self._busy_since

    def _host_answered(self, host: Host, started: float) -> None:
        """Record that a host has answered well a request that was sent at `started`."""
        now = self._clock.now()
        self._pool.learn_silence(now - started)
        self._recovery.host_answered(host, now)
        if self._call is not None:
            self._call.answered(self._pool.usual_silence)

    def _host_failed(self, host: Host, error: Exception, started: float) -> None:
        """Record that a host failed at a request that was sent at `started`."""
        host.record_failure(error, started, self._clock)
        if self._call is not None:
            self._call.failed(error)

    def _host_paused(self, host: Host, error: RateLimited, started: float) -> None:
        """Record that a host asked for a pause when it got a request that was sent at `started`."""
        self._stats.rate_limited += 1
        host.record_rate_limit(error, error.retry_after, started, self._clock)
        if self._call is not None:
            self._call.failed(error, answered=True)

    async def _wait_for_event(self) -> None:
        """Wait until a task ends, a host may be probed again, or it is time to log the wait or to give up."""
        now = self._clock.now()
        moments = (self._pool.wake_at(now), None if self._in_flight else self._recovery.next_check(now))
        seconds = min([MAX_SLEEP, *(at - now for at in moments if at is not None)])
        timer = asyncio.ensure_future(self._clock.sleep(max(0.0, seconds)))
        try:
            done, _ = await asyncio.wait({*self._tasks, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        for task in done - {timer}:
            self._tasks.discard(task)
            task.result()

    # Failures that either a host or a text caused

    def _record_failure(self, request: Req, host: Host, error: Exception) -> None:
        """Count a failure, and have the request sent again, on this host only if it is on trial here."""
        request.record_failure(error, self._clock.now())
        if request.put_on_trial(host):
            self._on_trial.append(request)
        else:
            self._requeue(request)

    def _continue_trials(self) -> None:
        """Continue each trial whose host has been probed by now: send the text again, or end the trial."""
        now = self._clock.now()
        in_use = self._pool.in_use(now)
        trials, self._on_trial = self._on_trial, []
        for request in trials:
            trial = request.trial
            if trial is None or trial.host_failed or trial.host not in in_use:
                request.trial = None
                self._requeue(request)
            elif trial.proven and trial.host.admitted_at is not None:
                self._blame(request, trial.host)
            elif not trial.proven and trial.host.free_slots(now) and not trial.host.in_flight:
                self._request_started(trial.host, now, alone=True)
                self._start_task(self._send(request, trial.host, now))
            else:
                self._on_trial.append(request)

    # Probes: is a host well, and does it have the right model?

    def _recheck_models(self) -> None:
        """Compare the models of hosts whose last comparison is too old, while requests are in flight."""
        now = self._clock.now()
        for host in self._pool.in_use(now):
            if host.admitted_at is not None and now - host.checked_at > host.endpoint.compare_seconds:
                self._comparing += 1
                self._start_task(self._compare(host))

    async def _compare(self, host: Host) -> None:
        try:
            await self._known_model.compare(host.endpoint)
        except (EmbedderUnavailable, BadVectors):
            host.revoke_admission()
        finally:
            self._comparing -= 1
        host.checked_at = self._clock.now()

    def _probe_hosts(self) -> None:
        for host in self._pool.to_probe(self._clock.now()):
            host.being_probed = True
            self._start_task(self._probe(host))

    async def _probe(self, host: Host) -> None:
        """Try out the host's model, and admit the host or record its failure."""
        started = self._clock.now()
        try:
            async with self._known_model.in_time(host.endpoint):
                await self._known_model.try_out(host.endpoint)
        except RateLimited as exc:
            self._host_paused(host, exc, started)
        except (EmbedderUnavailable, BadVectors) as exc:
            self._host_failed(host, exc, started)
            host.plain_failures += 1
            if isinstance(exc, WrongDimension) and host.down:
                raise
        else:
            host.admit(self._clock.now())
            self._host_answered(host, started)
        finally:
            host.being_probed = False
