"""The status of each index: its collection and counts, and the reports of its runs and its watch.

The same reports are written as metrics to a file for Prometheus, always for all indexes.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from rag_index.components.ledger import Ledger, RunRow, missing_ledger, unwanted_indexes
from rag_index.components.ledger.runs import holder, lease_name, run_state
from rag_index.components.stores import commit_marks, count_indexed, live_aliases
from rag_index.core.files import unwritable
from rag_index.core.reports.outcome import State
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from rag_index.components.ledger import Collection
    from rag_index.core.documents.batches import FailureKind
    from rag_index.core.settings import IndexSettings, Settings

WATCH_STATES = ("running", "waiting", "backing off", "failing", "stopped", "killed")
"""The states of a watch. A `killed` one ended without recording it."""
RUN_PREFIX = "rag_index_run"
WATCH_PREFIX = "rag_index_watch"
HELP = "From the last run of each index, or its watch."
logger = logging.getLogger("rag_index.status")


@dataclass(frozen=True, slots=True)
class MetricSample:
    """A value of a metric."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The status of one index; `collection` is None and counts are 0 if nothing is indexed yet."""

    index: str
    collection: str | None
    documents: int
    points: int
    indexed: int | None
    """The approximate number of points in the search index of a server; None in the embedded store,
    or if nothing is indexed."""
    failed: int
    held_back: int
    last_run: dict[str, Any] | None
    """started and ended (ISO, UTC), state, message, seconds. `ended` is None while the run is under
    way. If its process died, the state is interrupted, and `ended` and `seconds` are None."""

    watch: dict[str, Any] | None = None
    """The report of its watch, as `watch_report` returns it; None if it was never watched."""
    embedder: str = ""
    """The model that embedded it, with its prefixes; empty if nothing is indexed yet."""
    outdated: str = ""
    """Why it must be rebuilt although the settings are the same: another rag-index made it.
    Otherwise empty."""
    restored: str = ""
    """How store and ledger differ, if one of them was restored from a backup; otherwise empty."""
    as_of: dict[str, Any] | None = None
    """The time up to which the index is complete: `at` (ISO, UTC) and `known_by`."""
    erasable: int = 0
    """The number of deletions and changes of documents since the last erasure. The store's files may
    still have these texts."""
    erasable_since: str | None = None
    by_words: int = 0
    """Documents without vectors yet, which only words find."""
    findable: str = ""
    """The part of a never complete index that searches find; otherwise empty."""
    undecided: Sequence[dict[str, Any]] = ()
    """The values without a decision that the last run found: `name`, `value` and `rows` of each."""


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """The status of all indexes of the settings. `unwanted` has a sentence about each other index
    that ledger and store still have. `problem` is a message about a missing ledger, or empty."""

    indexes: list[IndexStatus]
    unwanted: dict[str, str]
    problem: str = ""


def status(settings: Settings) -> ProjectStatus:
    """Return the status of all indexes.

    It reads the ledger and the names in the store, and requests the search indexes of a server.
    Therefore it works while a run holds the embedded store.
    """
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        live = live_aliases(settings.store, settings.aliases)
        own = dict[str, str]()
        for index in settings.indexes:
            alias = settings.alias(index.name)
            if alias in live:
                own[index.name] = live[alias]
        indexed = count_indexed(settings.store, own.values())
        restored = ledger.find_restored(own, partial(commit_marks, settings.store))
        found = list[IndexStatus]()
        for index in settings.indexes:
            state = _index_status(settings, index, ledger, live, indexed)
            found.append(replace(state, restored=restored.get(index.name, "")))
        problem = missing_ledger(settings, live) if ledger.is_missing else ""
        return ProjectStatus(found, unwanted_indexes(settings, ledger, live), problem)


def ledger_status(settings: Settings) -> ProjectStatus:
    """Return the status of all indexes from the ledger alone. The newest complete collection counts
    as the live one."""
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        newest = dict[str, str]()
        for alias in settings.aliases:
            # Oldest first: the last one remains.
            for collection in ledger.collections(alias):
                if collection.state == "ready":
                    newest[alias] = collection.name
        found = [_index_status(settings, index, ledger, newest, {}) for index in settings.indexes]
        return ProjectStatus(found, {})


def _index_status(
    settings: Settings,
    index: IndexSettings,
    ledger: Ledger,
    live: dict[str, str],
    indexed: dict[str, int],
) -> IndexStatus:
    """Return the status of an index.

    Args:
        live: The name of the live collection, by alias.
        indexed: The number of points in the search index, by collection.
    """
    alias = settings.alias(index.name)
    last = ledger.last_run(alias)
    run = _last_run(ledger, last)
    watch = watch_report(settings, index, ledger)
    undecided = last.report.get("undecided", []) if last else []
    collection = ledger.collection(live[alias]) if alias in live else None
    # Nothing is indexed, or the ledger does not know the live collection.
    if collection is None:
        return IndexStatus(
            index=index.name,
            collection=live.get(alias),
            documents=0,
            points=0,
            indexed=None,
            failed=0,
            held_back=0,
            last_run=run,
            watch=watch,
            undecided=undecided,
        )
    totals = ledger.totals(collection.id)
    listed = ledger.count_failures(collection.id)
    skipped = ledger.count_failures(collection.id, "skipped")
    as_of = _as_of(ledger, alias, collection)
    never_complete = as_of is None and not collection.whole_in
    erasable = ledger.erasable(alias)
    return IndexStatus(
        index=index.name,
        collection=collection.name,
        documents=totals.documents,
        points=totals.points,
        indexed=indexed.get(collection.name),
        failed=listed - skipped,
        held_back=collection.held,
        last_run=run,
        watch=watch,
        embedder=collection.embedder,
        outdated=collection.outdated,
        as_of=as_of,
        erasable=erasable.documents,
        erasable_since=iso_time(erasable.since) if erasable.documents else None,
        by_words=totals.by_words,
        findable=totals.findable if never_complete else "",
        undecided=undecided,
    )


def _as_of(ledger: Ledger, alias: str, collection: Collection) -> dict[str, Any] | None:
    """Return up to when a live collection is complete, and how that is known."""
    reached = ledger.reached().get(alias)
    # No run of this collection was complete. Another collection of the alias may have been.
    if reached is None or reached.collection != collection.name:
        return None
    how = reached.how
    # A time in the future.
    if reached.at > ledger.clock():
        how = "a clock that was ahead"
    return {"at": iso_time(reached.at), "known_by": how}


def _last_run(ledger: Ledger, last: RunRow | None) -> dict[str, Any] | None:
    """Return the last run of an index, as `IndexStatus.last_run`."""
    if last is None:
        return None
    report = _began_and_ended(ledger, last)
    if report["state"] == "interrupted":
        message = "the process died during the run; the next run resumes it"
        return {**report, "message": message, "seconds": None}
    # A run under way has lasted until now.
    ended_at = last.ended_at or ledger.clock()
    return {**report, "message": last.message, "seconds": round(ended_at - last.started_at, 3)}


def _began_and_ended(ledger: Ledger, run: RunRow) -> dict[str, Any]:
    started = iso_time(run.started_at)
    ended = iso_time(run.ended_at) if run.ended_at else None
    return {"started": started, "ended": ended, "state": run_state(ledger, run)}


def run_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the report of each index's last run, or of the run whose id begins with `run_id`."""
    reports = list[dict[str, Any]]()
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        for index in indexes:
            run = ledger.last_run(settings.alias(index.name), run_id)
            if run:
                times = _began_and_ended(ledger, run)
                reports.append({"run": run.id, **times, **run.report})
    return reports


def iso_time(seconds: float) -> str:
    """Return a time (seconds since 1970) as ISO text in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def watch_report(settings: Settings, index: IndexSettings, ledger: Ledger) -> dict[str, Any] | None:
    """Return the state of an index's watch; None if it was never watched.

    `seconds_behind` is the age of the index: it has every change that was committed before.
    """
    alias = settings.alias(index.name)
    watch = ledger.watch(alias)
    reached = ledger.reached().get(alias)
    if watch is None:
        return None
    # A watch that ends records it. Without its lease, the process was killed.
    is_running = holder(ledger, lease_name(settings.project)) is not None
    state = watch.state if is_running or watch.state == "stopped" else "killed"
    complete_until = reached.at if reached else watch.since
    seconds_behind = abs(ledger.clock() - complete_until)
    return {
        "index": index.name,
        "state": state,
        "message": watch.message,
        "seconds_behind": round(seconds_behind, 3),
        "last_applied": iso_time(watch.applied_at) if watch.applied_at else None,
    }


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A document that the ledger lists as failed, incomplete or skipped (`kind`); times are ISO, in
    UTC."""

    index: str
    document_id: str
    reason: str
    tries: int
    first_tried: str
    """When the present text first failed."""
    last_tried: str
    incomplete_since: str | None
    """Since when the index lacks the document, or something of it; None if it is skipped."""
    kind: FailureKind = "failed"


def failed(settings: Settings, indexes: Sequence[IndexSettings]) -> list[ListedDocument]:
    """Return the documents listed as failed, incomplete or skipped in the live collections of these
    indexes."""
    # Imported when needed: the other reports do not use it.
    from rag_index.core.documents.keys import document_id

    documents = list[ListedDocument]()
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        live = live_aliases(settings.store, settings.aliases)
        for index in indexes:
            collection = ledger.collection(live.get(settings.alias(index.name), ""))
            if collection is None:
                continue
            for row in ledger.failures(collection.id).values():
                is_incomplete = row.kind != "skipped"
                document = ListedDocument(
                    index=index.name,
                    document_id=document_id(row.key),
                    reason=row.reason,
                    tries=row.tries,
                    first_tried=iso_time(row.first_at),
                    last_tried=iso_time(row.last_at),
                    incomplete_since=iso_time(row.incomplete_since) if is_incomplete else None,
                    kind=row.kind,
                )
                documents.append(document)
    return documents


def try_to_write_metrics(settings: Settings) -> None:
    """Write the file of `[run] metrics_file`, if there is one.

    If it cannot be written, or the ledger is unavailable, the reason is logged: a run does not fail
    because of its metrics.
    """
    path = settings.run.metrics_file
    if path is None:
        return
    # Imported when needed: `status` does not use it.
    from prometheus_client import write_to_textfile

    try:
        runs = run_reports(settings, settings.indexes)
        watches = list[dict[str, Any]]()
        with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
            for index in settings.indexes:
                report = watch_report(settings, index, ledger)
                if report is not None:
                    watches.append(report)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), prometheus_registry(runs, watches))
    except OSError as error:
        logger.warning("[run] metrics_file %s", unwritable(path, error, "name another file"))
    except RagIndexError as error:
        logger.warning("the metrics cannot be written: %s", error)


def prometheus_registry(
    runs: Sequence[dict[str, Any]], watches: Sequence[dict[str, Any]]
) -> CollectorRegistry:
    """Return a gauge for each metric, with a sample for each index that has the metric.

    Args:
        runs: The reports of `run_reports`. A run under way has an empty report and no samples.
        watches: The reports of `watch_report`.
    """
    from prometheus_client import CollectorRegistry, Gauge

    registry = CollectorRegistry()
    gauges = dict[str, Gauge]()
    samples = list[MetricSample]()
    for run in runs:
        if "index" in run:
            samples += _run_samples(run)
    for watch in watches:
        samples += _watch_samples(watch)
    for sample in samples:
        if sample.name not in gauges:
            gauges[sample.name] = Gauge(sample.name, HELP, list(sample.labels), registry=registry)
        gauges[sample.name].labels(**sample.labels).set(sample.value)
    return registry


def _watch_samples(watch: dict[str, Any]) -> Iterator[MetricSample]:
    labels = {"index": watch["index"]}
    yield MetricSample(f"{WATCH_PREFIX}_seconds_behind", labels, watch["seconds_behind"])
    if watch["last_applied"]:
        applied_at = _timestamp(watch["last_applied"])
        yield MetricSample(f"{WATCH_PREFIX}_last_applied_timestamp_seconds", labels, applied_at)
    for state in WATCH_STATES:
        is_state = int(watch["state"] == state)
        yield MetricSample(f"{WATCH_PREFIX}_state", {**labels, "state": state}, is_state)


def _run_samples(run: dict[str, Any]) -> Iterator[MetricSample]:
    labels = {"index": run["index"]}
    for state in get_args(State):
        is_state = int(run["state"] == state)
        yield MetricSample(f"{RUN_PREFIX}_state", {**labels, "state": state}, is_state)
    yield MetricSample(f"{RUN_PREFIX}_ended_timestamp_seconds", labels, _timestamp(run["ended"]))
    for name, value in {**run, **run.get("metrics", {})}.items():
        metric = f"{RUN_PREFIX}_{name}"
        # Seconds by stage: {"fetch": 0.3, "embed": 2.1}.
        if name == "stages":
            for stage, seconds in value.items():
                yield MetricSample(metric, {**labels, "stage": stage}, seconds)
        # Other numbers, such as `new`. Texts and lists are no metrics.
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield MetricSample(metric, labels, value)


def _timestamp(at: str) -> float:
    return dt.datetime.fromisoformat(at).timestamp()
