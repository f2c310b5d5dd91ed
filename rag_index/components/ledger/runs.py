"""The runs of each index, the lease that one run at a time holds, and the watches.

A run renews its lease while its process runs. A holder on this machine whose process has ended is
noticed at once, one on another machine when its lease has expired (Gray and Cheriton 1989). Each
acquisition raises the epoch of the lease, so that late writes of a former holder can be refused.

A watch has one row for each index, beside the time up to which the index is complete: a search
finds everything that the source had committed by then.
"""

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
    RunRow,
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

f, p = failed_documents.c, positions.c

WATCH = "watch-"
"""Prefix of the ids of a watch's runs; the alias follows. All of them are one row in the history of
an index."""

CHECK_UP = "doctor-"
"""Prefix of the id that holds the lease of an index during a check-up."""

SINGLE = "id-"
"""Prefix of the ids of runs over single documents. They must not hide how the last run over all
documents ended."""

SHORT_HOLDERS = (WATCH, CHECK_UP)
"""Prefixes of the ids of holders that others wait for, because they end soon."""
SHORT_POLL = 0.02
"""Seconds between two looks at the lease of such a holder. Chosen; nothing depends on it."""
LEASE_SECONDS = 60.0
"""Seconds for which a lease is valid after a renewal. Chosen; docs/how-it-works.md has it."""
RENEW_SECONDS = 10.0
"""Seconds between two renewals, so that several may fail. Chosen; docs/how-it-works.md has it."""
SAME_START = 2.0
"""Seconds by which the start of one process may differ between two looks: it is computed from the
time since boot and the clock. Chosen; nothing depends on it."""


def lease_name(project: str) -> str:
    """Return the name of the lease of a project's watch, which is the name of no alias."""
    return f"{project} watch"


class RunRows(LedgerConnection):
    """The runs of each index, and the deletion of old ones. Several projects may share a ledger."""

    def start_run(self, run_id: str, alias: str, *, host: str, pid: int) -> None:
        """Record that a run has begun, also if Prefect starts it again under the same id."""
        last = sa.func.coalesce(sa.func.max(runs.c.number), 0)
        values = {
            "number": sa.select(last + 1).scalar_subquery(),
            "alias": alias,
            "host": host,
            "pid": pid,
            "started_at": self.clock(),
        }
        # A run that is started again has not ended.
        values |= {"ended_at": None, "state": "running", "message": "", "report": "{}"}
        self._put_row(runs, {"id": run_id}, values)

    def finish_run(self, run_id: str, *, state: str, message: str, report: dict[str, Any]) -> None:
        """Record how a run ended."""
        values = {
            "state": state,
            "message": message,
            "report": json.dumps(report),
            "ended_at": self.clock(),
        }
        update = runs.update().where(runs.c.id == run_id)
        self._write(update.values(**values))

    def last_run(self, alias: str, run_id: str | None = None) -> RunRow | None:
        """Return the newest run of an index over all its documents. None if there is none.

        Args:
            run_id: How the id of the run begins. Then runs of all kinds count.
        """
        ours = sa.select(runs).where(runs.c.alias == alias)
        newest = runs.c.number.desc()
        if run_id:
            statement = ours.where(runs.c.id.startswith(run_id, autoescape=True)).order_by(newest)
        else:
            # The run of a watch counts only if there is no other run.
            is_single = runs.c.id.startswith(SINGLE)
            statement = ours.where(~is_single).order_by(runs.c.id.startswith(WATCH), newest)
        found = self._first(statement.limit(1))
        if found is None:
            return None
        report = json.loads(found.report)
        return RunRow(**{**found._mapping, "report": report})

    def prune(self, before: float) -> int:
        """Delete old runs, and the failures of unknown collections. Return the number of rows.

        The newest run of each index stays, and so does a run that holds a lease.

        Args:
            before: Runs that began before this time are old.
        """
        r = runs.c
        other: Any = runs.alias()
        is_newer = (other.c.number > r.number) & _is_over_all(other.c.id)
        has_newer = sa.exists().where(other.c.alias == r.alias, is_newer)
        holders = sa.select(leases.c.run_id).where(leases.c.run_id.is_not(None))
        is_old = (r.started_at < before) & ~r.id.startswith(WATCH)
        is_superseded = has_newer | r.id.startswith(SINGLE)
        is_unknown = f.collection_id.not_in(sa.select(collections.c.id))
        with self.transaction():
            count = self._write(runs.delete().where(is_old & is_superseded & ~r.id.in_(holders)))
            return count + self._write(failed_documents.delete().where(is_unknown))


def _is_over_all(run_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that a run was over all documents, and not of a watch."""
    return ~run_id.startswith(SINGLE) & ~run_id.startswith(WATCH)


class IndexLease:
    """The lease of one index, held during a `with` block.

    Entering the block waits for a run of a watch and for a check-up, as long as they renew their
    lease. A run of a watch does not wait, because it comes again.

    Raises:
        IndexLocked: Another run holds the lease.

    Example:
        with IndexLease(ledger, "desk_tickets", run_id) as lease:
            ...
            lease.check()  # before each commit
    """

    def __init__(self, ledger: LedgerConnection, name: str, run_id: str, held: str = "") -> None:
        """Prepare the lease.

        Args:
            name: The alias of the index, or a `lease_name`.
            held: The beginning of the sentence that names the holder, by default "index NAME is
                being written by".
        """
        self._ledger = ledger
        self._name = name
        self._held = held or f"index {name} is being written by"
        self.run_id = run_id
        self._stop = threading.Event()
        self._lost = False
        self.epoch = 0
        """A number that is higher than that of every earlier holder; 0 before the block."""
        self.interrupted_run: str | None = None
        """The id of the run whose process ended while it held the lease, just before this run."""

    def __enter__(self) -> IndexLease:
        while not self.epoch:
            asked_at = self._ledger.clock()
            try:
                self.epoch = self._acquire(asked_at)
            except IndexLocked:
                if not self._is_free_soon(asked_at):
                    raise
                time.sleep(SHORT_POLL)
        self._renewer = threading.Thread(
            target=self._renew, name=f"lease {self._name}", daemon=True
        )
        self._renewer.start()
        return self

    def _is_free_soon(self, asked_at: float) -> bool:
        """Return whether to wait for the holder of the lease.

        Args:
            asked_at: The time at which the holder counted as alive. A lease that has expired since
                then, while this run asked, is free at the next try.
        """
        row = _read_row(self._ledger, self._name)
        # A run of a watch does not wait.
        if self.run_id.startswith(WATCH):
            return False
        # The lease is free by now.
        if row is None or not row["run_id"]:
            return True
        # "watch-desk_tickets" and "doctor-…" end soon, but not if their machine was switched off.
        is_short = str(row["run_id"]).startswith(SHORT_HOLDERS)
        is_renewed = abs(asked_at - row["renewed_at"]) <= LEASE_SECONDS
        return is_short and is_renewed

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._renewer.join(timeout=RENEW_SECONDS)
        release = leases.update().where(self._is_mine()).values(run_id=None, renewed_at=0.0)
        # If the ledger does not answer, the lease expires by itself.
        with suppress(LedgerUnavailable), self._ledger.transaction() as connection:
            connection.execute(release)

    def check(self) -> None:
        """Renew the lease, in the caller's transaction if there is one.

        In that transaction nothing is written after another run took over. A process that was
        suspended finds out here before its renewing thread does.

        Raises:
            IndexLocked: Another run took the lease over.
        """
        with self._ledger.transaction() as connection:
            if not self._lost:
                self._lost = connection.execute(self._renewal()).rowcount != 1
        if self._lost:
            raise IndexLocked(
                f"this run did not renew its lease for {LEASE_SECONDS:.0f} s, and another took "
                f"over {self._name}: run it again"
            )

    def _is_mine(self) -> sa.ColumnElement[bool]:
        return (leases.c.name == self._name) & (leases.c.epoch == self.epoch)

    def _renewal(self) -> sa.Update:
        """Return the statement that renews the lease. It changes no row if it was lost."""
        return leases.update().where(self._is_mine()).values(renewed_at=self._ledger.clock())

    def _acquire(self, now: float) -> int:
        """Take the lease, and return its new epoch.

        Raises:
            IndexLocked: Another run holds the lease.
        """
        row = _read_row(self._ledger, self._name)
        if row is not None and row["run_id"] is not None and self._is_holder_alive(row, now):
            since = dt.datetime.fromtimestamp(row["since"], tz=dt.UTC).strftime(
                "%Y-%m-%d %H:%M:%S UTC"
            )
            process = f"process {row['pid']} on {row['host']} since {since}"
            raise IndexLocked(f"{self._held} {process}: wait until it is done, or stop it")
        # The first run of an index finds no row.
        epoch = 0
        renewed_at = 0.0
        if row is not None:
            epoch = int(row["epoch"])
            renewed_at = row["renewed_at"]
        is_unchanged = (leases.c.epoch == epoch) & (leases.c.renewed_at == renewed_at)
        self._take(epoch + 1, now, is_unchanged)
        # A holder with our own id is this run, which Prefect has started again.
        if row is not None and row["run_id"] != self.run_id:
            self.interrupted_run = row["run_id"]
        return epoch + 1

    def _take(self, epoch: int, now: float, is_unchanged: sa.ColumnElement[bool]) -> None:
        """Write this run as the holder, if the row is as it was read.

        Raises:
            IndexLocked: Another run wrote the row in between.
        """
        import psutil

        process = psutil.Process()
        values = {
            "run_id": self.run_id,
            "host": socket.gethostname(),
            "pid": process.pid,
            "epoch": epoch,
            "process_started": process.create_time(),
            "since": now,
            "renewed_at": now,
        }
        with self._ledger.transaction() as connection:
            insert = insert_for(connection.dialect)(leases).values(name=self._name, **values)
            take = insert.on_conflict_do_update(
                index_elements=["name"], set_=values, where=is_unchanged
            )
            taken = connection.execute(take, execution_options={"preserve_rowcount": True})
            if taken.rowcount != 1:
                raise IndexLocked(
                    f"{self._held} another run, which has just begun: wait until it is done"
                )

    def _is_holder_alive(self, row: dict[str, Any], now: float) -> bool:
        """Return whether the holder's process runs. May wait to see whether it renews its lease."""
        is_local = row["host"] == socket.gethostname()
        is_from_future = row["renewed_at"] - now > LEASE_SECONDS
        if is_local or not is_from_future:
            return _is_alive(row, now)
        # A clock was set back, ours or that of the other machine: only a renewal shows whether the
        # holder runs.
        time.sleep(1.5 * RENEW_SECONDS)
        return _read_row(self._ledger, self._name) != row

    def _renew(self) -> None:
        """Renew the lease until the block ends. Runs in a thread of its own."""
        last = time.monotonic()
        while not self._stop.wait(RENEW_SECONDS):
            try:
                # A connection of its own: that of the ledger may be in a transaction.
                with self._ledger.engine.begin() as connection:
                    if connection.execute(self._renewal()).rowcount != 1:
                        self._lost = True
                        return
                last = time.monotonic()
            except (sa.exc.SQLAlchemyError, RagIndexError):
                # The ledger does not answer. After this time, another run may take over.
                if time.monotonic() - last > LEASE_SECONDS:
                    self._lost = True
                    return


def holder(ledger: LedgerConnection, name: str) -> str | None:
    """Return the id of the run that holds a lease. None if it is free, or its process has ended."""
    row = _read_row(ledger, name)
    if row is None or row["run_id"] is None or not _is_alive(row, ledger.clock()):
        return None
    return str(row["run_id"])


def run_state(ledger: LedgerConnection, run: RunRow) -> str:
    """Return the state of a run; `interrupted` if its process ended before it recorded the end."""
    if run.state == "running" and holder(ledger, run.alias) != run.id:
        return "interrupted"
    return run.state


def _read_row(ledger: LedgerConnection, name: str) -> dict[str, Any] | None:
    statement = sa.select(leases).where(leases.c.name == name)
    with ledger.transaction() as connection:
        row = connection.execute(statement).mappings().first()
    return dict(row) if row is not None else None


def _is_alive(row: dict[str, Any], now: float) -> bool:
    """Return whether the process of a lease's holder seems to run."""
    renewed_at = float(row["renewed_at"])
    is_renewed = abs(now - renewed_at) <= LEASE_SECONDS
    # On another machine: its lease has not expired. One from the future is not believed to be old.
    if row["host"] != socket.gethostname():
        return is_renewed or renewed_at > now
    import psutil  # `status` rarely needs it

    # On this machine: no process has its number, or the process was killed and its parent has not
    # collected its exit status.
    try:
        process = psutil.Process(row["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        started = process.create_time()
    except psutil.Error:
        return False
    # The process that took the lease.
    if abs(started - row["process_started"]) < SAME_START:
        return True
    # Another process has its number, or the clock was set, which moves the apparent start of a
    # process. A renewed lease is that of the same process, unless it is our own number.
    return is_renewed and int(row["pid"]) != os.getpid()


class WatchRows(LedgerConnection):
    """The watches, and the times up to which indexes are complete."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return the row of the watch of an index. None if it was never watched."""
        found = self._first(sa.select(watches).where(watches.c.alias == alias))
        return WatchRecord(**found._mapping) if found else None

    def begin_watch(self, alias: str) -> None:
        """Record that an index is watched from now on."""
        values = {"since": self.clock(), "state": "running", "message": ""}
        self._put_row(watches, {"alias": alias}, values)

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        update = watches.update().where(watches.c.alias == alias)
        self._write(update.values(**values))

    # The time up to which an index is complete

    def complete_scan(self, alias: str, collection_id: int, *, began: float, how: str) -> None:
        """Record that the live collection is complete, after a scan that read all of the source.

        Nothing is recorded while a document is failed or held back.

        Args:
            began: When the scan began. The collection has what the source had by then.
            how: `run` or `watch`.
        """
        with self.transaction():
            if self.gaps_since(collection_id) is not None:
                return
            at = began
            last = self._first(sa.select(positions).where(p.alias == alias))
            is_same = last is not None and last.collection_id == collection_id
            # The same collection was complete at a later time: that stays. A time in the future,
            # by a clock that was ahead, is given up.
            if is_same and began < last.at <= self.clock():
                at = last.at
                how = last.how
            commits = sa.select(collections.c.commits).where(collections.c.id == collection_id)
            values = {
                "at": at,
                "how": how,
                "collection_id": collection_id,
                "commits": sa.func.coalesce(commits.scalar_subquery(), 0),
            }
            self._put_row(positions, {"alias": alias}, values)

    def record_look(self, alias: str, at: float, *, after: float) -> bool:
        """Record that a watch looked at the source and found no write since a complete scan.

        Args:
            at: The time of the look, up to which the index is complete now.
            after: The time of the complete scan.

        Return:
            Whether the index was complete by `after`. Another process may have deleted that time.
        """
        with self.transaction():
            statement = sa.select(positions).where(p.alias == alias, p.at >= after)
            last = self._first(statement)
            if last is None:
                return False
            # Nothing is complete while a document is failed or held back: the time stays.
            has_gaps = self.gaps_since(last.collection_id) is not None
            if not has_gaps and at > last.at:
                update = positions.update().where(p.alias == alias)
                self._write(update.values(at=at, how="watch"))
            return True

    def drop_position(self, alias: str) -> None:
        """Delete the time up to which an index is complete, until the next complete scan."""
        self._write(positions.delete().where(p.alias == alias))

    def reached(self) -> dict[str, Reached]:
        """Return the time up to which each index is complete, by alias. Others are missing."""
        joined = positions.join(collections, collections.c.id == p.collection_id)
        columns = sa.select(p.alias, collections.c.name, p.commits, p.at, p.how)
        rows = self._select(columns.select_from(joined))
        return {row.alias: Reached(*row) for row in rows}

    def gaps_since(self, collection_id: int) -> float | None:
        """Return since when a collection has been incomplete. None if no document is missing.

        A document is missing that has failed, or that the delete guard holds back.
        """
        held = sa.select(collections.c.held_since.label("at"))
        held = held.where(collections.c.id == collection_id)
        failed = sa.select(sa.func.min(f.incomplete_since))
        failed = failed.where(f.collection_id == collection_id, f.kind == "failed")
        times = sa.union_all(held, failed).subquery()
        found: float | None = self._value(sa.select(sa.func.min(times.c.at)))
        return found
