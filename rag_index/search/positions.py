"""Positions: the time up to which each index of an answer is complete, and the check of a maximum
age.

The ledger records the position of each index. One thread of the process reads it for all searches,
and only while there are any. A search reads the position before it asks the store, so that it finds
everything up to there. A reader of the embedded store may have loaded an older state: then the
answer has the position of that state.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.ledger import Ledger, Reached, Totals
from rag_index.components.ledger.runs import run_state
from rag_index.components.stores import commit_marks, live_aliases
from rag_index.core.machine import in_thread
from rag_index.errors import IndexBehind, LedgerError, RagIndexError, SettingsError, StoreError
from rag_index.search.concurrency import CLOSED
from rag_index.search.results import NOTHING_KNOWN, AsOf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Mapping, Sequence
    from concurrent.futures import Future

    from rag_index.core.settings import Settings
    from rag_index.search.live_collections import LiveCollection

LEDGER_PATIENCE = 0.5
"""How long a search waits for the ledger, in seconds. Chosen; its hits do not depend on it."""
REST_SECONDS = 0.5
"""The ledger is not read again for this long, in seconds. Chosen."""
OLD_SECONDS = 10.0
"""A search waits for the ledger if the last reading is older, in seconds. Chosen."""
STORE_CHECK_SECONDS = 5.0
"""Seconds between two checks of the last runs, and of whether store and ledger belong together.
Chosen."""
KEPT_POSITIONS = 50
"""Positions of an index that are remembered, for a reader with an older state. Chosen."""
CLOCK_AHEAD = (
    "ahead of this clock, which a run with a wrong clock wrote; the next complete run corrects it"
)
AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)?")
"""An age: `10`, `10 s`, `1.5 h`."""
UNITS = {None: 1, "s": 1, "min": 60, "h": 3600, "d": 86_400}
"""Seconds of each unit of an age."""


@dataclass(frozen=True, slots=True)
class Known:
    """Snapshot of what ledger and store record of each index."""

    reached: Mapping[str, Sequence[Reached]] = field(default_factory=dict)
    """The last positions, the newest last."""
    last_runs: Mapping[str, str] = field(default_factory=dict)
    """The state of the last run, such as "completed"."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Why the index must not be searched."""
    live: Mapping[str, str] = field(default_factory=dict)
    """The name of the live collection."""
    totals: Mapping[str, Totals] = field(default_factory=dict)
    """The size of the live collection. It is counted if a caller requested it, or if the index was
    never complete."""

    def newest(self, index: str) -> Reached | None:
        """Return the last position of an index, or None if it has none."""
        positions = self.reached.get(index)
        return positions[-1] if positions else None

    def state_of(self, index: str) -> str:
        """Return the state of the last run of an index that was never complete. If it was, or had no
        run, return an empty text."""
        if self.newest(index) is not None:
            return ""
        return self.last_runs.get(index, "")

    def claim(self, index: str, live: LiveCollection | None, commits: int | None) -> Reached | None:
        """Return the last position that holds for the state of a collection that a reader has.

        `commits` is the commit mark of that state, or None if it is the latest.
        """
        if live is None:
            return None
        for position in reversed(self.reached.get(index, ())):
            is_same = live.collection in (position.collection, position.alias)
            if is_same and (commits is None or commits >= position.commits):
                return position
        return None

    def as_of(self, index: str, reached: Reached | None) -> AsOf:
        """Return the `as_of` of an answer of an index with this position."""
        run = self.last_runs.get(index)
        if reached is None:
            return replace(NOTHING_KNOWN, last_run=run)
        time_reached = dt.datetime.fromtimestamp(reached.at, dt.UTC)
        at = time_reached.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        age = time.time() - reached.at
        if age < 0:
            return AsOf(not_seen=f"how old this is: {at} is {CLOCK_AHEAD}", last_run=run)
        return AsOf(at, round(age, 3), reached.how, last_run=run)


def age_seconds(given: float | str) -> float:
    """Return an age in seconds: `10`, "10 s", "5 min", "1 h" or "2 d". Raises SettingsError."""
    found = AGE.fullmatch(str(given).strip())
    if found is None:
        raise SettingsError(
            f"max_age = {given!r}: give seconds, or a text such as '10 s', '5 min' or '1 h'"
        )
    return float(found[1]) * UNITS[found[2]]


def find_too_old(
    claims: Mapping[str, Reached | None], known: Known, max_age: float
) -> IndexBehind | None:
    """Return the error of the first index that is too old or of unknown age; None if there is none.

    Args:
        claims: The position of each index, or None if none is known.
        known: The snapshot, for the `as_of` of the error.
        max_age: The maximum age, in seconds.
    """
    for index, reached in claims.items():
        as_of = known.as_of(index, reached)
        if as_of.seconds_behind is not None and as_of.seconds_behind <= max_age:
            continue
        if as_of.at is not None:
            # It is too old: its last complete run began an hour ago.
            state = (
                f"it is at {as_of.at}, {as_of.seconds_behind:g} s behind, as its {as_of.known_by}"
                " says"
            )
        elif reached is not None:
            # A run with a wrong clock wrote a time in the future.
            state = f"it is unknown {as_of.not_seen}"
        else:
            # No run was complete yet.
            state = "nothing is known of how far it is; a complete run tells"
        message = (
            f"index {index} is not at most {max_age:g} s old: {state}; `rag-index status` shows"
            " what waits"
        )
        return IndexBehind(message, {index: asdict(as_of)})
    return None


class Positions:
    """The positions of the indexes, for all searches of a process. Safe to use from several threads
    and event loops.

    They are read in a thread of their own, when a caller needs them and the last reading is too old.
    The ledger is opened again for each check, since its file may have been replaced.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aliases = {index.name: settings.alias(index.name) for index in settings.indexes}
        self._lock = threading.Lock()
        self._reading: Future[None] | None = None
        self._ledger: Ledger | None = None
        self._is_missing = False
        """Whether there was no ledger at the last check."""
        # When the last reading began and ended, and the last check and count (`time.monotonic`).
        self._begun_at = self._read_at = self._checked_at = self._counted_at = -float("inf")
        self._to_count = False
        self._closed = False
        self._known = Known()

    async def current(self) -> Known:
        """Return the last snapshot, and read a new one if it is not young.

        A search waits for the new one if the last one is old, but only briefly. The first search
        waits longer, until it is known whether store and ledger belong together.

        Raises:
            StoreError: The positions are closed. Other errors are in the snapshot.
        """
        now = time.monotonic()
        if now - self._read_at < REST_SECONDS:
            return self._known
        reading = self._start()
        is_first = self._read_at == -float("inf")
        patience = STORE_CHECK_SECONDS if is_first else LEDGER_PATIENCE
        left = self._begun_at + patience - now
        if now - self._read_at > OLD_SECONDS and left > 0:
            with suppress(TimeoutError, RagIndexError):
                await asyncio.wait_for(_shared(reading), left)
        return self._known

    async def read_again(self, seconds: float) -> Known:
        """Read the ledger now, for these seconds at most, and return the snapshot.

        Raises:
            StoreError: the positions are closed.
        """
        reading = self._start()
        with suppress(TimeoutError, RagIndexError):
            await asyncio.wait_for(_shared(reading), seconds)
        return self._known

    async def checked(self, *, counts: bool = False) -> Known:
        """Return a snapshot of the last seconds for which the store was checked as well. With
        `counts`, it has `totals`.

        However many callers wait, ledger and store are read once. Raises what both raise.
        """
        due = time.monotonic() - STORE_CHECK_SECONDS
        while (self._counted_at if counts else self._checked_at) < due:
            self._to_count = self._to_count or counts
            await _shared(self._start())
        return self._known

    def close(self) -> None:
        """Stop reading, and close the ledger. A second call does nothing."""
        with self._lock:
            self._closed = True
            reading = self._reading
        if reading is not None:
            reading.add_done_callback(lambda _: self._close_ledger())

    def _start(self) -> Future[None]:
        """Return the reading that is under way, or start one."""
        with self._lock:
            if self._closed:
                raise StoreError(CLOSED)
            if self._reading is None or self._reading.done():
                self._begun_at = time.monotonic()
                self._reading = in_thread(self._read, "rag-index-positions")
            return self._reading

    def _read(self) -> None:
        """Read the ledger, and check the store if that is due. Raises what is wrong with them."""
        failure: RagIndexError | None = None
        try:
            is_due = time.monotonic() - self._checked_at >= STORE_CHECK_SECONDS or self._to_count
            # One that could not be read is opened again at once.
            if is_due or (self._ledger is None and not self._is_missing):
                self._open_ledger()
            if self._ledger is not None:
                self._read_positions(self._ledger)
            if is_due:
                failure = self._check(self._ledger)
        except RagIndexError as error:
            failure = error
            self._forget_positions()
        except Exception as error:  # noqa: BLE001 - whatever it is, searches go on without positions
            failure = LedgerError(f"the ledger cannot be read: {error}")
            self._forget_positions()
        self._read_at = time.monotonic()
        if failure:
            # The next reading opens it again.
            self._close_ledger()
            raise failure

    def _forget_positions(self) -> None:
        """Forget what the ledger said but for the indexes that must not be searched.

        The store of such an index was put back, for example, and has what people may no longer see.
        It stays closed until the ledger can be read and says that it is right again.
        """
        self._known = Known(problems=self._known.problems)

    def _open_ledger(self) -> None:
        """Open the ledger for reading. There is none before the first run, or on a machine that
        only searches; the next check then looks for it again."""
        self._close_ledger()
        ledger = Ledger(self._settings.ledger_url, read_only=True)
        self._is_missing = ledger.is_missing
        if self._is_missing:
            ledger.close()
        else:
            self._ledger = ledger

    def _read_positions(self, ledger: Ledger) -> None:
        """Add new positions to those of the last snapshot."""
        newest: Mapping[str, Reached] = ledger.reached()
        positions: dict[str, Sequence[Reached]] = {}
        for index, alias in self._aliases.items():
            reached = newest.get(alias)
            history = tuple(self._known.reached.get(index, ()))
            # The ledger was restored from a backup, or lost the position.
            if history and (reached is None or reached.at < history[-1].at):
                history = ()
            if reached is not None and reached not in history[-1:]:
                history = (*history, reached)
            positions[index] = history[-KEPT_POSITIONS:]
        self._known = replace(self._known, reached=positions)

    def _check(self, ledger: Ledger | None) -> RagIndexError | None:
        """Check the last runs and the store, and count what is in it if a caller requested that.

        Return the error of the store, or None.
        """
        if ledger is not None:
            self._known = replace(self._known, last_runs=self._run_states(ledger))
        known = self._known
        try:
            live = self._live_collections()
            known = replace(known, live=live, problems=self._find_problems(ledger, live))
        except RagIndexError as error:
            return error
        if ledger is not None:
            known = replace(known, totals=self._count(ledger, known))
        else:
            known = replace(known, totals=_of_indexes(known.totals, live))
        if self._to_count:
            self._to_count = False
            self._counted_at = time.monotonic()
        self._known = known
        self._checked_at = time.monotonic()
        return None

    def _run_states(self, ledger: Ledger) -> dict[str, str]:
        """Return the state of the last run of each index that had one."""
        runs = {index: ledger.last_run(alias) for index, alias in self._aliases.items()}
        return {index: run_state(ledger, run) for index, run in runs.items() if run is not None}

    def _live_collections(self) -> dict[str, str]:
        """Return the name of the live collection of each index that has one."""
        collections = live_aliases(self._settings.store, self._settings.aliases)
        live: dict[str, str] = {}
        for index, alias in self._aliases.items():
            if alias in collections:
                live[index] = collections[alias]
        return live

    def _find_problems(self, ledger: Ledger | None, live: Mapping[str, str]) -> dict[str, str]:
        """Return by index why store and ledger do not belong together."""
        if ledger is None:
            return {}
        problems = ledger.find_restored(live, partial(commit_marks, self._settings.store))
        for index, name in live.items():
            alias = self._aliases[index]
            names = [collection.name for collection in ledger.collections(alias)]
            # The settings may name the store of a `rebuild --to` already, before a run has.
            elsewhere = [collection.name for collection in ledger.collections_elsewhere(alias)]
            if names and name not in (*names, *elsewhere):
                problems[index] = (
                    f"{name} of the store is none of the collections of {index} in the ledger "
                    f"({', '.join(names)}): name the store and the ledger that belong together"
                )
        return problems

    def _count(self, ledger: Ledger, known: Known) -> dict[str, Totals]:
        """Return the totals of the live collections. All are counted if a caller requested that;
        else only those that were never complete, and the others keep their former totals."""
        totals = _of_indexes(known.totals, known.live)
        for index, name in known.live.items():
            if not self._to_count and not known.state_of(index):
                continue
            collection = ledger.collection(name)
            if collection is not None:
                totals[index] = ledger.totals(collection.id)
        return totals

    def _close_ledger(self) -> None:
        ledger = self._ledger
        self._ledger = None
        if ledger is not None:
            with suppress(Exception):
                ledger.close()


def _of_indexes(totals: Mapping[str, Totals], indexes: Iterable[str]) -> dict[str, Totals]:
    return {index: totals[index] for index in indexes if index in totals}


def _shared(reading: Future[None]) -> Awaitable[None]:
    """Return what awaits a reading that others share. A cancelled wait leaves the reading running,
    and nobody may read its error then."""
    waiting = asyncio.wrap_future(reading)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    return asyncio.shield(waiting)
