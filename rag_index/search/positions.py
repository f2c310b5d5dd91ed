"""Positions: up to where the indexes of an answer are complete, and how a search demands a maximum
age.

The ledger knows what an index has reached; one thread of the process reads it, for all searches,
and only while there are any. A search reads the position before it asks the store, so that it finds
everything up to there. A reader of the embedded store may have loaded an older state: then it
claims the position that this state has.
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
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.components.ledger import Ledger, Reached, Totals
from rag_index.components.ledger.runs import run_state
from rag_index.components.stores import commit_marks, live_aliases
from rag_index.core.machine import in_thread
from rag_index.errors import IndexBehind, LedgerError, RagIndexError, SettingsError, StoreError
from rag_index.search.concurrency import CLOSED
from rag_index.search.results import NOTHING_KNOWN, AsOf

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence
    from concurrent.futures import Future

    from rag_index.core.settings import Settings
    from rag_index.search.live_collections import LiveCollection

LEDGER_PATIENCE = 0.5
"""How long a search waits for the ledger, in seconds. Its hits do not depend on it."""
REST_SECONDS = 0.5
"""How long a reading of the ledger is young enough for any search."""
OLD_SECONDS = 10.0
"""A search waits for the ledger if the last reading is older."""
STORE_CHECK_SECONDS = 5.0
"""Between two looks at the last runs, and at whether store and ledger belong together."""
KEPT_POSITIONS = 50
"""Positions of an index that are remembered, for a reader that has an older state."""
CLOCK_AHEAD = (
    "ahead of this clock, which a run with a wrong clock wrote; the next complete run corrects it"
)
AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)?")
UNITS = {None: 1, "s": 1, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Known:
    """What the ledger said at one moment, by index."""

    reached: Mapping[str, Sequence[Reached]] = field(default_factory=dict)
    """The last positions, the newest last."""
    last_runs: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    live: Mapping[str, str] = field(default_factory=dict)
    totals: Mapping[str, Totals] = field(default_factory=dict)
    """How much is in these, as far as the ledger knows them and a caller asked, or they were never
    complete."""

    def newest(self, index: str) -> Reached | None:
        """Return the last position of an index."""
        return self.reached[index][-1] if self.reached.get(index) else None

    def state_of(self, index: str) -> str:
        """Return the state of the last run of an index that was never complete; "" if it was, or
        had no run."""
        return self.last_runs.get(index, "") if self.newest(index) is None else ""

    def claim(self, index: str, live: LiveCollection | None, commits: int | None) -> Reached | None:
        """Return the last position that holds for a collection as a reader saw it (None: with all
        commits)."""
        for one in reversed(self.reached.get(index, ())):
            same = live is not None and live.collection in (one.collection, one.alias)
            if same and (commits is None or commits >= one.commits):
                return one
        return None

    def as_of(self, index: str, reached: Reached | None) -> AsOf:
        """Return what an answer with this position says of an index."""
        run = self.last_runs.get(index)
        if reached is None:
            return replace(NOTHING_KNOWN, last_run=run)
        at = (
            dt.datetime.fromtimestamp(reached.at, dt.UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        if (age := time.time() - reached.at) < 0:
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
    """Return the error of the first index that is not known to be at most `max_age` seconds old,
    None if all are.

    Args:
        claims: The position of each index, None if none is known.
        known: What the ledger said, for the `as_of` of the error.
        max_age: The age that is allowed, in seconds.
    """
    for index, reached in claims.items():
        as_of = known.as_of(index, reached)
        if as_of.seconds_behind is not None and as_of.seconds_behind <= max_age:
            continue
        if as_of.at is not None:
            # it is too old: its last complete run began an hour ago
            state = (
                f"it is at {as_of.at}, {as_of.seconds_behind:g} s behind, as its {as_of.known_by}"
                " says"
            )
        elif reached is not None:
            # a run with a wrong clock wrote a time that lies ahead
            state = f"it is unknown {as_of.not_seen}"
        else:
            # no run was complete yet
            state = "nothing is known of how far it is; a complete run tells"
        message = (
            f"index {index} is not at most {max_age:g} s old: {state}; `rag-index status` shows"
            " what waits"
        )
        return IndexBehind(message, {index: asdict(as_of)})
    return None


class Positions:
    """What the ledger knows of the indexes, for the searches of a process, in any thread and event
    loop.

    It is read in a thread of its own, whenever a caller asks and the last reading is not young
    enough. The ledger is opened again for each check, since its file may have been replaced.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._aliases = {index.name: settings.alias(index.name) for index in settings.indexes}
        self._lock = threading.Lock()
        self._reading: Future[None] | None = None
        self._ledger: Ledger | None = None
        self._begun_at = self._read_at = self._checked_at = self._counted_at = -float("inf")
        self._to_count = self._closed = False
        self._known = Known()

    async def current(self) -> Known:
        """Return what is known, read within the last moments if the ledger answers at once; raises
        nothing.

        The first call waits until it is known whether store and ledger belong together.
        """
        now = time.monotonic()
        if now - self._read_at >= REST_SECONDS:
            reading, patience = (
                self._start(),
                LEDGER_PATIENCE if self._read_at > -float("inf") else STORE_CHECK_SECONDS,
            )
            if now - self._read_at > OLD_SECONDS and (left := self._begun_at + patience - now) > 0:
                with suppress(TimeoutError, RagIndexError):
                    await asyncio.wait_for(_shared(reading), left)
        return self._known

    async def read_again(self, seconds: float) -> Known:
        """Read the ledger now, for these seconds at most, and return what is known then.

        Raises StoreError once the positions are closed.
        """
        reading = self._start()
        with suppress(TimeoutError, RagIndexError):
            await asyncio.wait_for(_shared(reading), seconds)
        return self._known

    async def checked(self, *, counts: bool = False) -> Known:
        """Return what ledger and store say, looked at within some seconds, with `totals` if asked
        for them.

        However many ask, one looks. Raises what both raise.
        """
        due = time.monotonic() - STORE_CHECK_SECONDS
        while (self._counted_at if counts else self._checked_at) < due:
            self._to_count = self._to_count or counts
            await _shared(self._start())
        return self._known

    def close(self) -> None:
        """Read no more, and close the ledger. A second call does nothing."""
        with self._lock:
            self._closed, reading = True, self._reading
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
        """Read the ledger, and look at the store if that is due. Raises what is wrong with them."""
        failure = None
        try:
            due = self._to_count or time.monotonic() - self._checked_at >= STORE_CHECK_SECONDS
            if due or self._ledger is None:
                self._close_ledger()
                url = self._settings.ledger_url
                if url.get_backend_name() != "sqlite" or Path(str(url.database)).exists():
                    self._ledger = Ledger(url)  # a search creates no ledger
            if self._ledger is not None:
                self._read_positions(self._ledger)
            failure = self._check(self._ledger) if due else None
        except Exception as error:  # noqa: BLE001 - whatever it is, searches go on without positions
            failure = (
                error
                if isinstance(error, RagIndexError)
                else LedgerError(f"the ledger cannot be read: {error}")
            )
            self._known = Known()
        self._read_at = time.monotonic()
        if failure:
            self._close_ledger()  # the next reading opens it again
            raise failure

    def _read_positions(self, ledger: Ledger) -> None:
        known: Mapping[str, Reached] = ledger.reached()
        histories: dict[str, Sequence[Reached]] = {}
        for index, alias in self._aliases.items():
            history, reached = tuple(self._known.reached.get(index, ())), known.get(alias)
            if history and (reached is None or reached.at < history[-1].at):
                history = ()  # the ledger was restored, or forgot it
            new = () if reached is None or reached in history[-1:] else (reached,)
            histories[index] = (*history, *new)[-KEPT_POSITIONS:]
        self._known = replace(self._known, reached=histories)

    def _check(self, ledger: Ledger | None) -> RagIndexError | None:
        """Look at the last runs, and at the store; count what is in it if a caller asked.

        Return what is wrong with the store, for the answers of searches.
        """
        settings, known = self._settings, self._known
        if ledger is not None:
            runs = {index: ledger.last_run(alias) for index, alias in self._aliases.items()}
            states = {
                index: run_state(ledger, run) for index, run in runs.items() if run is not None
            }
            self._known = known = replace(known, last_runs=states)
        try:
            there = live_aliases(settings.store, settings.aliases)
            live = {index: there[alias] for index, alias in self._aliases.items() if alias in there}
            problems = (
                ledger.find_restored(live, partial(commit_marks, settings.store)) if ledger else {}
            )
            for index, name in live.items():
                alias = self._aliases[index]
                names = [one.name for one in ledger.collections(alias)] if ledger else []
                # The settings may name the store of a `rebuild --to` already, before a run has.
                elsewhere = (
                    [one.name for one in ledger.collections_elsewhere(alias)] if ledger else []
                )
                if names and name not in (*names, *elsewhere):
                    problems[index] = (
                        f"{name} of the store is none of the collections of {index} in the ledger "
                        f"({', '.join(names)}): name the store and the ledger that belong together"
                    )
            known = replace(known, live=live, problems=problems)
        except RagIndexError as error:
            return error
        counted = {
            index: name for index, name in live.items() if self._to_count or known.state_of(index)
        }
        found = (
            {index: ledger.collection(name) for index, name in counted.items()} if ledger else {}
        )
        totals = {
            index: ledger.totals(one.id)
            for index, one in found.items()
            if ledger and one is not None
        }
        known = replace(
            known,
            totals={name: known.totals[name] for name in live if name in known.totals} | totals,
        )
        if self._to_count:
            self._to_count, self._counted_at = False, time.monotonic()
        self._known, self._checked_at = known, time.monotonic()
        return None

    def _close_ledger(self) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            with suppress(Exception):
                ledger.close()


def _shared(reading: Future[None]) -> Awaitable[None]:
    """Await a reading that others share: giving up one wait leaves it running, and its error may
    then go unread."""
    waiting = asyncio.wrap_future(reading)
    waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    return asyncio.shield(waiting)
