"""Outages of Prefect's server, as the log of a run reports them: one line when it does not answer,
and one when it does again. Prefect's clients repeat a request for two minutes or longer, and log
that at DEBUG alone."""

from __future__ import annotations

import logging
import math
import threading
import time
from contextlib import contextmanager
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

SHORT_SECONDS = 4.0
"""Seconds: a shorter failure is not reported. A server whose database is busy, or that closed an
idle connection, answers the next attempt two seconds later."""
AGAIN_SECONDS = 60.0
"""Seconds between two reports of a server that fails again and again, at least. Chosen; nothing
depends on it."""
UNAVAILABLE = frozenset({408, 429, 500, 502, 503, 504})
"""The statuses after which Prefect's clients send a request again, with `run_api_settings`."""
HEADERS_RECEIVED, STEP_FAILED = ".receive_response_headers.complete", ".failed"
"""The ends of the names of httpcore's trace events: an answer arrives, or a connection failed."""
LOST_EVENT = "Service %r failed to process item"
"""The beginning of Prefect's message about an event that could not be sent. The message quotes the
event."""


class ApiOutage:
    """Whether Prefect's server answers this process, for the log of its run. Threads may share
    it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._log: Any = logging.getLogger("rag_index.prefect")
        self._waiting: set[ApiRequest] = set()
        """The requests under way that are sent again until they are answered."""
        self._since: float | None = None
        """The time since which requests have failed. None if the server answers."""
        self._is_reported = False
        self._last = -math.inf
        """The time of the last report."""

    def follow(self, log: Any) -> None:
        """Begin anew: from now on, report outages of Prefect's server in the log of this run."""
        with self._lock:
            self._waiting.clear()
            self._since, self._is_reported, self._last = None, False, -math.inf
        self._log = log
        _observe_clients()
        shorten_lost_events()

    def note_failure(self, request: ApiRequest, reason: str) -> None:
        """Record that an attempt of a request failed, and report an outage that is not short."""
        with self._lock:
            if request.is_repeated:
                self._waiting.add(request)
            self._since = request.began if self._since is None else min(self._since, request.began)
            now = self.clock()
            is_short = now - self._since < SHORT_SECONDS
            if self._is_reported or is_short or now - self._last < AGAIN_SECONDS:
                return
            self._is_reported, self._last = True, now
        self._log.warning(
            "Prefect's server does not answer (%s): the run waits for it where it needs it", reason
        )

    def note_end(self, request: ApiRequest) -> None:
        """Record how a request ended. The outage has ended if it was answered and no other request
        waits."""
        with self._lock:
            self._waiting.discard(request)
            if not request.is_answered or self._waiting or self._since is None:
                return
            seconds, was_reported = self.clock() - self._since, self._is_reported
            self._since, self._is_reported = None, False
        if was_reported:
            self._log.info(
                "Prefect's server answers again after %.0f s, and the run goes on", seconds
            )

    @contextmanager
    def observed(self) -> Iterator[ApiRequest]:
        """Observe the attempts of the request that is sent within the block."""
        from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

        observed = ApiRequest(self, is_repeated=PREFECT_CLIENT_MAX_RETRIES.value() > 0)
        try:
            yield observed
        finally:
            self.note_end(observed)


class ApiRequest:
    """A request of one of Prefect's clients, with all its attempts."""

    def __init__(self, outage: ApiOutage, *, is_repeated: bool) -> None:
        self._outage, self.is_repeated = outage, is_repeated
        self.began = outage.clock()
        self.is_answered = False

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Handle an event of httpcore, which sends each attempt."""
        if event.endswith(HEADERS_RECEIVED):
            # HTTP/1.1: (b"HTTP/1.1", 503, b"Service Unavailable", …); HTTP/2: (503, …)
            status = next(value for value in info["return_value"] if isinstance(value, int))
            self.is_answered = status not in UNAVAILABLE
            if not self.is_answered:
                self._outage.note_failure(self, f"status {status}")
        elif event.endswith(STEP_FAILED):
            self.is_answered = False
            error = info["exception"]
            self._outage.note_failure(self, str(error) or type(error).__name__)


OUTAGE = ApiOutage()
"""The outage of this process, whose clients all use one server."""


@cache
def _observe_clients() -> None:
    """Let Prefect's clients in this process report to `OUTAGE`.

    They send all attempts within their method `send`, and offer no hook for that. The asynchronous
    clients send logs alone, for which no run waits.
    """
    from prefect.client.base import PrefectHttpxSyncClient

    send = PrefectHttpxSyncClient.send

    @wraps(send)
    def observed_send(client: Any, request: httpx.Request, *args: Any, **named: Any) -> Any:
        with OUTAGE.observed() as observed:
            request.extensions = {**request.extensions, "trace": observed.trace}
            return send(client, request, *args, **named)

    PrefectHttpxSyncClient.send = observed_send  # type: ignore[assignment, method-assign]


class _LostEvents(logging.Filter):
    """Replaces Prefect's messages about events that it cannot send, several a second, by one
    sentence."""

    _is_reported = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        if not str(record.msg).startswith(LOST_EVENT):
            return True
        if self._is_reported:
            return False
        self._is_reported = True
        record.msg = "Prefect's server takes no events: its page shows some tasks late, or never"
        record.args = ()
        return True


@cache
def shorten_lost_events() -> None:
    """Let this process report once that events of tasks do not reach Prefect's server."""
    logging.getLogger("prefect._internal.concurrency").addFilter(_LostEvents())
