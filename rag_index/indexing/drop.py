"""The end of an index: its collections, with all texts, and what the ledger has of it.

An index that is taken out of the settings stays searchable until somebody drops it.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from rag_index.errors import UnknownIndex
from rag_index.indexing.pruning import prune_unneeded_contexts
from rag_index.ledger import Ledger, unwanted_indexes
from rag_index.ledger.lease import IndexLease
from rag_index.reports.outcome import count_of
from rag_index.stores import open_store, read_catalog
from rag_index.stores.metadata import MOVED_TO

if TYPE_CHECKING:
    from rag_index.settings import Settings
    from rag_index.stores import Store, StoreCatalog

__all__ = ["KeptIndex", "drop_index", "kept_index"]


@dataclass(frozen=True, slots=True)
class KeptIndex:
    """What is kept of an index, whether or not the settings have it."""

    index: str
    wanted: bool
    """Whether the settings have it, so that its next run indexes everything again."""
    collections: dict[str, str]
    """The collections of store and ledger, with what a person should know about each."""

    def sentence(self) -> str:
        """Return one line for a person."""
        return ", ".join(f"{name} ({what})" for name, what in self.collections.items())


def kept_index(settings: Settings, name: str) -> KeptIndex:
    """Return what is kept of an index. Neither store nor index is locked.

    Raises:
        UnknownIndex: nothing is kept of an index of that name.
    """
    catalog, alias = read_catalog(settings.store), settings.alias(name)
    with closing(Ledger(settings.ledger_url)) as ledger:
        stored = _stored(ledger, catalog, alias)
        rows = {row.name: row for row in ledger.collections(alias)}
        collections = dict.fromkeys(stored, "unknown to the ledger")
        for one, row in rows.items():
            documents = count_of(ledger.totals(row.id).documents, "document")
            collections[one] = documents if one in stored else f"{documents}, not in this store"
        collections |= {one: f"a copy of what was moved to {place}" for one, place in stored.items() if place}
        if collections:
            return KeptIndex(name, any(index.name == name for index in settings.indexes), collections)
        names = [*(index.name for index in settings.indexes), *unwanted_indexes(settings, ledger, catalog.aliases())]
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near and near[0] != name else ""
    raise UnknownIndex(f"nothing is kept of an index {name!r}{hint}; the indexes are {', '.join(names)}")


def drop_index(settings: Settings, name: str) -> list[str]:
    """Delete the collections of an index, and what the ledger has of it; return the names of the collections.

    What was moved to another store is deleted in this one alone: the ledger explains the other. A death in between
    leaves what a repetition deletes. Raises IndexLocked, StoreBusy, and what store and ledger raise.
    """
    alias = settings.alias(name)
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, alias, f"drop-{uuid.uuid4()}"),
        closing(open_store(settings.store, wait=settings.run.wait)) as store,
    ):
        stored = _stored(ledger, store, alias)
        for collection in stored:
            store.drop(collection)
        if not any(stored.values()):
            ledger.forget_index(alias)
            prune_unneeded_contexts(settings, ledger)
        return list(stored)


def _stored(ledger: Ledger, store: Store | StoreCatalog, alias: str) -> dict[str, str]:
    """Return the store's collections of an alias, with the store that each was moved to, or ""."""
    known = {collection.name for collection in ledger.collections(alias)}
    return {
        name: str(metadata.get(MOVED_TO) or "")
        for name, metadata in store.collections().items()
        if metadata.get("alias") == alias or name in known
    }
