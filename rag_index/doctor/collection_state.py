"""State of an index's collections in ledger and store: collections, aliases and metadata, without their points."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.doctor.findings import Finding, count_phrase
from rag_index.errors import StoreMismatch
from rag_index.stores import find_live
from rag_index.stores.protocol import LEFT, MAKER_KEYS, MOVED_TO, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

    Fits = Callable[[Collection], bool]

Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One index's collections, as the ledger has them and as the store has them."""

    index: str
    alias: str
    live: str | None
    """The collection that the alias points at."""
    stored: Mapping[str, Metadata]
    """Metadata of the store's collections that were made for this alias, are live, or are known to the ledger."""
    known: tuple[Collection, ...]
    """The ledger's collections, oldest first."""
    keep: int
    fits: Fits | None
    """Whether the settings would make what a collection holds; None if the embedder did not answer."""
    foreign: str = ""
    """What is wrong with a collection of another program that has the alias's name."""

    @classmethod
    def read(
        cls, index: str, alias: str, ledger: Ledger, store: Store, *, keep: int, fits: Fits | None
    ) -> CollectionState:
        """Return the state as it is now.

        What the store does not list is asked for by name. Raises StoreRefused if the API key may not ask: what it may
        not see is not lost.
        """
        live, foreign = None, ""
        try:
            found = find_live(store, alias)
            live = found and found.name
        except StoreMismatch as error:
            foreign = str(error)
        known = ledger.collections(alias)
        listed = store.collections()
        names = {*(c.name for c in known), *([live] if live else [])}
        stored = {name: metadata for name in names if (metadata := listed.get(name) or store.find(name)) is not None}
        stored |= {name: metadata for name, metadata in listed.items() if metadata.get("alias") == alias}
        return cls(index, alias, live, stored, tuple(known), keep, fits, foreign)

    # Groups of collections

    def is_stored(self, collection: Collection) -> bool:
        """Return whether the store has the same collection as the ledger: equal name and equal id."""
        return collection.name in self.stored and self.stored[collection.name].get("store_id") == collection.store_id

    @property
    def current(self) -> Collection | None:
        """Return the live collection if ledger and store agree on it."""
        return next((c for c in self.known if c.name == self.live and self.is_stored(c)), None)

    @property
    def candidate(self) -> str | None:
        """Return what a lost alias should point at: a collection that was live, or could have been.

        That is the newest one that fits the settings and that no rollback has left.
        """
        if self.live is not None or self.foreign:
            return None
        ready = [c for c in self.known if c.state == "ready" and self.is_stored(c)]
        ready = [c for c in ready if not self.stored[c.name].get(LEFT)] or ready
        if ready:
            fitting = [c for c in ready if self.fits is not None and self.fits(c)]
            return max((c.name for c in fitting or ready), key=collection_number)
        if any(c.state == "building" and self.is_stored(c) for c in self.known):
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
    def lost(self) -> list[Collection]:
        """Return the collections that the ledger has as complete and that the store does not have."""
        return [c for c in self.known if c.state == "ready" and c.name != self.live and not self.is_stored(c)]

    @property
    def unneeded(self) -> list[str]:
        """Return the store's collections that are neither live nor kept nor unfinished."""
        if self.current is None:
            return []
        names = [c.name for c in self._previous()[self.keep :]]
        names += [c.name for c in self._building() if self.fits is not None and not self.fits(c)]
        return [*names, *(name for name in self.unknown if name != self.live)]

    @property
    def unfinished(self) -> list[Collection]:
        """Return the rebuilds that a run could resume."""
        return [c for c in self._building() if self.fits is None or self.fits(c)]

    def is_rolled_back(self) -> bool:
        """Return whether a collection that is newer than the live one is kept, and fits the settings."""
        current = self.current
        if current is None or self.fits is None:
            return False
        number = collection_number(current.name)
        return any(collection_number(c.name) > number and self.fits(c) for c in self._previous())

    def _previous(self) -> list[Collection]:
        """Return complete collections that are not live, newest first."""
        others = [c for c in self.known if c.state == "ready" and c.name != self.live and self.is_stored(c)]
        return sorted(others, key=lambda c: c.id, reverse=True)

    def _building(self) -> list[Collection]:
        return [c for c in self.known if c.state == "building" and c.name != self.live and self.is_stored(c)]

    # Findings

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for everything that ledger, aliases and metadata disagree on."""
        yield from self._alias_findings()
        if self.current is not None:
            yield from self._current_findings(self.current)
        if (lost := self.lost) and (self.live is None or self.current is not None):
            yield self._lost_collection(lost)
        if unneeded := self.unneeded:
            yield Finding(
                self.index, "unneeded_collection", len(unneeded),
                f"{count_phrase(len(unneeded), 'collection', unneeded)} in the store: not live, and not kept by "
                f"keep_previous ({self.keep})",
                "`rag-index doctor --repair` drops them; if another ledger knows them, name it in [ledger] url first",
                tuple(unneeded),
            )  # fmt: skip

    def _alias_findings(self) -> Iterator[Finding]:
        candidate, live = self.candidate, self.live
        if self.foreign:
            yield Finding(
                self.index, "foreign_collection", 1, self.foreign, "until then runs and searches of the index fail",
                (self.alias,),
            )  # fmt: skip
        if candidate is not None:
            yield Finding(
                self.index, "missing_alias", 1,
                f"alias {self.alias} is missing, although collection {candidate} exists",
                "`rag-index doctor --repair` sets the alias again", (candidate,),
            )  # fmt: skip
        if live is None or self.current is not None:
            return
        metadata = self.stored.get(live, {})
        row = next((c for c in self.known if c.name == live), None)
        if metadata.get(MOVED_TO):
            yield Finding(
                self.index, "moved", 1,
                f"{live} was moved to {metadata[MOVED_TO]}, and only that store is kept up to date",
                f"set [store] in the settings to {metadata[MOVED_TO]}; from there `rag-index move` moves it back",
                (live,),
            )  # fmt: skip
        elif row is not None and not metadata.get("store_id"):
            yield self._lost_metadata(row, ["store_id", *(key for key in MAKER_KEYS if not metadata.get(key))])
        elif row is None:
            yield Finding(
                self.index, "unknown_collection", 1,
                f"alias {self.alias} points at {live}, which the ledger does not know; "
                "the ledger was lost, or it belongs to another project",
                "name the right ledger in [ledger] url; or `rag-index doctor --repair` makes the ledger from the "
                "store, without embedding", (live,),
            )  # fmt: skip
        else:
            yield Finding(
                self.index, "other_store", 1,
                f"{live} is not the collection that the ledger knows by this name (its id is "
                f"{metadata.get('store_id')}, not {row.store_id}); ledger and store belong to different projects, or "
                "one was restored without the other",
                "name the right [store] or [ledger]; or `rag-index doctor --repair` keeps the store as it is and makes "
                "the ledger from it, without embedding", (live,),
            )  # fmt: skip

    def _current_findings(self, current: Collection) -> Iterator[Finding]:
        metadata = self.stored[current.name]
        if current.state != "ready":
            yield Finding(
                self.index, "unfinished_publish", 1,
                f"{current.name} is live, but unfinished in the ledger; a run died while it published it",
                "`rag-index doctor --repair` corrects the ledger", (current.name,),
            )  # fmt: skip
        if missing := [key for key in MAKER_KEYS if not metadata.get(key)]:
            yield self._lost_metadata(current, missing)
        if conflict := maker_conflict(current, metadata):
            yield Finding(
                self.index, "metadata_differs", 1,
                f"{current.name}: {conflict}, so nobody knows what its vectors are",
                f"`rag-index doctor --repair` rebuilds the index, as `rag-index rebuild {self.index}` does",
                (current.name,),
            )  # fmt: skip
        elif UNKNOWN in (current.embedder_fingerprint, current.chunking) or (self.fits and not self.fits(current)):
            yield self._other_fingerprint(current)

    def _lost_metadata(self, collection: Collection, missing: list[str]) -> Finding:
        return Finding(
            self.index, "lost_metadata", 1,
            f"{collection.name} has lost its {', '.join(missing)} in the store; the ledger still knows them",
            "`rag-index doctor --repair` writes them again, and compares every point", (collection.name,),
        )  # fmt: skip

    def _other_fingerprint(self, current: Collection) -> Finding:
        rolled_back = self.is_rolled_back()
        return Finding(
            self.index, "other_fingerprint", 1,
            f"{current.name} holds vectors of {current.embedder}, chunked as {current.chunking}; the settings differ"
            + ("; it is live because of a rollback" if rolled_back else ""),
            f"restore the settings, or run `rag-index rebuild {self.index}`"
            + ("; --repair leaves that to you" if rolled_back else ", which --repair does too, and which embeds again"),
            (current.name,),
        )  # fmt: skip

    def _lost_collection(self, lost: list[Collection]) -> Finding:
        names = [c.name for c in lost]
        remedy = "`rag-index doctor --repair` removes them from the ledger"
        if self.live is None and self.candidate is None:
            remedy = "name the right [store]; or `rag-index doctor --repair` indexes all documents again"
        return Finding(
            self.index, "lost_collection", len(lost),
            f"{count_phrase(len(lost), 'collection', names)} in the ledger but not in the store", remedy, tuple(names),
        )  # fmt: skip


def maker_conflict(collection: Collection, metadata: Metadata) -> str:
    """Return where ledger and store disagree on what made a collection, in words; "" if they agree."""
    return "; ".join(
        f"the ledger says {key} {getattr(collection, key)}, the store {metadata[key]}"
        for key in MAKER_KEYS
        if metadata.get(key) and metadata[key] != getattr(collection, key)
    )


def collection_number(name: str) -> int:
    """Return the number at the end of a collection's name, or -1 if it has none."""
    match = re.search(r"__(\d+)$", name)
    return int(match[1]) if match else -1
