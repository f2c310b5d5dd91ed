"""Changes of a source between two runs: feeds that tell which documents to read again. A feed gives keys alone: a
document is read as in any run. What a feed has given is written into the ledger's inbox (`components.ledger.inbox`)
before it is acknowledged. So a death at any moment loses no change, and a source never has to keep changes while an
embedder or a store is down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rag_index.components.ledger.tables import Position
    from rag_index.errors import RagIndexError

__all__ = ["ChangeFeed", "DocumentChange", "Received"]


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A document that has to be read again: it was inserted, updated or deleted, or a row that it shows changed. Of
    such a row, a feed may give what it is looked up by. That is done under the lease of the index (`etl.changed`).
    While a run writes documents that it read before the change, neither the source nor the store need to know that
    these show the row."""

    index: str
    id: str
    """The document's id in the form that people see (`documents.keys.document_id`), or the value of `column`."""
    changed_at: float
    """The time of the change, in seconds since 1970 by the clock of the source; its commit where the source knows."""
    column: str | None = None
    """The column of the index in which documents have, or had, the value `id`, in the typed form of a key."""


@dataclass(frozen=True, slots=True)
class Received:
    """What a feed gave at once."""

    changes: Sequence[DocumentChange]
    """The changes, in any order; a document may occur several times."""
    position: Any = None
    """What `acknowledge` needs."""
    more: bool = False
    overflow: Sequence[str] = ()
    """Indexes whose changes the feed cannot name, such as after a lost slot. They need a full scan, which also
    reads the rows that `changed_since` would leave unread."""
    through: Mapping[str, Position] = field(default_factory=dict)
    """Up to where this and what was given before has every change, for indexes of which that is known. An index that
    the feed did not look at in this call is not among them, or has its earlier position. Without any, answers claim no
    position, and what the watch missed is not found out."""
    definitions: Mapping[str, str] = field(default_factory=dict)
    """What the tables of an index are, such as their columns and types, as of a moment after `through`. If that is not
    what it was, rows have changed that no feed gives, and the index needs a full scan."""


class ChangeFeed(Protocol):
    """Tells what changed in a source. Used by one thread."""

    def check(self) -> Mapping[str, RagIndexError]:
        """Check that everything that the feed needs is set up: at the start of a watch, and every few minutes. Return
        why changes of some indexes are not seen, by their names. Raises SourceUnavailable, or SettingsError, which
        names `rag-index watch --setup`, if that is so for all."""

    def receive(self, limit: int) -> Received:
        """Return changes that are not acknowledged yet, about `limit` at most; it does not wait for any. Without an
        `acknowledge` in between, the same changes come again. Raises SourceUnavailable or SourceError."""

    def acknowledge(self, received: Received) -> None:
        """Let the source forget these changes: they are in the ledger's inbox. Raises SourceUnavailable or SourceError;
        then they come again, which is harmless."""

    def wait(self, seconds: float) -> None:
        """Return when there may be changes, or after this many seconds. Raises nothing."""

    def close(self) -> None:
        """Close connections and watches."""
