"""The documents that could not be indexed, or that lack something."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.documents.keys import document_id
from rag_index.ledger import Ledger
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import FailureKind
    from rag_index.settings import IndexSettings, Settings

from rag_index.status.runs import iso_time

__all__ = ["FailedDocument", "failed"]


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that could not be indexed (`kind`: see `documents.FailureKind`); times are ISO, UTC."""

    index: str
    document_id: str
    reason: str
    tries: int
    first_tried: str
    last_tried: str
    kind: FailureKind = "failed"

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def failed(settings: Settings, indexes: Sequence[IndexSettings]) -> list[FailedDocument]:
    """The failed documents of what these indexes show."""
    ledger = Ledger(settings.ledger_url)
    try:
        live = live_aliases(settings.store)
        found = []
        for index in indexes:
            collection = ledger.collection(live.get(settings.alias(index.name), ""))
            for row in ledger.failures(collection.id).values() if collection else ():
                times = iso_time(row.first_at), iso_time(row.last_at)
                found.append(FailedDocument(index.name, document_id(row.key), row.reason, row.tries, *times, row.kind))
        return found
    finally:
        ledger.close()
