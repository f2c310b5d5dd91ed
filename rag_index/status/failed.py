"""Documents that could not be indexed, or that lack something."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.documents.keys import document_id
from rag_index.ledger import Ledger
from rag_index.status.reports import iso_time
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import FailureKind
    from rag_index.settings import IndexSettings, Settings


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that the ledger lists as failed, incomplete or skipped (`kind`); times are ISO, in UTC."""

    index: str
    document_id: str
    reason: str
    tries: int
    first_tried: str
    last_tried: str
    kind: FailureKind = "failed"

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self)


def failed(settings: Settings, indexes: Sequence[IndexSettings]) -> list[FailedDocument]:
    """Return the documents listed as failed, incomplete or skipped in the live collections of these indexes."""
    with closing(Ledger(settings.ledger_url)) as ledger:
        live = live_aliases(settings.store, settings.aliases)
        documents = []
        for index in indexes:
            collection = ledger.collection(live.get(settings.alias(index.name), ""))
            for row in ledger.failures(collection.id).values() if collection else ():
                documents.append(
                    FailedDocument(
                        index.name,
                        document_id(row.key),
                        row.reason,
                        row.tries,
                        iso_time(row.first_at),
                        iso_time(row.last_at),
                        row.kind,
                    )
                )
        return documents
