"""Sessions that change a service desk at random: all kinds of changes, also rolled back and in long transactions."""

from __future__ import annotations

import itertools
import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.reliability.chaos.desk import Desk

KINDS = {
    "text": 40, "payload": 10, "insert": 14, "delete": 14, "key": 8, "move": 6, "rename": 3, "drop": 2, "return": 3,
}  # fmt: skip
"""Kinds of changes and how frequent they are; the last three are of a customer, whom many tickets show."""
ROLLED_BACK, LONG = 0.1, 0.01
"""Shares of transactions that are rolled back, and that stay open for a while."""
LONG_SECONDS = 2.0
RECONNECT = 0.2


class Writers:
    """Threads that change the desk until `operations` changes were made, each in a session of its own."""

    def __init__(self, desk: Desk, operations: int, *, threads: int, seed: int) -> None:
        self._desk = desk
        self._left = operations
        self._lock = threading.Lock()
        self.done = 0
        self.committed = 0
        self.rolled_back = 0
        self._new_ids = itertools.count(desk.tickets)
        self._versions = itertools.count(1)
        self._threads = [
            threading.Thread(target=self._work, args=(random.Random(f"{seed} {number}"),), daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not self.running, "the writers did not come to their end"

    @property
    def running(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _take(self, wanted: int) -> int:
        with self._lock:
            taken = min(wanted, self._left)
            self._left -= taken
            return taken

    def _work(self, chance: random.Random) -> None:
        session = None
        while count := self._take(chance.choice((1, 1, 1, 2, 5, 12, 40))):
            while True:  # until the transaction came to its end, whatever is killed meanwhile
                try:
                    session = session or self._desk.session()
                    self._transaction(session, chance, count)
                    break
                except Exception:  # a deadlock, a lock that was waited for too long, a killed server
                    with suppress(Exception):
                        session.close()
                    session = None
                    time.sleep(RECONNECT * chance.random())
        if session is not None:
            session.close()

    def _transaction(self, session, chance: random.Random, count: int) -> None:
        session.run(self._desk.begin)
        for _ in range(count):
            for statement in self._change(session, chance):
                session.run(statement)
        if chance.random() < LONG:
            time.sleep(chance.random() * LONG_SECONDS)
        rolls_back = chance.random() < ROLLED_BACK
        session.run("ROLLBACK" if rolls_back else "COMMIT")
        with self._lock:
            self.done += count
            self.rolled_back += count if rolls_back else 0
            self.committed += 0 if rolls_back else count

    def _change(self, session, chance: random.Random) -> list[str]:
        """Return the statements of a change. A version makes each text another one."""
        desk, version = self._desk, f"v{next(self._versions)}"
        (kind,) = chance.choices(list(KINDS), list(KINDS.values()))
        customer = chance.randrange(desk.customers)
        if kind == "insert":
            number = next(self._new_ids)
            return [f"INSERT INTO ticket VALUES ({number}, '{version}', 'new', {customer})"]
        if kind == "rename":
            return [f"UPDATE customer SET name = 'customer {customer} {version}' WHERE id = {customer}"]
        if kind == "drop":
            return [f"DELETE FROM customer WHERE id = {customer}"]
        if kind == "return":
            return [
                f"DELETE FROM customer WHERE id = {customer}",
                f"INSERT INTO customer VALUES ({customer}, 'customer {customer} {version}')",
            ]
        number = desk.any_ticket(session, chance)
        if number is None:
            return []
        return {
            "text": [f"UPDATE ticket SET body = '{version}' WHERE id = {number}"],
            "payload": [f"UPDATE ticket SET state = '{version}' WHERE id = {number}"],
            "delete": [f"DELETE FROM ticket WHERE id = {number}"],
            "key": [f"UPDATE ticket SET id = {next(self._new_ids)}, body = '{version}' WHERE id = {number}"],
            "move": [f"UPDATE ticket SET customer_id = {customer}, body = '{version}' WHERE id = {number}"],
        }[kind]
