"""The plan of a run: what it would do, without doing it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.indexing.diff import diff
from rag_index.ledger import Ledger
from rag_index.sources import open_source
from rag_index.sources.sql import not_unique
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from rag_index.settings import IndexSettings, Settings

__all__ = ["RunPlan", "plan_run"]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Numbers of documents by what a run of an index would do with them."""

    index: str
    documents: int
    new: int
    changed: int
    payload_only: int
    gone: int
    unchanged: int
    empty: int

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self)


def plan_run(settings: Settings, index: IndexSettings) -> RunPlan:
    """Compare the whole source with the ledger, and return what a run would do.

    Raises what a source and a ledger raise.
    """
    with closing(open_source(settings, index)) as source, closing(Ledger(settings.ledger_url)) as ledger:
        source.check()
        name = live_aliases(settings.store).get(settings.alias(index.name))
        collection = ledger.collection(name) if name else None
        collection_id = collection.id if collection else -1
        ledger.begin_scan()
        counts = dict.fromkeys(("documents", "new", "changed", "payload_only", "unchanged", "empty"), 0)
        cursor: Any = None
        number = 0
        while number == 0 or cursor is not None:
            page, number = source.page(cursor, settings.source.page_rows), number + 1
            if repeated := ledger.see([*page.documents.keys, *(f.key for f in page.unreadable)], page=number):
                raise not_unique(index, repeated[0])
            page_diff = diff(page.documents, ledger.known(collection_id, page.documents.keys), {})
            counts["documents"] += len(page.documents) + len(page.unreadable)
            counts["new"] += page_diff.new
            counts["changed"] += len(page_diff.to_embed) - page_diff.new
            counts["payload_only"] += len(page_diff.payload_only)
            counts["unchanged"] += page_diff.unchanged
            counts["empty"] += page_diff.empty
            cursor = page.cursor
        return RunPlan(index.name, gone=ledger.count_gone(collection_id), **counts)
