"""Progress of a run: one state per index, in words and figures. `displays` shows it."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rag_index.outages import Outage
    from rag_index.reports.displays import Display

FLOW = "flow"
"""The name of the flow's own process. Workers have their addresses."""
RECENT_SECONDS = 30.0
"""The period over which the recent rate is measured."""
MIN_OVERDUE = 2.0
"""Seconds without a document that are never called overdue: results come in shards."""
MIN_MEASURED = 2.0
MAX_ETA = 1000
"""A rate foretells nothing that was measured for fewer seconds, and at most this many times as long as the run took
until now: the first documents may be those that need no embedding."""


class Progress:
    """The progress of one index. It updates its displays at most every `interval` seconds.

    While a service does not answer, it says so instead of a rate and the time left, and that time does not count for
    the rate afterwards.
    """

    def __init__(
        self,
        index: str,
        *,
        interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self.index = index
        self.total = 0
        self.done = 0
        self.failed = 0
        self.note = ""
        self.workers = self.busy = self.queued = 0
        self.displays: list[Display] = []
        self._processes: dict[str, tuple[int, tuple[Outage, ...]]] = {}
        """What each process was last known to do: requests in flight, and services that it waits for."""
        self._outage_began: float | None = None
        self._updating, self._noting = threading.RLock(), threading.RLock()
        self._clock = clock
        self._time_of_day = time_of_day
        self._begun = False
        self._interval = interval
        self._started = self._updated = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])

    def start(self, total: int) -> None:
        """Set the total, and start measuring time."""
        self.total = total
        self._begun = True
        self._started = self._clock()
        self._recent = deque([(self._started, 0)])
        self._update_displays(force=True)

    def advance(self, done: int, *, failed: int = 0) -> None:
        """Count `done` more documents as processed, `failed` of which could not be indexed."""
        self.done += done
        self.note = ""
        self.failed += failed
        now = self._clock()
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        self._update_displays()

    def under_way(self, shards: int, workers: int) -> None:
        """Record that `workers` workers have `shards` shards, one at a time each. This updates no displays."""
        self.workers, self.busy, self.queued = workers, min(shards, workers), max(0, shards - workers)

    def set_process(self, process: str, *, requests: int = 0, outages: tuple[Outage, ...] = ()) -> None:
        """Record how many requests to an embedder a process has in flight, and which services it waits for.

        Any thread may call this. It updates no displays.
        """
        with self._noting:
            self._processes[process] = requests, outages
            self._note_outage()

    def keep_workers(self, addresses: Collection[str]) -> None:
        """Forget the workers that are not among these: one that died waits for nothing any more."""
        with self._noting:
            kept = {FLOW, *addresses}
            self._processes = {name: state for name, state in self._processes.items() if name in kept}
            self._note_outage()

    @property
    def outages(self) -> list[Outage]:
        """The services that some process waits for, each once, the longest silent first."""
        with self._noting:
            found = [outage for _, outages in self._processes.values() for outage in outages]
        first: dict[str, Outage] = {}
        for outage in sorted(found, key=lambda outage: outage.since):
            first.setdefault(outage.service, outage)
        return list(first.values())

    def tick(self) -> None:
        """Update the displays while no document is finished."""
        self._update_displays()

    def note_later(self, note: str) -> None:
        """Set a note for the next update of the displays. Any thread may call this."""
        self.note = note

    def say(self, note: str) -> None:
        """Display a note at once, such as what the run is waiting for."""
        self.note = note
        self._update_displays(force=True)

    def finish(self, sentence: str) -> None:
        """Finish all displays with this sentence."""
        with self._updating:
            for display in self.displays:
                display.finish(self, sentence)
            self.displays = []

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Documents per second in the recent past. It falls if no document is finished for long."""
        (first, before), (last, done) = self._recent[0], self._recent[-1]
        now = self._clock()
        end = now if now - last > RECENT_SECONDS else last
        return (done - before) / (end - first) if end > first else 0.0

    @property
    def mean_rate(self) -> float:
        """Documents per second since the start."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the recent rate; None if that is unknown, documents are overdue or a service is away."""
        measured = self._recent[-1][0] - self._recent[0][0]
        if not self.rate or self.total < self.done or self.overdue is not None or self.outages:
            return None
        left = (self.total - self.done) / self.rate
        return left if measured >= MIN_MEASURED and left <= MAX_ETA * self.seconds else None

    @property
    def overdue(self) -> float | None:
        """Seconds since the last document was finished, if all others should have been finished since; else None.

        The rate that was measured before says nothing then: whatever is still under way takes longer.
        """
        (first, before), (last, done) = self._recent[0], self._recent[-1]
        waited, left = self._clock() - last, self.total - self.done
        late = left > 0 and done > before and waited > max(MIN_OVERDUE, left * (last - first) / (done - before))
        return waited if late else None

    def sentence(self) -> str:
        """Return documents done, rates, time left, busy workers and failures as one line."""
        parts = [self.share(), self._rate(), self._left(), self._workload(), self._failed()]
        note = f" ({self._note()})" if self._note() else ""
        return f"{self.index}: {', '.join(filter(None, parts))}{note}"

    def share(self) -> str:
        """Return how many documents are done."""
        if not self._begun and not self.done:
            return "not begun"
        return f"{self.done:,} of {max(self.total, self.done):,} documents"

    def headline(self) -> str:
        """Return what a person needs to see in any case: documents done, failures and time left."""
        return ", ".join(filter(None, [self.share(), self._failed(), self._left()]))

    def details(self) -> str:
        """Return what the headline leaves out: the note, the rates and the workload."""
        return ", ".join(filter(None, [self._note(), self._rate(), self._workload()]))

    def card(self) -> str:
        """Return the headline first, without needless words, and then the details: a card shows 40 characters of it."""
        return ", ".join(filter(None, [self.headline().replace(" documents", "", 1), self.details()]))

    def percent(self) -> float:
        """Return how much is done, from 0 to 100."""
        if not self.total:
            return 100.0 if self.done else 0.0
        return min(100.0, 100.0 * self.done / self.total)

    def _failed(self) -> str:
        return f"{self.failed:,} failed" if self.failed else ""

    def _note(self) -> str:
        """Return who does not answer; otherwise the note."""
        return "; ".join(outage.sentence() for outage in self.outages) or self.note

    def _left(self) -> str:
        if self.outages:
            return ""
        if self.overdue is not None:
            return f"nothing new for {_duration(self.overdue)}"
        return f"{_duration(self.eta)} left" if self.eta is not None and self.done < self.total else ""

    def _rate(self) -> str:
        """Return the recent and the average rate; "" if nothing was finished recently, or all should be finished."""
        if not self.rate or self.overdue is not None or self.outages:
            return ""
        now, mean = f"{self.rate:,.0f}/s", f"{self.mean_rate:,.0f}/s"
        return now + (f" ({mean} on average)" if mean != now else "")

    def _note_outage(self) -> None:
        """Take the time of an outage, from its beginning to its end, out of the time that the rate is measured over."""
        now, outages, since = self._clock(), self.outages, self._outage_began
        if outages:
            began = now - max(0.0, self._time_of_day() - outages[0].since)
            self._outage_began = began if since is None else min(since, began)
        elif since is not None:
            lost = now - max(since, self._started)
            self._recent = deque((min(at + lost, now), done) for at, done in self._recent)
            self._outage_began = None

    def _workload(self) -> str:
        """Return busy workers, queued shards and requests in flight; "" if none is busy or a service is away."""
        if not self.busy or self.outages:
            return ""
        queued = f", {self.queued} shard{'s' if self.queued > 1 else ''} queued" if self.queued else ""
        with self._noting:
            sent = sum(requests for requests, _ in self._processes.values())
        requests = f", {sent} request{'s' if sent > 1 else ''} in flight" if sent else ""
        return f"{self.busy} of {self.workers} worker{'s' if self.workers > 1 else ''} busy{queued}{requests}"

    def _update_displays(self, *, force: bool = False) -> None:
        with self._updating:  # the watch over outages updates displays while the flow's thread is blocked
            now = self._clock()
            if force or now - self._updated >= self._interval:
                self._updated = now
                for display in self.displays:
                    display.show(self)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
