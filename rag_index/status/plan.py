"""What a run would do, without doing it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.indexing.diff import compare
from rag_index.ledger import Ledger
from rag_index.sources import open_source
from rag_index.sources.sql import not_unique
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from rag_index.settings import IndexSettings, Settings

__all__ = ["Preview", "preview"]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a run of an index would do."""

    index: str
    documents: int
    new: int
    changed: int
    payload_only: int
    gone: int
    unchanged: int
    empty: int

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def preview(settings: Settings, index: IndexSettings) -> Preview:
    """What a run would do, by reading the whole source and the ledger. Raises as a source and a ledger do."""
    source, ledger = open_source(settings, index), Ledger(settings.ledger_url)
    try:
        source.check()
        name = live_aliases(settings.store).get(settings.alias(index.name))
        collection = ledger.collection(name) if name else None
        cid = collection.id if collection else -1
        ledger.begin_scan()
        counts = dict.fromkeys(("documents", "new", "changed", "payload_only", "unchanged", "empty"), 0)
        cursor: Any = None
        number = 0
        while number == 0 or cursor is not None:
            page, number = source.page(cursor, settings.source.page_rows), number + 1
            if twice := ledger.see([*page.documents.keys, *(f.key for f in page.unreadable)], page=number):
                raise not_unique(index, twice[0])
            plan = compare(page.documents, ledger.known(cid, page.documents.keys), {})
            counts["documents"] += len(page.documents) + len(page.unreadable)
            counts["new"] += plan.new
            counts["changed"] += len(plan.to_embed) - plan.new
            counts["payload_only"] += len(plan.payload_only)
            counts["unchanged"] += plan.unchanged
            counts["empty"] += plan.empty
            cursor = page.cursor
        return Preview(index.name, gone=ledger.count_gone(cid), **counts)
    finally:
        source.close()
        ledger.close()
