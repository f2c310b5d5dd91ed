"""The ledger's runs."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from rag_index.database.upsert import insert_for
from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import RunRecord
from rag_index.ledger.tables import runs

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
        with self.transaction() as connection:
            statement = insert_for(connection.dialect)(runs).values(id=run_id, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=[runs.c.id], set_=values))

    def finish_run(self, run_id: str, *, state: str, message: str, report: dict[str, Any]) -> None:
        """Record how a run ended."""
        statement = runs.update().where(runs.c.id == run_id)
        values = {"state": state, "message": message, "report": json.dumps(report), "ended_at": self.clock()}
        with self.transaction() as connection:
            connection.execute(statement.values(**values))

    def last_run(self, alias: str, run_id: str | None = None) -> RunRecord | None:
        """Return the newest run of an index over all its documents, which is no batch of a watch.

        With `run_id`, return the newest run of any kind whose id begins with it.
        """
        whole = ~runs.c.id.startswith(SINGLE) & ~runs.c.id.startswith(BATCH)
        wanted = runs.c.id.startswith(run_id, autoescape=True) if run_id else whole
        statement = sa.select(runs).where(runs.c.alias == alias, wanted).order_by(runs.c.started_at.desc()).limit(1)
        with self.transaction() as connection:
            row = connection.execute(statement).mappings().first()
        return RunRecord(**{**row, "report": json.loads(row["report"])}) if row else None
