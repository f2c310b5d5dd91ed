"""The ledger's collections: what each was built with, and which of them no setting wants any longer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.errors import LedgerError
from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import Collection
from rag_index.ledger.tables import collections, metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.documents.batches import CommitMark
    from rag_index.settings import Settings


class CollectionRows(LedgerConnection):
    """The collections of each alias, and what each was built with."""

    def collection(self, name: str) -> Collection | None:
        """Return the collection of this name."""
        found = self._first(sa.select(collections).where(collections.c.name == name))
        return Collection(**found._mapping) if found else None

    def collections(self, alias: str | None = None) -> list[Collection]:
        """Return all collections of an alias, or of all aliases, oldest first."""
        statement = sa.select(collections).order_by(collections.c.id)
        statement = statement if alias is None else statement.where(collections.c.alias == alias)
        return [Collection(**row._mapping) for row in self._select(statement)]

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
        with self.transaction():
            for table in metadata.sorted_tables:
                if "collection_id" in table.c:
                    self._write(table.delete().where(table.c.collection_id == collection_id))
            self._write(collections.delete().where(collections.c.id == collection_id))

    def forget_index(self, alias: str) -> None:
        """Delete everything about an index but its lease, by which late writes of dead runs are told apart."""
        with self.transaction():
            for collection in self.collections(alias):
                self.drop_collection(collection.id)
            for table in metadata.sorted_tables:
                if "alias" in table.c:
                    self._write(table.delete().where(table.c.alias == alias))


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
