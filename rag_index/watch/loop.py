"""The watch: it looks each second whether a source was written, and carries out the ordinary run of each index whose
tables may have changed, each in a thread of its own, until it is told to stop. The look is taken before a run reads,
and kept only if the run was complete. So a later look that equals it says that the index has all that readers can see.
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
from rag_index.errors import IndexLocked, LedgerUnavailable, RagIndexError, SettingsReplaced, StoreBusy, TransientError
from rag_index.watch.kept_runs import KeptRuns, RunEnd
from rag_index.watch.pace import LONG_AGO, Pace

if TYPE_CHECKING:
    from rag_index.components.ledger import Ledger
    from rag_index.core.settings import Settings

logger = logging.getLogger("rag_index.watch")
LOOK_SECONDS = 1.0
"""Between two looks, and between two tries while another run holds an index."""
FULL_SECONDS = 900.0
"""After how long a run comes whatever the hints say."""
UNSEEN_SECONDS = 60.0
"""The same where there is no hint, but digests make a run cheap."""
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
"""Between two tries while a service is down or a person has to act, doubled each time."""
CLAIM_SECONDS = 5.0
"""How often at most the ledger is told by when an index is complete."""
NOTE_SECONDS = 30.0
FLAG_SECONDS = 0.5
"""How often a watch that waits looks whether it was told to end."""
NEVER = float("inf")
LEFT = (
    "two runs in a row changed more than half of its documents, so the watch leaves it to the night for a day; leave "
    "out a column that is another one each time that it is read, such as the time of the query"
)
TROUBLED = ("failing", "backing off")
"""The states of an index whose last try failed for another reason than another run."""


@dataclass(slots=True)
class _Index:
    """What the loop knows of an index that it watches."""

    name: str
    alias: str
    runs: KeptRuns
    every: float = FULL_SECONDS
    under_way: Future[RunEnd] | None = None
    looked: Look | None = None
    """The look that was taken before the run under way, or the last one, began to read."""
    seen: Look | None = None
    """That of the last run, if it was complete."""
    began: float = LONG_AGO
    pace: Pace = field(default_factory=Pace)
    pause: float = 0.0
    not_before: float = LONG_AGO
    retry_at: float = NEVER
    claims: bool = False
    """Whether the ledger says that the index was complete by `seen`."""
    claimed_at: float = LONG_AGO
    state: str = ""
    message: str = ""
    noted_at: float = LONG_AGO
    failed: bool = False


@dataclass(slots=True)
class Watch:
    """A watch of some indexes. `run` returns when `stop` is set, or once all is indexed if asked for that. `changed` is
    called when its state in the ledger has changed."""

    settings: Settings
    names: Sequence[str]
    ledger: Ledger
    stop: Stop
    changed: Callable[[], None] = lambda: None
    hints: Hints = field(init=False)
    _indexes: list[_Index] = field(init=False)
    _woken: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hints = Hints(self.settings, self.settings.named(self.names))
        is_set = self.stop.is_set
        self._indexes = [
            _Index(name, self.settings.alias(name), KeptRuns(self.settings, name, is_set)) for name in self.names
        ]

    def run(self, *, once: bool = False) -> bool:
        """Watch until told to stop; with `once`, until each index had a run that was complete or failed. Return whether
        all of each was indexed. Raises IndexLocked if the project is watched already."""
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
        return not any(index.failed for index in self._indexes)

    def _begin(self) -> None:
        looks, by_reason = self.hints.look(), dict[str, list[str]]()
        for index in self._indexes:
            self.ledger.begin_watch(index.alias)
            self._note(index, "running", "")
            index.looked = looks[index.name]
            if why := self.hints.blind.get(index.name):
                cheap = has_digests(self.settings, self.settings.index(index.name))
                index.every = UNSEEN_SECONDS if cheap else FULL_SECONDS
                often = f"read every {count // 60} minutes" if (count := int(index.every)) > 60 else "read every minute"
                by_reason.setdefault(f"{often}, since {why}", []).append(index.name)
        for reason, names in by_reason.items():
            logger.info("%s: %s", ", ".join(names), reason)

    def _watch(self, *, once: bool) -> None:
        ended: set[str] = set()
        while not self.stop.is_set():
            self._woken.clear()
            looks, now = self.hints.look(), time.monotonic()
            for index in self._indexes:
                if (run := index.under_way) is not None:
                    if run.done() and self._settle(index, run.result()):
                        ended.add(index.name)
                elif not (once and index.name in ended) and self._is_due(index, looks[index.name], now):
                    self._start(index, looks[index.name], now)
                else:
                    index.runs.let_go()
                self._note(index, index.state, index.message)
            if once and len(ended) == len(self._indexes):
                return
            self.stop.wait(LOOK_SECONDS, until=self._woken)

    def _end(self) -> None:
        for index in self._indexes:
            if index.under_way is not None:
                self._settle(index, index.under_way.result())  # waits for its next commit
            index.runs.close()
            self._note(index, "stopped", index.message if index.state in TROUBLED else "")

    def _is_due(self, index: _Index, look: Look, now: float) -> bool:
        if now < index.not_before:
            return False
        return index.pace.allows_run(now, self._moved(index, look, now))

    def _moved(self, index: _Index, look: Look, now: float) -> Moved:
        """Return whether a run is needed: because the source was written, or whatever the hints say."""
        # nothing is known of the last run, or its time is over, or a failed document is tried again
        if index.seen is None or now - index.began >= index.every or time.time() >= index.retry_at:
            return Moved.YES
        if index.name in self.hints.blind:
            return Moved.NO
        moved = self.hints.moved(index.name, index.seen, look)
        if moved == Moved.NO:
            self._claim(index, look, now)
        return moved

    def _claim(self, index: _Index, look: Look, now: float) -> None:
        """Say by when the index is complete: nothing was written since its last complete run."""
        if now - index.claimed_at < CLAIM_SECONDS or index.seen is None or not index.claims:
            return
        index.claimed_at = now
        with suppress(LedgerUnavailable):
            if not self.ledger.record_look(index.alias, look.at, after=index.seen.at):
                index.seen = None  # other settings, or an older copy of the ledger

    def _start(self, index: _Index, look: Look, now: float) -> None:
        index.began, index.looked = now, look
        index.under_way = in_thread(lambda: index.runs.run(look.at), f"run of {index.name}")
        index.under_way.add_done_callback(lambda _: self._woken.set())

    def _settle(self, index: _Index, end: RunEnd) -> bool:
        """Take note of how a run ended. Return whether nothing is left to do for it now."""
        index.under_way = None
        if end.error is not None:
            return self._back_off(index, end.error)
        index.pause, index.not_before = 0.0, LONG_AGO
        index.seen, index.claims = index.looked if end.complete else None, end.claims
        index.retry_at = end.next_try or NEVER
        did, outcome = end.outcome.sentence(), end.outcome
        index.failed = outcome.state != "completed" or bool(outcome.failed)
        wrote = not outcome.nothing_to_do
        if wrote:
            logger.info("%s", did)
        changed = outcome.changed + outcome.payload_only
        index.pace.note_run(
            time.monotonic(), spent=end.spent, changed=changed, documents=end.documents, paused=end.paused
        )
        if index.pace.is_left_to_night:
            index.failed = True
            logger.error("%s: %s", index.name, LEFT)
            self._note(index, "failing", LEFT, wrote=wrote)
            return True
        self._note(index, "running", did if index.failed else "", wrote=wrote)
        return end.complete

    def _back_off(self, index: _Index, error: RagIndexError) -> bool:
        """Choose when the next run is tried, and say why. Return whether that needs more than another run's end."""
        busy = isinstance(error, IndexLocked | StoreBusy | SettingsReplaced)
        index.seen, index.failed, message = None, True, str(error)
        index.pause = LOOK_SECONDS if busy else min(MAX_PAUSE, max(FIRST_PAUSE, index.pause * 2))
        index.not_before = time.monotonic() + index.pause
        state = "waiting" if busy else "backing off" if isinstance(error, TransientError) else "failing"
        if (state, message) != (index.state, index.message):
            level = logging.ERROR if state == "failing" else logging.WARNING
            logger.log(level, "%s: %s: %s", index.name, state, message)
        self._note(index, state, message)
        return not busy

    def _note(self, index: _Index, state: str, message: str, *, wrote: bool = False) -> None:
        """Record the state of an index: at once if it is another one or a run `wrote`, else every `NOTE_SECONDS`."""
        now, same = time.monotonic(), (state, message) == (index.state, index.message)
        if same and not wrote and now - index.noted_at < NOTE_SECONDS:
            return
        index.state, index.message, index.noted_at = state, message, now
        with suppress(LedgerUnavailable):
            times = {"applied_at": self.ledger.clock()} if wrote else {}
            self.ledger.update_watch(index.alias, state=state, message=message, **times)
            self.changed()


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
    """Set `stop` at SIGTERM and Ctrl-C, so that the watch ends with the next commit of what is under way."""
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
