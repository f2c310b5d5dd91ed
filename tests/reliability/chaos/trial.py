"""A trial: writers, a watch, searchers, and kills at random, until the index shows what the source
has. Every answer that claims a time is held against what had been committed by then."""

from __future__ import annotations

import datetime as dt
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

from rag_index.core.settings import load_settings
from rag_index.errors import RagIndexError
from rag_index.search import Retriever
from tests.fakes.qdrant import FakeQdrant
from tests.reliability.chaos.desk import Desk, crash
from tests.reliability.chaos.watcher import whole_run
from tests.reliability.chaos.writers import Writer, judge
from tests.reliability.victim import kill_qdrant

STALL_SECONDS = 60.0
"""A watch that has made no progress for so long has lost something."""
AFTER = 0.5
"""The share of searches that are repeated until they claim the last commit of a writer."""
WAIT = 3600
"""Seconds in which that happens: however busy the machine is, the watch comes so far."""
SEARCH_PAUSE = 0.05
"""Between two searches that wait for a commit."""


class Trial:
    """One desk with its writers, its watch, its searchers, and what is killed."""

    def __init__(
        self,
        desk: Desk,
        *,
        seed: int,
        writers: int = 4,
        searchers: int = 0,
        operations: float = float("inf"),
        rate: float = 0.0,
        server: Any = None,
        qdrant: FakeQdrant | None = None,
    ) -> None:
        """Prepare a trial. `server` and `qdrant` are killed too, if they are given."""
        self.desk, self._seed, self._searchers = desk, seed, searchers
        self._random, self._server, self._qdrant = random.Random(f"{seed} kills"), server, qdrant
        self._operations, self._stop, self._lock = operations, threading.Event(), threading.Lock()
        self._writers = [
            Writer(
                desk,
                number,
                writers,
                seed=seed,
                stop=self._stop,
                operations=operations // writers,
                rate=rate,
                keeps=searchers > 0,
            )
            for number in range(writers)
        ]
        self._counts: Counter[str] = Counter()
        self._waited: list[float] = []
        self._errors: list[str] = []
        self._violations: list[str] = []
        self._texts, self._log = desk.folder / "embedded.txt", desk.folder / "watch.log"
        self._watch: subprocess.Popen[bytes] | None = None
        self._settings = load_settings(desk.config)

    def run(
        self, *, kills: int, seconds: float = float("inf"), nights: bool = True
    ) -> dict[str, Any]:
        """Let the writers work, kill at `kills` moments that are spread over that, and return what
        was found. After each kill a run over all documents comes in between, if `nights`."""
        began = time.monotonic()
        self._nightly()
        self._start_watch()
        with ExitStack() as stack:
            stack.callback(self._stop_watch)
            stack.callback(self._stop.set)
            searching = [
                threading.Thread(target=self._search, args=(number,))
                for number in range(self._searchers)
            ]
            for thread in (*self._writers, *searching):
                thread.start()
            end = time.monotonic() + seconds
            for moment in [*sorted(self._random.uniform(0.02, 1.0) for _ in range(kills)), 1.0]:
                while self._progress(end, seconds) < moment:
                    time.sleep(0.02)
                if moment < 1.0:
                    self._kill()
                    self._night() if nights else None
            self._stop.set()
            for thread in (
                *self._writers,
                *searching,
            ):  # the watch, which is killed no more, answers the last searches
                while thread.is_alive():
                    self._keep_watching()
                    thread.join(1)
            self._search_for_all()
            differences = self._catch_up()
        mended = {} if differences else self._nightly()
        return self._found(time.monotonic() - began) | {
            "differences": differences,
            "mended": mended,
        }

    def _progress(self, end: float, seconds: float) -> float:
        """Return how much of the trial is over. Raises what ended a writer."""
        if failure := next((one.failure for one in self._writers if one.failure), None):
            raise failure
        if not any(one.is_alive() for one in self._writers):
            return 1.0
        done = sum(one.done for one in self._writers) / self._operations
        return max(
            done, 1.0 - (end - time.monotonic()) / seconds if seconds < float("inf") else 0.0
        )

    def _found(self, seconds: float) -> dict[str, Any]:
        texts = (
            Counter(self._texts.read_text(encoding="utf-8").splitlines())
            if self._texts.exists()
            else Counter()
        )
        cuts = statistics.quantiles(self._waited, n=100) if len(self._waited) > 1 else [0.0] * 99
        kills = {
            one: self._counts[one]
            for one in ("watches_killed", "databases_killed", "stores_killed")
        }
        sums = {
            one: sum(getattr(w, one) for w in self._writers)
            for one in ("done", "rolled_back", "transactions")
        }
        return {
            "seconds": round(seconds, 1),
            "operations": sums.pop("done"),
            **sums,
            **kills,
            "embedded": sum(texts.values()),
            "embedded_twice": sum(texts.values()) - len(texts),
            "nights": self._counts["nights"],
            "found_first": self._counts["found_first"],
            "searches": self._counts["searches"],
            "claimed": self._counts["claimed"],
            "waited_s": {
                "count": len(self._waited),
                "p50": round(cuts[49], 3),
                "p95": round(cuts[94], 3),
            },
            "errors": self._errors[:5],
            "violations": self._violations[:5],
        }

    # Searches

    def _retriever(self) -> Retriever:
        retrieve = self._settings.retrieve.model_copy(update={"timeout": WAIT})
        store = self._settings.store.model_copy(update={"timeout": WAIT})
        return Retriever(self._settings.model_copy(update={"retrieve": retrieve, "store": store}))

    def _search(self, number: int) -> None:
        chance = random.Random(f"{self._seed} searcher {number}")
        with self._retriever() as retriever:
            while not self._stop.is_set():
                writer = chance.choice(self._writers)
                self._ask(
                    retriever, writer, writer.committed_at if chance.random() < AFTER else 0.0
                )

    def _search_for_all(self) -> None:
        if self._searchers:
            with self._retriever() as retriever:
                for writer in self._writers:
                    self._ask(retriever, writer, writer.committed_at)

    def _ask(self, retriever: Retriever, writer: Writer, after: float) -> None:
        """Search for all of a writer until an answer claims this time, and judge each answer."""
        began = time.monotonic()
        claim = self._search_once(retriever, writer)
        while after and (claim is None or claim < after - 0.001):  # milliseconds are shown
            if time.monotonic() > began + WAIT:
                self._errors.append(
                    f"nothing claims {after} after {WAIT} s, the last answer {claim}"
                )
                return
            time.sleep(SEARCH_PAUSE)
            claim = self._search_once(retriever, writer)
        if after:
            with self._lock:
                self._waited.append(time.monotonic() - began)

    def _search_once(self, retriever: Retriever, writer: Writer) -> float | None:
        """Search for all of a writer, judge the answer, and return the time that it claims; None if
        it claims none."""
        wrong, errors, claim = [], [], None
        try:
            result = retriever.search_sync(
                "ticket",
                indexes=["tickets"],
                filter={"customer_id": writer.customers},
                limit=1000,
                timeout=WAIT,
            )
            at = result.as_of["tickets"].at
            claim = dt.datetime.fromisoformat(at).timestamp() if at else None
        except RagIndexError as error:
            errors = [] if self._qdrant is not None else [str(error)]  # it is killed, too
        else:
            if claim is not None:
                shown = {
                    hit.document_id: (
                        hit.text.strip(),
                        hit.payload.get("customer_id"),
                        hit.payload.get("state"),
                    )
                    for hit in result.hits
                }
                wrong = judge(list(writer.moments), claim, shown)
        with self._lock:
            self._counts.update(searches=1, claimed=claim is not None)
            self._errors += errors
            self._violations += wrong
        return claim

    # Runs over all documents, and what they and the watch find

    def _nightly(self) -> dict[str, int]:
        outcomes = [whole_run(self._settings, index.name) for index in self._settings.indexes]
        return {
            one.index: one.new + one.changed + one.payload_only + one.deleted + one.failed
            for one in outcomes
        }

    def _night(self) -> None:
        """Run over all documents amid the changes, if nothing is down."""
        with suppress(RagIndexError):
            self._counts.update(found_first=sum(self._nightly().values()), nights=1)

    def _catch_up(self) -> dict[str, list[str]]:
        """Wait until the index shows what the source has; return how they differ if that does not
        come to be."""
        before: Any = None
        while True:
            self._keep_watching()
            try:
                now = self.desk.differences()
            except Exception as error:  # the store may be busy
                now = {"error": [str(error)]}
            if not now:
                return {}
            if now != before:
                before, deadline = now, time.monotonic() + STALL_SECONDS
            elif time.monotonic() > deadline:
                return now
            time.sleep(0.5)

    # The watch, and kills

    def _kill(self) -> None:
        kinds = ["watches", "watches", *["databases"] * (self._server is not None)]
        kind = self._random.choice([*kinds, *["stores"] * (self._qdrant is not None)])
        self._counts[f"{kind}_killed"] += 1
        if kind == "watches":
            self._stop_watch(kill=True)
            time.sleep(self._random.random())
            self._start_watch()
        elif kind == "databases":
            crash(self._server)
        else:
            kill_qdrant(self._qdrant, self._random.random())
        self._keep_watching()

    def _start_watch(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.reliability.chaos.watcher",
            str(self.desk.config),
            str(self._texts),
        ]
        with self._log.open("ab") as log:
            self._watch = subprocess.Popen(command, stdout=log, stderr=log)

    def _keep_watching(self) -> None:
        """Check that the watch did not end by itself; start one again that found no database as it
        started."""
        if self._watch.poll() is not None:
            log = self._log.read_text()[-3000:]
            assert "SourceUnavailable" in log.splitlines()[-1], (
                f"the watch ended with {self._watch.returncode}:\n{log}"
            )
            self._start_watch()

    def _stop_watch(self, *, kill: bool = False) -> None:
        self._watch.kill() if kill else self._watch.terminate()
        try:
            self._watch.wait(timeout=60)
        finally:
            self._watch.kill()
