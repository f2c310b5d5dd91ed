"""The watch: what a feed says that changed is indexed in batches, until the watch is told to stop. Collectors fill the
inbox; the loop empties it, a batch of an index at a time. An ordinary run that takes over for an index goes on beside
the batches of the others. How a batch is run is up to the runner. What a run found changed
and the feed never gave is said as missed."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.ledger.runs import IndexLease, holder, lease_name
from rag_index.components.sources import scan_settings
from rag_index.components.stores import commit_marks, live_aliases
from rag_index.core.reports.outcome import missed_sentence
from rag_index.errors import (
    IndexLocked,
    LedgerUnavailable,
    RagIndexError,
    SettingsReplaced,
    SourceUnavailable,
    StoreBusy,
    StoreRestored,
    TransientError,
)
from rag_index.etl.changed import Applied
from rag_index.watch.collector import Collector

if TYPE_CHECKING:
    from rag_index.components.ledger import Ledger, WatchRecord
    from rag_index.core.settings import Settings
    from rag_index.watch import OrdinaryRun, PlainRunner
    from rag_index.watch.changes.opening import OpenedFeeds

logger = logging.getLogger("rag_index.watch")
SETTLE_SECONDS = 10.0
"""How long after a run has found a change the feed is asked for it. Without synchronous commits, PostgreSQL shows a
change up to three times `wal_writer_delay` before it is in the log."""
GAP_SECONDS = 0.05
"""Between two batches lease and store are left alone for this long, so that a run that waits for them comes in."""
LOOK_SECONDS = 1.0
"""Between two looks whether an ordinary run has ended, of this watch or another that holds index or store."""
FIRST_BATCH_PAUSE, MAX_BATCH_PAUSE = 1.0, 60.0
"""Between two tries while a service is down or a person has to act, doubled each time."""
FIRST_RUN_PAUSE, MAX_RUN_PAUSE = 15.0, 900.0
"""Between two ordinary runs that fail, doubled each time: each starts workers and may read everything."""
NOTE_SECONDS = 30.0
FLAG_SECONDS = 0.1
"""How often a watch that waits looks whether it was told to end."""
UNKNOWN = (
    "since it is not known one by one what changed (other settings, a setup, TRUNCATE, ALTER TABLE, a huge change, or "
    "a restored backup)"
)
TROUBLED = ("failing", "backing off")
"""The states of an index whose last try failed for another reason than another run."""


@dataclass(slots=True)
class _Index:
    """What the loop knows of an index that it watches."""

    name: str
    alias: str
    collector: Collector
    not_before: float = 0.0
    """When the next batch may be tried, by the monotonic clock."""
    pause: float = 0.0
    state: str = ""
    message: str = ""
    noted: tuple[float, frozenset[str]] = (float("-inf"), frozenset())
    """When the ledger last heard of it, and which times were among that."""
    run: OrdinaryRun | None = None
    written: bool = False
    """Whether the watch, or a run for it, has written the index, so that its settings have replaced those before."""
    asked: tuple[float, int] | None = None
    """Since when the last of the documents that runs mended, with this number, has been waited for."""

    @property
    def error(self) -> RagIndexError | None:
        """Why changes of it are not received now; None if they are."""
        return self.collector.error(self.name)


class Watch:
    """A watch of some indexes. `run` returns when `stop` is set, or once everything is indexed if asked for that."""

    def __init__(
        self,
        settings: Settings,
        names: Sequence[str],
        feeds: OpenedFeeds,
        ledger: Ledger,
        runner: PlainRunner,
        stop: Stop,
        *,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a watch. `changed` is called whenever the state that the ledger has of it has changed."""
        self.names = list(names)
        self._settings, self._ledger = settings, ledger
        self._runner, self._stop, self._changed, self._clock = runner, stop, changed, clock
        self._feeds = feeds
        self._arrived, self._ended = threading.Event(), threading.Event()
        self._indexes: list[_Index] = []

    def run(self, *, once: bool = False, patient: bool = False) -> bool:
        """Watch until told to stop; with `once`, until everything is indexed that the feeds knew at the start. Return
        whether every index was caught up at the end. Raises IndexLocked if the project is watched already, and what
        ends a collector if that is no error of ours; also why changes are not seen if that is so for all indexes,
        unless it is `patient`."""
        project = self._settings.project
        with ExitStack() as stack:
            try:
                stack.enter_context(IndexLease(self._ledger, lease_name(project), "watch"))
            except IndexLocked as error:
                raise IndexLocked(
                    f"project {project} is watched already, by another process: stop that first"
                ) from error
            collectors = self._collectors()
            for index in self._indexes:
                self._ledger.begin_watch(index.alias, blind=self._feeds.blind.get(index.name, ""))
            if not patient and (unseen := self._indexes[0].error) and all(index.error for index in self._indexes):
                for index in self._indexes:
                    self._note(index, "stopped", f"changes are not seen: {index.error}")
                raise unseen
            for index in self._indexes:
                self._judge(index)  # a look of the collector, which begins later, answers it
                self._note(index, "running", "")
            self._look_at_collections()
            stack.callback(self._end)
            for collector in collectors:
                collector.start()
                stack.callback(collector.join)
            stack.callback(self._ended.set)
            try:
                self._work(once=once)
            finally:
                for index in self._indexes:
                    if index.run is not None and index.run.stop().error is not None:
                        self._note_stopped(index, "the ordinary run")
            self._raise_death()
            return not once or not any(index.error or self._is_behind(index) for index in self._indexes)

    def _collectors(self) -> list[Collector]:
        found = []
        for feed, names in self._feeds.feeds:
            events = {"arrived": self._arrived, "ended": self._ended}
            found.append(Collector(self._settings, self._ledger, feed, names, **events))
            ours = [name for name in self.names if name in names]
            self._indexes += [_Index(name, self._settings.alias(name), found[-1]) for name in ours]
        return found

    def _end(self) -> None:
        for index in self._indexes:
            if index.state != "stopped":
                times = {}
                with suppress(LedgerUnavailable):
                    if index.state == "running" and self._has_all(index) and not self._is_behind(index):
                        times = {"caught_up_at": self._ledger.clock()}
                self._note(index, "stopped", index.message if index.state in TROUBLED else "", **times)

    def _raise_death(self) -> None:
        for index in self._indexes:
            if index.collector.died is not None:
                raise index.collector.died

    def _look_at_collections(self) -> None:
        """Let an ordinary run come first after a restore of store or ledger, or a write by other settings."""
        with suppress(RagIndexError):
            live = live_aliases(self._settings.store)
            ours = {index.name: live[index.alias] for index in self._indexes if index.alias in live}
            for name, collection in ours.items():
                known, wanted = self._ledger.collection(collection), self._settings.index(name)
                if known is not None and known.written_by != scan_settings(self._settings, wanted):
                    self._ledger.need_full_scan(known.alias)
            read_marks = partial(commit_marks, self._settings.store)
            for name, difference in self._ledger.find_restored(ours, read_marks).items():
                logger.warning("%s: %s", name, difference)
                self._ledger.need_full_scan(self._settings.alias(name))

    def _work(self, *, once: bool) -> None:
        while not self._stop.is_set():
            self._raise_death()
            self._arrived.clear()
            drained = all(one.collector.drained or one.error for one in self._indexes)
            idle = True
            for index in self._indexes:
                if self._stop.is_set():
                    break
                idle = not self._step(index) and idle
            if once and drained and idle:
                left = [one for one in self._indexes if one.state not in TROUBLED and not one.error]
                if not any(one.run for one in self._indexes) and not any(map(self._is_behind, left)):
                    break
            if idle:
                now = self._clock()
                tries = [index.not_before - now for index in self._indexes if index.not_before > now]
                looks = [LOOK_SECONDS for index in self._indexes if index.run]
                self._stop.wait(min([NOTE_SECONDS, *tries, *looks]), until=self._arrived)
            else:
                self._stop.wait(GAP_SECONDS)

    @staticmethod
    def _has_all(index: _Index) -> bool:
        """Return whether all that the feed had to give is in the inbox, or was."""
        return index.error is None and index.collector.died is None and index.collector.drained

    def _is_behind(self, index: _Index) -> bool:
        record = self._ledger.watch(index.alias)
        return (record is not None and record.full_number is not None) or self._ledger.count_waiting(index.alias) > 0

    def _step(self, index: _Index) -> bool:
        if self._clock() < index.not_before:
            return False
        try:
            if index.run is not None:
                if (ended := index.run.applied()) is None:
                    self._note(index, index.state, index.message)
                    return False
                index.run = None
                self._note_applied(index, ended, whole=True)
                return True
            has_all = self._has_all(index)  # of what the inbox is read for next; more may arrive meanwhile
            record, waiting, error = self._judge(index), self._ledger.count_waiting(index.alias), index.error
            lost = error is None and record is not None and record.full_number is not None
            if (lost or waiting) and not self._ledger.collections(index.alias):
                return self._begin_run(index, "since nothing is indexed yet")
            if lost:
                new = record is not None and record.caught_up_at is None
                return self._begin_run(index, "since this watch is new" if new else UNKNOWN)
            if not waiting:
                self._note_idle(index, error, has_all=has_all)
                return False
            applied = self._runner.index_changes(index.name, waiting)
            if isinstance(applied.error, SettingsReplaced) and not (index.written or error):
                self._ledger.need_full_scan(index.alias)  # the settings of the watch are the newer ones
            elif applied.error is not None and self._stop.is_set():
                self._note_stopped(index, "a batch")
            else:
                replaced = isinstance(applied.error, SettingsReplaced)
                self._note_applied(index, Applied(None, error) if replaced and error else applied)
        except (LedgerUnavailable, IndexLocked, StoreBusy) as error:
            self._back_off(index, error)
        return True

    def _judge(self, index: _Index) -> WatchRecord | None:
        """Say what the watch missed of an index, if that can be told now, and return the record of its watch. What runs
        have mended is judged once the feed has given all that was committed some time after. Nothing is judged while a
        run writes the index, or if it is unknown what changed."""
        record, last = self._ledger.watch(index.alias), self._ledger.last_mended(index.alias)
        if record is None or last is None or record.full_number is not None or holder(self._ledger, index.alias):
            index.asked = None
        elif index.asked is None:
            number, found_at = last
            if self._ledger.clock() - found_at >= SETTLE_SECONDS:
                index.asked = time.time(), number
        elif index.error is None and not self._ledger.any_look_ups(index.alias):
            since, number = index.asked
            if index.collector.looked_at.get(index.name, 0.0) > since:
                if missed := self._ledger.unexplained(index.alias, number):
                    level = logging.INFO if record.blind else logging.ERROR
                    logger.log(level, "%s", missed_sentence(index.name, missed, record.blind, unkept=record.unkept))
                    self._ledger.record_missed(index.alias, missed)  # after a death before this, it is said again
                    self._changed()
                index.asked = None
        return record

    def _begin_run(self, index: _Index, why: str) -> bool:
        """Begin an ordinary run, one at a time. Return whether that was tried."""
        if other := next((other.name for other in self._indexes if other.run), None):
            self._note(index, "waiting", f"an ordinary run of {other} is under way, then all is compared, {why}")
            return False
        index.run = self._runner.begin_run(index.name)
        self._note(index, "catching up", f"everything is compared once, {why}")
        level = logging.WARNING if why == UNKNOWN else logging.INFO
        logger.log(level, "%s: comparing everything once, %s", index.name, why)
        return True

    def _note_idle(self, index: _Index, error: RagIndexError | None, *, has_all: bool) -> None:
        state, message = "running", ""
        if error is not None:
            state = "backing off" if isinstance(error, TransientError) else "failing"
            message = f"changes cannot be received: {error}"
        if message and message != index.message:
            logger.warning("%s: %s", index.name, message)
        times = {"caught_up_at": self._ledger.clock()} if has_all else {}
        self._note(index, state, message, **times)

    def _note_stopped(self, index: _Index, what: str) -> None:
        words = f"{what} was stopped with the watch; the next watch or run continues it"
        logger.info("%s: %s", index.name, words)
        self._note(index, "stopped", words)

    def _note_applied(self, index: _Index, applied: Applied, *, whole: bool = False) -> None:
        """Note how a batch ended, or (`whole`) an ordinary run, which says that itself."""
        if applied.error is not None:
            self._back_off(index, applied.error, whole=whole)
            return
        index.not_before, index.pause, index.written = 0.0, 0.0, True
        outcome = applied.outcome
        if outcome is not None and not whole:
            logger.info("%s", outcome.sentence())
        self._note(index, "running", outcome.message if outcome is not None else "", applied_at=self._ledger.clock())

    def _back_off(self, index: _Index, error: Exception, *, whole: bool = False) -> None:
        """Choose when the next batch, or the next ordinary run, is tried, and say why."""
        message = str(error)
        if isinstance(error, IndexLocked | StoreBusy | StoreRestored):  # after the last one, an ordinary run takes over
            index.pause, state = LOOK_SECONDS, "waiting"
        else:
            state = "backing off" if isinstance(error, TransientError) else "failing"
            first, most = (FIRST_RUN_PAUSE, MAX_RUN_PAUSE) if whole else (FIRST_BATCH_PAUSE, MAX_BATCH_PAUSE)
            index.pause = min(most, max(first, index.pause * 2))
            if whole:
                at = time.strftime("%H:%M:%S UTC", time.gmtime(time.time() + index.pause))
                message = f"{message}; the next try is at {at}"
        index.not_before = self._clock() + index.pause
        if (state, message) != (index.state, index.message):
            level = logging.ERROR if state == "failing" else logging.WARNING
            logger.log(level, "%s: %s: %s", index.name, state, message)
        self._note(index, state, message)

    def _note(self, index: _Index, state: str, message: str, **times: float) -> None:
        """Record the state of an index: at once if a batch was applied or more is known, else every `NOTE_SECONDS`."""
        now, (last, known) = self._clock(), index.noted
        same = (state, message, frozenset(times)) == (index.state, index.message, known) and "applied_at" not in times
        if same and now - last < NOTE_SECONDS:
            return
        index.state, index.message = state, message
        try:
            self._ledger.update_watch(index.alias, state=state, message=message, **times)
        except (LedgerUnavailable, SourceUnavailable):
            return
        index.noted = now, frozenset(times)
        self._changed()


class Stop:
    """A flag that a signal's handler may set. An `Event` must not be set there: the thread may hold its lock. It counts
    as set, too, where one of `also` says so."""

    def __init__(self, *also: Callable[[], bool]) -> None:
        self._is_set, self._also = False, also

    def set(self) -> None:
        """Tell the watch to end."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return whether the watch was told to end."""
        return self._is_set or any(one() for one in self._also)

    def wait(self, seconds: float, *, until: threading.Event | None = None) -> bool:
        """Wait this many seconds, until the flag is set or the event `until` is, and return whether the flag is."""
        end = time.monotonic() + seconds
        while not self.is_set() and (left := end - time.monotonic()) > 0:
            if until is None:
                time.sleep(min(FLAG_SECONDS, left))
            elif until.wait(min(FLAG_SECONDS, left)):
                break
        return self.is_set()


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
