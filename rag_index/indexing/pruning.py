"""What is deleted because nobody needs it: at the end of a run what has grown old, and an index that a person drops.

Of what has grown old (`[run] keep_days`: rows of the ledger, and contexts), each deletion is a transaction of its own
that leaves the ledger in order, so a death in the middle leaves the rest to the next run. Nothing is deleted that
a run or a watch still needs. An index that is taken out of the settings stays searchable until somebody drops it.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, UnknownIndex
from rag_index.ledger import Ledger, unwanted_indexes
from rag_index.ledger.runs import IndexLease
from rag_index.reports.outcome import count_of
from rag_index.stores import MOVED_TO, open_names, open_store

if TYPE_CHECKING:
    from rag_index.settings import Settings
    from rag_index.stores.protocol import StoreNames

DAY = 86_400.0

logger = logging.getLogger("rag_index.indexing")


def prune(settings: Settings, ledger: Ledger) -> None:
    """Delete what is older than `[run] keep_days`. A fault is logged, and left to the next run."""
    before = max(0.0, ledger.clock() - settings.run.keep_days * DAY)
    try:
        ledger.prune(before, {settings.alias(index.name) for index in settings.indexes})
        ledger.prune_contexts(before)
    except RagIndexError as error:
        logger.warning("what is older than [run] keep_days was not deleted: %s", error)


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
    """Return what is kept of an index, or raise UnknownIndex. Neither store nor index is locked."""
    alias = settings.alias(name)
    with closing(Ledger(settings.ledger_url)) as ledger, open_names(settings.store) as names:
        stored = _stored(ledger, names, alias)
        rows = {row.name: row for row in ledger.collections(alias)}
        collections = dict.fromkeys(stored, "unknown to the ledger")
        for one, row in rows.items():
            documents = count_of(ledger.totals(row.id).documents, "document")
            collections[one] = documents if one in stored else f"{documents}, not in this store"
        collections |= {one: f"a copy of what was moved to {place}" for one, place in stored.items() if place}
        if collections:
            return KeptIndex(name, any(index.name == name for index in settings.indexes), collections)
        others = [*(index.name for index in settings.indexes), *unwanted_indexes(settings, ledger, names.aliases())]
    near = get_close_matches(name, others, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near and near[0] != name else ""
    raise UnknownIndex(f"nothing is kept of an index {name!r}{hint}; the indexes are {', '.join(others)}")


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
            ledger.prune_contexts(ledger.clock() + DAY)  # they repeat the texts
        return list(stored)


def _stored(ledger: Ledger, store: StoreNames, alias: str) -> dict[str, str]:
    """Return the store's collections of an alias, with the store that each was moved to, or ""."""
    known = {collection.name for collection in ledger.collections(alias)}
    return {
        name: str(metadata.get(MOVED_TO) or "")
        for name, metadata in store.collections().items()
        if metadata.get("alias") == alias or name in known
    }
