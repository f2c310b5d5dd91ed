"""One run of an index at a time: a lease in the ledger, renewed while the run lives.

Each taking of the lock raises its epoch, so that what a dead run's workers still send can be told apart. A dead
process of this machine is noticed at once; one elsewhere when its lease has run out (Gray and Cheriton 1989).
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import sqlalchemy as sa

from rag_index.errors import IndexLocked, RagIndexError
from rag_index.ledger.tables import leases

if TYPE_CHECKING:
    from types import TracebackType

    from rag_index.ledger import Ledger

__all__ = ["LEASE_SECONDS", "IndexLease", "holder"]

LEASE_SECONDS = 60.0
RENEW_SECONDS = 10.0


class IndexLease:
    """The lock of one index, for the time of a `with` block. `epoch` is higher than that of any run before."""

    def __init__(self, ledger: Ledger, name: str, run_id: str) -> None:
        self._ledger = ledger
        self._name = name
        self._run_id = run_id
        self._stop = threading.Event()
        self._lost = False
        self.epoch = 0

    def __enter__(self) -> IndexLease:
        self.epoch = self._take()
        self._renewer = threading.Thread(target=self._renew, name=f"lock {self._name}", daemon=True)
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._renewer.join(timeout=RENEW_SECONDS)
        mine = (leases.c.name == self._name) & (leases.c.epoch == self.epoch)
        with self._ledger.transaction() as connection:
            connection.execute(leases.update().where(mine).values(run_id=None, renewed_at=0.0))

    def check(self) -> None:
        """See that the lock is still ours.

        Raises:
            IndexLocked: another run took it, since this one did not renew it in time.
        """
        if self._lost:
            raise IndexLocked(f"this run was not heard of for {LEASE_SECONDS:.0f} s and another took over {self._name}")

    def _take(self) -> int:
        now = self._ledger.clock()
        process = psutil.Process()
        mine = {
            "run_id": self._run_id, "host": socket.gethostname(), "pid": process.pid,
            "process_started": process.create_time(), "since": now, "renewed_at": now,
        }  # fmt: skip
        row = _row(self._ledger, self._name)
        if row is not None and row["run_id"] is not None and self._lives(row, now):
            since = dt.datetime.fromtimestamp(row["since"], tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
            raise IndexLocked(
                f"index {self._name} is being written by process {row['pid']} on {row['host']} since {since}: "
                "wait until it is done, or stop it"
            )
        taken = f"index {self._name} was taken by another run at this moment: wait until it is done"
        with self._ledger.transaction() as connection:
            if row is None:
                try:
                    connection.execute(leases.insert().values(name=self._name, epoch=1, **mine))
                except sa.exc.IntegrityError as error:
                    raise IndexLocked(taken) from error
                return 1
            epoch = int(row["epoch"]) + 1
            same = (leases.c.name == self._name) & (leases.c.epoch == row["epoch"])
            same &= leases.c.renewed_at == row["renewed_at"]
            if connection.execute(leases.update().where(same).values(epoch=epoch, **mine)).rowcount != 1:
                raise IndexLocked(taken)
            return epoch

    def _lives(self, row: dict[str, Any], now: float) -> bool:
        """As `_alive`; of a lease from the future, where a clock was set back, it is seen whether it is renewed."""
        if row["host"] == socket.gethostname() or row["renewed_at"] - now <= LEASE_SECONDS:
            return _alive(row, now)
        time.sleep(1.5 * RENEW_SECONDS)
        return _row(self._ledger, self._name) != row

    def _renew(self) -> None:
        mine = (leases.c.name == self._name) & (leases.c.epoch == self.epoch)
        last = time.monotonic()
        while not self._stop.wait(RENEW_SECONDS):
            try:
                with self._ledger.engine.begin() as connection:
                    statement = leases.update().where(mine).values(renewed_at=self._ledger.clock())
                    if connection.execute(statement).rowcount != 1:
                        self._lost = True
                        return
                last = time.monotonic()
            except (sa.exc.SQLAlchemyError, RagIndexError):
                if time.monotonic() - last > LEASE_SECONDS:
                    self._lost = True
                    return


def holder(ledger: Ledger, name: str) -> str | None:
    """The id of the run that holds the lock and lives, as far as can be seen from here."""
    row = _row(ledger, name)
    if row is None or row["run_id"] is None or not _alive(row, ledger.clock()):
        return None
    return str(row["run_id"])


def _row(ledger: Ledger, name: str) -> dict[str, Any] | None:
    with ledger.transaction() as connection:
        row = connection.execute(sa.select(leases).where(leases.c.name == name)).mappings().first()
    return dict(row) if row is not None else None


def _alive(row: dict[str, Any], now: float) -> bool:
    """Whether the holder lives, as far as can be seen from here."""
    renewed_at = float(row["renewed_at"])
    heard_of = abs(now - renewed_at) <= LEASE_SECONDS
    if row["host"] != socket.gethostname():
        return heard_of or renewed_at > now
    try:
        process = psutil.Process(row["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:  # killed, and nobody asked how it ended
            return False
        started = process.create_time()
    except psutil.Error:
        return False
    if abs(started - row["process_started"]) < 2.0:
        return True
    # Another process has its number, or the clock was set since: that moves what a process's start looks like.
    return heard_of and int(row["pid"]) != os.getpid()
