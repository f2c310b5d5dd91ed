"""The ledger: what is indexed, in which collection and with which hashes; what failed; which runs there were. Rows
belong to a collection, not to an index, and the store's alias alone says which collection is live. A document is marked
pending before it is written. A row that is not pending is exactly what the store holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from rag_index.components.ledger.documents import DocumentRows
from rag_index.components.ledger.runs import RunRows, WatchRows
from rag_index.components.ledger.tables import (
    Collection,
    FailedDocument,
    IndexedDocuments,
    Known,
    Reached,
    RunRecord,
    Totals,
    WatchRecord,
    metadata,
    scans,
)

if TYPE_CHECKING:
    from rag_index.core.documents.batches import CommitMark
    from rag_index.core.settings import Settings

__all__ = [
    "Collection", "FailedDocument", "IndexedDocuments", "Known", "Ledger", "Reached", "RunRecord", "Totals",
    "WatchRecord", "reconciled_by", "unwanted_indexes",
]  # fmt: skip


class Ledger(DocumentRows, RunRows, WatchRows):
    """One connection to the ledger's database, which threads of a process may share. Its methods raise
    LedgerUnavailable if another try may help, and LedgerError if not."""

    def write_by(self, collection: Collection, settings: str, *, new: bool) -> None:
        """Record by which other settings a collection is written from now on. Unless it is `new`, it may hold documents
        by both, so that by when it was complete is forgotten until a scan is."""
        with self.transaction():
            self.update_collection(collection.id, written_by=settings)
            if not new:
                self.drop_position(collection.alias)

    def forget_index(self, alias: str) -> None:
        """Delete everything about an index but its lease, by which late writes of dead runs are told apart."""
        with self.transaction():
            for collection in (*self.collections(alias), *self.collections_elsewhere(alias)):
                self.drop_collection(collection.id)
            if not self._is_sqlite:
                self.forget_scans(scans.c.alias == alias)
            for table in metadata.sorted_tables:
                if "alias" in table.c:
                    self._write(table.delete().where(table.c.alias == alias))

    def find_restored(
        self, indexes: Mapping[str, str], read_marks: Callable[[Iterable[str]], Mapping[str, CommitMark]]
    ) -> dict[str, str]:
        """Return what a person should know of indexes whose store and ledger are at different commits, by their name.
        `indexes` has the live collection of each, and `read_marks` returns the marks that the store has. A run may be
        writing, so a difference counts if a second look shows the same."""
        found: list[dict[str, str]] = []
        for _ in range(2):
            marks = read_marks(indexes.values()) if indexes else {}
            rows = {name: self.collection(live) for name, live in indexes.items() if live in marks}
            found.append({name: self.different_commits(row, marks[row.name]) for name, row in rows.items() if row})
            indexes = {name: indexes[name] for name, difference in found[-1].items() if difference}
        first, again = found
        return {name: f"{first[name]}; {reconciled_by(name)}" for name in indexes if again[name] == first[name]}


def reconciled_by(index: str) -> str:
    """Return what to do if store and ledger are at different commits."""
    return f"`rag-index index {index}` compares every point, and indexes again what differs"


def unwanted_indexes(settings: Settings, ledger: Ledger, live: Mapping[str, str]) -> dict[str, str]:
    """Return a sentence about each index that is kept although the settings no longer have it, by its name. `live` are
    the aliases of the store. What another ledger knows, of a project with a similar name, does not count."""
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
