"""Findings of a check-up with their remedies, and the state of an index's collections in ledger and store: collections,
aliases and metadata, without their points. docs/doctor.md says of each kind of finding what a repair does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.components.ledger import reconciled_by
from rag_index.components.sources.policies import REMEDY
from rag_index.components.stores import LEFT, MAKER_KEYS, MOVED_TO, UNKNOWN, find_live
from rag_index.core.reports.outcome import count_of
from rag_index.errors import StoreMismatch
from rag_index.etl.collection import require_own

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import Alias

    Fits = Callable[[Collection], bool]
    from collections.abc import Sequence

_EMBED = "`rag-index doctor --repair` embeds them again; so does `rag-index rebuild {index}`, with all other documents"
REMEDIES = {
    "damaged_ledger": "restore it from a backup; or `rag-index doctor --repair` renames it and makes a new one from "
    "the store, without embedding",
    "unknown_collection": "name the right ledger in [ledger] url; or `rag-index doctor --repair` makes the ledger from "
    "the store, without embedding",
    "other_store": "name the right [store] or [ledger]; or `rag-index doctor --repair` keeps the store as it is and "
    "makes the ledger from it, without embedding",
    "lost_metadata": "`rag-index doctor --repair` writes them again, and compares every point",
    "moved": "set [store] in the settings to that store; from there `rag-index move` moves it back",
    "foreign_collection": "until then runs and searches of the index fail",
    "missing_alias": "`rag-index doctor --repair` sets the alias again",
    "lost_collection": "`rag-index doctor --repair` removes them from the ledger, and indexes all documents again if "
    "one was live; or name the right [store]",
    "unfinished_publish": "`rag-index doctor --repair` corrects the ledger",
    "unneeded_collection": "`rag-index doctor --repair` drops them; if another ledger knows them, name it in [ledger] "
    "url first",
    "unreadable_collection": "restore the store from a backup; or `rag-index doctor --repair` builds a new collection "
    "beside it",
    "other_fingerprint": "restore the settings, or run `rag-index rebuild {index}`, which --repair does too, and which "
    "embeds again",
    "rolled_back": "restore the settings, or run `rag-index rebuild {index}`; --repair leaves that to you",
    "unreadable_source": "correct it; until then the index stays as it is",
    "left_behind": "the owner of the tables runs this SQL",
    "ignored_policies": f"{REMEDY}; a policy for this role that shows all rows says that it is meant",
    "unusable_gate": "correct it, or remove the table; until then a rebuild ends at its start",
    "restored": "{reconciled}; so does `rag-index doctor --repair`",
    "missing_documents": _EMBED,
    "wrong_chunks": _EMBED,
    "wrong_payloads": _EMBED,
    "unknown_documents": _EMBED,
    "orphan_points": "`rag-index doctor --repair` deletes them",
    "pending_documents": "`rag-index index {index}` writes them again; so does `rag-index doctor --repair`. Those that "
    "the source has lost and that are held back stay until `rag-index index {index} --allow-deletes`",
    "pending_erasures": "`rag-index erase {index}` leaves no file with them, as each run does with [store] erase",
    "failed_documents": "list them with `rag-index failed {index}` and correct them in the source; then run `rag-index "
    "retry-failed {index}`, which --repair does too",
}
"""What to do about each kind of finding. A collection of other settings has another remedy if it was rolled back to."""


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


def finding(
    index: str | None, kind: str, message: str, examples: Sequence[str] = (), *, count: int = 1, remedy: str = ""
) -> Finding:
    """Return a finding with the remedy of its kind, or of the kind `remedy`."""
    text = REMEDIES[remedy or kind].format(index=index, reconciled=reconciled_by(index or ""))
    return Finding(index, kind, count, message, text, tuple(examples))


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

    def kinds(self, index: str | None) -> set[str]:
        """Return the kinds of the findings in one index."""
        return {finding.kind for finding in self.findings if finding.index == index}


def count_phrase(count: int, noun: str, examples: Sequence[str]) -> str:
    """Return a count with its noun and examples, such as `3 documents (7, 10, 13)`."""
    return f"{count_of(count, noun)} ({', '.join(examples)}{', …' if len(examples) < count else ''})"


Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One index's collections, as the ledger has them and as the store has them."""

    index: str
    alias: Alias
    live: str | None
    stored: Mapping[str, Metadata]
    """Metadata of the store's collections that were made for this alias, are live, or are known to the ledger."""
    known: tuple[Collection, ...]
    """The ledger's collections, oldest first."""
    keep: int
    fits: Fits | None
    """Whether the settings would make what a collection holds; None if the embedder did not answer."""
    foreign: str = ""
    """What is wrong with a collection of another program that has the alias's name, or of another project that has the
    same alias."""
    misled: str = ""
    """What is wrong with an alias that points at another index's collection, which then counts as not live."""

    @classmethod
    def read(
        cls, index: str, alias: Alias, ledger: Ledger, store: Store, *, keep: int, fits: Fits | None
    ) -> CollectionState:
        """Return the state as it is now. What the store does not list is asked for by name. Raises StoreRefused if the
        API key may not ask: what it may not see is not lost."""
        try:
            require_own(ledger, store, alias)
        except StoreMismatch as error:
            return cls(index, alias, None, {}, (), keep, fits, str(error))
        live, foreign, misled = None, "", ""
        try:
            found = find_live(store, alias)
            live = found and found.name
        except StoreMismatch as error:
            foreign, misled = ("", str(error)) if alias in store.aliases() else (str(error), "")
        known = ledger.collections(alias)
        listed = store.collections()
        names = {*(c.name for c in known), *([live] if live else [])}
        stored = {name: metadata for name in names if (metadata := listed.get(name) or store.find(name)) is not None}
        stored |= {name: metadata for name, metadata in listed.items() if metadata.get("alias") == alias}
        return cls(index, alias, live, stored, tuple(known), keep, fits, foreign, misled)

    # Groups of collections

    def is_stored(self, collection: Collection) -> bool:
        """Return whether the store has the same collection as the ledger: equal name and equal id."""
        return collection.name in self.stored and self.stored[collection.name].get("store_id") == collection.store_id

    def _others(self, state: str) -> list[Collection]:
        others = [c for c in self.known if c.state == state and c.name != self.live and self.is_stored(c)]
        return sorted(others, key=lambda c: c.id, reverse=True)

    @property
    def current(self) -> Collection | None:
        """Return the live collection if ledger and store agree on it."""
        return next((c for c in self.known if c.name == self.live and self.is_stored(c)), None)

    @property
    def candidate(self) -> str | None:
        """Return what a lost alias should point at: a collection that was live, or could have been. That is the newest
        one that fits the settings and that no rollback has left."""
        if self.live is not None or self.foreign:
            return None
        if ready := self._others("ready"):
            ready = [c for c in ready if not self.stored[c.name].get(LEFT)] or ready
            fitting = [c for c in ready if self.fits is not None and self.fits(c)]
            return max((c.name for c in fitting or ready), key=collection_number)
        if self._others("building"):
            return None  # the first run died before its collection was live; the next one resumes it
        return max(self.unknown, key=collection_number, default=None)

    @property
    def unknown(self) -> list[str]:
        """Return the collections that were made for this alias and that the ledger does not know."""
        known = {c.name for c in self.known}
        return [
            name
            for name, metadata in self.stored.items()
            if name not in known and metadata.get("alias") == self.alias and metadata.get("store_id")
        ]

    @property
    def unneeded(self) -> list[str]:
        """Return the store's collections that are neither live nor kept nor unfinished."""
        if self.current is None:
            return []
        names = [c.name for c in self._others("ready")[self.keep :]]
        names += [c.name for c in self._others("building") if self.fits is not None and not self.fits(c)]
        return [*names, *(name for name in self.unknown if name != self.live)]

    @property
    def unfinished(self) -> list[Collection]:
        """Return the rebuilds that a run could resume."""
        return [c for c in self._others("building") if self.fits is None or self.fits(c)]

    def is_rolled_back(self) -> bool:
        """Return whether a collection that is newer than the live one is kept, and fits the settings."""
        if self.current is None or self.fits is None:
            return False
        number = collection_number(self.current.name)
        return any(collection_number(c.name) > number and self.fits(c) for c in self._others("ready"))

    # Findings

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for everything that ledger, aliases and metadata disagree on."""
        found = partial(finding, self.index)
        if wrong := self.foreign or (not self.candidate and self.misled):
            yield found("foreign_collection", wrong, [self.alias])
        if candidate := self.candidate:
            message = self.misled or f"alias {self.alias} is missing, although collection {candidate} exists"
            yield found("missing_alias", message, [candidate])
        if self.current is not None:
            yield from self._current_findings(self.current)
        elif self.live is not None:
            yield self._live_finding(self.live)
        lost = [c.name for c in self.known if c.state == "ready" and c.name != self.live and not self.is_stored(c)]
        if lost and (self.live is None or self.current is not None):
            message = f"{count_phrase(len(lost), 'collection', lost)} in the ledger but not in the store"
            yield found("lost_collection", message, lost, count=len(lost))
        if unneeded := self.unneeded:
            message = f"{count_phrase(len(unneeded), 'collection', unneeded)} in the store: not live, and not kept by "
            yield found("unneeded_collection", f"{message}keep_previous ({self.keep})", unneeded, count=len(unneeded))

    def _live_finding(self, live: str) -> Finding:
        found = partial(finding, self.index, examples=[live])
        metadata = self.stored.get(live, {})
        row = next((c for c in self.known if c.name == live), None)
        if metadata.get(MOVED_TO):
            return found("moved", f"{live} was moved to {metadata[MOVED_TO]}, and only that store is kept up to date")
        if row is None:
            return found(
                "unknown_collection",
                f"alias {self.alias} points at {live}, which the ledger does not know; the ledger was lost, or it "
                "belongs to another project",
            )
        if not metadata.get("store_id"):
            return self._lost_metadata(row, ["store_id", *(key for key in MAKER_KEYS if not metadata.get(key))])
        return found(
            "other_store",
            f"{live} is not the collection that the ledger knows by this name (its id is {metadata['store_id']}, not "
            f"{row.store_id}); ledger and store belong to different projects, or one was restored without the other",
        )

    def _current_findings(self, current: Collection) -> Iterator[Finding]:
        found = partial(finding, self.index, examples=[current.name])
        metadata = self.stored[current.name]
        if current.state != "ready":
            message = f"{current.name} is live, but unfinished in the ledger; a run died while it published it"
            yield found("unfinished_publish", message)
        if missing := [key for key in MAKER_KEYS if not metadata.get(key)]:
            yield self._lost_metadata(current, missing)
        if UNKNOWN in (current.embedder_fingerprint, current.chunking) or (self.fits and not self.fits(current)):
            made = f"{current.name} holds vectors of {current.embedder}, chunked as {current.chunking}"
            message = current.outdated or f"{made}; the settings differ"
            if self.is_rolled_back():
                yield found("other_fingerprint", f"{message}; it is live because of a rollback", remedy="rolled_back")
            else:
                yield found("other_fingerprint", message)

    def _lost_metadata(self, collection: Collection, missing: list[str]) -> Finding:
        message = f"{collection.name} has lost its {', '.join(missing)} in the store; the ledger still knows them"
        return finding(self.index, "lost_metadata", message, [collection.name])


def collection_number(name: str) -> int:
    """Return the number at the end of a collection's name, or -1 if it has none."""
    match = re.search(r"__(\d+)$", name)
    return int(match[1]) if match else -1
