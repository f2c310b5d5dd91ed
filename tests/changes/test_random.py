"""Random sessions, one step at a time: what a feed gives makes a copy of the table equal to it, by what it claims.

The steps are those by which a commit could be skipped or claimed too early: long and prepared transactions, savepoints,
messages inside and outside of transactions, tables that nobody follows, small limits, and a feed or a server that dies
anywhere.
"""

import random
from contextlib import closing

from rag_index.components.ledger.tables import parse_position
from tests.changes.databases import TICKET, Session
from tests.reliability.chaos.desk import crash

STEPS, IDS = 300, 40
STEP = {"change": 30, "other": 5, "savepoint": 5, "commit": 12, "rollback": 2, "receive": 20, "restart": 3}
STEP_OF_POSTGRES = {"prepare": 3, "finish": 4, "truncate": 1, "message": 15}


class Play:
    """Sessions that write, and a copy that follows by the feed. A row is changed by one open transaction at a time."""

    def __init__(self, desk, seed):
        self.desk, self.chance = desk, random.Random(seed)
        self.step = STEP | (STEP_OF_POSTGRES if desk.dialect == "postgresql" else {})
        self.open_sessions(1 if desk.dialect == "sqlite" else 4)  # SQLite has one writer at a time
        self.prepared = {}
        self.count, self.committed = IDS, []
        self.feed = desk.set_up(TICKET)
        self.copy = self.table()

    def open_sessions(self, count):
        self.sessions = [Session(self.desk.url) for _ in range(count)]
        self.begun = [False] * count
        self.open = [set() for _ in range(count)]
        """The rows that each session has changed since its BEGIN."""

    def table(self):
        return dict(self.alone("SELECT id, body FROM ticket"))

    def alone(self, statement):
        with self.desk.session() as session:
            return session.run(statement)

    def run(self, number, *statements):
        if not self.begun[number]:
            if self.desk.dialect == "mariadb":  # no gap is locked, for which another session would wait
                self.sessions[number].run("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            self.sessions[number].run("BEGIN")
        self.begun[number] = True
        for statement in statements:
            self.sessions[number].run(statement)

    def change(self, number):
        free = sorted(set(range(IDS)).difference(*self.open, *self.prepared.values()))
        if not free:
            return
        one, new = self.chance.choice(free), self.count
        self.count += 1
        self.open[number] |= {one, new}
        kinds = [
            [f"DELETE FROM ticket WHERE id = {one}", f"INSERT INTO ticket VALUES ({one}, '{new}')"],
            [f"INSERT INTO ticket VALUES ({new}, '{new}')"],
            [f"DELETE FROM ticket WHERE id = {one}"],
            [f"UPDATE ticket SET id = {new} WHERE id = {one}"],
            [f"UPDATE ticket SET body = '{new}' WHERE id = {one}"],
        ]
        self.run(number, *self.chance.choice(kinds))

    def message(self, number):
        emit = f"SELECT pg_logical_emit_message({self.chance.choice(['true', 'false'])}, 'an application', 'x')"
        self.run(number, emit) if self.chance.random() < 0.5 else self.alone(emit)

    def other(self, number):
        self.run(number, "INSERT INTO other VALUES ('x')")

    def savepoint(self, number):
        self.run(number, "SAVEPOINT s")
        for _ in range(self.chance.randrange(3)):
            self.chance.choice([self.change, self.other])(number)
        self.run(number, self.chance.choice(["ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s"]))

    def commit(self, number, how="COMMIT"):
        if self.begun[number]:
            self.sessions[number].run(how)
            self.learn(how, self.open[number])
        self.open[number], self.begun[number] = set(), False

    def rollback(self, number):
        self.commit(number, "ROLLBACK")

    def prepare(self, number):
        if self.open[number]:
            name = f"t{self.count}"
            self.count += 1
            self.run(number, f"PREPARE TRANSACTION '{name}'")
            self.prepared[name], self.open[number], self.begun[number] = self.open[number], set(), False

    def finish(self, number):
        if self.prepared:
            name = self.chance.choice(sorted(self.prepared))
            how = self.chance.choice(["COMMIT", "COMMIT", "ROLLBACK"])
            self.alone(f"{how} PREPARED '{name}'")
            self.learn(how, self.prepared.pop(name))

    def learn(self, how, ids):
        if how == "COMMIT" and ids:
            self.committed.append((parse_position(str(self.alone(self.desk.position)[0][0])), ids))

    def truncate(self, number):
        if not any((*self.open, *self.prepared.values())):
            self.alone("TRUNCATE ticket")

    def receive(self, number, limit=None):
        """Receive, follow and acknowledge; die before or after any of it."""
        if self.desk.dialect == "sqlite":
            self.commit(0)
        got = self.feed.rows(limit or self.chance.choice([1, 2, 5, 1000]))
        dies = 0 if limit else self.chance.random()
        if dies < 0.9:
            now = self.table()
            for one in now.keys() | self.copy.keys() if got.overflow else {one.values[0] for one in got.changes}:
                self.copy.pop(one, None)
                self.copy |= {one: now[one]} if one in now else {}
            self.check(got, now)
        if dies < 0.8:
            self.feed.acknowledge(got)
        else:
            self.restart(number)
        return got

    def check(self, got, now):
        """Nothing is missing that was committed by what the feed claims, but for what was changed later once more."""
        claimed = parse_position(got.through.text) if got.through and got.through.text else None
        late = [(claimed is None or at > claimed, ids) for at, ids in self.committed]
        missing = {one for is_late, ids in late if not is_late for one in ids if self.copy.get(one) != now.get(one)}
        assert missing <= {one for is_late, ids in late if is_late for one in ids}, f"committed by {claimed}"

    def restart(self, number):
        self.feed.close()
        self.feed = self.desk.feed()

    def crash(self):
        """Kill the server: what is prepared stays, and the slot may go back to where it was at the last checkpoint."""
        crash(self.desk.server)
        self.close()
        self.open_sessions(len(self.sessions))
        self.restart(0)

    def close(self):
        for session in self.sessions:
            session.close()

    def end(self):
        """End every transaction, receive the rest, and compare."""
        for number in range(len(self.sessions)):
            self.commit(number)
        for name in sorted(self.prepared):
            self.alone(f"COMMIT PREPARED '{name}'")
        while self.receive(0, limit=3).more:
            pass
        assert self.copy == self.table()


def test_nothing_that_was_committed_is_missing_whatever_else_happens(followed):
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    followed.run(
        "CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(90))", "CREATE TABLE other (body varchar(9))"
    )
    followed.run("INSERT INTO ticket VALUES " + ", ".join(f"({number}, 'x')" for number in range(IDS)))
    with closing(Play(followed, seed)) as played:
        for number in range(STEPS):
            if number == STEPS // 2 and followed.dialect == "postgresql":
                played.crash()
            (kind,) = played.chance.choices(list(played.step), list(played.step.values()))
            getattr(played, kind)(played.chance.randrange(len(played.sessions)))
        played.end()
