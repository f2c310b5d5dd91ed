"""The watch: what a feed says that changed is indexed in batches, until the watch is told to stop.

The collector fills the inbox; the loop empties it, a batch of an index at a time. An ordinary run that takes over for
an index goes on beside the batches of the others. How a batch is run (with Prefect or without) is up to the `Runner`.
What a run found changed and the feed never gave is said as missed.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Protocol

from rag_index.errors import (
    IndexLocked,
    LedgerUnavailable,
    RagIndexError,
    SourceUnavailable,
    StoreBusy,
    StoreRestored,
    TransientError,
)
from rag_index.ledger.lease import IndexLease, holder
from rag_index.ledger.runs import lease_name
from rag_index.reports.outcome import missed_sentence
from rag_index.stores import commit_marks, live_aliases
from rag_index.watch.collector import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.changes.opening import JoinedFeed
    from rag_index.indexing.changed import Applied
    from rag_index.ledger import Ledger, WatchRecord
    from rag_index.settings import Settings

SETTLE_SECONDS = 10.0
"""How long after a run has found a change the feed is asked for it. Without synchronous commits, PostgreSQL shows a
change up to three times `wal_writer_delay` before it is in the log."""

logger = logging.getLogger("rag_index.watch")
GAP_SECONDS = 0.05
"""Between two batches lease and store are left alone for this long, so that a run that waits for them comes in."""

LOCKED_SECONDS = 1.0
"""Between two tries while another run holds the index or the embedded store."""

FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
"""Between two tries while a service is down, doubled each time."""

FIRST_RUN_PAUSE, MAX_RUN_PAUSE = 15.0, 900.0
"""Between two ordinary runs that fail, doubled each time: each starts workers and may read everything."""

FAILING_PAUSE = 60.0
"""Between two tries where somebody has to act."""

LOOK_SECONDS = 0.5
"""How often an ordinary run is asked whether it has ended."""

NOTE_SECONDS = 30.0
"""How often a watch that has nothing to do says that it lives."""

FLAG_SECONDS = 0.1
"""How often a watch that waits looks whether it was told to end."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question to the collector, and the last of the documents that it is about."""

    asked: int
    number: int


class MissedChanges:
    """Finds out, for each index of a watch, what the watch missed, and says so once. Used by one thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._questions: dict[str, _Question] = {}

    def begin(self, name: str, alias: str) -> None:
        """Prepare the judgement of what runs have mended until now. Call it before the collector begins."""
        last = self._ledger.last_mended(alias)
        if last is not None and self._is_settled(last[1]):
            self._questions[name] = _Question(0, last[0])

    def judge(self, name: str, record: WatchRecord, collector: Collector) -> bool:
        """Take the next step for an index; return whether it was found that the watch missed something.

        Nothing is judged while a run writes the index, or if nobody knows what changed.
        """
        last = self._ledger.last_mended(record.alias)
        if last is None or record.full_number is not None or holder(self._ledger, record.alias) is not None:
            self._questions.pop(name, None)
            return False
        question = self._questions.get(name)
        if question is None:
            if self._is_settled(last[1]):
                self._questions[name] = _Question(collector.ask(), last[0])
            return False
        if not collector.has_answered(name, question.asked) or self._ledger.any_look_ups(record.alias):
            return False
        missed = self._ledger.unexplained(record.alias, question.number)
        if missed:
            self._report(name, record, missed)
        del self._questions[name]
        return bool(missed)

    def _is_settled(self, found_at: float) -> bool:
        return self._ledger.clock() - found_at >= SETTLE_SECONDS

    def _report(self, name: str, record: WatchRecord, missed: list[str]) -> None:
        """Say what was missed, and only then record it: after a death between the two, it is said again."""
        level = logging.INFO if record.blind else logging.ERROR
        logger.log(level, "%s", missed_sentence(name, missed, record.blind, unkept=record.unkept))
        self._ledger.record_missed(record.alias, missed)


class Run(Protocol):
    """An ordinary run that was begun."""

    def applied(self) -> Applied | None:
        """Return how the run ended; None while it is under way."""

    def stop(self) -> Applied:
        """Tell the run to stop, wait until it has, and return how it ended."""


class Runner(Protocol):
    """How batches, and the runs that take their place, are carried out. Used by one thread."""

    def index_changes(self, name: str, waiting: int) -> Applied:
        """Index a batch of the `waiting` changes in the inbox of an index."""

    def begin_run(self, name: str) -> Run:
        """Begin a run of the index over all its documents, beside the batches of other indexes.

        Raises IndexLocked or StoreBusy if another run holds the index or the store.
        """


@dataclass(slots=True)
class _Index:
    """What the loop knows of an index that it watches."""

    name: str
    alias: str
    not_before: float = 0.0
    """When the next batch may be tried, by the monotonic clock."""
    pause: float = 0.0
    state: str = ""
    message: str = ""
    noted: float = field(default=float("-inf"))
    """When the ledger last heard of it."""
    caught_up: bool = False
    """Whether the ledger knows that everything that the feed gave is indexed."""
    failed: bool = False
    """Whether the last try failed for another reason than another run."""
    run: Run | None = None
    """The ordinary run that has taken over."""
    last_words: str = ""
    """What the ledger says of the index once the watch has ended."""


class Watch:
    """A watch of some indexes. `run` returns when `stop` is set, or once everything is indexed if asked for that."""

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        feed: JoinedFeed,
        ledger: Ledger,
        runner: Runner,
        stop: Stop,
        *,
        problems: Mapping[str, RagIndexError] | None = None,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a watch. `problems` is what `feed.check` returned.

        `changed` is called whenever the state that the ledger has of the watch has changed.
        """
        self._settings = settings
        self._indexes = [_Index(name, settings.alias(name)) for name in names]
        self._feed = feed
        self._ledger = ledger
        self._runner = runner
        self._stop = stop
        self._problems = problems or {}
        self._missed = MissedChanges(ledger)
        self._changed = changed
        self._clock = clock

    @property
    def names(self) -> list[str]:
        """The names of the indexes that are watched."""
        return [index.name for index in self._indexes]

    def run(self, *, once: bool = False) -> bool:
        """Watch until told to stop; with `once`, until everything is indexed that the feed knew at the start.

        Return whether every index was caught up at the end. Raises IndexLocked if the project is watched already, and
        what ends the collector if that is no error of ours.
        """
        with ExitStack() as stack:
            project = self._settings.project
            try:
                stack.enter_context(IndexLease(self._ledger, lease_name(project), "watch"))
            except IndexLocked as error:
                raise IndexLocked(
                    f"project {project} is watched already, by another process: stop that first"
                ) from error
            for index in self._indexes:
                self._ledger.begin_watch(index.alias, blind=self._feed.blind.get(index.name, ""))
                self._missed.begin(index.name, index.alias)
                self._note(index, "running", "")
            self._look_for_restored()
            try:
                with Collector(self._settings, self.names, self._feed, self._ledger, self._problems) as collector:
                    return self._loop(collector, once=once)
            finally:
                for index in self._indexes:
                    troubled = index.state in ("failing", "backing off")
                    self._note(index, "stopped", index.last_words or (index.message if troubled else ""))

    def _look_for_restored(self) -> None:
        """Let an ordinary run come first where store or ledger was put back to an older copy. A batch looks again."""
        with suppress(RagIndexError):
            live = live_aliases(self._settings.store)
            ours = {index.name: live[index.alias] for index in self._indexes if index.alias in live}
            read_marks = partial(commit_marks, self._settings.store)
            for name, difference in self._ledger.find_restored(ours, read_marks).items():
                logger.warning("%s: %s", name, difference)
                self._ledger.need_full_scan(self._settings.alias(name))

    def _loop(self, collector: Collector, *, once: bool) -> bool:
        try:
            self._work(collector, once=once)
        finally:
            for index in self._indexes:
                self._stop_run(index)
        if collector.died is not None:
            raise collector.died
        return not once or not any(collector.error(one.name) or self._is_behind(one) for one in self._indexes)

    def _work(self, collector: Collector, *, once: bool) -> None:
        """Index what changes until told to stop; with `once`, until nothing is left that can be done."""
        while not self._stop.is_set():
            if collector.died is not None:
                raise collector.died
            collector.arrived.clear()
            drained = collector.drained.is_set() or all(collector.error(one.name) for one in self._indexes)
            idle = True
            for index in self._indexes:
                if self._stop.is_set():
                    break
                idle = not self._step(index, collector) and idle
            if once and drained and idle and self._ended(collector):
                break
            if idle:
                self._wait(collector)
            else:
                self._stop.wait(GAP_SECONDS)

    def _ended(self, collector: Collector) -> bool:
        """Return whether a watch that is to catch up once has nothing left to do, or nothing that it can do."""
        if any(index.run for index in self._indexes):
            return False
        return all(one.failed or collector.error(one.name) or not self._is_behind(one) for one in self._indexes)

    def _is_behind(self, index: _Index) -> bool:
        record = self._ledger.watch(index.alias)
        needs_whole = record is not None and record.full_number is not None
        return needs_whole or self._ledger.count_waiting(index.alias) > 0

    def _wait(self, collector: Collector) -> None:
        """Wait until something arrives, or an index may be tried again."""
        now = self._clock()
        tries = [index.not_before - now for index in self._indexes if index.not_before > now]
        looks = [LOOK_SECONDS for index in self._indexes if index.run]
        self._stop.wait(min([NOTE_SECONDS, *tries, *looks]), until=collector.arrived)

    def _step(self, index: _Index, collector: Collector) -> bool:
        """Index a batch of what waits; return whether there was one to try."""
        if self._clock() < index.not_before:
            return False
        try:
            if index.run is not None:
                return self._follow_run(index, index.run)
            record, error = self._ledger.watch(index.alias), collector.error(index.name)
            if record is not None and error is None and self._missed.judge(index.name, record, collector):
                self._changed()
            waiting = self._ledger.count_waiting(index.alias)
            needed = error is None and record is not None and record.full_number is not None
            whole = self._whole_reason(index, waiting, needed=needed)
            if not waiting and not whole:
                self._note_idle(index, collector, error)
                return False
            index.caught_up = False
            if whole:
                return self._begin_run(index, whole)
            applied = self._runner.index_changes(index.name, waiting)
            if applied.error is not None and self._stop.is_set():
                self._note_stopped(index, "a batch")
            else:
                self._note_end(index, applied)
        except (LedgerUnavailable, IndexLocked, StoreBusy) as error:
            self._back_off(index, error)
        return True

    def _begin_run(self, index: _Index, why: str) -> bool:
        """Begin an ordinary run, one at a time. Return whether that was tried."""
        other = next((other.name for other in self._indexes if other.run), None)
        if other is not None:
            self._note(index, "waiting", f"an ordinary run of {other} is under way, then one takes over: {why}")
            return False
        index.run = self._runner.begin_run(index.name)
        self._note(index, "catching up", f"an ordinary run takes over: {why}")
        logger.warning("%s: an ordinary run takes over: %s", index.name, why)
        return True

    def _follow_run(self, index: _Index, run: Run) -> bool:
        """Note how an ordinary run ended; return whether it has."""
        applied = run.applied()
        if applied is None:
            self._note(index, index.state, index.message)
            return False
        index.run = None
        self._note_end(index, applied, whole=True)
        return True

    def _stop_run(self, index: _Index) -> None:
        """Stop an ordinary run that is under way, together with the watch."""
        if index.run is not None and index.run.stop().error is not None:
            self._note_stopped(index, "the ordinary run")
        index.run = None

    def _whole_reason(self, index: _Index, waiting: int, *, needed: bool) -> str:
        """Return why an ordinary run has to take over; "" if it need not."""
        if (needed or waiting) and not self._ledger.collections(index.alias):
            return "nothing is indexed yet"
        if needed:
            return "what changed is not known one by one (after a setup, TRUNCATE, a huge change or a restored backup)"
        return ""

    def _note_idle(self, index: _Index, collector: Collector, error: RagIndexError | None) -> None:
        if error is not None:
            state = "backing off" if isinstance(error, TransientError) else "failing"
            self._note(index, state, f"changes cannot be received: {error}")
        elif collector.drained.is_set():
            if not index.caught_up:
                index.noted = float("-inf")
            index.caught_up = True
            self._note(index, "running", "", caught_up_at=self._ledger.clock())
        else:
            self._note(index, "running", "")

    def _note_stopped(self, index: _Index, what: str) -> None:
        """Say that a batch or an ordinary run was stopped together with the watch."""
        index.last_words = f"{what} was stopped with the watch; the next watch or run continues it"
        logger.info("%s: %s", index.name, index.last_words)

    def _note_end(self, index: _Index, applied: Applied, *, whole: bool = False) -> None:
        error = applied.error
        if error is not None:
            self._back_off(index, error, whole=whole)
            return
        index.not_before, index.pause, index.failed = 0.0, 0.0, False
        message = applied.outcome.message if applied.outcome is not None else ""
        if applied.outcome is not None and not whole:  # a run says itself how it ended
            logger.info("%s", applied.outcome.sentence())
        self._note(index, "running", message, applied_at=self._ledger.clock())

    def _back_off(self, index: _Index, error: Exception, *, whole: bool = False) -> None:
        """Choose when the next batch, or the next ordinary run, is tried, and say why."""
        message = str(error)
        if isinstance(error, IndexLocked | StoreBusy | StoreRestored):  # after the last one, an ordinary run takes over
            index.pause, state = LOCKED_SECONDS, "waiting"
        else:
            state = "backing off" if isinstance(error, TransientError) else "failing"
            if whole:
                index.pause = min(MAX_RUN_PAUSE, max(FIRST_RUN_PAUSE, index.pause * 2))
                message = f"{message}; the next try is at {_utc(time.time() + index.pause)}"
            elif state == "failing":
                index.pause = FAILING_PAUSE
            else:
                index.pause = min(MAX_PAUSE, index.pause * 2 or FIRST_PAUSE)
        index.failed = state != "waiting"
        index.not_before = self._clock() + index.pause
        if (state, message) != (index.state, index.message):
            level = logging.ERROR if state == "failing" else logging.WARNING
            logger.log(level, "%s: %s: %s", index.name, state, message)
        self._note(index, state, message)

    def _note(self, index: _Index, state: str, message: str, **values: float) -> None:
        """Record the state of an index: at once if it changed, otherwise every `NOTE_SECONDS`."""
        now = self._clock()
        same = (state, message) == (index.state, index.message) and "applied_at" not in values
        if same and now - index.noted < NOTE_SECONDS:
            return
        index.state, index.message = state, message
        try:
            self._ledger.update_watch(index.alias, state=state, message=message, **values)
        except (LedgerUnavailable, SourceUnavailable):
            return
        index.noted = now
        self._changed()


def _utc(seconds: float) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(seconds))


class Stop:
    """A flag that a signal's handler may set. An `Event` must not be set there: the thread may hold its lock."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Tell the watch to end."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return whether the watch was told to end."""
        return self._is_set

    def wait(self, seconds: float, *, until: threading.Event | None = None) -> bool:
        """Wait this many seconds, until the flag is set or the event `until` is, and return whether the flag is."""
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            if until is None:
                time.sleep(min(FLAG_SECONDS, left))
            elif until.wait(min(FLAG_SECONDS, left)):
                break
        return self._is_set


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Set `stop` at SIGTERM and Ctrl-C, so that the watch ends after the batch that is under way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # otherwise it is ignored on purpose
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
