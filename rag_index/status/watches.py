"""The watch of each index, as the ledger knows it: for `status` and for monitoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.ledger.lease import holder
from rag_index.ledger.runs import lease_name
from rag_index.status.runs import iso_time, missed_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings

STATES = ("running", "catching up", "waiting", "backing off", "failing", "stopped", "killed")
"""The states of a watch. A watch that was `killed` has not said that it ended."""


def watch_reports(settings: Settings, indexes: Sequence[IndexSettings], ledger: Ledger) -> list[dict[str, Any]]:
    """Return the reports of those of these indexes that are, or were, watched."""
    reports = (watch_report(settings, index, ledger) for index in indexes)
    return [report for report in reports if report is not None]


def watch_report(settings: Settings, index: IndexSettings, ledger: Ledger) -> dict[str, Any] | None:
    """Return how the watch of an index is; None if it was never watched.

    `seconds_behind` counts from the earliest change that waits, or from the last catching up if nobody watches now, or
    if changes are not received.
    """
    alias = settings.alias(index.name)
    record = ledger.watch(alias)
    if record is None:
        return None
    lives = holder(ledger, lease_name(settings.project)) is not None
    since = ledger.waiting_since(alias)
    if since is None and not (lives and record.state in ("running", "catching up", "waiting")):
        since = record.caught_up_at
    return {
        "index": index.name,
        "state": record.state if lives or record.state == "stopped" else "killed",
        "message": record.message,
        "changes_waiting": ledger.count_waiting(alias),
        "seconds_behind": 0.0 if since is None else round(max(0.0, ledger.clock() - since), 3),
        "last_applied": iso_time(record.applied_at) if record.applied_at else None,
        "caught_up": iso_time(record.caught_up_at) if record.caught_up_at else None,
        "missed": missed_report(index.name, ledger.missed(alias), record),
    }
