"""What there is: each index's collection and figures, and what a run would do. Nothing is written."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.canonical import document_id
from rag_index.ledger import Ledger
from rag_index.lock import holder
from rag_index.plan import compare
from rag_index.sources import open_source
from rag_index.sources.sql import not_unique
from rag_index.stores import shown_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents import FailureKind
    from rag_index.settings import IndexSettings, Settings

__all__ = ["FailedDocument", "IndexStatus", "Preview", "failed", "preview", "run_reports", "status"]


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """One index as it stands; `collection` is None and counts are 0 where nothing is indexed yet."""

    index: str
    collection: str | None
    documents: int
    points: int
    failed: int
    last_run: dict[str, Any] | None
    """started and ended (ISO, UTC), state, message, seconds; ended is None while it runs, and with seconds where its
    process died (state interrupted)."""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


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


def status(settings: Settings) -> list[IndexStatus]:
    """All indexes, from ledger and aliases alone: it answers while a run holds the embedded store."""
    ledger = Ledger(settings.ledger_url)
    try:
        shown = shown_aliases(settings.store)
        return [_status(settings, index, ledger, shown) for index in settings.indexes]
    finally:
        ledger.close()


def _status(settings: Settings, index: IndexSettings, ledger: Ledger, shown: dict[str, str]) -> IndexStatus:
    alias = settings.alias(index.name)
    last = ledger.last_run(alias)
    run = None
    if last is not None:
        died = last.state == "running" and holder(ledger, alias) != last.id
        run = {
            "started": _iso(last.started_at),
            "ended": _iso(last.ended_at) if last.ended_at else None,
            "state": "interrupted" if died else last.state,
            "message": "its process ended before it did; the next run goes on from there" if died else last.message,
            "seconds": None if died else round((last.ended_at or ledger.clock()) - last.started_at, 3),
        }
    collection = ledger.collection(shown[alias]) if alias in shown else None
    if collection is None:
        return IndexStatus(index.name, shown.get(alias), 0, 0, 0, run)
    totals = ledger.totals(collection.id)
    return IndexStatus(
        index.name, collection.name, totals.documents, totals.points, ledger.count_failures(collection.id), run
    )


def failed(settings: Settings, indexes: Sequence[IndexSettings]) -> list[FailedDocument]:
    """The failed documents of what these indexes show."""
    ledger = Ledger(settings.ledger_url)
    try:
        shown = shown_aliases(settings.store)
        found = []
        for index in indexes:
            collection = ledger.collection(shown.get(settings.alias(index.name), ""))
            for row in ledger.failures(collection.id).values() if collection else ():
                times = _iso(row.first_at), _iso(row.last_at)
                found.append(FailedDocument(index.name, document_id(row.key), row.reason, row.tries, *times, row.kind))
        return found
    finally:
        ledger.close()


def run_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run_id: str | None = None
) -> list[dict[str, Any]]:
    """What the last run of each index took, or the run of this id (its beginning is enough)."""
    ledger = Ledger(settings.ledger_url)
    try:
        last = (ledger.last_run(settings.alias(index.name), run_id) for index in indexes)
        return [
            {
                "run": run.id,
                "started": _iso(run.started_at),
                "ended": _iso(run.ended_at) if run.ended_at else None,
                "state": run.state,
                **run.report,
            }
            for run in last
            if run
        ]
    finally:
        ledger.close()


def preview(settings: Settings, index: IndexSettings) -> Preview:
    """What a run would do, by reading the whole source and the ledger. Raises as a source and a ledger do."""
    source, ledger = open_source(settings, index), Ledger(settings.ledger_url)
    try:
        source.check()
        name = shown_aliases(settings.store).get(settings.alias(index.name))
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


def _iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
