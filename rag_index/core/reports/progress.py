"""The record of one run of an index, and its progress: one state per index, shown as a bar in a
terminal and as lines elsewhere."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Protocol, TextIO, TypeVar

import attrs

from rag_index.core.documents.batches import kinds_of
from rag_index.core.documents.keys import document_id
from rag_index.core.recovery import Outage, outages
from rag_index.core.reports.metrics import Stopwatch, advice
from rag_index.core.reports.outcome import IndexOutcome, count_of
from rag_index.errors import printable

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    from rag_index.core.documents.batches import Failure, WrittenShard
    from rag_index.core.settings import EmbedderSettings
    from rag_index.errors import RagIndexError

    Logger: TypeAlias = logging.Logger | logging.LoggerAdapter[logging.Logger]

T = TypeVar("T")
# These numbers are chosen; only displays and logs depend on them.
RECENT = 30
"""Steps, each of a second at least, from which the rate is computed."""
MIN_MEASURED = 2.0
"""Seconds for which a rate must be measured before a time left is shown."""
MAX_ETA = 1000
"""A time left is not shown if it exceeds this multiple of the time so far: the first documents may
be those that need no embedding."""
LINE_SECONDS = 5.0
"""Seconds between two lines of a display without a terminal."""
SHOWN_AFTER = 2.0
"""Seconds that a command other than a run takes before a terminal shows its progress. A pipe, which
may be that of a cron job, waits five times as long."""
INTERVAL_SECONDS = 1.0
"""Seconds between two checks for outages."""
REPEAT_SECONDS = 60.0
"""Seconds after which an outage is reported again."""
NARROW = 60
"""Columns. A narrower terminal has no room for the noun."""
MAX_REASONS = 20
"""Kinds of reasons that are logged at most, why documents could not be indexed completely."""
logger = logging.getLogger("rag_index.indexing")


class Progress:
    """The progress of one index. Documents are `done` once they are committed.

    It updates its displays at most every `interval` seconds. During an outage it shows the service
    instead of a rate and the time left. Neither the time of an outage nor the documents done in it
    count for the rate.
    """

    def __init__(
        self,
        index: str,
        noun: str = "documents",
        *,
        interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index = index
        self._noun = noun
        self.total = 0
        self.failed = 0
        self.done: float = 0
        self.by_words = 0
        """Documents that are written by their words alone, before they are embedded."""
        self.note = ""
        """What the run does or waits for, until the next documents are done. Any thread may set
        it."""
        self.stopped = False
        """Whether a person stopped the run, so that its end is not that of the index."""
        self.wait = 0.0
        """For how many seconds the run waits for an unavailable service; 0 if unknown."""
        self.displays: list[Display] = []
        self.outages: Sequence[Outage] = ()
        """The services that some process waits for, each once, the longest silent first. Any thread
        may set it."""
        self._updating = threading.RLock()
        self._clock = clock
        self._interval = interval
        self._begun = False
        self._started = clock()
        self._updated = self._started
        self._recent = deque([(self._started, 0.0)], maxlen=RECENT)
        """The last steps: the time, and how many documents were done then."""
        self._is_resuming = False
        """Whether there is an outage, or one ended and no step was seen since. The next step is not
        measured."""
        self._is_aside = False
        """Whether the run does work that is not counted: see `aside`."""

    def start(self, total: int, done: int = 0) -> None:
        """Set the total, and how many documents were done before, and start measuring time."""
        self.total = total
        self.done = done
        self._begun = True
        self._started = self._clock()
        self._recent = deque([(self._started, done)], maxlen=RECENT)
        self.tick(force=True)

    def advance(self, done: float, *, failed: int = 0) -> None:
        """Count `done` more documents as processed, and `failed` of them as failed."""
        self.done += done
        self.failed += failed
        self.note = ""
        self.tick()

    def say(self, note: str) -> None:
        """Set the note. The next update displays it."""
        self.note = note

    def announce(self, sentence: str) -> None:
        """Display a sentence at once; it stays in view. An empty one is not displayed."""
        if sentence:
            with self._updating:
                self._display(lambda display: display.announce(f"{self.index}: {sentence}"))

    def tick(self, *, force: bool = False) -> None:
        """Update the displays, unless they were just updated. Call it while no document is
        finished."""
        # The thread that watches outages calls this while the flow's thread is blocked.
        with self._updating:
            now = self._clock()
            self._measure(now)
            if force or now - self._updated >= self._interval:
                self._updated = now
                self._display(lambda display: display.show(self))

    def _measure(self, now: float) -> None:
        """Record how much is done at this time, for the rate."""
        down = [outage.since for outage in self.outages if not outage.is_slow]
        # A service does not answer.
        if down:
            # The outage is reported some seconds after it began. Drop the steps of that time.
            if not self._is_resuming:
                silent_for = max(0.0, time.time() - min(down))
                self._forget_since(now - silent_for)
            self._leave_out(now)
            self._is_resuming = True
            return
        last, before = self._recent[-1]
        is_step = self.done != before and now - last >= 1.0
        if not is_step or self._is_aside:
            return
        # The first step after an outage: all shards that waited are committed at once.
        if self._is_resuming:
            self._leave_out(now)
            self._is_resuming = False
        else:
            self._recent.append((now, self.done))

    def _forget_since(self, began: float) -> None:
        """Drop the steps after this time, but keep the first."""
        while len(self._recent) > 1 and self._recent[-1][0] > began:
            self._recent.pop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Do other work in the block: neither its time nor the documents done in it count for the
        rate, and no time left is shown."""
        self._is_aside = True
        try:
            yield
        finally:
            with self._updating:
                self._leave_out(self._clock())
                self._is_aside = False

    def _leave_out(self, now: float) -> None:
        """Ignore the time since the last step and the documents done in it, by moving all earlier
        steps forward."""
        last, before = self._recent[-1]
        seconds = now - last
        done = self.done - before
        self._started += seconds
        moved = [(at + seconds, count + done) for at, count in self._recent]
        self._recent = deque(moved, maxlen=RECENT)

    def finish(self, sentence: str) -> None:
        """End all displays with this sentence."""
        with self._updating:
            self._display(lambda display: display.finish(self, sentence))
            self.displays = []

    def _display(self, call: Callable[[Display], None]) -> None:
        """Call each display, and remove one that raises OSError, such as a pipe whose reader was
        killed."""
        for display in tuple(self.displays):
            try:
                call(display)
            except OSError:
                self.displays.remove(display)

    @property
    def rate(self) -> float:
        """Documents per second in the recent past."""
        since, before = self._recent[0]
        now = self._clock()
        if now <= since:
            return 0.0
        return max(0.0, self.done - before) / (now - since)

    @property
    def eta(self) -> float | None:
        """Seconds left at the recent rate; None if that is unknown, or in an outage."""
        rate = self.rate
        if not rate or self.total < self.done or self.outages or self._is_aside:
            return None
        left = (self.total - self.done) / rate
        elapsed = self._clock() - self._started
        if elapsed < MIN_MEASURED or left > MAX_ETA * elapsed:
            return None
        return left

    def sentence(self) -> str:
        """Return documents done, failures, time left, the note and the rate as one line."""
        return f"{self.index}: {_joined(self.headline(), self.details())}"

    def headline(self, *, short: bool = False) -> str:
        """Return documents done, failures and time left: "30 of 90 documents, 2 failed, 40 s left".
        If `short`, without the noun."""
        share = self._share()
        if short:
            share = share.removesuffix(f" {self._noun}")
        failed = f"{self.failed:,} failed" if self.failed else ""
        return _joined(share, failed, self._left())

    def details(self) -> str:
        """Return what the headline leaves out: the note, and the rate."""
        words = ""
        if self.by_words and not self._complete:
            words = f"{self.by_words:,} can be found by their words"
        rate = self.rate
        is_hidden = self._complete or self.outages or self._is_aside
        shown_rate = f"{rate:,.0f}/s" if rate and not is_hidden else ""
        return _joined(self._note(), words, shown_rate)

    def card(self) -> str:
        """Return the short headline and then the details: a card of Prefect's page shows the first
        40 characters."""
        return _joined(self.headline(short=True), self.details())

    def kept(self) -> str:
        """Return what a run that stops now has written."""
        if not self._begun:
            return "nothing was changed"
        total = max(self.total, self.done)
        return f"{self.done:,.0f} of {total:,.0f} {self._noun} are done and kept"

    def percent(self) -> float:
        """Return the share that is done, from 0 to 100."""
        total = self.total or self.done or 1
        return min(100.0, 100.0 * self.done / total)

    @property
    def _complete(self) -> bool:
        """Whether all documents are done. The run may still do other work, such as building a
        search index."""
        return self._begun and self.done >= self.total

    def _share(self) -> str:
        if self._begun or self.done:
            total = int(max(self.total, self.done))
            return f"{int(self.done):,} of {total:,} {self._noun}"
        # The note names what the run waits for.
        if self._note():
            return "not begun"
        return "waiting for the database, the embedder and Qdrant"

    def _note(self) -> str:
        sentences = [outage.sentence(self.wait) for outage in self.outages]
        return "; ".join(sentences) or self.note

    def _left(self) -> str:
        eta = self.eta
        if eta is None or self._complete:
            return ""
        if eta < 90:
            return f"{eta:.0f} s left"
        minutes = round(eta / 60)
        if minutes < 90:
            return f"{minutes} min left"
        return f"{minutes // 60} h {minutes % 60} min left"


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


class Display(Protocol):
    """A display of progress."""

    def show(self, progress: Progress) -> None:
        """Display the current state. `Progress` calls this a few times per second at most."""

    def announce(self, sentence: str) -> None:
        """Display a sentence; it stays in view."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """End the display, with this sentence about the outcome unless it is empty."""


class Lines:
    """A display that prints a plain line every few seconds."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._last_time = clock() - LINE_SECONDS
        self._last_sentence = ""

    def show(self, progress: Progress) -> None:
        """Print a line if the last one is old enough, and differs."""
        now = self._clock()
        if now - self._last_time < LINE_SECONDS:
            return
        sentence = progress.sentence()
        if sentence != self._last_sentence:
            self._last_time = now
            self._last_sentence = sentence
            self._print(sentence)

    def announce(self, sentence: str) -> None:
        """Print a line."""
        self._print(sentence)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Print the last line."""
        if sentence:
            self._print(sentence)

    def _print(self, sentence: str) -> None:
        print(printable(sentence), file=self._stream, flush=True)


class Bar:
    """A display that draws a live bar in a terminal: a line that fits any width, and a second line
    with details."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text

        self._console = Console(file=stream)
        # A narrow terminal cuts the name of the index, not the headline.
        cut = Column(overflow="ellipsis")
        uncut = Column(no_wrap=True)
        name = TextColumn("{task.fields[index]}", markup=False, table_column=cut)
        headline = TextColumn("{task.fields[headline]}", markup=False, table_column=uncut)
        self._bar = RichProgress(name, BarColumn(None), headline, console=self._console)
        self._task = self._bar.add_task("", total=None, visible=False, index="", headline="")
        self._details = Text(no_wrap=True, overflow="ellipsis")
        lines = Group(self._bar, self._details)
        self._live = Live(lines, console=self._console, transient=True)
        self._live.start()
        atexit.register(self._live.stop)  # the terminal gets its cursor back however the run ends

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        self._details.plain = printable(progress.details())
        headline = progress.headline(short=self._console.width < NARROW)
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total or None,
            visible=True,
            index=progress.index,
            headline=headline,
        )

    def announce(self, sentence: str) -> None:
        """Print a line above the bar."""
        self._console.print(printable(sentence), markup=False, highlight=False)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Replace the bar by a line."""
        self._live.stop()
        atexit.unregister(self._live.stop)
        if sentence:
            print(printable(sentence), file=self._console.file, flush=True)


def open_display(stream: TextIO | None = None) -> Display:
    """Return a bar if the stream (standard error by default) is a terminal that can draw one, and
    lines if not."""
    stream = stream or sys.stderr
    if stream.isatty():
        from rich.console import Console

        if Console(file=stream).is_interactive:  # TERM is not "dumb"
            return Bar(stream)
    return Lines(stream)


class _Counting(Progress):
    """The progress of a command, which counts several things in turn. Work of a moment is not
    displayed."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._since = self._clock()

    def tick(self, *, force: bool = False) -> None:
        with self._updating:
            patience = SHOWN_AFTER if sys.stderr.isatty() else 5 * SHOWN_AFTER
            is_late = self._clock() - self._since >= patience
            if self._begun and not self.displays and is_late:
                self.displays = [open_display()]
            super().tick(force=force)

    def count(
        self, items: Iterable[T], noun: str, total: Callable[[], int], size: Callable[[T], float]
    ) -> Iterator[T]:
        """Yield the items, and count them as `counted` does."""
        # Within another count. Those items are a part of the outer ones.
        if self._begun:
            yield from items
            return
        self._noun = noun
        self.done = 0
        self.start(total())
        try:
            for item in items:
                yield item
                self.advance(size(item))
        finally:
            self._begun = False
            self.finish("")


_SHOWN: ContextVar[_Counting | None] = ContextVar("the progress of a command", default=None)


@contextmanager
def shown(command: str, say: Callable[[str], object]) -> Iterator[None]:
    """Show the progress of what is `counted` in the block on standard error, once it takes longer
    than a moment, and report outages by `say`."""
    progress = _Counting(command)

    def look() -> Iterable[Outage]:
        progress.outages = outages()
        progress.tick()
        return progress.outages

    token = _SHOWN.set(progress)
    try:
        with report_outages(say, look=look):
            yield
    finally:
        _SHOWN.reset(token)
        progress.finish("")


def counted(
    items: Iterable[T],
    noun: str,
    total: Callable[[], int],
    size: Callable[[T], float] = lambda _: 1,
) -> Iterator[T]:
    """Yield the items. If a command shows its progress, count them there, each as `size`: "3 of 9
    points compared", if the `noun` is "points compared". `total` is called only then."""
    progress = _SHOWN.get()
    return iter(items) if progress is None else progress.count(items, noun, total, size)


@contextmanager
def report_outages(
    say: Callable[[str], object],
    *,
    look: Callable[[], Iterable[Outage]] = outages,
    wait: float = 0.0,
) -> Iterator[None]:
    """Report each outage by `say` during the block, at once and then each minute. `wait` is for how
    many seconds the caller waits for a service. A thread looks once a second."""
    ended = threading.Event()

    def watch() -> None:
        # When each service is reported next, by the monotonic clock. A service that has answered
        # is forgotten, so that its next outage is reported at once.
        next_time: dict[str, float] = {}
        while not ended.wait(INTERVAL_SECONDS):
            by_service = {outage.service: outage for outage in look()}
            next_time = {service: next_time.get(service, 0.0) for service in by_service}
            for service, outage in by_service.items():
                if next_time[service] <= time.monotonic():
                    next_time[service] = time.monotonic() + REPEAT_SECONDS
                    say(outage.sentence(wait))

    context = copy_context()  # displays talk to Prefect, which finds the run in the context
    threading.Thread(target=context.run, args=(watch,), daemon=True, name="outages").start()
    try:
        yield
    finally:
        ended.set()


@attrs.define(eq=False)
class RunRecord:
    """The record of a run while it goes on: outcome, progress and times. Its owner reads it at the
    end."""

    index: str
    logger: Logger | None = None
    """The logger for errors and outages; None if no person waits for this run."""
    outcome: IndexOutcome = attrs.field(
        default=attrs.Factory(lambda self: IndexOutcome(self.index), True), init=False
    )
    progress: Progress = attrs.field(
        default=attrs.Factory(lambda self: Progress(self.index), True), init=False
    )
    stopwatch: Stopwatch = attrs.field(factory=Stopwatch, init=False)
    error: RagIndexError | None = attrs.field(default=None, init=False)
    """The error of ours that ended the run."""
    report: dict[str, Any] = attrs.field(factory=dict, init=False)
    """The report that the ledger keeps of the run, once it has ended."""
    paused: bool = attrs.field(default=False, init=False)
    """Whether the run leaves documents to a next run, which starts soon."""
    _started: float = attrs.field(factory=time.monotonic, init=False)
    _outage_until: float = attrs.field(factory=time.time, init=False)
    """The time up to which the seconds of outages are counted, by the wall clock."""
    _reasons: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """The number of incompletely indexed documents, by kind ("failed") and pattern of the reason
    (see `kinds_of`)."""
    _first_reasons: dict[tuple[str, str], str] = attrs.field(factory=dict, init=False)
    """The first reason of each such group."""

    @property
    def log(self) -> Logger:
        """Return the logger for messages to a person."""
        return self.logger or logger

    def note_first_shard(self) -> None:
        """Record when the first shard began."""
        if self.outcome.first_shard_after is None:
            self.outcome.first_shard_after = time.monotonic() - self._started
            self._outage_until = time.time()

    def note_outages(self, outages: Sequence[Outage]) -> None:
        """Show the present outages, and add their time since the first shard to the outcome."""
        self.progress.outages = outages
        down = [outage.since for outage in outages if not outage.is_slow]
        if down and self.outcome.first_shard_after is not None:
            now = time.time()
            uncounted_since = max(min(down), self._outage_until)
            self.outcome.outage_seconds += max(0.0, now - uncounted_since)
            self._outage_until = now
        # The run's thread may be blocked meanwhile, such as in building a search index.
        self.progress.tick()

    def add(self, written: WrittenShard, *, new: int) -> None:
        """Count a committed shard, with `new` documents that the ledger did not have."""
        failed = sum(failure.kind == "failed" for failure in written.failures)
        for failure in written.failures:
            self._note(failure)
        self.outcome.add(written, new=new)
        self.progress.advance(len(written.keys) + failed, failed=failed)

    def _note(self, failure: Failure) -> None:
        # Logs outlive an erasure, so a key is logged only at level DEBUG.
        key = document_id(failure.key)
        self.log.debug("%s: document %s %s: %s", self.index, key, failure.kind, failure.reason)
        for pattern, sentence in kinds_of(failure.reason, failure.kind).items():
            group = (failure.kind, pattern)
            if group in self._reasons or len(self._reasons) < MAX_REASONS:
                self._reasons[group] += 1
                self._first_reasons.setdefault(group, sentence)

    def end(self, embedder: EmbedderSettings, *, on_server: bool) -> dict[str, Any]:
        """Log why documents failed, stop the clocks, and return the report that the ledger
        keeps."""
        outcome = self.outcome
        # One line for 1,230 pictures: "1,230 documents incomplete: the first: …".
        for group, count in self._reasons.most_common():
            kind, _ = group
            reason = self._first_reasons[group]
            if count > 1:
                reason = f"the first: {reason}"
            self.log.warning("%s: %s %s: %s", self.index, count_of(count, "document"), kind, reason)
        outcome.seconds = time.monotonic() - self._started
        outcome.stages = self.stopwatch.stages()
        sentence = advice(outcome, embedder, on_server=on_server)
        self.report = {**outcome.to_json(), "metrics": outcome.metrics(), "advice": sentence}
        return self.report
