"""Runs of an index: the lease, which one at a time holds and renews while it lives; and when they ran, and ended how.
Each acquisition raises the lease's epoch, so that what the workers of a dead run still send can be told apart. A dead
holder on this machine is noticed at once, one elsewhere when its lease has expired (Gray and Cheriton 1989). A watch
has one row for each index, beside the time by which the index was complete: a search finds all that was committed
before."""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from rag_index.components.ledger.connection import LedgerConnection
from rag_index.components.ledger.tables import (
    Reached,
    RunRecord,
    WatchRecord,
    collections,
    failed_documents,
    leases,
    positions,
    runs,
    watches,
)
from rag_index.core.database import insert_for
from rag_index.errors import IndexLocked, LedgerUnavailable, RagIndexError

WATCH = "watch-"
"""Prefix of the id of a watch's runs; the alias follows. They are one row of an index's history, however many."""

CHECK_UP = "doctor-"
"""Prefix of what holds the lease of an index during a check-up."""

SINGLE = "id-"
"""Prefix of the ids of runs over single documents, which must not hide how the last run over all documents went."""


LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0
SHORT_HOLDERS = (WATCH, CHECK_UP)
"""How the ids of holders begin that others wait for."""
SHORT_POLL = 0.02


def lease_name(project: str) -> str:
    """Return the name of the lease of a project's watch, which is the name of no alias."""
    return f"{project} watch"


class RunRows(LedgerConnection):
    """The runs of each index, and the deletion of what has grown old. Several projects may share a ledger."""

    def start_run(self, run_id: str, alias: str, *, host: str, pid: int) -> None:
        """Record that a run has begun; also again, if Prefect starts a run once more under its id."""
        newest = sa.select(sa.func.coalesce(sa.func.max(runs.c.number), 0) + 1).scalar_subquery()
        values = {
            "number": newest, "alias": alias, "host": host, "pid": pid, "started_at": self.clock(), "ended_at": None,
            "state": "running", "message": "", "report": "{}",
        }  # fmt: skip
        self._put_row(runs, {"id": run_id}, values)

    def finish_run(self, run_id: str, *, state: str, message: str, report: dict[str, Any]) -> None:
        """Record how a run ended."""
        values = {"state": state, "message": message, "report": json.dumps(report), "ended_at": self.clock()}
        self._write(runs.update().where(runs.c.id == run_id).values(**values))

    def last_run(self, alias: str, run_id: str | None = None) -> RunRecord | None:
        """Return the newest run of an index over all its documents; one of a watch, if there is no other. With
        `run_id`, return the newest run of any kind whose id begins with it."""
        wanted = runs.c.id.startswith(run_id, autoescape=True) if run_id else ~runs.c.id.startswith(SINGLE)
        order = [] if run_id else [runs.c.id.startswith(WATCH)]
        statement = sa.select(runs).where(runs.c.alias == alias, wanted).order_by(*order, runs.c.number.desc())
        found = self._first(statement.limit(1))
        return RunRecord(**{**found._mapping, "report": json.loads(found.report)}) if found else None

    def prune(self, before: float) -> int:
        """Delete runs that began before a time, and failures of unknown collections; return how many rows. The newest
        run of each index stays, and so does a run that holds a lease."""
        f, r = failed_documents.c, runs.c
        other: Any = runs.alias()
        newer = sa.exists().where(other.c.alias == r.alias, other.c.number > r.number, _is_whole(other.c.id))
        holds = r.id.in_(sa.select(leases.c.run_id).where(leases.c.run_id.is_not(None)))
        old = (r.started_at < before) & ~r.id.startswith(WATCH) & (newer | r.id.startswith(SINGLE)) & ~holds
        unknown = f.collection_id.not_in(sa.select(collections.c.id))
        with self.transaction():
            return self._write(runs.delete().where(old)) + self._write(failed_documents.delete().where(unknown))


def _is_whole(run_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return ~run_id.startswith(SINGLE) & ~run_id.startswith(WATCH)


class IndexLease:
    """The lease of one index, held during a `with` block. `epoch` is higher than that of every earlier holder. Entering
    the block raises IndexLocked if another run holds the lease. A run of a watch and a check-up are waited for as long
    as they live, except by a run of a watch, which comes again."""

    def __init__(self, ledger: LedgerConnection, name: str, run_id: str, held: str = "") -> None:
        """`held` begins the sentence that names the holder, by default "index NAME is being written by"."""
        self._ledger = ledger
        self._name = name
        self._held = held or f"index {name} is being written by"
        self.run_id = run_id
        self._stop = threading.Event()
        self._lost = False
        self.epoch = 0
        self.died: str | None = None
        """The id of the run that died while it held the lease, just before this one."""

    def __enter__(self) -> IndexLease:
        """Take the lease, once a run of a watch or a check-up that holds it has ended."""
        while not self.epoch:
            try:
                self.epoch = self._acquire()
            except IndexLocked:
                row = _read_row(self._ledger, self._name) or {}
                held = str(row.get("run_id") or WATCH)  # it may be free by now
                renewed = not row.get("run_id") or abs(self._ledger.clock() - row["renewed_at"]) <= LEASE_SECONDS
                if not (held.startswith(SHORT_HOLDERS) and renewed) or self.run_id.startswith(WATCH):
                    raise
                time.sleep(SHORT_POLL)
        self._renewer = threading.Thread(target=self._renew, name=f"lease {self._name}", daemon=True)
        self._renewer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._renewer.join(timeout=RENEW_SECONDS)
        with suppress(LedgerUnavailable), self._ledger.transaction() as connection:  # it would expire by itself
            connection.execute(self._update(run_id=None, renewed_at=0.0))

    def check(self) -> None:
        """Renew the lease, in the caller's transaction if there is one: then nothing is written after another run took
        over. Raises IndexLocked if one did. A process that stood still asks before its renewing thread has."""
        renewed = self._update(renewed_at=self._ledger.clock())
        with self._ledger.transaction() as connection:
            self._lost = self._lost or connection.execute(renewed).rowcount != 1
        if self._lost:
            raise IndexLocked(
                f"this run did not renew its lease for {LEASE_SECONDS:.0f} s, and another took over {self._name}: "
                "run it again"
            )

    def _update(self, **values: Any) -> sa.Update:
        """Return the change of the lease's row, which changes nothing once another run has taken over."""
        is_mine = (leases.c.name == self._name) & (leases.c.epoch == self.epoch)
        return leases.update().where(is_mine).values(**values)

    def _acquire(self) -> int:
        import psutil

        now = self._ledger.clock()
        process = psutil.Process()
        row = _read_row(self._ledger, self._name)
        if row is not None and row["run_id"] is not None and self._holder_lives(row, now):
            since = dt.datetime.fromtimestamp(row["since"], tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            raise IndexLocked(
                f"{self._held} process {row['pid']} on {row['host']} since {since}: wait until it is done, or stop it"
            )
        epoch, renewed_at = (row["epoch"], row["renewed_at"]) if row is not None else (0, 0.0)
        unchanged = (leases.c.epoch == epoch) & (leases.c.renewed_at == renewed_at)
        mine = {
            "run_id": self.run_id, "host": socket.gethostname(), "pid": process.pid, "epoch": epoch + 1,
            "process_started": process.create_time(), "since": now, "renewed_at": now,
        }  # fmt: skip
        with self._ledger.transaction() as connection:
            insert = insert_for(connection.dialect)(leases).values(name=self._name, **mine)
            take = insert.on_conflict_do_update(index_elements=["name"], set_=mine, where=unchanged)
            if connection.execute(take, execution_options={"preserve_rowcount": True}).rowcount != 1:
                raise IndexLocked(f"{self._held} another run, which has just begun: wait until it is done")
        self.died = row["run_id"] if row is not None and row["run_id"] != self.run_id else None
        return int(epoch) + 1

    def _holder_lives(self, row: dict[str, Any], now: float) -> bool:
        """Return whether the holder lives. A clock that was set back makes a lease look as if it came from the future.
        A lease like that from another machine is watched for a while, to see whether it is renewed."""
        if row["host"] == socket.gethostname() or row["renewed_at"] - now <= LEASE_SECONDS:
            return _alive(row, now)
        time.sleep(1.5 * RENEW_SECONDS)
        return _read_row(self._ledger, self._name) != row

    def _renew(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(RENEW_SECONDS):
            try:
                with self._ledger.engine.begin() as connection:
                    if connection.execute(self._update(renewed_at=self._ledger.clock())).rowcount != 1:
                        self._lost = True
                        return
                last = time.monotonic()
            except (sa.exc.SQLAlchemyError, RagIndexError):
                if time.monotonic() - last > LEASE_SECONDS:
                    self._lost = True
                    return


def holder(ledger: LedgerConnection, name: str) -> str | None:
    """Return the id of the run that holds the lease of an index, if its process seems to live."""
    row = _read_row(ledger, name)
    if row is None or row["run_id"] is None or not _alive(row, ledger.clock()):
        return None
    return str(row["run_id"])


def run_state(ledger: LedgerConnection, run: RunRecord) -> str:
    """Return the state of an index's run: `interrupted` if its process died before it could note the end."""
    died = run.state == "running" and holder(ledger, run.alias) != run.id
    return "interrupted" if died else run.state


def _read_row(ledger: LedgerConnection, name: str) -> dict[str, Any] | None:
    with ledger.transaction() as connection:
        row = connection.execute(sa.select(leases).where(leases.c.name == name)).mappings().first()
    return dict(row) if row is not None else None


def _alive(row: dict[str, Any], now: float) -> bool:
    renewed_at = float(row["renewed_at"])
    renewed_lately = abs(now - renewed_at) <= LEASE_SECONDS
    if row["host"] != socket.gethostname():
        return renewed_lately or renewed_at > now
    import psutil  # here, because `status` rarely needs it

    try:
        process = psutil.Process(row["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and its parent has not asked how it ended
            return False
        started = process.create_time()
    except psutil.Error:
        return False
    if abs(started - row["process_started"]) < 2.0:
        return True
    # Another process has its number, or the clock was set, which moves the apparent start of a process.
    return renewed_lately and int(row["pid"]) != os.getpid()


f, p = failed_documents.c, positions.c


class WatchRows(LedgerConnection):
    """The watches, the times by which indexes were complete, and what was last known of an index's surroundings."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return what is known about the watch of an index; None if it was never watched."""
        found = self._first(sa.select(watches).where(watches.c.alias == alias))
        return WatchRecord(**found._mapping) if found else None

    def begin_watch(self, alias: str) -> None:
        """Record that an index is watched from now on."""
        values = {"since": self.clock(), "state": "running", "message": ""}
        self._put_row(watches, {"alias": alias}, values)

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        self._write(watches.update().where(watches.c.alias == alias).values(**values))

    # By when an index was complete

    def complete_scan(self, alias: str, collection_id: int, *, began: float, how: str) -> None:
        """Record that a scan of the whole source ended with everything in a collection, which is live now."""
        with self.transaction():
            if self.gaps_since(collection_id) is not None:
                return
            last, at = self._first(sa.select(positions).where(p.alias == alias)), began
            if last is not None and last.collection_id == collection_id and began < last.at <= self.clock():
                at, how = last.at, last.how  # what a clock that was ahead said is given up
            commits = sa.select(collections.c.commits).where(collections.c.id == collection_id).scalar_subquery()
            values = {"at": at, "how": how, "collection_id": collection_id, "commits": sa.func.coalesce(commits, 0)}
            self._put_row(positions, {"alias": alias}, values)

    def note_look(self, alias: str, at: float, *, after: float) -> bool:
        """Let an index be complete by the time of a look that found nothing written since a complete scan, whose time
        was `after`. Return whether it was complete by then: another process may have forgotten that."""
        with self.transaction():
            last = self._first(sa.select(positions).where(p.alias == alias, p.at >= after))
            if last is None or self.gaps_since(last.collection_id) is not None:
                return last is not None
            if at > last.at:
                self._write(positions.update().where(p.alias == alias).values(at=at, how="watch"))
            return True

    def drop_position(self, alias: str) -> None:
        """Forget by when an index was complete, until the next complete scan."""
        self._write(positions.delete().where(p.alias == alias))

    def reached(self) -> dict[str, Reached]:
        """Return by when each index was complete, by its alias. One that never was is left out."""
        joined = positions.join(collections, collections.c.id == p.collection_id)
        rows = sa.select(p.alias, collections.c.name, p.commits, p.at, p.how).select_from(joined)
        return {row.alias: Reached(*row) for row in self._select(rows)}

    def gaps_since(self, collection_id: int) -> float | None:
        """Return since when a document has been failed or held back, so that nothing is complete; None if none is."""
        rows = [
            sa.select(collections.c.held_since.label("at")).where(collections.c.id == collection_id),
            sa.select(sa.func.min(f.incomplete_since)).where(f.collection_id == collection_id, f.kind == "failed"),
        ]
        found: float | None = self._value(sa.select(sa.func.min(sa.union_all(*rows).subquery().c.at)))
        return found
