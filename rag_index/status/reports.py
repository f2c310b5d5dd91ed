"""Reports of runs and of watches, and of documents that failed or lack something, as the ledger keeps them."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.ledger import Ledger
from rag_index.ledger.lease import holder, run_state
from rag_index.ledger.runs import lease_name
from rag_index.reports.outcome import missed_sentence
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import FailureKind
    from rag_index.ledger import MissedDocument, RunRecord, WatchRecord
    from rag_index.settings import IndexSettings, Settings

STATES = ("running", "catching up", "waiting", "backing off", "failing", "stopped", "killed")
"""The states of a watch. A watch that was `killed` has not said that it ended."""


def run_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the report of each index's last run, or of the run whose id begins with `run_id`."""
    with closing(Ledger(settings.ledger_url)) as ledger:
        found = ((index.name, ledger.last_run(settings.alias(index.name), run_id)) for index in indexes)
        return [_run_report(name, run, ledger) for name, run in found if run]


def _run_report(name: str, run: RunRecord, ledger: Ledger) -> dict[str, Any]:
    report = {
        "run": run.id,
        "started": iso_time(run.started_at),
        "ended": iso_time(run.ended_at) if run.ended_at else None,
        "state": run_state(ledger, run),
        **run.report,
    }
    documents = [one for one in ledger.missed(run.alias) if one.run_id == run.id]
    if missed := missed_report(name, documents, ledger.watch(run.alias)):
        report["missed"] = missed | {"ids": [one.document_id for one in documents]}
    return report


def missed_report(name: str, documents: Sequence[MissedDocument], watch: WatchRecord | None) -> dict[str, Any] | None:
    """Return what is to be said about documents that the watch missed and a run mended; None if there are none."""
    if not documents or watch is None:
        return None
    ids = [one.document_id for one in documents]
    return {
        "documents": len(documents),
        "not_examined": watch.unkept,
        "expected": bool(watch.blind),
        "found": iso_time(max(one.found_at for one in documents)),
        "message": missed_sentence(name, ids, watch.blind, unkept=watch.unkept),
    }


def iso_time(seconds: float) -> str:
    """Return a time (seconds since 1970) as ISO text in UTC."""
    return dt.datetime.fromtimestamp(seconds, tz=dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


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
    from rag_index.documents.keys import document_id  # `status` prints reports, and does without

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
