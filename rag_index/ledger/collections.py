"""The ledger's collections, and what the ledger no longer needs: old runs, and rows of indexes that are gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.errors import LedgerError
from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import Collection
from rag_index.ledger.runs import BATCH, SINGLE
from rag_index.ledger.tables import (
    batch_deletions,
    buckets,
    collections,
    documents,
    failed_documents,
    file_hashes,
    inbox,
    leases,
    look_ups,
    mended,
    milestones,
    positions,
    runs,
    scan_states,
    sizes,
    watches,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.documents.commits import CommitMark
    from rag_index.settings import Settings


class CollectionRows(LedgerConnection):
    """The collections of each alias, and what each was built with."""

    def collection(self, name: str) -> Collection | None:
        """Return the collection of this name."""
        found = self._select(sa.select(collections).where(collections.c.name == name))
        return Collection(**found[0]._mapping) if found else None

    def collections(self, alias: str | None = None) -> list[Collection]:
        """Return all collections of an alias, or of all aliases, oldest first."""
        statement = sa.select(collections).order_by(collections.c.id)
        statement = statement if alias is None else statement.where(collections.c.alias == alias)
        return [Collection(**row._mapping) for row in self._select(statement)]

    def embedders(self) -> list[str]:
        """Return the descriptions of the embedders that made collections, of all aliases."""
        return [row.embedder for row in self._select(sa.select(collections.c.embedder).distinct())]

    def add_collection(self, **values: Any) -> Collection:
        """Add a collection that is about to be created in the store; `values` are columns of `tables.collections`."""
        self._write(collections.insert().values(created_at=self.clock(), **values))
        added = self.collection(values["name"])
        if added is None:
            raise LedgerError(
                f"ledger {self.redacted_url} lost collection {values['name']}: check that its disk has room"
            )
        return added

    def update_collection(self, collection_id: int, **values: Any) -> None:
        """Change columns of a collection."""
        self._write(collections.update().where(collections.c.id == collection_id).values(**values))

    def record_commit(self, collection_id: int, mark: CommitMark) -> None:
        """Record the last commit of a collection, with the rows that it commits."""
        self.update_collection(collection_id, commits=mark.number, committed_at=mark.at)

    def drop_collection(self, collection_id: int) -> None:
        """Delete a collection with everything that belongs to it."""
        with self.transaction() as connection:
            for table in (
                documents,
                failed_documents,
                scan_states,
                file_hashes,
                sizes,
                batch_deletions,
                buckets,
                positions,
            ):
                connection.execute(table.delete().where(table.c.collection_id == collection_id))
            connection.execute(collections.delete().where(collections.c.id == collection_id))

    def forget_index(self, alias: str) -> None:
        """Delete everything about an index but its lease, by which late writes of dead runs are told apart."""
        with self.transaction() as connection:
            for collection in self.collections(alias):
                self.drop_collection(collection.id)
            for table in (inbox, look_ups, mended, milestones, runs, watches):
                connection.execute(table.delete().where(table.c.alias == alias))


def unwanted_indexes(settings: Settings, ledger: CollectionRows, live: Mapping[str, str]) -> dict[str, str]:
    """Return a sentence about each index that is kept although the settings no longer have it, by its name.

    `live` are the aliases of the store. What another ledger knows, of a project with a similar name, does not count.
    """
    prefix, wanted = settings.alias(""), {settings.alias(index.name) for index in settings.indexes}
    found = {}
    for alias, name in sorted(live.items()):
        index = alias.removeprefix(prefix)
        if alias in wanted or index == alias or (known := ledger.collection(name)) is None or known.alias != alias:
            continue
        found[index] = (
            f"{settings.path.name} has no such index, but {name} keeps its texts: `rag-index drop {index}` deletes them"
        )
    return found


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

    def prune(self, before: float, aliases: set[str]) -> Prunable:
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

    def count_prunable(self, before: float, aliases: set[str]) -> Prunable:
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

    def _unwatched(self, before: float, aliases: set[str]) -> list[str]:
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
    before: float, aliases: set[str], gone: Sequence[str]
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


def _is_forgotten(before: float, aliases: set[str]) -> sa.ColumnElement[bool]:
    """Return the condition for failed documents that may go."""
    f = failed_documents.c
    there = sa.exists().where(collections.c.id == f.collection_id)
    return sa.or_(~there, sa.and_(f.last_at < before, f.collection_id.in_(_abandoned(before, aliases))))


def _abandoned(before: float, aliases: set[str]) -> sa.Select[Any]:
    """Return the SELECT for the collections of indexes that are gone."""
    c = collections.c
    return sa.select(c.id).where(c.alias.not_in(list(aliases)), c.created_at < before, ~_has_run(c.alias, before))
