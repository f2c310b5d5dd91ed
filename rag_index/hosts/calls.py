"""A call whose requests are distributed over the hosts of a pool, with probes of hosts and waits for them."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from rag_index.errors import BadVectors, EmbedderUnavailable, RateLimited, RequestTimedOut, WrongDimension
from rag_index.hosts.recovery import Recovery
from rag_index.hosts.trials import Request
from rag_index.outages import asking

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rag_index.hosts.ollama_client import Endpoint
    from rag_index.hosts.pool import Clock, Host, Pool, RequestStats
    from rag_index.outages import Call

Req = TypeVar("Req", bound=Request)
CHECK_SECONDS = 15.0
"""Maximum age of the comparison of a host's model when a call begins."""
MAX_SLEEP = 1.0


class HostModel(Protocol):
    """The model that all hosts must have."""

    patience: float
    """Seconds that a host may take for `try_out`."""

    async def compare(self, endpoint: Endpoint) -> None:
        """Raise ModelChanged if the host has another model, or an error of `Endpoint.details`."""

    async def try_out(self, endpoint: Endpoint) -> None:
        """Compare the model, and let it work once. Raises the errors of `compare` and of the work."""


class HostCalls(ABC, Generic[Req]):
    """A call that consists of requests to the hosts of a pool. Subclasses implement the requests.

    The pool handles hosts that refuse connections, ask for a pause or return nonsense. For other failures, a trial
    (see `trials`) shows whether the host or a text is at fault.
    """

    def __init__(self, pool: Pool, model: HostModel, stats: RequestStats, clock: Clock, *, patience: float) -> None:
        self._pool, self._stats, self._clock = pool, stats, clock
        self._recovery = Recovery(pool, patience)
        self._known_model = model
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_trial: list[Req] = []
        self._in_flight = self._comparing = 0
        self._busy_since = 0.0
        self._call: Call | None = None

    @abstractmethod
    def _has_unsent(self) -> bool:
        """Return whether requests are waiting to be sent."""

    @abstractmethod
    def _send_what_fits(self) -> None:
        """Start (`_start_task`) the requests for which a host has a free slot now."""

    @abstractmethod
    async def _send(self, request: Req, host: Host, started: float) -> None:
        """Send a request, and deal with its outcome. `_request_started` was called, and this calls the other."""

    @abstractmethod
    def _requeue(self, request: Req) -> None:
        """Put a request first among those that wait."""

    @abstractmethod
    def _blame(self, request: Req, host: Host) -> None:
        """Deal with a request that is at fault, since the host is well."""

    async def _run_to_end(self) -> None:
        """Run until all requests are sent and answered.

        Raises EmbedderUnavailable or RateLimited if no host recovers in time, and the errors of the model if a host
        answers but cannot be used.
        """
        with asking(self._pool.name, patience=self._pool.usual_silence) as self._call:
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
        return bool(self._has_unsent() or self._on_trial or self._in_flight or self._comparing)

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

    def _count_send(self, request: Req) -> None:
        """Count a request, and whether it repeats an earlier one."""
        self._stats.requests += 1
        self._stats.retries += request.sends > 0
        request.sends += 1

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

    def _wake_times(self, now: float) -> list[float | None]:
        """Return the moments at which there may be something to do although no task ends."""
        return [self._pool.wake_at(now), None if self._in_flight else self._recovery.next_check(now)]

    async def _wait_for_event(self) -> None:
        """Wait until a task ends, a host may be probed again, or it is time to log the wait or to give up."""
        now = self._clock.now()
        seconds = min([MAX_SLEEP, *(at - now for at in self._wake_times(now) if at is not None)])
        timer = asyncio.ensure_future(self._clock.sleep(max(0.0, seconds)))
        try:
            done, _ = await asyncio.wait({*self._tasks, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        for task in done - {timer}:
            self._tasks.discard(task)
            task.result()

    # Failures that either a host or a text caused

    def _send_or_blame(self, request: Req, host: Host, now: float) -> None:
        """Send a request to a host, unless it failed so often that this host's being well proves it at fault."""
        if request.suspect and (host.admitted_at or 0.0) >= request.failed_at:
            self._blame(request, host)
            return
        self._request_started(host, now, alone=request.tries > 0)
        self._start_task(self._send(request, host, now))

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
            if host.admitted_at is not None and now - host.checked_at > CHECK_SECONDS:
                self._comparing += 1
                self._start_task(self._compare(host))

    async def _compare(self, host: Host) -> None:
        try:
            await self._known_model.compare(host.endpoint)
        except EmbedderUnavailable:
            host.revoke_admission()
        finally:
            self._comparing -= 1
        host.checked_at = self._clock.now()

    def _probe_hosts(self) -> None:
        for host in self._pool.to_probe(self._clock.now()):
            host.being_probed = True
            self._start_task(self._probe(host))

    async def _try_out(self, host: Host) -> None:
        """Let the host work once. Raises RequestTimedOut after the model's patience; a request may take longer."""
        seconds = self._known_model.patience
        try:
            async with asyncio.timeout(seconds):
                await self._known_model.try_out(host.endpoint)
        except TimeoutError as exc:
            raise RequestTimedOut(f"{host.url} did not answer a plain request within {seconds:g} s") from exc

    async def _probe(self, host: Host) -> None:
        """Try out the host's model, and admit the host or record its failure."""
        started = self._clock.now()
        try:
            await self._try_out(host)
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
