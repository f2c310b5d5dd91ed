"""Random use of PostgreSQL's log, one step at a time: what the feed gives makes a copy of the table equal to it.

The steps are those by which a commit could be skipped: messages inside and outside of transactions, savepoints,
prepared and long transactions, tables that nobody follows, small limits, and a feed or a server that dies anywhere.
"""

from __future__ import annotations

import random

from rag_index.changes.rows import WatchedTable
from rag_index.documents.positions import parse_position
from tests.changes.databases import Session
from tests.reliability.chaos.desk import crash

TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "body"}))
SESSIONS, STEPS, IDS = 4, 300, 40
STEP = {
    "change": 30, "message": 15, "other": 5, "savepoint": 5, "commit": 12, "rollback": 2, "prepare": 3, "finish": 4,
    "truncate": 1, "checkpoint": 1, "receive": 20, "restart": 3,
}  # fmt: skip


class Play:
    """Sessions that write, and a copy that follows by the feed. A row is changed by one open transaction at a time."""

    def __init__(self, desk, seed):
        self.desk, self.chance = desk, random.Random(seed)
        self.sessions = [Session(desk.url) for _ in range(SESSIONS)]
        self.open = [set() for _ in range(SESSIONS)]
        """The rows that each session has changed since its BEGIN."""
        self.prepared = {}
        self.count, self.committed = IDS, []
        self.feed = desk.set_up(TICKET)
        self.copy = self.table()

    def table(self):
        return dict(self.desk_run("SELECT id, body FROM ticket"))

    def desk_run(self, statement):
        with self.desk.session() as session:
            return session.run(statement)

    def run(self, number, *statements):
        if not self.sessions[number].connection.info.transaction_status:
            self.sessions[number].run("BEGIN")
        for statement in statements:
            self.sessions[number].run(statement)

    def step(self):
        (kind,) = self.chance.choices(list(STEP), list(STEP.values()))
        getattr(self, kind)(self.chance.randrange(SESSIONS))

    def change(self, number):
        locked = set().union(*self.open, *self.prepared.values())
        free = sorted(set(range(IDS)) - locked)
        if not free:
            return
        one, new = self.chance.choice(free), self.count
        self.count += 1
        self.open[number] |= {one, new}
        self.run(
            number,
            self.chance.choice(
                [
                    f"INSERT INTO ticket VALUES ({one}, '{new}') ON CONFLICT (id) DO UPDATE SET body = '{new}'",
                    f"INSERT INTO ticket VALUES ({new}, '{new}')",
                    f"DELETE FROM ticket WHERE id = {one}",
                    f"UPDATE ticket SET id = {new} WHERE id = {one}",
                ]
            ),
        )

    def message(self, number):
        emit = f"SELECT pg_logical_emit_message({self.chance.choice(['true', 'false'])}, 'an application', 'x')"
        if self.chance.random() < 0.5:
            self.run(number, emit)
        else:
            self.desk_run(emit)

    def other(self, number):
        self.run(number, "INSERT INTO other (body) VALUES ('x')")

    def savepoint(self, number):
        self.run(number, "SAVEPOINT s")
        for _ in range(self.chance.randrange(3)):
            self.chance.choice([self.change, self.message])(number)
        self.run(number, self.chance.choice(["ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s"]))

    def commit(self, number, how="COMMIT"):
        self.sessions[number].run(how)
        self.learn(how, self.open[number])
        self.open[number] = set()

    def rollback(self, number):
        self.commit(number, "ROLLBACK")

    def prepare(self, number):
        if self.open[number]:
            name = f"t{self.count}"
            self.count += 1
            self.run(number, f"PREPARE TRANSACTION '{name}'")
            self.prepared[name], self.open[number] = self.open[number], set()

    def finish(self, number):
        if self.prepared:
            name = self.chance.choice(sorted(self.prepared))
            how = self.chance.choice(["COMMIT", "COMMIT", "ROLLBACK"])
            self.desk_run(f"{how} PREPARED '{name}'")
            self.learn(how, self.prepared.pop(name))

    def learn(self, how, ids):
        if how == "COMMIT" and ids:
            position = parse_position(str(self.desk_run(self.desk.position)[0][0]))
            self.committed.append((position, ids))

    def truncate(self, number):
        if not any((*self.open, *self.prepared.values())):
            self.desk_run("TRUNCATE ticket")

    def checkpoint(self, number):
        self.desk_run("CHECKPOINT")

    def receive(self, number, limit=None):
        """Receive, follow and acknowledge; die before or after any of it."""
        got = self.feed.receive(limit or self.chance.choice([1, 2, 5, 1000]))
        dies = 0 if limit else self.chance.random()
        if dies < 0.9:
            now, ids = self.table(), {one.values["id"] for one in got.changes}
            for one in now.keys() | self.copy.keys() if got.overflow else ids:
                self.copy.pop(one, None)
                self.copy |= {one: now[one]} if one in now else {}
            through = got.through and parse_position(got.through.text)
            late = [(at, done) for at, done in self.committed if through and at <= through]
            missing = {one for _, done in late for one in done if self.copy.get(one) != now.get(one)}
            busy = {one for at, done in self.committed if not through or at > through for one in done}
            assert missing <= busy, f"{missing} were committed by {got.through}"
        if dies < 0.8:
            self.feed.acknowledge(got)
        else:
            self.feed.close()
            self.feed = self.desk.feed()
        return got

    def restart(self, number):
        self.feed.close()
        self.feed = self.desk.feed()

    def crash(self):
        """Kill the server: what is prepared stays, and the slot may go back to where it was at the last checkpoint."""
        crash(self.desk.server)
        self.close()
        self.sessions = [Session(self.desk.url) for _ in range(SESSIONS)]
        self.open = [set() for _ in range(SESSIONS)]
        self.restart(0)

    def close(self):
        for session in self.sessions:
            session.close()

    def end(self):
        """End every transaction, receive the rest, and compare."""
        for number in range(SESSIONS):
            self.commit(number)
        for name in sorted(self.prepared):
            self.desk_run(f"COMMIT PREPARED '{name}'")
        while self.receive(0, limit=3).more:
            pass
        self.close()
        assert self.copy == self.table()


def play(desk, seed):
    desk.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text)", "CREATE TABLE other (id serial, body text)")
    desk.run(f"INSERT INTO ticket SELECT i, 'x' FROM generate_series(0, {IDS - 1}) i")
    played = Play(desk, seed)
    for number in range(STEPS):
        if number == STEPS // 2:
            played.crash()
        played.step()
    played.end()


def test_nothing_that_was_committed_is_missing_whatever_else_is_in_the_log(wal):
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    play(wal, seed)
