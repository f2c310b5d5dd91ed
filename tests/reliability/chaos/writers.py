"""Sessions that change a service desk at random, each its own customers and tickets, and what they
committed when. All kinds of changes are among them, also rolled back and in long transactions.
Since no other session changes its rows, a writer knows the state after each of its transactions,
and can find out whether one was committed before a crash."""

from __future__ import annotations

import itertools
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.reliability.chaos.desk import Desk

KINDS = {
    "text": 40,
    "payload": 10,
    "insert": 14,
    "delete": 14,
    "key": 8,
    "move": 6,
    "rename": 3,
    "drop": 2,
    "return": 3,
}
"""Kinds of changes and how frequent they are; the last three are of a customer, whom many tickets
show."""
SIZES = (1, 1, 1, 2, 5, 12, 40)
ROLLED_BACK, LONG = 0.1, 0.01
"""Shares of transactions that are rolled back, and that stay open for a while."""
LONG_SECONDS = 2.0
RECONNECT = 0.2
Shown = dict[str, tuple[str, Any, Any]]
"""Text, customer and state of each ticket that a search has to show, by its id."""


@dataclass
class Moment:
    """What a writer's tickets are after a transaction; `at` is the database's time when its commit
    has returned."""

    shown: Shown
    at: float | None = None


class Writer(threading.Thread):
    """A session that makes `operations` changes, `rate` transactions a second, unless it is told to
    stop."""

    def __init__(
        self,
        desk: Desk,
        number: int,
        writers: int,
        *,
        seed: int,
        stop: threading.Event,
        operations: float,
        rate: float,
        keeps: bool,
    ) -> None:
        super().__init__(daemon=True)
        self._desk, self._operations, self._rate, self._keeps = desk, operations, rate, keeps
        self._stop_event, self._chance = stop, random.Random(f"{seed} {number}")
        self._new_ids, self._versions = (
            itertools.count(desk.tickets + number, writers),
            itertools.count(1),
        )
        self._number, self._session = number, None
        own = range(number, desk.customers, writers)
        self._customers: dict[int, str | None] = {one: f"customer {one}" for one in own}
        tickets = [one for one in range(desk.tickets) if one % desk.customers in own]
        self._tickets = {one: (one % desk.customers, "first", "new") for one in tickets}
        self.moments = [Moment(self._shown(), 0.0)]
        """What was committed; if it `keeps` none for searchers, the last alone."""
        self.done = self.rolled_back = self.transactions = 0
        self.committed_at = 0.0
        self.failure: BaseException | None = None

    @property
    def customers(self) -> list[int]:
        return list(self._customers)

    def run(self) -> None:
        try:
            while self.done < self._operations:
                if self._stop_event.wait(
                    self._chance.expovariate(self._rate) if self._rate else 0.0
                ):
                    break
                self._transaction(
                    int(min(self._chance.choice(SIZES), self._operations - self.done))
                )
        except BaseException as error:
            self.failure = error
        self._disconnect()

    def _transaction(self, count: int) -> None:
        before = dict(self._customers), dict(self._tickets)
        statements = [one for _ in range(count) for one in self._change()]
        rolls_back, lasts = self._chance.random() < ROLLED_BACK, self._chance.random() < LONG
        if rolls_back:
            self._customers, self._tickets = before
        else:
            self.moments.append(Moment(self._shown()))
        tried = False
        while True:  # until it came to its end, whatever is killed meanwhile
            try:
                session = self._session = self._session or self._desk.session()
                if not (tried and self._is_there(session)):
                    for statement in (self._desk.begin, *statements):
                        session.run(statement)
                    time.sleep(lasts * self._chance.random() * LONG_SECONDS)
                    tried = not rolls_back
                    session.run("ROLLBACK" if rolls_back else "COMMIT")
                if not rolls_back:
                    self.committed_at = self.moments[-1].at = float(
                        session.run(self._desk.now)[0][0]
                    )
                break
            except Exception:  # a deadlock, a lock that was waited for too long, a killed server
                self._disconnect()
                time.sleep(RECONNECT * self._chance.random())
        if not self._keeps:
            del self.moments[:-1]
        self.done, self.transactions = self.done + count, self.transactions + 1
        self.rolled_back += count * rolls_back

    def _is_there(self, session) -> bool:
        """Return whether the database has what this writer knows."""
        own = ", ".join(map(str, self._customers))
        tickets = session.run(
            f"SELECT id, customer_id, body, state FROM ticket WHERE customer_id IN ({own})"
        )
        customers = dict(
            map(tuple, session.run(f"SELECT id, name FROM customer WHERE id IN ({own})"))
        )
        there = {one: name for one, name in self._customers.items() if name is not None}
        return customers == there and {one: tuple(rest) for one, *rest in tickets} == self._tickets

    def _disconnect(self) -> None:
        with suppress(Exception):
            self._session.close()
        self._session = None

    def _change(self) -> list[str]:
        """Return the statements of a change, after making it here. A version makes each text
        another one."""
        version, tickets = f"v{self._number}.{next(self._versions)}", self._tickets
        (kind,) = self._chance.choices(list(KINDS), list(KINDS.values()))
        customer = self._chance.choice(self.customers)
        if kind == "insert":
            tickets[new := next(self._new_ids)] = (customer, version, "new")
            return [f"INSERT INTO ticket VALUES ({new}, '{version}', 'new', {customer})"]
        if kind in ("rename", "drop", "return"):
            there, name = self._customers[customer], f"customer {customer} {version}"
            self._customers[customer] = (
                None if kind == "drop" or (kind == "rename" and there is None) else name
            )
            if kind == "rename":
                return [f"UPDATE customer SET name = '{name}' WHERE id = {customer}"]
            drop = [f"DELETE FROM customer WHERE id = {customer}"]
            return (
                drop
                if kind == "drop"
                else [*drop, f"INSERT INTO customer VALUES ({customer}, '{name}')"]
            )
        if not tickets:
            return []
        number = self._chance.choice(list(tickets))
        owner, body, state = tickets.pop(number)
        if kind == "delete":
            return [f"DELETE FROM ticket WHERE id = {number}"]
        if kind == "key":
            tickets[new := next(self._new_ids)] = (owner, version, state)
            return [f"UPDATE ticket SET id = {new}, body = '{version}' WHERE id = {number}"]
        columns = {
            "text": f"body = '{version}'",
            "payload": f"state = '{version}'",
            "move": f"customer_id = {customer}",
        }
        body, state = (
            (version if kind == "text" else body),
            (version if kind == "payload" else state),
        )
        tickets[number] = (customer if kind == "move" else owner, body, state)
        return [f"UPDATE ticket SET {columns[kind]} WHERE id = {number}"]

    def _shown(self) -> Shown:
        names = self._customers
        return {
            str(one): (f"{names[customer]}: {body} of ticket {one}", customer, state)
            for one, (customer, body, state) in self._tickets.items()
            if names[customer] is not None
        }


def judge(moments: list[Moment], at: float, found: Shown) -> list[str]:
    """Return what is wrong with what an answer shows of a writer's tickets, if it claims this time.
    It has to show, for each of them, the state at that time or a later one that was begun before
    the answer came. So nothing that was there is missing, nothing is older than claimed, nothing
    that was deleted before is shown, and nothing that was rolled back ever."""
    last = max(number for number, one in enumerate(moments) if one.at is not None and one.at <= at)
    allowed = [one.shown for one in moments[last:]]
    wrong = []
    for one in sorted({*found, *allowed[0]}):
        states = [shown.get(one) for shown in allowed]
        if found.get(one) not in states:
            wrong.append(f"ticket {one} is {found.get(one)}, at {at:.0f} it was {states[0]}")
    return wrong
