"""What a check-up finds, with the remedies; and an index's collections as ledger and store have them: aliases and
metadata, without their points. docs/doctor.md says of each kind of finding what a repair does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.components.ledger import reconciled_by
from rag_index.components.sources.policies import REMEDY
from rag_index.components.stores import LEFT, MOVED_TO, find_live
from rag_index.core.reports.outcome import count_of
from rag_index.errors import StoreMismatch
from rag_index.etl.collection import require_own

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import Alias

REMEDIES = {
    "damaged_ledger": "restore it from a backup; or `rag-index doctor --repair` renames it, and fills a new one from "
    "the store, without embedding",
    "foreign_collection": "until then runs and searches of the index fail",
    "missing_alias": "`rag-index doctor --repair` sets the alias again",
    "unknown_collection": "name the right [store] or [ledger]; or, if the ledger was lost, or one of the two restored, "
    "`rag-index doctor --repair` fills the ledger from the store, without embedding",
    "stray_collection": "name the right [store] or [ledger]; or `rag-index doctor --repair` removes them from both",
    "needs_rebuild": "run `rag-index rebuild {index}`, or restore the store if it is damaged",
    "restored": "{reconciled}; `rag-index doctor --repair` compares now, and leaves what to index to that run",
    "different_documents": "`rag-index doctor --repair` marks them as pending, and the next run indexes them again",
    "orphan_points": "`rag-index doctor --repair` deletes them, if it can read the source to its end",
    "failed_documents": "`rag-index status {index} --failed` lists them: correct them in the source, then run "
    "`rag-index index-all {index} --retry-failed`",
    "unreadable_source": "correct it; until then the index stays as it is, and no point is deleted",
    "ignored_policies": f"{REMEDY}; a policy for this role that shows all rows says that it is meant",
    "pending_erasures": "`rag-index erase {index}` leaves no file with them, as each run does with [store] erase",
}
"""What to do about each kind of finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and its remedy. The kind decides whether `count` counts documents, points or others."""

    index: str | None
    """None if the finding concerns all indexes."""
    kind: str
    count: int
    message: str
    remedy: str
    examples: tuple[str, ...] = ()
    """A few document ids, or names of collections or ids of points if there is no document."""


def finding(index: str | None, kind: str, message: str, examples: Sequence[str] = (), *, count: int = 1) -> Finding:
    """Return a finding with the remedy of its kind."""
    remedy = REMEDIES[kind].format(index=index, reconciled=reconciled_by(index or ""))
    return Finding(index, kind, count, message, remedy, tuple(examples))


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that is not wrong, but may be worth a change."""

    index: str | None
    message: str


@dataclass(slots=True)
class Diagnosis:
    """All findings and advice; after a repair, `findings` holds what is left, and `repaired` what is not."""

    findings: list[Finding] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing is wrong, else 3."""
        return 3 if self.findings else 0


def count_phrase(count: int, noun: str, examples: Sequence[str]) -> str:
    """Return a count with its noun and examples, such as `3 documents (7, 10, 13)`."""
    return f"{count_of(count, noun)} ({', '.join(examples)}{', …' if len(examples) < count else ''})"


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One index's collections, as the ledger has them and as the store has them."""

    alias: Alias
    live: str | None
    stored: Mapping[str, Mapping[str, Any]]
    """Metadata of the store's collections that were made for this alias, are live, or are known to the ledger."""
    known: tuple[Collection, ...]
    """The ledger's collections, oldest first."""
    foreign: str = ""
    """Why the index has no collection that may be looked at: what has the alias or its name is another's."""
    misled: str = ""
    """What is wrong with an alias that points at another index's collection, which then counts as not live."""

    @classmethod
    def read(cls, alias: Alias, ledger: Ledger, store: Store) -> CollectionState:
        """Return the state as it is now. What the store does not list is asked for by name. Raises StoreRefused if the
        API key may not ask: what it may not see is not lost."""
        live, misled, is_own = None, "", False
        try:
            require_own(ledger, store, alias)
            is_own = True
            live = found.name if (found := find_live(store, alias)) else None
        except StoreMismatch as error:
            misled = str(error)
            if not is_own or alias not in store.aliases():
                return cls(alias, None, {}, (), foreign=misled)
        known, listed = ledger.collections(alias), store.collections()
        names = {*(c.name for c in known), *([live] if live else [])}
        stored = {name: metadata for name in names if (metadata := listed.get(name) or store.find(name)) is not None}
        stored |= {name: metadata for name, metadata in listed.items() if metadata.get("alias") == alias}
        if moved_to := stored.get(live or "", {}).get(MOVED_TO):
            moved = f"{live} was moved to {moved_to}, and only that store is kept up to date: set [store] to it"
            return cls(alias, None, {}, (), foreign=moved)
        return cls(alias, live, stored, tuple(known), misled=misled)

    def is_stored(self, collection: Collection) -> bool:
        """Return whether the store has the same collection as the ledger: equal name and equal id."""
        return self.stored.get(collection.name, {}).get("store_id") == collection.store_id

    @property
    def current(self) -> Collection | None:
        """Return the live collection if ledger and store agree on it."""
        return next((c for c in self.known if c.name == self.live and self.is_stored(c)), None)

    def others(self, state: str) -> list[Collection]:
        """Return the collections of a state that are not live and on which ledger and store agree, newest first."""
        return [c for c in reversed(self.known) if c.state == state and c.name != self.live and self.is_stored(c)]

    @property
    def unknown(self) -> list[str]:
        """Return the collections that were made for this alias and that the ledger does not know."""
        known = {c.name for c in self.known if self.is_stored(c)}
        ours = {name for name, metadata in self.stored.items() if metadata.get("alias") == self.alias}
        return sorted((name for name in ours - known if self.stored[name].get("store_id")), key=collection_number)

    @property
    def candidate(self) -> str | None:
        """Return what a lost alias should point at: a collection that was live, or could have been. That is the newest
        one that no rollback has left."""
        if self.live is not None or self.foreign:
            return None
        if ready := self.others("ready"):
            ready = [c for c in ready if not self.stored[c.name].get(LEFT)] or ready
            return max((c.name for c in ready), key=collection_number)
        if self.others("building"):
            return None  # the first run died before its collection was live; the next one resumes it
        return next(reversed(self.unknown), None)

    @property
    def lost(self) -> list[str]:
        """Return the collections that the ledger has as complete, and the store does not have."""
        return [c.name for c in self.known if c.state == "ready" and c.name != self.live and not self.is_stored(c)]

    def unlike(self) -> str:
        """Return how the live collection is not the one that the ledger knows."""
        row = next((c for c in self.known if c.name == self.live), None)
        if row is None:
            return f"{self.live} is live as {self.alias}, and the ledger does not know it"
        ids = f"its id is {self.stored.get(row.name, {}).get('store_id')}, not {row.store_id}"
        return f"{self.live} is not the collection that the ledger knows by this name ({ids})"


def collection_number(name: str) -> int:
    """Return the number at the end of a collection's name, or -1 if it has none."""
    match = re.search(r"__(\d+)$", name)
    return int(match[1]) if match else -1
