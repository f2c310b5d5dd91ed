"""A checker with histories: every answer that claims a position is held against what had been committed by then.

Each writer has customers and tickets of its own, so that its transactions have an order: it keeps the state after each,
with the position that it learned after the commit. An answer that claims a position has to show, for each document of a
writer, the state at that position or a later one that was begun before the answer came. So nothing that was there is
missing, nothing is older than claimed, nothing that was deleted before is shown, and nothing that was rolled back ever.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.documents.positions import parse_position
from rag_index.errors import RagIndexError
from rag_index.retrieve import Retriever
from rag_index.settings import load_settings

if TYPE_CHECKING:
    from tests.reliability.chaos.desk import Desk

KINDS = {"text": 40, "payload": 10, "insert": 15, "delete": 12, "key": 8, "rename": 6, "drop": 3}
ROLLED_BACK = 0.15
AFTER = 0.5
"""The share of searches that demand the last position of a writer."""
WAIT = 3600
"""Seconds a search waits at most: however busy the machine is, it is answered once the watch has come so far."""
Shown = dict[str, tuple[str, str]]
"""Text and state of each ticket that a search has to show, by its id."""


@dataclass
class Moment:
    """What a writer's tickets are after a transaction; `position` is None until its commit has returned."""

    shown: Shown
    position: float | None = None


@dataclass
class Findings:
    """What a trial found."""

    searches: int = 0
    claimed: int = 0
    errors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    commits: int = 0
    kills: int = 0
    waited: list[float] = field(default_factory=list)
    """How long searches took that demanded a position, in seconds."""

    def to_json(self) -> dict[str, Any]:
        cuts = statistics.quantiles(self.waited, n=100) if len(self.waited) > 1 else [0.0] * 99
        waited = {"count": len(self.waited), "p50": round(cuts[49], 3), "p95": round(cuts[94], 3)}
        numbers = {name: getattr(self, name) for name in ("searches", "claimed", "commits", "kills")}
        return {**numbers, "waited_s": waited, "errors": self.errors[:5], "violations": self.violations[:5]}


class Writer(threading.Thread):
    """A session that changes its own customers and tickets, `rate` times a second, until it is told to stop."""

    def __init__(self, desk: Desk, number: int, writers: int, rate: float, stop: threading.Event, seed: int) -> None:
        super().__init__(daemon=True)
        self._desk, self._rate, self._stop_event = desk, rate, stop
        self._chance = random.Random(f"{seed} {number}")
        self._new_id = desk.tickets + number
        self._step, self._version = writers, 0
        self.customer = number
        self._name: str | None = f"customer {number}"
        own = range(number, desk.tickets, desk.customers)
        self._tickets = dict.fromkeys(own, ("first", "new"))
        self.moments = [Moment(self._shown(), 0.0)]
        self.last_position = ""
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with closing(self._desk.session()) as session:
                while not self._stop_event.wait(self._chance.expovariate(self._rate)):
                    self._transaction(session)
        except BaseException as error:
            self.failure = error

    def _transaction(self, session: Any) -> None:
        before = self._name, dict(self._tickets)
        statements = [one for _ in range(self._chance.choice((1, 1, 2, 5))) for one in self._change()]
        session.run(self._desk.begin)
        for statement in statements:
            session.run(statement)
        if self._chance.random() < ROLLED_BACK:
            session.run("ROLLBACK")
            self._name, self._tickets = before
            return
        moment = Moment(self._shown())
        self.moments.append(moment)
        session.run("COMMIT")
        position = str(session.run(self._desk.position)[0][0])
        moment.position = parse_position(position)[1]
        self.last_position = position

    def _change(self) -> list[str]:
        """Return the statements of a change, after making it in the model."""
        self._version += 1
        version, own = f"v{self._version}", sorted(self._tickets)
        (kind,) = self._chance.choices(list(KINDS), list(KINDS.values()))
        if kind in ("rename", "drop") or self._name is None:
            dropped = [f"DELETE FROM customer WHERE id = {self.customer}"]
            if kind == "drop" and self._name is not None:
                self._name = None
                return dropped
            self._name = f"customer {self.customer} {version}"
            return [*dropped, f"INSERT INTO customer VALUES ({self.customer}, '{self._name}')"]
        if kind == "insert" or not own:
            self._new_id += self._step
            self._tickets[self._new_id] = (version, "new")
            return [f"INSERT INTO ticket VALUES ({self._new_id}, '{version}', 'new', {self.customer})"]
        number = self._chance.choice(own)
        body, state = self._tickets.pop(number)
        if kind == "delete":
            return [f"DELETE FROM ticket WHERE id = {number}"]
        if kind == "key":
            self._new_id += self._step
            self._tickets[self._new_id] = (body, state)
            return [f"UPDATE ticket SET id = {self._new_id} WHERE id = {number}"]
        self._tickets[number] = (version, state) if kind == "text" else (body, version)
        column = "body" if kind == "text" else "state"
        return [f"UPDATE ticket SET {column} = '{version}' WHERE id = {number}"]

    def _shown(self) -> Shown:
        if self._name is None:
            return {}
        return {str(i): (f"{self._name}: {body} of ticket {i}", state) for i, (body, state) in self._tickets.items()}


def judge(moments: list[Moment], position: float, found: Shown) -> list[str]:
    """Return what is wrong with what an answer shows of a writer's tickets, if it claims this position."""
    last = max(number for number, one in enumerate(moments) if one.position is not None and one.position <= position)
    allowed = [one.shown for one in moments[last:]]
    wrong = []
    for one in sorted({*found, *allowed[0]}):
        states = [shown.get(one) for shown in allowed]
        if found.get(one) not in states:
            wrong.append(f"ticket {one} is {found.get(one)}, at {position:.0f} it was {states[0]}")
    return wrong


class Trial:
    """A watch that is killed, writers, and searchers, on a desk."""

    def __init__(self, desk: Desk, *, writers: int, searchers: int, rate: float, seed: int) -> None:
        self._desk, self._searchers = desk, searchers
        settings, longer = load_settings(desk.config), {"timeout": WAIT, "index_timeout": WAIT}
        retrieve = settings.retrieve.model_copy(update=longer)
        store = settings.store.model_copy(update={"timeout": WAIT})
        self._settings = settings.model_copy(update={"retrieve": retrieve, "store": store})
        self._stop = threading.Event()
        self._writers = [Writer(desk, number, writers, rate, self._stop, seed) for number in range(writers)]
        self._lock = threading.Lock()
        self._seed = seed
        self.found = Findings()

    def run(self, seconds: float, *, kill_seconds: float) -> Findings:
        """Write, search and kill for so long, then ask once for all that was written; return what was found."""
        watch = self._start()
        try:
            with Retriever(self._settings) as retriever:  # the first run
                retriever.search_sync("ticket", indexes=["tickets"], max_age="1 h", timeout=WAIT)
            searching = [threading.Thread(target=self._search, args=(number,)) for number in range(self._searchers)]
            for thread in (*self._writers, *searching):
                thread.start()
            end = time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                self._stop.wait(min(kill_seconds, left))
                if kill_seconds < left:
                    watch.kill()
                    watch.wait()
                    watch, self.found.kills = self._start(), self.found.kills + 1
            self._stop.set()
            for thread in (*self._writers, *searching):  # the watch, which is killed no more, answers the last searches
                while thread.is_alive():
                    self._check(watch)
                    thread.join(1)
            self._check(watch)
            with Retriever(self._settings) as retriever:
                for writer in self._writers:
                    self._ask(retriever, writer, writer.last_position or None)
        finally:
            self._stop.set()
            watch.terminate()
            watch.wait()
        self.found.commits = sum(len(writer.moments) - 1 for writer in self._writers)
        return self.found

    def _check(self, watch: subprocess.Popen[bytes]) -> None:
        """Raise what ended a writer, or say that the watch has ended: then nobody answers any more."""
        if failure := next((one.failure for one in self._writers if one.failure), None):
            raise failure
        log = self._desk.folder / "watch.log"
        assert watch.poll() is None, f"the watch ended by itself: {log.read_text()[-2000:]}"

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._desk.folder / "watch.log").open("ab") as log:
            texts = str(self._desk.folder / "texts.log")
            command = [sys.executable, "-m", "tests.reliability.chaos.watcher", str(self._desk.config), texts]
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _search(self, number: int) -> None:
        chance = random.Random(f"{self._seed} searcher {number}")
        with Retriever(self._settings) as retriever:
            while not self._stop.is_set():
                writer = chance.choice(self._writers)
                self._ask(retriever, writer, writer.last_position or None if chance.random() < AFTER else None)

    def _ask(self, retriever: Retriever, writer: Writer, after: str | None) -> None:
        """Search for all of a writer, and judge the answer."""
        began = time.monotonic()
        try:
            result = retriever.search_sync(
                "ticket", indexes=["tickets"], filter={"customer_id": writer.customer}, limit=1000,
                after=after, timeout=WAIT,
            )  # fmt: skip
        except RagIndexError as error:
            self._count(error=str(error))
            return
        took = time.monotonic() - began
        claim = result.as_of["tickets"].position
        wrong = []
        if claim is not None:
            shown = {hit.document_id: (hit.text.strip(), hit.payload["state"]) for hit in result.hits}
            wrong = judge(list(writer.moments), parse_position(claim)[1], shown)
        if after is not None and (claim is None or parse_position(claim) < parse_position(after)):
            wrong.append(f"{after} was demanded, {claim} is claimed")
        self._count(claim=claim is not None, wrong=wrong, waited=took if after else None)

    def _count(
        self, *, claim: bool = False, wrong: list[str] | None = None, waited: float | None = None, error: str = ""
    ) -> None:  # fmt: skip
        with self._lock:
            self.found.searches += 1
            self.found.claimed += claim
            self.found.errors += [error] if error else []
            self.found.violations += wrong or []
            self.found.waited += [] if waited is None else [waited]
