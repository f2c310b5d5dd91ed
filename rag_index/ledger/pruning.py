"""What the ledger no longer needs: old runs, and what it keeps for indexes that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.runs import BATCH, SINGLE
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence


class Prunable(NamedTuple):
    """Numbers of rows that have grown old."""

    runs: int
    failed: int
    """Failed documents of indexes that are gone."""
    changes: int
    """Changes that wait for indexes that are gone: documents and look-ups."""
    watches: int
    """Watches of indexes that are gone and have no collection."""
    buckets: int
    """Digests of the source of indexes that are gone."""


class PrunedRows(LedgerConnection):
    """The deletion of rows that have grown old. Several projects may share a ledger, so age alone decides.

    An index is gone if it is none of the caller's and nothing has run or watched it since. If it comes back all the
    same, its next run reads everything.
    """

    def prune(self, before: float, aliases: Collection[str]) -> Prunable:
        """Delete what is older than a time and belongs to none of these aliases, or to a run; return how much that was.

        The newest run of each index stays, and so does a run that holds a lease. The changes of an index that is gone
        would be lost to a collection that is still there. So its watch stays, and notes that everything has to be read.
        """
        w = watches.c
        with self.transaction():
            gone = self._unwatched(before, aliases)
            changed = sa.or_(*(sa.exists().where(table.c.alias == w.alias) for table in (inbox, look_ups)))
            kept = w.alias.in_(gone) & _has_collection(w.alias) & changed
            self._write(watches.update().where(kept).values(full_number=w.last_number))
            self._write(mended.delete().where(mended.c.alias.in_(gone)))
            return _sums(_prunable(before, aliases, gone), lambda table, old: self._write(table.delete().where(old)))

    def count_prunable(self, before: float, aliases: Collection[str]) -> Prunable:
        """Return how much `prune` would delete."""
        with self.transaction():
            return _sums(_prunable(before, aliases, self._unwatched(before, aliases)), self._count)

    def count_runs(self) -> int:
        """Count the runs of all indexes."""
        return self._count(runs)

    def chunkings(self) -> list[tuple[int, str]]:
        """Return the id of each collection of all indexes, and the fingerprint of what made its chunks."""
        found = self._select(sa.select(collections.c.id, collections.c.chunking).order_by(collections.c.id))
        return [(int(row[0]), str(row[1])) for row in found]

    def _unwatched(self, before: float, aliases: Collection[str]) -> list[str]:
        """Return the aliases of watches that are gone. An index has changes in the inbox only if it has a watch."""
        w = watches.c
        since = sa.func.coalesce(w.caught_up_at, w.since), sa.func.coalesce(w.applied_at, w.since), w.since
        arrived = sa.or_(
            sa.exists().where(inbox.c.alias == w.alias, inbox.c.received_at >= before),
            sa.exists().where(look_ups.c.alias == w.alias, look_ups.c.changed_at >= before),
        )
        statement = sa.select(w.alias).where(
            w.alias.not_in(list(aliases)), *(at < before for at in since), ~arrived, ~_has_run(w.alias, before)
        )
        return [str(row[0]) for row in self._select(statement)]


def _prunable(
    before: float, aliases: Collection[str], gone: Sequence[str]
) -> Iterator[tuple[str, sa.Table, sa.ColumnElement[bool]]]:
    """Yield what may be deleted: a field of `Prunable`, a table, and the condition for its rows.

    Runs come last, because the others ask for them. `gone` are the indexes whose watch is gone.
    """
    yield "failed", failed_documents, _is_forgotten(before, aliases)
    yield "buckets", buckets, buckets.c.collection_id.in_(_abandoned(before, aliases))  # a scan then reads everything
    yield "watches", watches, watches.c.alias.in_(gone) & ~_has_collection(watches.c.alias)
    for table in (inbox, look_ups):
        yield "changes", table, table.c.alias.in_(gone)
    yield "runs", runs, _is_old(before)


def _sums(
    prunable: Iterator[tuple[str, sa.Table, sa.ColumnElement[bool]]],
    number: Callable[[sa.Table, sa.ColumnElement[bool]], int],
) -> Prunable:
    numbers = dict.fromkeys(Prunable._fields, 0)
    for name, table, condition in prunable:
        numbers[name] += number(table, condition)
    return Prunable(**numbers)


def _has_run(alias: Any, since: float) -> sa.ColumnElement[bool]:
    return sa.exists().where(runs.c.alias == alias, runs.c.started_at >= since)


def _has_collection(alias: Any) -> sa.ColumnElement[bool]:
    return sa.exists().where(collections.c.alias == alias)


def _is_old(before: float) -> sa.ColumnElement[bool]:
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


def _is_forgotten(before: float, aliases: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition for failed documents that may go."""
    f = failed_documents.c
    there = sa.exists().where(collections.c.id == f.collection_id)
    return sa.or_(~there, sa.and_(f.last_at < before, f.collection_id.in_(_abandoned(before, aliases))))


def _abandoned(before: float, aliases: Collection[str]) -> sa.Select[Any]:
    """Return the SELECT for the collections of indexes that are gone."""
    c = collections.c
    return sa.select(c.id).where(c.alias.not_in(list(aliases)), c.created_at < before, ~_has_run(c.alias, before))
