"""How ledger and store stand to each other, before any point is looked at: collections, aliases, who made them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.doctor.findings import Finding, counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

    Fits = Callable[[Collection], bool]

__all__ = ["MADE_BY", "MOVED_ID", "MOVED_TO", "CollectionState", "UNKNOWN", "differing", "number"]

MADE_BY = ("embedder_fingerprint", "chunking")
"""Metadata that says who made vectors and chunks."""
UNKNOWN = "unknown"
"""Who made the vectors, where neither ledger nor store says so, or each says something else."""
MOVED_TO, MOVED_ID = "moved_to", "moved_store_id"
"""Metadata of a collection that was carried to another store: where it is now, and the id that it had here."""

Metadata = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One index's collections as the ledger has them and as the store has them."""

    index: str
    alias: str
    live: str | None
    """The collection that the alias shows."""
    stored: Mapping[str, Metadata]
    """Those of the store that were made for this alias, or are shown by it, with their metadata."""
    known: tuple[Collection, ...]
    """Those of the ledger, oldest first."""
    keep: int
    fits: Fits | None
    """Whether the settings would make what a collection holds; None where the embedder did not answer."""

    @classmethod
    def look(
        cls, index: str, alias: str, ledger: Ledger, store: Store, *, keep: int, fits: Fits | None
    ) -> CollectionState:
        """As it is now."""
        live = store.aliases().get(alias)
        known = ledger.collections(alias)
        names = {live, *(c.name for c in known)}
        stored = {
            name: metadata
            for name, metadata in store.collections().items()
            if name in names or metadata.get("alias") == alias
        }
        return cls(index, alias, live, stored, tuple(known), keep, fits)

    # What belongs together

    def whole(self, collection: Collection) -> bool:
        """Ledger and store mean the same collection."""
        return collection.name in self.stored and self.stored[collection.name].get("store_id") == collection.store_id

    @property
    def current(self) -> Collection | None:
        """The collection that is shown, where ledger and store agree on it."""
        return next((c for c in self.known if c.name == self.live and self.whole(c)), None)

    @property
    def candidate(self) -> str | None:
        """What the alias should show, where it is gone: the newest that was shown, or could have been."""
        if self.live is not None:
            return None
        ready = [c.name for c in self.known if c.state == "ready" and self.whole(c)]
        if ready:
            return max(ready, key=number)
        if any(c.state == "building" and self.whole(c) for c in self.known):
            return None  # a first run that died before it showed anything: the next one goes on
        return max(self.unknown, key=number, default=None)

    @property
    def unknown(self) -> list[str]:
        """Collections that were made for this alias, and that the ledger does not know."""
        known = {c.name for c in self.known}
        return [
            name
            for name, metadata in self.stored.items()
            if name not in known and metadata.get("alias") == self.alias and metadata.get("store_id")
        ]

    @property
    def lost(self) -> list[Collection]:
        """Collections that the ledger takes for finished, and that the store does not have."""
        return [c for c in self.known if c.state == "ready" and c.name != self.live and not self.whole(c)]

    @property
    def kept(self) -> list[Collection]:
        """Older collections kept for a rollback."""
        return self._previous()[: self.keep]

    @property
    def unneeded(self) -> list[str]:
        """Collections of the store that nothing shows and nothing keeps."""
        if self.current is None:
            return []
        names = [c.name for c in self._previous()[self.keep :]]
        names += [c.name for c in self._unfinished() if self.fits is not None and not self.fits(c)]
        return [*names, *(name for name in self.unknown if name != self.live)]

    @property
    def unfinished(self) -> list[Collection]:
        """Rebuilds that a run could go on with."""
        return [c for c in self._unfinished() if self.fits is None or self.fits(c)]

    def rolled_back(self) -> bool:
        """A newer collection than the shown one is kept, and fits the settings."""
        current = self.current
        if current is None or self.fits is None:
            return False
        return any(number(c.name) > number(current.name) and self.fits(c) for c in self._previous())

    def _previous(self) -> list[Collection]:
        others = [c for c in self.known if c.state == "ready" and c.name != self.live and self.whole(c)]
        return sorted(others, key=lambda c: c.id, reverse=True)

    def _unfinished(self) -> list[Collection]:
        return [c for c in self.known if c.state == "building" and c.name != self.live and self.whole(c)]

    # What is wrong

    def findings(self) -> Iterator[Finding]:
        """All that ledger, aliases and metadata disagree on."""
        yield from self._of_alias()
        if self.current is not None:
            yield from self._of_current(self.current)
        if (lost := self.lost) and (self.live is None or self.current is not None):
            yield self._lost(lost)
        if unneeded := self.unneeded:
            yield Finding(
                self.index, "unneeded_collection", len(unneeded),
                f"{counted(len(unneeded), 'collection', unneeded)} of the store: nothing shows them, and keep_previous "
                f"({self.keep}) does not keep them",
                "`rag-index doctor --repair` drops them; name the right ledger first, if another one knows them",
                tuple(unneeded),
            )  # fmt: skip

    def _of_alias(self) -> Iterator[Finding]:
        candidate, live = self.candidate, self.live
        if candidate is not None:
            yield Finding(
                self.index, "missing_alias", 1,
                f"nothing is shown as {self.alias}, though {candidate} is there",
                "`rag-index doctor --repair` sets the alias again", (candidate,),
            )  # fmt: skip
        if live is None or self.current is not None:
            return
        metadata = self.stored.get(live, {})
        row = next((c for c in self.known if c.name == live), None)
        if metadata.get(MOVED_TO):
            yield Finding(
                self.index, "moved", 1, f"{live} was carried to {metadata[MOVED_TO]}, and is kept true there",
                f"correct [store] in the settings to {metadata[MOVED_TO]}, "
                "or carry the index back with `rag-index move`", (live,),
            )  # fmt: skip
        elif row is not None and not metadata.get("store_id"):
            yield self._lost_metadata(row, ["store_id", *(key for key in MADE_BY if not metadata.get(key))])
        elif row is None:
            yield Finding(
                self.index, "unknown_collection", 1,
                f"{self.alias} shows {live}, which the ledger does not know: the ledger was lost, or is another's",
                "`rag-index doctor --repair` makes the ledger from the store, with no embedding; "
                "or name the right ledger in [ledger] url", (live,),
            )  # fmt: skip
        else:
            yield Finding(
                self.index, "other_store", 1,
                f"{live} is not the collection that the ledger knows by this name (its id is "
                f"{metadata.get('store_id')}, not {row.store_id}): ledger and store are not of one project, or one "
                "was restored without the other",
                "name the right [store] or [ledger]; or `rag-index doctor --repair` takes the store as it is and makes "
                "the ledger from it, with no embedding", (live,),
            )  # fmt: skip

    def _of_current(self, current: Collection) -> Iterator[Finding]:
        metadata = self.stored[current.name]
        if current.state != "ready":
            yield Finding(
                self.index, "unfinished_publish", 1,
                f"{current.name} is shown, and the ledger takes it for unfinished: a run died as it showed it",
                "`rag-index doctor --repair` corrects the ledger", (current.name,),
            )  # fmt: skip
        if gone := [key for key in MADE_BY if not metadata.get(key)]:
            yield self._lost_metadata(current, gone)
        if made := differing(current, metadata):
            yield Finding(
                self.index, "metadata_differs", 1,
                f"{current.name}: {made}, so that nobody knows what its vectors are",
                f"`rag-index doctor --repair` builds the index anew, as `rag-index rebuild {self.index}` does",
                (current.name,),
            )  # fmt: skip
        elif UNKNOWN in (current.embedder_fingerprint, current.chunking) or (self.fits and not self.fits(current)):
            yield self._other_fingerprint(current)

    def _lost_metadata(self, collection: Collection, gone: list[str]) -> Finding:
        return Finding(
            self.index, "lost_metadata", 1,
            f"{collection.name} of the store has lost its {', '.join(gone)}, which the ledger knows",
            "`rag-index doctor --repair` writes them again, and compares every point", (collection.name,),
        )  # fmt: skip

    def _other_fingerprint(self, current: Collection) -> Finding:
        back = self.rolled_back()
        return Finding(
            self.index, "other_fingerprint", 1,
            f"{current.name} holds vectors of {current.embedder}, cut as {current.chunking}; the settings say otherwise"
            + (": it was rolled back to" if back else ""),
            f"put the settings back, or `rag-index rebuild {self.index}`"
            + (" (--repair leaves that to you)" if back else ", which --repair does too: it embeds anew"),
            (current.name,),
        )  # fmt: skip

    def _lost(self, lost: list[Collection]) -> Finding:
        names = [c.name for c in lost]
        remedy = "`rag-index doctor --repair` forgets them"
        if self.live is None and self.candidate is None:
            remedy = "name the right [store]; or `rag-index doctor --repair` indexes anew, all documents"
        return Finding(
            self.index, "lost_collection", len(lost),
            f"{counted(len(lost), 'collection', names)} of the ledger: not in the store", remedy, tuple(names),
        )  # fmt: skip


def differing(collection: Collection, metadata: Metadata) -> str:
    """What ledger and store say differently of who made a collection; "" where they agree."""
    return "; ".join(
        f"the ledger says {key} {getattr(collection, key)}, the store {metadata[key]}"
        for key in MADE_BY
        if metadata.get(key) and metadata[key] != getattr(collection, key)
    )


def number(name: str) -> int:
    """The number in a collection's name, -1 where there is none."""
    found = re.search(r"__(\d+)$", name)
    return int(found[1]) if found else -1
