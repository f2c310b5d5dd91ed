"""Progress of a run: one state per index, displayed as a live bar in a terminal and as lines elsewhere."""

from __future__ import annotations

import atexit
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Display", "Progress", "open_display"]

LINE_SECONDS = 5.0
RECENT_SECONDS = 30.0
"""The period over which the recent rate is measured."""


class Progress:
    """The progress of one index. It updates its displays at most every `interval` seconds."""

    def __init__(self, index: str, *, interval: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        self.index = index
        self.total = 0
        self.done = 0
        self.failed = 0
        self.note = ""
        self.workers = self.busy = self.queued = self.requests = 0
        self.displays: list[Display] = []
        self._clock = clock
        self._interval = interval
        self._started = self._updated = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])

    def start(self, total: int) -> None:
        """Set the total, and start measuring time."""
        self.total = total
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

    def count_requests(self, requests: int) -> None:
        """Record how many requests to the embedder are in flight. Any thread may call this."""
        self.requests = requests

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
        for display in self.displays:
            display.finish(self, sentence)

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
        """Seconds left at the recent rate; None if the rate or the total is unknown."""
        return (self.total - self.done) / self.rate if self.rate and self.total >= self.done else None

    def sentence(self) -> str:
        """Return documents done, rates, time left, busy workers and failures as one line."""
        share = f"{self.done:,} of {max(self.total, self.done):,} documents"
        now, mean = f"{self.rate:,.0f}/s", f"{self.mean_rate:,.0f}/s"
        rate = f", {now}" + (f" ({mean} on average)" if mean != now else "") if self.rate else ""
        eta = f", {_duration(self.eta)} left" if self.eta is not None and self.done < self.total else ""
        failed = f", {self.failed:,} failed" if self.failed else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.index}: {share}{rate}{eta}{self._workload()}{failed}{note}"

    def _workload(self) -> str:
        """Return busy workers, queued shards and requests in flight as words; "" if no worker is busy."""
        if not self.busy:
            return ""
        queued = f", {self.queued} shard{'s' if self.queued > 1 else ''} queued" if self.queued else ""
        requests = f", {self.requests} request{'s' if self.requests > 1 else ''} in flight" if self.requests else ""
        return f", {self.busy} of {self.workers} worker{'s' if self.workers > 1 else ''} busy{queued}{requests}"

    def _update_displays(self, *, force: bool = False) -> None:
        now = self._clock()
        if force or now - self._updated >= self._interval:
            self._updated = now
            for display in self.displays:
                display.show(self)


class Display(Protocol):
    """The interface of a display of progress."""

    def show(self, progress: Progress) -> None:
        """Display the current state. `Progress` calls this a few times per second at most."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """End the display with this sentence about the outcome."""


class Lines:
    """A display that prints a plain line every few seconds."""

    def __init__(
        self, stream: TextIO, *, interval: float = LINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._last = clock() - interval

    def show(self, progress: Progress) -> None:
        """Print a line if the last one is old enough."""
        now = self._clock()
        if now - self._last >= self._interval:
            self._last = now
            print(progress.sentence(), file=self._stream, flush=True)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Print the last line."""
        print(sentence, file=self._stream, flush=True)


class Bar:
    """A display that draws a live bar in a terminal."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.fields[index]:<16}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(file=stream),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, index="", text="")
        self._bar.start()
        atexit.register(self._bar.stop)  # the terminal gets its cursor back however the run ends

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        text = progress.sentence().removeprefix(f"{progress.index}: ")
        self._bar.update(
            self._task, completed=progress.done, total=progress.total or None, index=progress.index, text=text
        )

    def finish(self, progress: Progress, sentence: str) -> None:
        """Replace the bar by a line."""
        self._bar.stop()
        atexit.unregister(self._bar.stop)
        print(sentence, file=self._bar.console.file, flush=True)


def open_display(stream: TextIO | None = None) -> Display:
    """Return a bar if the stream (standard error by default) is a terminal, and lines if not."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
