"""Each index as it stands: its collection, counts and last run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.ledger import Ledger
from rag_index.ledger.lease import holder
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from rag_index.settings import IndexSettings, Settings

from rag_index.status.runs import iso_time

__all__ = ["IndexStatus", "status"]


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


def status(settings: Settings) -> list[IndexStatus]:
    """All indexes, from ledger and aliases alone: it answers while a run holds the embedded store."""
    ledger = Ledger(settings.ledger_url)
    try:
        live = live_aliases(settings.store)
        return [_status(settings, index, ledger, live) for index in settings.indexes]
    finally:
        ledger.close()


def _status(settings: Settings, index: IndexSettings, ledger: Ledger, live: dict[str, str]) -> IndexStatus:
    alias = settings.alias(index.name)
    last = ledger.last_run(alias)
    run = None
    if last is not None:
        died = last.state == "running" and holder(ledger, alias) != last.id
        run = {
            "started": iso_time(last.started_at),
            "ended": iso_time(last.ended_at) if last.ended_at else None,
            "state": "interrupted" if died else last.state,
            "message": "its process ended before it did; the next run goes on from there" if died else last.message,
            "seconds": None if died else round((last.ended_at or ledger.clock()) - last.started_at, 3),
        }
    collection = ledger.collection(live[alias]) if alias in live else None
    if collection is None:
        return IndexStatus(index.name, live.get(alias), 0, 0, 0, run)
    totals = ledger.totals(collection.id)
    return IndexStatus(
        index.name, collection.name, totals.documents, totals.points, ledger.count_failures(collection.id), run
    )
