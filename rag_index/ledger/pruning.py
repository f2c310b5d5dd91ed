"""What the ledger no longer needs: old runs, and lists of failed documents that no index has any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.runs import BATCH, SINGLE
from rag_index.ledger.tables import collections, failed_documents, leases, runs

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["PrunedRows"]


class PrunedRows(LedgerConnection):
    """The deletion of rows that have grown old. Several projects may share a ledger, so age alone decides."""

    def prune(self, before: float, aliases: Collection[str]) -> tuple[int, int]:
        """Delete what is older than a time; return how many runs and how many failed documents went.

        The newest run of each index stays, and so does a run that holds a lease. Failed documents go with their
        collection, or if no run has touched their index since, and it is none of these aliases.
        """
        with self.transaction() as connection:
            failed = connection.execute(failed_documents.delete().where(_forgotten(before, aliases))).rowcount
            return connection.execute(runs.delete().where(_old(before))).rowcount, failed

    def count_prunable(self, before: float, aliases: Collection[str]) -> tuple[int, int]:
        """Return how many runs and how many failed documents `prune` would delete."""
        with self.transaction() as connection:
            one, other = (
                connection.scalar(sa.select(sa.func.count()).select_from(table).where(condition)) or 0
                for table, condition in ((runs, _old(before)), (failed_documents, _forgotten(before, aliases)))
            )
            return int(one), int(other)

    def count_runs(self) -> int:
        """Count the runs of all indexes."""
        with self.transaction() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(runs)) or 0)


def _old(before: float) -> sa.ColumnElement[bool]:
    """Return the condition for runs that may go."""
    other: Any = runs.alias()
    newer = sa.exists().where(
        other.c.alias == runs.c.alias,
        other.c.started_at > runs.c.started_at,
        ~other.c.id.startswith(SINGLE),
        ~other.c.id.startswith(BATCH),
    )
    whole = ~runs.c.id.startswith(SINGLE)
    live = sa.exists().where(leases.c.run_id == runs.c.id)
    return sa.and_(runs.c.started_at < before, ~runs.c.id.startswith(BATCH), sa.or_(newer, ~whole), ~live)


def _forgotten(before: float, aliases: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition for failed documents that may go."""
    f, c = failed_documents.c, collections.c
    there = sa.exists().where(c.id == f.collection_id)
    recent = sa.exists().where(runs.c.alias == c.alias, runs.c.started_at >= before)
    abandoned = sa.exists().where(c.id == f.collection_id, c.alias.not_in(list(aliases)), ~recent)
    return sa.or_(~there, sa.and_(f.last_at < before, abandoned))
