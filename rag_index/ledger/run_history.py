"""The ledger's runs: when they ran and how they ended; and what has grown old, of runs and of indexes that are gone."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import RunRecord
from rag_index.ledger.tables import (
    buckets,
    collections,
    failed_documents,
    inbox,
    leases,
    look_ups,
    mended,
    runs,
    watches,
)

BATCH = "watch-"
"""Prefix of the id of a watch's batches; the alias follows. The ledger keeps the last batch of each index alone."""

SINGLE = "id-"
"""Prefix of the ids of runs over single documents, which must not hide how the last run over all documents went."""


def lease_name(project: str) -> str:
    """Return the name of the lease of a project's watch, which is the name of no alias."""
    return f"{project} watch"


class RunRows(LedgerConnection):
    """The runs of each index, and the deletion of what has grown old.

    Several projects may share a ledger, so an index is gone if it is none of the caller's and nothing has run or
    watched it for long. If it comes back all the same, its next run reads everything.
    """

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
        """Return the newest run of an index over all its documents, which is no batch of a watch.

        With `run_id`, return the newest run of any kind whose id begins with it.
        """
        wanted = runs.c.id.startswith(run_id, autoescape=True) if run_id else _is_whole(runs.c.id)
        statement = sa.select(runs).where(runs.c.alias == alias, wanted).order_by(runs.c.number.desc()).limit(1)
        found = self._first(statement)
        return RunRecord(**{**found._mapping, "report": json.loads(found.report)}) if found else None

    def prune(self, before: float, aliases: set[str]) -> int:
        """Delete what is older than a time and belongs to none of these aliases, or to a run; return how many rows.

        The newest run of each index stays, and so does a run that holds a lease. The changes of an index that is gone
        would be lost to a collection that is still there. So its watch stays, and notes that everything has to be read.
        """
        w, f, r = watches.c, failed_documents.c, runs.c
        other: Any = runs.alias()
        newer = sa.exists().where(other.c.alias == r.alias, other.c.number > r.number, _is_whole(other.c.id))
        holds = r.id.in_(sa.select(leases.c.run_id).where(leases.c.run_id.is_not(None)))
        old = (r.started_at < before) & ~r.id.startswith(BATCH) & (newer | r.id.startswith(SINGLE)) & ~holds
        with self.transaction():
            gone = self._gone(before, aliases)
            theirs = sa.select(collections.c.id).where(collections.c.alias.in_(gone))
            has_collection = w.alias.in_(sa.select(collections.c.alias))
            waits = sa.or_(*(w.alias.in_(sa.select(table.c.alias)) for table in (inbox, look_ups)))
            due = w.alias.in_(gone) & has_collection & waits
            self._write(watches.update().where(due).values(full_number=w.last_number))
            self._write(mended.delete().where(mended.c.alias.in_(gone)))
            unknown = f.collection_id.not_in(sa.select(collections.c.id))
            deleted = [
                runs.delete().where(old),
                failed_documents.delete().where(unknown | f.collection_id.in_(theirs)),
                *(table.delete().where(table.c.alias.in_(gone)) for table in (inbox, look_ups)),
                watches.delete().where(w.alias.in_(gone) & ~has_collection),
                buckets.delete().where(buckets.c.collection_id.in_(theirs)),
            ]
            return sum(map(self._write, deleted))

    def _gone(self, before: float, aliases: set[str]) -> set[str]:
        w = watches.c
        since = [
            (runs.c.alias, runs.c.started_at),
            (collections.c.alias, collections.c.created_at),
            *((w.alias, at) for at in (w.since, w.caught_up_at, w.applied_at)),
            (inbox.c.alias, inbox.c.received_at),
            (look_ups.c.alias, look_ups.c.changed_at),
        ]
        lives = sa.union(*(sa.select(alias).where(at >= before) for alias, at in since))
        known = sa.union(sa.select(collections.c.alias), sa.select(w.alias))
        return {*self._column(known)} - {*self._column(lives)} - aliases


def _is_whole(run_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return ~run_id.startswith(SINGLE) & ~run_id.startswith(BATCH)
