"""Random sessions at once: what a feed gives is exactly what was committed, and by the position that it names."""

from __future__ import annotations

import random
import threading

from rag_index.changes.rows import WatchedTable
from rag_index.documents.positions import parse_position
from tests.changes.databases import take
from tests.waiting import eventually

TICKET = WatchedTable("ticket", None, ("id",), frozenset({"id", "body"}))
SESSIONS = 4
TRANSACTIONS = 60
IDS = 200


def change(session, chance, locks):
    """Make a random change, and return the ids that it concerned."""
    key = chance.randrange(IDS)
    kind = chance.choice(["insert", "update", "delete", "key", "many"])
    if kind == "insert":
        new = IDS + chance.randrange(10**9)
        session.run(f"INSERT INTO ticket VALUES ({new}, 'new')")
        return {new}
    if kind == "many":
        lock = " FOR UPDATE" if locks else ""
        keys = {row[0] for row in session.run(f"SELECT id FROM ticket WHERE id % 17 = {key % 17}{lock}")}
        for one in sorted(keys):
            session.run(f"UPDATE ticket SET body = '{chance.random()}' WHERE id = {one}")
        return keys
    statement = {
        "update": f"UPDATE ticket SET body = '{chance.random()}' WHERE id = {key}",
        "delete": f"DELETE FROM ticket WHERE id = {key}",
        "key": f"UPDATE ticket SET id = {(new := IDS + chance.randrange(10**9))} WHERE id = {key}",
    }[kind]
    cursor = session.connection.cursor()
    cursor.execute(statement)
    if cursor.rowcount == 0:
        return set()
    return {key, new} if kind == "key" else {key}


def work(database, seed, changed, locks, history):
    """Run random transactions; some are rolled back, some to a savepoint, and some stay open while others commit.

    The history gets the position that is learned after each commit, with what the transaction changed.
    """
    chance = random.Random(seed)
    with database.session() as session:
        for _ in range(TRANSACTIONS):
            session.run("BEGIN IMMEDIATE" if database.dialect == "sqlite" else "BEGIN")
            done = set()
            try:
                for _ in range(chance.randrange(1, 6)):
                    done |= change(session, chance, locks)
                if chance.random() < 0.3:
                    session.run("SAVEPOINT s")
                    change(session, chance, locks)
                    session.run("ROLLBACK TO SAVEPOINT s")
                if chance.random() < 0.3:
                    session.run("ROLLBACK")
                else:
                    session.run("COMMIT")
                    changed.update(done)
                    history.append((parse_position(str(session.run(database.position)[0][0])), done))
            except Exception as error:
                if not any(word in str(error).lower() for word in ("deadlock", "duplicate", "has changed since")):
                    raise
                session.run("ROLLBACK")


def test_what_was_committed_is_received_and_nothing_else(followed):
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    followed.run("CREATE TABLE ticket (id integer PRIMARY KEY, body varchar(90))")
    for start in range(0, IDS, 50):
        followed.run("INSERT INTO ticket VALUES " + ", ".join(f"({start + i}, 'x')" for i in range(50)))
    feed = followed.set_up(TICKET)
    changed = [set() for _ in range(SESSIONS)]
    locks = followed.dialect != "sqlite"
    history = []
    threads = [
        threading.Thread(target=work, args=(followed, 100 * seed + number, changed[number], locks, history))
        for number in range(SESSIONS)
    ]
    for thread in threads:
        thread.start()
    received, chance = set(), random.Random(seed)
    while any(thread.is_alive() for thread in threads):
        got = feed.receive(chance.choice([1, 10, 100]))
        if chance.random() < 0.5:  # the process died here
            feed.close()
            feed = followed.feed()
            continue
        received |= {one.values["id"] for one in got.changes}
        feed.acknowledge(got)
        check(got, history, received)
    received |= {key for (key,) in take(feed)[0].get("ticket", ())}
    assert received == set.union(*changed)
    last = max((position for position, _ in history), default=None)
    eventually(lambda: last is None or _reaches(feed.receive(1000), last))


def check(got, history, received):
    """Hold the position that a feed names against the history: nothing that was committed by then is missing."""
    for position, done in [one for one in history if _reaches(got, one[0])]:
        assert done <= received, f"{sorted(done - received)} were committed by {position}, {got.through} has them"


def _reaches(got, position):
    through = got.through and got.through.text
    return bool(through) and parse_position(through) >= position
