"""The ledger's runs and watches: when they ran, how they ended, and how far they are."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import RunRecord, WatchRecord
from rag_index.ledger.tables import mended, runs, slots, watches

BATCH = "watch-"
"""Prefix of the id of a watch's batches; the alias follows. The ledger keeps the last batch of each index alone."""

SINGLE = "id-"
"""Prefix of the ids of runs over single documents, which must not hide how the last run over all documents went."""


class RunRows(LedgerConnection):
    """The runs of each index: when they ran, how they ended, and their metrics."""

    def start_run(self, run_id: str, alias: str, *, host: str, pid: int) -> None:
        """Record that a run has begun; also again, if Prefect starts a run once more under its id."""
        values = {
            "alias": alias, "host": host, "pid": pid, "started_at": self.clock(), "ended_at": None,
            "state": "running", "message": "", "report": "{}",
        }  # fmt: skip
        self._put_row(runs, {"id": run_id}, values)

    def finish_run(self, run_id: str, *, state: str, message: str, report: dict[str, Any]) -> None:
        """Record how a run ended."""
        values = {"state": state, "message": message, "report": json.dumps(report), "ended_at": self.clock()}
        self._write(runs.update().where(runs.c.id == run_id).values(**values))

    def last_run(self, alias: str, run_id: str | None = None) -> RunRecord | None:
        """Return the newest run of an index over all its documents, which is no batch of a watch.

        With `run_id`, return the newest run of any kind whose id begins with it.
        """
        whole = ~runs.c.id.startswith(SINGLE) & ~runs.c.id.startswith(BATCH)
        wanted = runs.c.id.startswith(run_id, autoescape=True) if run_id else whole
        statement = sa.select(runs).where(runs.c.alias == alias, wanted).order_by(runs.c.started_at.desc()).limit(1)
        found = self._select(statement)
        return RunRecord(**{**found[0]._mapping, "report": json.loads(found[0].report)}) if found else None


def lease_name(project: str) -> str:
    """Return the name of the lease of a project's watch, which is the name of no alias."""
    return f"{project} watch"


class WatchRows(LedgerConnection):
    """A row for each index that is, or was, watched."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return what is known about the watch of an index; None if it was never watched."""
        found = self._select(sa.select(watches).where(watches.c.alias == alias))
        return WatchRecord(**found[0]._mapping) if found else None

    def begin_watch(self, alias: str, *, blind: str = "") -> None:
        """Record that an index is watched from now on; one that was watched before keeps what is known about it.

        `blind` says what the watch of this index cannot see. Then what runs have mended until now is forgotten: nobody
        may have kept it for the watch.
        """
        values = {
            "alias": alias, "since": self.clock(), "last_number": 0, "state": "running", "message": "", "blind": blind,
        }  # fmt: skip
        insert = self._insert(watches).values(**values)
        with self.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["alias"], set_={"blind": blind}))
            if blind:
                connection.execute(mended.delete().where(mended.c.alias == alias, mended.c.missed_at.is_(None)))

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        self._write(watches.update().where(watches.c.alias == alias).values(**values))

    def slot_position(self, name: str) -> str | None:
        """Return the position up to which everything that a slot gave is in the inbox; None if it was never read."""
        found = self._value(sa.select(slots.c.position).where(slots.c.name == name))
        return None if found is None else str(found)

    def remember_slot(self, name: str, position: str) -> None:
        """Record that everything that a slot gave up to a position is in the inbox."""
        self._put_row(slots, {"name": name}, {"position": position})
