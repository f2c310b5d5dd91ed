"""Progress of a run: one state per index, in words and figures. `displays` shows it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from rag_index.outages import longest_first
from rag_index.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rag_index.outages import Outage
    from rag_index.reports.displays import Display

FLOW = "flow"
RECENT_SECONDS = 30.0
MIN_MEASURED = 2.0
MAX_ETA = 1000
"""A rate foretells nothing that was measured for fewer seconds, and at most this many times as long as the run took
until now: the first documents may be those that need no embedding."""


class Progress:
    """The progress of one index. It updates its displays at most every `interval` seconds.

    While a service does not answer, it says so instead of a rate and the time left.
    """

    def __init__(self, index: str, *, interval: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        self.index = index
        self.total = self.done = self.failed = 0
        self.note = ""
        self.displays: list[Display] = []
        self._workers = self._busy = self._queued = 0
        self._processes: dict[str, tuple[int, tuple[Outage, ...]]] = {}
        """What each process was last known to do: requests in flight, and services that it waits for."""
        self._updating, self._noting = threading.RLock(), threading.RLock()
        self._clock = clock
        self._begun = False
        self._interval = interval
        self._started = self._updated = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])

    def start(self, total: int) -> None:
        """Set the total, and start measuring time."""
        self.total, self._begun, self._started = total, True, self._clock()
        self._recent = deque([(self._started, 0)])
        self.tick(force=True)

    def advance(self, done: int, *, failed: int = 0) -> None:
        """Count `done` more documents as processed, `failed` of which could not be indexed."""
        self.done += done
        self.failed += failed
        self.note = ""
        now = self._clock()
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        self.tick()

    def under_way(self, shards: int, workers: int) -> None:
        """Record that `workers` workers have `shards` shards, one at a time each. This updates no displays."""
        self._workers, self._busy, self._queued = workers, min(shards, workers), max(0, shards - workers)

    def set_process(self, process: str, *, requests: int = 0, outages: tuple[Outage, ...] = ()) -> None:
        """Record how many requests to an embedder a process has in flight, and which services it waits for.

        Any thread may call this. It updates no displays.
        """
        with self._noting:
            self._processes[process] = requests, outages

    def keep_workers(self, addresses: Collection[str]) -> None:
        """Forget the workers that are not among these: one that died waits for nothing any more."""
        with self._noting:
            kept = {FLOW, *addresses}
            self._processes = {name: state for name, state in self._processes.items() if name in kept}

    @property
    def outages(self) -> list[Outage]:
        """The services that some process waits for, each once, the longest silent first."""
        with self._noting:
            return longest_first(outage for _, outages in self._processes.values() for outage in outages)

    def note_later(self, note: str) -> None:
        """Set a note for the next update of the displays. Any thread may call this."""
        self.note = note

    def say(self, note: str) -> None:
        """Display a note at once, such as what the run is waiting for."""
        self.note = note
        self.tick(force=True)

    def tick(self, *, force: bool = False) -> None:
        """Update the displays, if they were not just updated. Call it while no document is finished."""
        with self._updating:  # the watch over outages updates displays while the flow's thread is blocked
            now = self._clock()
            if force or now - self._updated >= self._interval:
                self._updated = now
                for display in self.displays:
                    display.show(self)

    def finish(self, sentence: str) -> None:
        """Finish all displays with this sentence."""
        with self._updating:
            for display in self.displays:
                display.finish(self, sentence)
            self.displays = []

    @property
    def rate(self) -> float:
        """Documents per second in the recent past. It falls while no document is finished."""
        (first, before), now = self._recent[0], self._clock()
        return (self.done - before) / (now - first) if now > first else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the recent rate; None if that is unknown, or a service is away."""
        measured = self._recent[-1][0] - self._recent[0][0]
        if not self.rate or self.total < self.done or self.outages:
            return None
        left = (self.total - self.done) / self.rate
        known = measured >= MIN_MEASURED and left <= MAX_ETA * (self._clock() - self._started)
        return left if known else None

    def sentence(self) -> str:
        """Return documents done, rates, time left, busy workers and failures as one line."""
        note = f" ({self._note()})" if self._note() else ""
        said = _joined(self._share(), self._rate(), self._left(), self._workload(), self._failed())
        return f"{self.index}: {said}{note}"

    def headline(self) -> str:
        """Return what a person needs to see in any case: documents done, failures and time left."""
        return _joined(self._share(), self._failed(), self._left())

    def details(self) -> str:
        """Return what the headline leaves out: the note, the rates and the workload."""
        return _joined(self._note(), self._rate(), self._workload())

    def card(self) -> str:
        """Return the headline first, without needless words, and then the details: a card shows 40 characters of it."""
        return _joined(self.headline().replace(" documents", "", 1), self.details())

    def percent(self) -> float:
        """Return how much is done, from 0 to 100."""
        return min(100.0, 100.0 * self.done / (self.total or self.done or 1))

    def _share(self) -> str:
        if not self._begun and not self.done:
            return "not begun"
        return f"{self.done:,} of {max(self.total, self.done):,} documents"

    def _failed(self) -> str:
        return f"{self.failed:,} failed" if self.failed else ""

    def _note(self) -> str:
        return "; ".join(outage.sentence() for outage in self.outages) or self.note

    def _left(self) -> str:
        return f"{_duration(self.eta)} left" if self.eta is not None and self.done < self.total else ""

    def _rate(self) -> str:
        """Return the recent and the average rate; "" if nothing was finished recently."""
        if not self.rate or self.outages:
            return ""
        now = f"{self.rate:,.0f}/s"
        mean = f"{self.done / (self._clock() - self._started):,.0f}/s"
        return now + (f" ({mean} on average)" if mean != now else "")

    def _workload(self) -> str:
        if not self._busy or self.outages:
            return ""
        with self._noting:
            sent = sum(requests for requests, _ in self._processes.values())
        queued = f"{count_of(self._queued, 'shard')} queued" if self._queued else ""
        requests = f"{count_of(sent, 'request')} in flight" if sent else ""
        return _joined(f"{self._busy} of {count_of(self._workers, 'worker')} busy", queued, requests)


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
