"""A trial: writers, a watch, and kills at random, until the index shows what the source has."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.errors import RagIndexError
from rag_index.ledger import Ledger
from rag_index.settings import load_settings
from tests.reliability.chaos.desk import Desk, crash
from tests.reliability.chaos.watcher import whole_run
from tests.reliability.chaos.writers import Writers
from tests.reliability.victim import kill_qdrant
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.fakes.qdrant import FakeQdrant

CATCH_UP_SECONDS = 600.0
"""A watch that has made no progress for so long has lost something."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a trial found."""

    operations: int
    rolled_back: int
    watches_killed: int
    databases_killed: int
    stores_killed: int
    embedded: int
    embedded_twice: int
    allowed_twice: int
    seconds: float
    differences: dict[str, list[str]]
    mended: dict[str, int]
    """What the nightly run afterwards had to do, by index."""
    nights: int
    """Runs over all documents that came in between, amid the changes."""
    found_first: int
    """What these runs found changed before the watch had indexed it."""
    missed: dict[str, list[str]]
    """What the watch said that it missed of that, by index: nothing, or it is wrong."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Trial:
    """One desk with its writers, its watch, and what is killed."""

    def __init__(
        self,
        desk: Desk,
        *,
        operations: int,
        seed: int,
        threads: int = 4,
        server: Any = None,
        qdrant: FakeQdrant | None = None,
    ) -> None:
        self.desk = desk
        self._random = random.Random(f"{seed} kills")
        self._writers = Writers(desk, operations, threads=threads, seed=seed)
        self._server, self._qdrant = server, qdrant
        self._kills: Counter[str] = Counter()
        self._texts = desk.folder / "embedded.txt"
        self._log = (desk.folder / "watch.log").open("ab")
        self._watch: subprocess.Popen[bytes] | None = None
        self._nights = self._found_first = 0
        self._settings = load_settings(desk.config)

    def run(self, *, kills: int) -> Result:
        """Let the writers work, and kill something at `kills` moments that are spread over their work."""
        started = time.monotonic()
        for index in self._settings.indexes:
            whole_run(self._settings, index.name)
        self._start_watch()
        with ExitStack() as stack:
            stack.callback(self._stop_watch)
            self._writers.start()
            total = self._writers.done + self._writers._left
            for moment in sorted(self._random.uniform(0.02, 1.0) for _ in range(kills)):
                eventually(
                    lambda at=moment * total: self._writers.done >= at or not self._writers.running, seconds=3000
                )
                self._kill()
                self._night()
            self._writers.join(3000)
            differences = self._catch_up()
            missed = {} if differences else self._judged()
        mended = {} if differences else self._nightly()
        texts = Counter(self._texts.read_text(encoding="utf-8").splitlines()) if self._texts.exists() else Counter()
        return Result(
            self._writers.done, self._writers.rolled_back,
            self._kills["watch"], self._kills["database"], self._kills["store"],
            sum(texts.values()), sum(texts.values()) - len(texts),
            sum(self._kills.values()) * self._settings.watch.batch_documents,
            time.monotonic() - started, differences, mended, self._nights, self._found_first, missed,
        )  # fmt: skip

    def _catch_up(self) -> dict[str, list[str]]:
        """Wait until the index shows what the source has; return how they differ if that does not come to be."""
        before: Any = None
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            self._keep_watching()
            try:
                now = self.desk.differences()
            except Exception as error:  # the store may be busy
                now = {"error": [str(error)]}
            if not now:
                return {}
            if now != before:
                before, deadline = now, time.monotonic() + min(CATCH_UP_SECONDS, 60.0)
            elif time.monotonic() > deadline:
                return now
            time.sleep(0.5)

    def _night(self) -> None:
        """Run over all documents amid the changes, if nothing is down."""
        with suppress(RagIndexError):
            self._found_first += sum(self._nightly().values())
            self._nights += 1

    def _judged(self) -> dict[str, list[str]]:
        """Return what the watch missed, once it has judged everything that the runs found first."""
        aliases = {index.name: self._settings.alias(index.name) for index in self._settings.indexes}
        with closing(Ledger(self._settings.ledger_url)) as ledger:

            def open_ones() -> dict[str, list[str]]:
                last = {name: ledger.last_mended(alias) for name, alias in aliases.items()}
                return {name: ledger.unexplained(aliases[name], at[0]) for name, at in last.items() if at}

            eventually(lambda: not open_ones(), open_ones)
            found = {name: [one.document_id for one in ledger.missed(alias)] for name, alias in aliases.items()}
            return {name: ids for name, ids in found.items() if ids}

    def _nightly(self) -> dict[str, int]:
        outcomes = [whole_run(self._settings, index.name) for index in self._settings.indexes]
        return {one.index: one.new + one.changed + one.payload_only + one.deleted + one.failed for one in outcomes}

    def _kill(self) -> None:
        kinds = ["watch", "watch"]
        kinds += ["database"] if self._server is not None else []
        kinds += ["store"] if self._qdrant is not None else []
        kind = self._random.choice(kinds)
        self._kills[kind] += 1
        if kind == "watch":
            self._stop_watch(kill=True)
            time.sleep(self._random.random())
            self._start_watch()
        elif kind == "database":
            crash(self._server)
        else:
            assert self._qdrant is not None
            kill_qdrant(self._qdrant, self._random.random())
        self._keep_watching()

    def _start_watch(self) -> None:
        self._watch = subprocess.Popen(
            [sys.executable, "-m", "tests.reliability.chaos.watcher", str(self.desk.config), str(self._texts)],
            stdout=self._log, stderr=self._log,
        )  # fmt: skip

    def _keep_watching(self) -> None:
        """Check that the watch did not end by itself; start one again that found no database as it started."""
        assert self._watch is not None
        if self._watch.poll() is not None:
            log = (self.desk.folder / "watch.log").read_text()[-3000:]
            if log.splitlines()[-1:] and "SourceUnavailable" in log.splitlines()[-1]:
                self._start_watch()
                return
            raise AssertionError(f"the watch ended with {self._watch.returncode}:\n{log}")

    def _stop_watch(self, *, kill: bool = False) -> None:
        assert self._watch is not None
        self._watch.kill() if kill else self._watch.terminate()
        try:
            self._watch.wait(timeout=60)
        finally:
            self._watch.kill()
