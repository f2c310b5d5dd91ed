"""The loop of a watch.

It looks each second whether a source was written, and starts the ordinary run of each index whose
tables may have changed, each in a thread of its own, until it is stopped. The package's docstring
has the order of look, run and record.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.components.ledger.runs import IndexLease, lease_name
from rag_index.components.sources import has_digests
from rag_index.components.sources.hints import Hints, Look, Moved
from rag_index.core.machine import in_thread
from rag_index.errors import (
    IndexLocked,
    LedgerUnavailable,
    RagIndexError,
    SettingsReplaced,
    StoreBusy,
    TransientError,
)
from rag_index.watch.kept_runs import KeptRuns, RunEnd
from rag_index.watch.pace import LONG_AGO, MAX_REST_SECONDS, Pace

if TYPE_CHECKING:
    from rag_index.components.ledger import Ledger
    from rag_index.core.settings import Settings

logger = logging.getLogger("rag_index.watch")
LOOK_SECONDS = 1.0
"""Seconds between two looks, and between two attempts while another run holds an index. Chosen;
`benchmarks/watch.py` measures what it costs in an idle hour, and how late a change is found."""
FULL_SECONDS = MAX_REST_SECONDS
"""Seconds after which a run comes whatever the hints report. A longer rest would put it off."""
UNSEEN_SECONDS = 60.0
"""The same for a source without a hint whose digests make a run cheap, such as MySQL. Chosen;
docs/watching.md names it."""
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
"""Seconds between two attempts while a service is unavailable or a person has to act: the first
pause, doubled each time, up to the second number. Chosen; docs/watching.md names both."""
CLAIM_SECONDS = 5.0
"""Seconds between two records of the time up to which an index is complete. Chosen; the age that
answers report is up to so much higher."""
NOTE_SECONDS = 30.0
"""Seconds between two records of an unchanged state. Chosen; nothing depends on it."""
FLAG_SECONDS = 0.5
"""Seconds between two checks of the stop flag while the loop waits. Chosen: a signal waits so
long."""
NEVER = float("inf")
"""A time that no clock reaches."""
LEFT_TO_NIGHTLY_RUN = (
    "two runs in a row changed more than half of its documents, so the watch leaves it to the "
    "nightly run for a day; leave out a column that is another one each time that it is read, such "
    "as the time of the query"
)
TROUBLED = ("failing", "backing off")
"""The states of an index whose last attempt failed for another reason than another run."""


@dataclass(slots=True)
class _Index:
    """State of one watched index. Times are of the monotonic clock if the field names no other."""

    name: str
    alias: str
    runs: KeptRuns
    run_every: float = FULL_SECONDS
    """Seconds after which a run comes whatever the hints report."""
    under_way: Future[RunEnd] | None = None
    run_look: Look | None = None
    """The look before the run under way, or before the last one, began to read."""
    complete_look: Look | None = None
    """The look before the last run, if that run was complete."""
    run_began: float = LONG_AGO
    pace: Pace = field(default_factory=Pace)
    pause: float = 0.0
    """Seconds until the next attempt after an error."""
    not_before: float = LONG_AGO
    """When this pause is over."""
    retry_at: float = NEVER
    """When a failed document is tried again, in seconds since 1970."""
    is_complete: bool = False
    """Whether the ledger has the index as complete up to `complete_look`."""
    look_recorded_at: float = LONG_AGO
    state: str = ""
    message: str = ""
    state_recorded_at: float = LONG_AGO
    has_failures: bool = False


@dataclass(slots=True)
class Watch:
    """A watch of some indexes.

    `run` returns when `stop` is set. `changed` is called when the state of an index in the ledger
    has changed.
    """

    settings: Settings
    names: Sequence[str]
    ledger: Ledger
    stop: Stop
    changed: Callable[[], None] = lambda: None
    hints: Hints = field(init=False)
    _indexes: list[_Index] = field(init=False)
    _run_ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        self.hints = Hints(settings, settings.named(self.names))
        self._indexes = []
        for name in self.names:
            runs = KeptRuns(settings, name, self.stop.is_set)
            self._indexes.append(_Index(name, settings.alias(name), runs))

    def run(self, *, once: bool = False) -> bool:
        """Watch until `stop` is set. Return whether each index is indexed completely.

        Args:
            once: Return as soon as each index had a run that was complete or failed.

        Raises:
            IndexLocked: If the project is watched already.
        """
        project = self.settings.project
        held = f"project {project} is watched already, by"
        try:
            with IndexLease(self.ledger, lease_name(project), "watch", held):
                self._begin()
                try:
                    self._watch(once=once)
                finally:
                    self._end()
        finally:
            self.hints.close()
        return not any(index.has_failures for index in self._indexes)

    def _begin(self) -> None:
        looks = self.hints.look()
        names_by_reason: dict[str, list[str]] = {}
        for index in self._indexes:
            self.ledger.begin_watch(index.alias)
            self._record_state(index, "running", "")
            index.run_look = looks[index.name]
            why = self.hints.blind.get(index.name)
            if why:
                # No hint: "its database does not tell when it was last written".
                is_cheap = has_digests(self.settings, self.settings.index(index.name))
                index.run_every = UNSEEN_SECONDS if is_cheap else FULL_SECONDS
                reason = f"{_interval_text(index.run_every)}, since {why}"
                names_by_reason.setdefault(reason, []).append(index.name)
        for reason, names in names_by_reason.items():
            logger.info("%s: %s", ", ".join(names), reason)

    def _watch(self, *, once: bool) -> None:
        done: set[str] = set()
        while not self.stop.is_set():
            self._run_ended.clear()
            looks = self.hints.look()
            now = time.monotonic()
            for index in self._indexes:
                look = looks[index.name]
                run = index.under_way
                may_run = not (once and index.name in done)
                if run is not None:
                    # Its run is under way, or has ended since the last look.
                    if run.done() and self._settle(index, run.result()):
                        done.add(index.name)
                elif may_run and self._is_due(index, look, now):
                    self._start(index, look, now)
                else:
                    # It rests: other processes may write to the embedded store.
                    index.runs.let_go()
                self._record_state(index, index.state, index.message)
            if once and len(done) == len(self._indexes):
                return
            self.stop.wait(LOOK_SECONDS, until=self._run_ended)

    def _end(self) -> None:
        for index in self._indexes:
            if index.under_way is not None:
                # The run sees that `stop` is set, and ends at its next commit.
                end = index.under_way.result()
                self._settle(index, end)
            index.runs.close()
            message = index.message if index.state in TROUBLED else ""
            self._record_state(index, "stopped", message)

    def _is_due(self, index: _Index, look: Look, now: float) -> bool:
        # It pauses after an error.
        if now < index.not_before:
            return False
        moved = self._moved(index, look, now)
        return index.pace.allows_run(now, moved)

    def _moved(self, index: _Index, look: Look, now: float) -> Moved:
        """Return whether the index needs a run, because its source was written or for another
        reason. If it needs none, record that it is complete up to this look."""
        # The first run, or the one after a run that was not complete.
        if index.complete_look is None:
            return Moved.YES
        # The last run began 15 minutes ago. Some writes are seen by no hint: foreign tables.
        if now - index.run_began >= index.run_every:
            return Moved.YES
        # A failed document is due.
        if time.time() >= index.retry_at:
            return Moved.YES
        # Without a hint, two looks cannot be compared.
        if index.name in self.hints.blind:
            return Moved.NO
        moved = self.hints.moved(index.name, index.complete_look, look)
        if moved == Moved.NO:
            self._record_look(index, look, now)
        return moved

    def _record_look(self, index: _Index, look: Look, now: float) -> None:
        """Record that the index is complete up to this look, which equals that of its last run."""
        if now - index.look_recorded_at < CLAIM_SECONDS:
            return
        if index.complete_look is None or not index.is_complete:
            return
        index.look_recorded_at = now
        with suppress(LedgerUnavailable):
            complete_at = index.complete_look.at
            is_recorded = self.ledger.record_look(index.alias, look.at, after=complete_at)
            if not is_recorded:
                # The ledger no longer has the time: a repair deleted it, the index has other
                # settings, or the ledger is an older copy. The next look starts a run.
                index.complete_look = None

    def _start(self, index: _Index, look: Look, now: float) -> None:
        index.run_began = now
        index.run_look = look
        run = in_thread(lambda: index.runs.run(look.at), f"run of {index.name}")
        index.under_way = run
        run.add_done_callback(lambda _: self._run_ended.set())

    def _settle(self, index: _Index, end: RunEnd) -> bool:
        """Record how a run ended. Return whether nothing is left to do for the index now."""
        index.under_way = None
        if end.error is not None:
            return self._back_off(index, end.error)
        index.pause = 0.0
        index.not_before = LONG_AGO
        index.complete_look = index.run_look if end.complete else None
        index.is_complete = end.is_index_complete
        index.retry_at = end.next_try or NEVER
        outcome = end.outcome
        sentence = outcome.sentence()
        index.has_failures = outcome.state != "completed" or bool(outcome.failed)
        has_written = not outcome.nothing_to_do
        if has_written:
            logger.info("%s", sentence)
        index.pace.note_run(
            time.monotonic(),
            spent=end.spent,
            changed=outcome.changed + outcome.payload_only,
            documents=end.documents,
            paused=end.paused,
        )
        if index.pace.is_left_to_nightly_run:
            # Such as a view with the time of the query in a column.
            index.has_failures = True
            logger.error("%s: %s", index.name, LEFT_TO_NIGHTLY_RUN)
            self._record_state(index, "failing", LEFT_TO_NIGHTLY_RUN, has_written=has_written)
            return True
        message = sentence if index.has_failures else ""
        self._record_state(index, "running", message, has_written=has_written)
        return end.complete

    def _back_off(self, index: _Index, error: RagIndexError) -> bool:
        """Choose when the next run is tried, and record why. Return whether that does not depend on
        another process."""
        index.complete_look = None
        index.has_failures = True
        message = str(error)
        is_busy = isinstance(error, IndexLocked | StoreBusy | SettingsReplaced)
        if is_busy:
            # Another run holds the index, or another process the embedded store.
            state = "waiting"
            index.pause = LOOK_SECONDS
        else:
            # After 1, 2, 4, 8 seconds, and so on, up to a minute.
            state = "backing off" if isinstance(error, TransientError) else "failing"
            index.pause = min(MAX_PAUSE, max(FIRST_PAUSE, index.pause * 2))
        index.not_before = time.monotonic() + index.pause
        # The same error after each attempt is logged once.
        if (state, message) != (index.state, index.message):
            level = logging.ERROR if state == "failing" else logging.WARNING
            logger.log(level, "%s: %s: %s", index.name, state, message)
        self._record_state(index, state, message)
        return not is_busy

    def _record_state(
        self, index: _Index, state: str, message: str, *, has_written: bool = False
    ) -> None:
        """Record the state of an index in the ledger.

        It is recorded at once if it has changed or a run `has_written`, otherwise every
        `NOTE_SECONDS`: `changed` writes the age of the index to the metrics file, and a record that
        met an unavailable ledger is repeated.
        """
        now = time.monotonic()
        is_same = (state, message) == (index.state, index.message)
        is_recent = now - index.state_recorded_at < NOTE_SECONDS
        if is_same and is_recent and not has_written:
            return
        index.state = state
        index.message = message
        index.state_recorded_at = now
        with suppress(LedgerUnavailable):
            times = {"applied_at": self.ledger.clock()} if has_written else {}
            self.ledger.update_watch(index.alias, state=state, message=message, **times)
            self.changed()


class Stop:
    """A flag that ends a watch. A signal's handler may set it.

    An `Event` must not be set in a handler: the interrupted thread may hold its lock. The flag also
    counts as set if one of the `conditions` is true.
    """

    def __init__(self, *conditions: Callable[[], bool]) -> None:
        self._is_set = False
        self._conditions = conditions

    def set(self) -> None:
        """Set the flag."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return whether the flag is set, or one of the conditions is true."""
        return self._is_set or any(is_true() for is_true in self._conditions)

    def wait(self, seconds: float, *, until: threading.Event | None = None) -> bool:
        """Wait until the flag or the event is set, or the seconds are over. Return `is_set`."""
        end = time.monotonic() + seconds
        while not self.is_set():
            left = end - time.monotonic()
            if left <= 0:
                break
            step = min(FLAG_SECONDS, left)
            if until is None:
                time.sleep(step)
            elif until.wait(step):
                break
        return self.is_set()


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Set `stop` at SIGTERM and Ctrl-C, so that the watch ends at the next commit of its runs."""
    # Python allows handlers in the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    # A background job of a shell ignores SIGINT on purpose.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        numbers.append(signal.SIGINT)
    former = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _interval_text(seconds: float) -> str:
    """Return how often an index is read: "read every 15 minutes" for 900.0."""
    count = int(seconds)
    return f"read every {count // 60} minutes" if count > 60 else "read every minute"
