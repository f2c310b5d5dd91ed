"""Progress of a run: one state per index, in words and figures, shown as a bar in a terminal and as lines elsewhere."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from typing import Protocol, TextIO, TypeVar

from rag_index.core.outages import Outage, longest_first, outages
from rag_index.core.reports.outcome import count_of
from rag_index.errors import printable

T = TypeVar("T")
FLOW = "flow"
RECENT_SECONDS = 30.0
MIN_MEASURED = 2.0
MAX_ETA = 1000
"""A rate foretells nothing that was measured for fewer seconds, and at most this many times as long as the run took
until now: the first documents may be those that need no embedding."""

LINE_SECONDS = 5.0
SHOWN_AFTER = 2.0
"""Seconds that a command other than a run takes before a terminal shows its progress, and five times that for a pipe,
which may be that of a cron job."""
LOGGERS = tuple(map(logging.getLogger, ("rag_index.embedders", "rag_index.hosts", "rag_index.chunking.context")))
INTERVAL_SECONDS = 1.0
REPEAT_SECONDS = 60.0
"""Time after which it is said again that a service does not answer."""
NARROW = 60
"""A terminal of fewer columns has no room for the noun."""


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What one process of a run does now."""

    requests: int = 0
    """Requests to an embedder that are in flight."""
    outages: tuple[Outage, ...] = ()
    """Services that it waits for."""
    embedded: Mapping[str, float] = field(default_factory=dict)
    """How many documents of each shard that it embeds have their vectors, by `shard_name`. A document whose chunks have
    vectors in part counts in part."""


def shard_name(index: str, number: int) -> str:
    """Return what a shard is called between processes. Runs of several projects may share workers."""
    return f"{index} {number}"


class Progress:
    """The progress of one index. It updates its displays at most every `interval` seconds. While a service does not
    answer, it says so instead of a rate and the time left.

    Documents are `done` once they are committed. A bar that counted these alone would stand still while the first
    shards are embedded, so what is embedded of the shards under way counts as well (`reached`).
    """

    def __init__(
        self, index: str, noun: str = "documents", *, interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.index, self._noun = index, noun
        self.total = self.failed = 0
        self.done: float = 0
        self.worded = 0
        """Documents that can be found by their words before they are embedded."""
        self.note = ""
        self.stopped = False
        """Whether a person stopped the run, so that its end is not that of the index."""
        self.wait = 0.0
        """For how many seconds a service that does not answer is waited for; 0 if nobody knows."""
        self.displays: list[Display] = []
        self._workers = self._busy = self._queued = 0
        self._processes: dict[str, ProcessState] = {}
        """What each process was last known to do."""
        self._embedded: dict[str, float] = {}
        """How many documents of each shard under way have their vectors."""
        self._updating, self._noting = threading.RLock(), threading.RLock()
        self._clock = clock
        self._begun = False
        self._interval = interval
        self._started = self._updated = clock()
        self._recent: deque[tuple[float, float]] = deque([(self._started, 0)])

    def start(self, total: int, done: int = 0) -> None:
        """Set the total, and what was done of it before, and start measuring time."""
        self.total, self.done, self._begun, self._started = total, done, True, self._clock()
        self._recent = deque([(self._started, done)])
        self.tick(force=True)

    def advance(self, done: float, *, failed: int = 0, shard: int | None = None) -> None:
        """Count `done` more documents as processed, `failed` of which could not be indexed. They are a `shard`, if it
        has a number."""
        with self._noting:
            self._embedded.pop(shard_name(self.index, shard or 0), None)
            self.done += done
        self.failed += failed
        self.note = ""
        self.tick()

    def begin_shard(self, number: int) -> None:
        """Record that a shard is to be embedded, from its first document."""
        with self._noting:
            self._embedded[shard_name(self.index, number)] = 0.0

    def under_way(self, shards: int, workers: int) -> None:
        """Record that `workers` workers have `shards` shards, one at a time each. This updates no displays."""
        self._workers, self._busy, self._queued = workers, min(shards, workers), max(0, shards - workers)

    def set_process(self, process: str, state: ProcessState) -> None:
        """Record what a process does. Any thread may call this. It updates no displays."""
        with self._noting:
            self._processes[process] = state
            self._embedded.update((name, count) for name, count in state.embedded.items() if name in self._embedded)

    def keep_workers(self, addresses: Collection[str]) -> None:
        """Forget the workers that are not among these: one that died waits for nothing any more."""
        with self._noting:
            kept = {FLOW, *addresses}
            self._processes = {name: state for name, state in self._processes.items() if name in kept}

    @property
    def outages(self) -> list[Outage]:
        """The services that some process waits for, each once, the longest silent first."""
        with self._noting:
            return longest_first(outage for state in self._processes.values() for outage in state.outages)

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
            last, before = self._recent[-1]
            if (reached := self.reached) != before and (now - last >= self._interval or len(self._recent) == 1):
                self._recent.append((now, reached))
            while len(self._recent) > 2 and now - self._recent[0][0] > RECENT_SECONDS:
                self._recent.popleft()
            if force or now - self._updated >= self._interval:
                self._updated = now
                self._display(lambda display: display.show(self))

    def finish(self, sentence: str) -> None:
        """Finish all displays with this sentence. What was embedded and not committed counts no more."""
        with self._noting:
            self._embedded.clear()
        with self._updating:
            self._display(lambda display: display.finish(self, sentence))
            self.displays = []

    def _display(self, call: Callable[[Display], None]) -> None:
        """Call each display. One that nobody can read any more, such as a pipe whose reader was killed, is left out."""
        for display in tuple(self.displays):
            try:
                call(display)
            except OSError:
                self.displays.remove(display)

    @property
    def reached(self) -> float:
        """Documents that are done, and what is embedded of those under way."""
        with self._noting:
            return self.done + sum(self._embedded.values())

    @property
    def _pause(self) -> float:
        """Seconds since something was finished, up to the usual ones: whatever is finished in requests comes in steps,
        and rate and time left do not change between these."""
        (first, _), (last, _) = self._recent[0], self._recent[-1]
        return min(self._clock() - last, (last - first) / max(1, len(self._recent) - 1))

    @property
    def rate(self) -> float:
        """Documents per second in the recent past. It falls while none is finished for longer than usual."""
        (first, before), elapsed = self._recent[0], self._clock() - self._pause
        return max(0.0, self.reached - before) / (elapsed - first) if elapsed > first else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the recent rate; None if that is unknown, or a service is away."""
        measured = self._recent[-1][0] - self._recent[0][0]
        rate, reached = self.rate, self.reached
        if not rate or self.total < reached or self.outages:
            return None
        left = max(0.0, (self.total - reached) / rate - self._pause)
        known = measured >= MIN_MEASURED and left <= MAX_ETA * (self._clock() - self._started)
        return left if known else None

    def sentence(self) -> str:
        """Return documents done, rates, time left, busy workers and failures as one line."""
        note = f" ({self._note()})" if self._note() else ""
        said = _joined(self._share(), self._words(), self._rate(), self._left(), self._workload(), self._failed())
        return f"{self.index}: {said}{note}"

    def headline(self, *, short: bool = False) -> str:
        """Return what a person needs to see in any case: documents done, failures and time left."""
        share = self._share().removesuffix(f" {self._noun}") if short else self._share()
        return _joined(share, self._failed(), self._left())

    def details(self) -> str:
        """Return what the headline leaves out: the note, the rates and the workload."""
        return _joined(self._note(), self._words(), self._rate(), self._workload())

    def card(self) -> str:
        """Return the headline first, without needless words, and then the details: a card shows 40 characters of it."""
        return _joined(self.headline(short=True), self.details())

    def kept(self) -> str:
        """Return what a run that stops here keeps: what is embedded and not committed is embedded again."""
        if not self._begun:
            return "nothing was changed"
        return f"{self.done:,.0f} of {max(self.total, self.done):,.0f} {self._noun} are done and kept"

    def percent(self) -> float:
        """Return how much is done, from 0 to 100."""
        return min(100.0, 100.0 * self.reached / (self.total or self.reached or 1))

    def _share(self) -> str:
        reached = int(self.reached)
        if not self._begun and not reached:
            return "not begun" if self._note() else "waiting for the database, the embedder and Qdrant"
        return f"{reached:,} of {max(self.total, reached):,} {self._noun}"

    def _words(self) -> str:
        by_words = f"{self.worded:,} can be found by their words" if self.worded else ""
        return "" if self._begun and self.done >= self.total else by_words

    def _failed(self) -> str:
        return f"{self.failed:,} failed" if self.failed else ""

    def _note(self) -> str:
        return "; ".join(outage.sentence(self.wait) for outage in self.outages) or self.note

    def _left(self) -> str:
        eta = self.eta  # another thread may change what it is computed of
        if eta is None or self.done >= self.total:
            return ""
        minutes = round(eta / 60)
        longer = f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
        return f"{eta:.0f} s left" if eta < 90 else f"{longer} left"

    def _rate(self) -> str:
        """Return the recent and the average rate; "" if nothing was finished recently, or a search index is left."""
        if not self.rate or self.outages or (self.total and self.done >= self.total):
            return ""
        now = f"{self.rate:,.0f}/s"
        mean = f"{self.reached / (self._clock() - self._started):,.0f}/s"
        return now + (f" ({mean} on average)" if mean != now else "")

    def _workload(self) -> str:
        if not self._busy or self.outages:
            return ""
        with self._noting:
            sent = sum(state.requests for state in self._processes.values())
        queued = f"{count_of(self._queued, 'shard')} queued" if self._queued else ""
        requests = f"{count_of(sent, 'request')} in flight" if sent else ""
        return _joined(f"{self._busy} of {count_of(self._workers, 'worker')} busy", queued, requests)


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


class Display(Protocol):
    """The interface of a display of progress."""

    def show(self, progress: Progress) -> None:
        """Display the current state. `Progress` calls this a few times per second at most."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """End the display with this sentence about the outcome, if there is one."""


class Lines:
    """A display that prints a plain line every few seconds."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._last, self._said = clock() - LINE_SECONDS, ""

    def show(self, progress: Progress) -> None:
        """Print a line if the last one is old enough, and said something else."""
        now = self._clock()
        if now - self._last >= LINE_SECONDS and (sentence := progress.sentence()) != self._said:
            self._last, self._said = now, sentence
            print(printable(sentence), file=self._stream, flush=True)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Print the last line."""
        if sentence:
            print(printable(sentence), file=self._stream, flush=True)


class Bar:
    """A display that draws a live bar in a terminal: a line that fits any width, and a second one with details."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text

        self._console = Console(file=stream)
        name = TextColumn("{task.fields[index]}", markup=False, table_column=Column(overflow="ellipsis"))
        headline = TextColumn("{task.fields[headline]}", markup=False, table_column=Column(no_wrap=True))
        self._bar = RichProgress(name, BarColumn(None), headline, console=self._console)
        self._task = self._bar.add_task("", total=None, visible=False, index="", headline="")
        self._details = Text(no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._details), console=self._console, transient=True)
        self._live.start()
        atexit.register(self._live.stop)  # the terminal gets its cursor back however the run ends

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        self._details.plain = printable(progress.details())
        headline = progress.headline(short=self._console.width < NARROW)
        reached, total, index = progress.reached, progress.total or None, progress.index
        self._bar.update(self._task, completed=reached, total=total, visible=True, index=index, headline=headline)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Replace the bar by a line."""
        self._live.stop()
        atexit.unregister(self._live.stop)
        if sentence:
            print(printable(sentence), file=self._console.file, flush=True)


def open_display(stream: TextIO | None = None) -> Display:
    """Return a bar if the stream (standard error by default) is a terminal that can draw one, and lines if not."""
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console

        if Console(file=stream).is_interactive:  # TERM is not "dumb"
            return Bar(stream)
    return Lines(stream)


class _Counting(Progress):
    """The progress of a command, which counts one thing after another. Nothing is displayed of what takes a moment."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._since = self._clock()

    def tick(self, *, force: bool = False) -> None:
        with self._updating:
            patience = SHOWN_AFTER if sys.stderr.isatty() else 5 * SHOWN_AFTER
            if self._begun and not self.displays and self._clock() - self._since >= patience:
                self.displays = [open_display()]
            super().tick(force=force)

    def count(self, items: Iterable[T], noun: str, total: Callable[[], int], size: Callable[[T], float]) -> Iterator[T]:
        """Yield the items, and count them as `counted` does. What is counted meanwhile is a part of them."""
        if self._begun:
            yield from items
            return
        self._noun, self.done = noun, 0
        self.start(total())
        try:
            for item in items:
                yield item
                self.advance(size(item))
        finally:
            self.finish("")

    def finish(self, sentence: str) -> None:
        self._begun = False
        super().finish(sentence)


_SHOWN: ContextVar[_Counting | None] = ContextVar("the progress of a command", default=None)


@contextmanager
def shown(command: str, say: Callable[[str], object]) -> Iterator[None]:
    """Show what is `counted` in the block, on standard error, once it takes longer than a moment; and `say` who does
    not answer."""
    progress = _Counting(command)

    def look() -> Iterable[Outage]:
        progress.tick()
        return outages()

    token = _SHOWN.set(progress)
    try:
        with said_outages(say, look=look):
            yield
    finally:
        _SHOWN.reset(token)
        progress.finish("")


def counted(
    items: Iterable[T], noun: str, total: Callable[[], int], size: Callable[[T], float] = lambda _: 1
) -> Iterator[T]:
    """Yield the items. If a command shows its progress, they are counted there, each as `size` many, as "3 of 9 points
    compared" if that is the `noun`. `total` is asked only then."""
    progress = _SHOWN.get()
    return iter(items) if progress is None else progress.count(items, noun, total, size)


class LogNotes(logging.Handler):
    """A handler that gives each warning to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say the message of a record."""
        self._say(record.getMessage())


@contextmanager
def captured_logs(say: Callable[[str], None]) -> Iterator[None]:
    """Give what this process logs to `say`, which may be called from any thread."""
    handler = LogNotes(say)
    for logger in LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in LOGGERS:
            logger.removeHandler(handler)


@contextmanager
def watched_processes(
    progress: Progress,
    logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    states: Callable[[], Mapping[str, ProcessState]],
) -> Iterator[None]:
    """Show what these processes of this machine do, for the time of the block. Who does not answer is shown beside the
    progress, and logged once with the run."""

    def look() -> Iterable[Outage]:
        for name, state in states().items():
            progress.set_process(name, state)
        progress.tick()  # whatever the flow's thread does meanwhile, such as building a search index
        return progress.outages

    with said_outages(lambda sentence: logger.warning("%s", sentence), look=look, wait=progress.wait):
        yield


@contextmanager
def said_outages(
    say: Callable[[str], object], *, look: Callable[[], Iterable[Outage]] = outages, wait: float = 0.0
) -> Iterator[None]:
    """Say who does not answer, at once and then each minute, for the time of the block, and for how many seconds it is
    waited for. A thread looks once a second."""
    ended = threading.Event()

    def watch() -> None:
        next_time: dict[str, float] = {}
        while not ended.wait(INTERVAL_SECONDS):
            now = {outage.service: outage for outage in look()}
            next_time = {service: next_time.get(service, 0.0) for service in now}
            for service, outage in now.items():
                if next_time[service] <= time.monotonic():
                    next_time[service] = time.monotonic() + REPEAT_SECONDS
                    say(outage.sentence(wait))

    context = copy_context()  # displays talk to Prefect, which finds the run in the context
    threading.Thread(target=context.run, args=(watch,), daemon=True, name="outages").start()
    try:
        yield
    finally:
        ended.set()
