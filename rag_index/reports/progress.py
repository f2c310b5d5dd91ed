"""How far a run is: one state an index, shown as a live bar in a terminal and as lines elsewhere."""

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


class Progress:
    """Documents of one index: done of total, failed, the recent rate. Displays are told at most every `interval`."""

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
        self._started = self._shown = clock()
        self._recent: deque[tuple[float, int]] = deque([(self._started, 0)])

    def start(self, total: int) -> None:
        """The total is known; the time begins."""
        self.total = total
        self._started = self._clock()
        self._recent = deque([(self._started, 0)])
        self._tell(force=True)

    def advance(self, done: int, *, failed: int = 0) -> None:
        """So many more documents are dealt with, of which some failed."""
        self.done += done
        self.note = ""
        self.failed += failed
        now = self._clock()
        self._recent.append((now, self.done))
        while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
            self._recent.popleft()
        self._tell()

    def under_way(self, shards: int, workers: int) -> None:
        """So many shards are with `workers` workers, each of which does one at a time; no displays are told."""
        self.workers, self.busy, self.queued = workers, min(shards, workers), max(0, shards - workers)

    def count_requests(self, requests: int) -> None:
        """So many requests to the embedder are under way; may be called from any thread."""
        self.requests = requests

    def tick(self) -> None:
        """Time passes while nothing is done."""
        self._tell()

    def note_later(self, note: str) -> None:
        """A word that is shown with the next sign of progress; may be called from any thread."""
        self.note = note

    def say(self, note: str) -> None:
        """A word on what is being done or waited for."""
        self.note = note
        self._tell(force=True)

    def finish(self, sentence: str) -> None:
        """The last word of each display."""
        for display in self.displays:
            display.finish(self, sentence)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    @property
    def rate(self) -> float:
        """Documents a second, recently; falling while nothing is done for long."""
        (first, before), (last, done) = self._recent[0], self._recent[-1]
        now = self._clock()
        end = now if now - last > RECENT_SECONDS else last
        return (done - before) / (end - first) if end > first else 0.0

    @property
    def mean_rate(self) -> float:
        """Documents a second since the start."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds that are left by the recent rate; None where nobody knows."""
        return (self.total - self.done) / self.rate if self.rate and self.total >= self.done else None

    def sentence(self) -> str:
        """Done of total, rate now and on average, ETA, what is under way and failures in a line."""
        share = f"{self.done:,} of {max(self.total, self.done):,} documents"
        now, mean = f"{self.rate:,.0f}/s", f"{self.mean_rate:,.0f}/s"
        rate = f", {now}" + (f" ({mean} on average)" if mean != now else "") if self.rate else ""
        eta = f", {_duration(self.eta)} left" if self.eta is not None and self.done < self.total else ""
        failed = f", {self.failed:,} failed" if self.failed else ""
        note = f" ({self.note})" if self.note else ""
        return f"{self.index}: {share}{rate}{eta}{self._work()}{failed}{note}"

    def _work(self) -> str:
        """Workers busy of all, shards that wait for one, requests to the embedder; nothing before there is work."""
        if not self.busy:
            return ""
        queued = f", {self.queued} shard{'s' if self.queued > 1 else ''} queued" if self.queued else ""
        requests = f", {self.requests} request{'s' if self.requests > 1 else ''} in flight" if self.requests else ""
        return f", {self.busy} of {self.workers} worker{'s' if self.workers > 1 else ''} busy{queued}{requests}"

    def _tell(self, *, force: bool = False) -> None:
        now = self._clock()
        if force or now - self._shown >= self._interval:
            self._shown = now
            for display in self.displays:
                display.show(self)


class Display(Protocol):
    """Where progress is shown."""

    def show(self, progress: Progress) -> None:
        """The state has changed; called some times a second at most."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """The index is done, and this is how it went."""


class Lines:
    """A plain line every some seconds."""

    def __init__(
        self, stream: TextIO, *, interval: float = LINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._last = clock() - interval

    def show(self, progress: Progress) -> None:
        """A line, if the last one is old enough."""
        now = self._clock()
        if now - self._last >= self._interval:
            self._last = now
            print(progress.sentence(), file=self._stream, flush=True)

    def finish(self, progress: Progress, sentence: str) -> None:
        """The last line."""
        print(sentence, file=self._stream, flush=True)


class Bar:
    """A live bar in a terminal."""

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
        atexit.register(self._bar.stop)  # however the run ends, the terminal has its cursor back

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        text = progress.sentence().removeprefix(f"{progress.index}: ")
        self._bar.update(
            self._task, completed=progress.done, total=progress.total or None, index=progress.index, text=text
        )

    def finish(self, progress: Progress, sentence: str) -> None:
        """The bar gives way to a line."""
        self._bar.stop()
        atexit.unregister(self._bar.stop)
        print(sentence, file=self._bar.console.file, flush=True)


def open_display(stream: TextIO | None = None) -> Display:
    """A bar where the stream (standard error by default) is a terminal, lines where not."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
