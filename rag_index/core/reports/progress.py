"""The record of one run of an index: what it did, how far it is, and where its time went. Its
progress is one state per index, in words and figures, shown as a bar in a terminal and as lines
elsewhere."""

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
RECENT = 30
"""The rate is that of the last so many steps, each of a second at least."""
MIN_MEASURED = 2.0
MAX_ETA = 1000
"""A rate foretells nothing that was measured for fewer seconds, and at most this many times as long
as the run took until now: the first documents may be those that need no embedding."""

LINE_SECONDS = 5.0
SHOWN_AFTER = 2.0
"""Seconds that a command other than a run takes before a terminal shows its progress, and five
times that for a pipe, which may be that of a cron job."""
INTERVAL_SECONDS = 1.0
REPEAT_SECONDS = 60.0
"""Time after which it is said again that a service does not answer."""
NARROW = 60
"""A terminal of fewer columns has no room for the noun."""
MAX_REASONS = 20
"""At most this many kinds of reasons are logged, why documents could not be indexed completely."""
logger = logging.getLogger("rag_index.indexing")


class Progress:
    """The progress of one index. It updates its displays at most every `interval` seconds. While a
    service does not answer, it says so instead of a rate and the time left, and neither the time
    nor what is done meanwhile counts for them. Documents are `done` once they are committed."""

    def __init__(
        self,
        index: str,
        noun: str = "documents",
        *,
        interval: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.index, self._noun = index, noun
        self.total = self.failed = 0
        self.done: float = 0
        self.worded = 0
        """Documents that can be found by their words before they are embedded."""
        self.note = ""
        """What the run does or waits for, until the next documents are done. Any thread may set
        it."""
        self.stopped = False
        """Whether a person stopped the run, so that its end is not that of the index."""
        self.wait = 0.0
        """For how many seconds a service that does not answer is waited for; 0 if nobody knows."""
        self.displays: list[Display] = []
        self.outages: Sequence[Outage] = ()
        """The services that some process waits for, each once, the longest silent first. Any thread
        may set it."""
        self._updating = threading.RLock()
        self._clock, self._interval = clock, interval
        self._begun = False
        self._updated = self._started = clock()
        self._recent = deque([(self._updated, 0.0)], maxlen=RECENT)
        self._is_resuming = False
        """Whether a service does not answer, or has not answered until lately: the next step is not
        measured."""
        self._is_aside = False
        """Whether the run does something else than what is counted."""

    def start(self, total: int, done: int = 0) -> None:
        """Set the total, and what was done of it before, and start measuring time."""
        self.total, self.done, self._begun, self._started = total, done, True, self._clock()
        self._recent = deque([(self._started, done)], maxlen=RECENT)
        self.tick(force=True)

    def advance(self, done: float, *, failed: int = 0) -> None:
        """Count `done` more documents as processed, `failed` of which could not be indexed."""
        self.done += done
        self.failed += failed
        self.note = ""
        self.tick()

    def say(self, note: str) -> None:
        """Set the note, which the next update displays."""
        self.note = note

    def announce(self, sentence: str) -> None:
        """Display a sentence at once, which stays in view; nothing if it is empty."""
        if sentence:
            with self._updating:
                self._display(lambda display: display.announce(f"{self.index}: {sentence}"))

    def tick(self, *, force: bool = False) -> None:
        """Update the displays, if they were not just updated. Call it while no document is
        finished."""
        with (
            self._updating
        ):  # the watch over outages updates displays while the flow's thread is blocked
            now = self._clock()
            self._measure(now)
            if force or now - self._updated >= self._interval:
                self._updated = now
                self._display(lambda display: display.show(self))

    def _measure(self, now: float) -> None:
        """Take note of how much was done until now, for the rate."""
        last, before = self._recent[-1]
        down = [outage.since for outage in self.outages if not outage.is_slow]
        if down:
            if not self._is_resuming:  # it is named only after some seconds
                self._forget_since(now - max(0.0, time.time() - min(down)))
            self._leave_out(now)
            self._is_resuming = True
        elif self.done != before and now - last >= 1.0 and not self._is_aside:
            if self._is_resuming:  # shards that waited for the service are all committed at once
                self._leave_out(now)
                self._is_resuming = False
            else:
                self._recent.append((now, self.done))

    def _forget_since(self, began: float) -> None:
        """Forget the steps after this time, by the clock."""
        while len(self._recent) > 1 and self._recent[-1][0] > began:
            self._recent.pop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let the block do something else than what is counted: neither its time nor what is done
        meanwhile counts for the rate, and no time left is shown."""
        self._is_aside = True
        try:
            yield
        finally:
            with self._updating:
                self._leave_out(self._clock())
                self._is_aside = False

    def _leave_out(self, now: float) -> None:
        """Let neither the time since the last step nor what was done in it count: the steps before
        are moved here."""
        last, before = self._recent[-1]
        seconds, done = now - last, self.done - before
        self._started += seconds
        self._recent = deque(
            [(at + seconds, count + done) for at, count in self._recent], maxlen=RECENT
        )

    def finish(self, sentence: str) -> None:
        """Finish all displays with this sentence."""
        with self._updating:
            self._display(lambda display: display.finish(self, sentence))
            self.displays = []

    def _display(self, call: Callable[[Display], None]) -> None:
        """Call each display. One that nobody can read any more, such as a pipe whose reader was
        killed, is left out."""
        for display in tuple(self.displays):
            try:
                call(display)
            except OSError:
                self.displays.remove(display)

    @property
    def rate(self) -> float:
        """Documents per second in the recent past."""
        (since, before), now = self._recent[0], self._clock()
        return max(0.0, self.done - before) / (now - since) if now > since else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at the recent rate; None if that is unknown, or a service is away."""
        if not (rate := self.rate) or self.total < self.done or self.outages or self._is_aside:
            return None
        left, elapsed = (self.total - self.done) / rate, self._clock() - self._started
        return left if elapsed >= MIN_MEASURED and left <= MAX_ETA * elapsed else None

    def sentence(self) -> str:
        """Return documents done, failures, time left, the note and the rate as one line."""
        return f"{self.index}: {_joined(self.headline(), self.details())}"

    def headline(self, *, short: bool = False) -> str:
        """Return what a person needs to see in any case: documents done, failures and time left."""
        share = self._share().removesuffix(f" {self._noun}") if short else self._share()
        return _joined(share, f"{self.failed:,} failed" if self.failed else "", self._left())

    def details(self) -> str:
        """Return what the headline leaves out: the note, and the rate."""
        words = (
            f"{self.worded:,} can be found by their words"
            if self.worded and not self._complete
            else ""
        )
        hidden = self._complete or self.outages or self._is_aside
        rate = f"{rate:,.0f}/s" if (rate := self.rate) and not hidden else ""
        return _joined(self._note(), words, rate)

    def card(self) -> str:
        """Return the headline first, without needless words, and then the details: a card shows 40
        characters of it."""
        return _joined(self.headline(short=True), self.details())

    def kept(self) -> str:
        """Return what a run that stops here keeps."""
        if not self._begun:
            return "nothing was changed"
        return (
            f"{self.done:,.0f} of {max(self.total, self.done):,.0f} {self._noun} are done and kept"
        )

    def percent(self) -> float:
        """Return how much is done, from 0 to 100."""
        return min(100.0, 100.0 * self.done / (self.total or self.done or 1))

    @property
    def _complete(self) -> bool:
        """Whether all is done, but for what comes after the documents, such as a search index."""
        return self._begun and self.done >= self.total

    def _share(self) -> str:
        if not self._begun and not self.done:
            return (
                "not begun" if self._note() else "waiting for the database, the embedder and Qdrant"
            )
        return f"{int(self.done):,} of {int(max(self.total, self.done)):,} {self._noun}"

    def _note(self) -> str:
        return "; ".join(outage.sentence(self.wait) for outage in self.outages) or self.note

    def _left(self) -> str:
        eta = self.eta
        if eta is None or self._complete:
            return ""
        minutes = round(eta / 60)
        longer = f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
        return f"{eta:.0f} s left" if eta < 90 else f"{longer} left"


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


class Display(Protocol):
    """The interface of a display of progress."""

    def show(self, progress: Progress) -> None:
        """Display the current state. `Progress` calls this a few times per second at most."""

    def announce(self, sentence: str) -> None:
        """Display a sentence that stays in view."""

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

    def announce(self, sentence: str) -> None:
        """Print a line."""
        print(printable(sentence), file=self._stream, flush=True)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Print the last line."""
        if sentence:
            print(printable(sentence), file=self._stream, flush=True)


class Bar:
    """A display that draws a live bar in a terminal: a line that fits any width, and a second one
    with details."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.table import Column
        from rich.text import Text

        self._console = Console(file=stream)
        name = TextColumn(
            "{task.fields[index]}", markup=False, table_column=Column(overflow="ellipsis")
        )
        headline = TextColumn(
            "{task.fields[headline]}", markup=False, table_column=Column(no_wrap=True)
        )
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
        done, total, index = progress.done, progress.total or None, progress.index
        self._bar.update(
            self._task, completed=done, total=total, visible=True, index=index, headline=headline
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
    """The progress of a command, which counts one thing after another. Nothing is displayed of what
    takes a moment."""

    def __init__(self, command: str) -> None:
        super().__init__(command)
        self._since = self._clock()

    def tick(self, *, force: bool = False) -> None:
        with self._updating:
            patience = SHOWN_AFTER if sys.stderr.isatty() else 5 * SHOWN_AFTER
            if self._begun and not self.displays and self._clock() - self._since >= patience:
                self.displays = [open_display()]
            super().tick(force=force)

    def count(
        self, items: Iterable[T], noun: str, total: Callable[[], int], size: Callable[[T], float]
    ) -> Iterator[T]:
        """Yield the items, and count them as `counted` does. What is counted meanwhile is a part of
        them."""
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
            self._begun = False
            self.finish("")


_SHOWN: ContextVar[_Counting | None] = ContextVar("the progress of a command", default=None)


@contextmanager
def shown(command: str, say: Callable[[str], object]) -> Iterator[None]:
    """Show what is `counted` in the block, on standard error, once it takes longer than a moment;
    and `say` who does not answer."""
    progress = _Counting(command)

    def look() -> Iterable[Outage]:
        progress.outages = outages()
        progress.tick()
        return progress.outages

    token = _SHOWN.set(progress)
    try:
        with said_outages(say, look=look):
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
    """Yield the items. If a command shows its progress, they are counted there, each as `size`
    many, as "3 of 9 points compared" if that is the `noun`. `total` is asked only then."""
    progress = _SHOWN.get()
    return iter(items) if progress is None else progress.count(items, noun, total, size)


@contextmanager
def said_outages(
    say: Callable[[str], object],
    *,
    look: Callable[[], Iterable[Outage]] = outages,
    wait: float = 0.0,
) -> Iterator[None]:
    """Say who does not answer, at once and then each minute, for the time of the block, and for how
    many seconds it is waited for. A thread looks once a second."""
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


@attrs.define(eq=False)
class RunRecord:
    """What a run writes down as it goes. Its owner reads it at the end."""

    index: str
    logger: Logger | None = None
    """Where errors and services that do not answer are logged; None if no person waits for this
    run."""
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
    """What the ledger keeps of the run, once it has ended."""
    paused: bool = attrs.field(default=False, init=False)
    """Whether the run has left something to another one, which is to come soon."""
    _started: float = attrs.field(factory=time.monotonic, init=False)
    _outage_until: float = attrs.field(factory=time.time, init=False)
    """The time up to which the seconds of outages are counted."""
    _reasons: Counter[tuple[str, str]] = attrs.field(factory=Counter, init=False)
    """The documents of each kind that could not be indexed completely, by what their reasons have
    in common."""
    _first_reasons: dict[tuple[str, str], str] = attrs.field(factory=dict, init=False)

    @property
    def log(self) -> Logger:
        """Return where to log what a person should see."""
        return self.logger or logger

    def note_first_shard(self) -> None:
        """Record when the first shard was begun."""
        if self.outcome.first_shard_after is None:
            self.outcome.first_shard_after = time.monotonic() - self._started
            self._outage_until = time.time()

    def note_outages(self, outages: Sequence[Outage]) -> None:
        """Show the services that do not answer now, and count the time since the first shard in
        which there are any."""
        self.progress.outages = outages
        down = [outage.since for outage in outages if not outage.is_slow]
        if down and self.outcome.first_shard_after is not None:
            now, since = time.time(), min(down)
            self.outcome.outage_seconds += max(0.0, now - max(since, self._outage_until))
            self._outage_until = now
        self.progress.tick()  # whatever the run's thread does meanwhile, such as building a search index

    def add(self, written: WrittenShard, *, new: int) -> None:
        """Count a shard that was committed, `new` of whose documents are new."""
        failed = sum(failure.kind == "failed" for failure in written.failures)
        for failure in written.failures:
            self._note(failure)
        self.outcome.add(written, new=new)
        self.progress.advance(len(written.keys) + failed, failed=failed)

    def _note(self, failure: Failure) -> None:
        # logs outlive an erasure, so that keys are for debugging alone
        key = document_id(failure.key)
        self.log.debug("%s: document %s %s: %s", self.index, key, failure.kind, failure.reason)
        for like, said in kinds_of(failure.reason, failure.kind).items():
            kind = failure.kind, like
            if kind in self._reasons or len(self._reasons) < MAX_REASONS:
                self._reasons[kind] += 1
                self._first_reasons.setdefault(kind, said)

    def end(self, embedder: EmbedderSettings, *, on_server: bool) -> dict[str, Any]:
        """Log why documents failed, end the clocks, and return the report that the ledger keeps."""
        outcome = self.outcome
        for (kind, like), count in self._reasons.most_common():  # of 1,230 pictures one line
            said = f"{'the first: ' * (count > 1)}{self._first_reasons[kind, like]}"
            self.log.warning("%s: %s %s: %s", self.index, count_of(count, "document"), kind, said)
        outcome.seconds = time.monotonic() - self._started
        outcome.stages = self.stopwatch.stages()
        said = advice(outcome, embedder, on_server=on_server)
        self.report = {**outcome.to_json(), "metrics": outcome.metrics(), "advice": said}
        return self.report
