"""Reports of runs, as the ledger keeps them."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rag_index.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.settings import IndexSettings, Settings

__all__ = ["iso_time", "run_reports"]


def run_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the report of each index's last run, or of the run whose id begins with `run_id`."""
    with closing(Ledger(settings.ledger_url)) as ledger:
        runs = (ledger.last_run(settings.alias(index.name), run_id) for index in indexes)
        return [
            {
                "run": run.id,
                "started": iso_time(run.started_at),
                "ended": iso_time(run.ended_at) if run.ended_at else None,
                "state": run.state,
                **run.report,
            }
            for run in runs
            if run
        ]


def iso_time(seconds: float) -> str:
    """Return a time (seconds since 1970) as ISO text in UTC."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
