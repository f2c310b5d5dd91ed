"""The status of each index: its collection and counts, the reports of its runs and of its watch,
and a file with their metrics for Prometheus, which always holds all indexes."""

from __future__ import annotations

import datetime as dt
import logging
import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from rag_index.components.ledger import Ledger, RunRow, unwanted_indexes
from rag_index.components.ledger.runs import holder, lease_name, run_state
from rag_index.components.stores import commit_marks, count_indexed, live_aliases
from rag_index.core.files import unwritable
from rag_index.core.reports.outcome import State
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client import CollectorRegistry

    from rag_index.core.documents.batches import FailureKind
    from rag_index.core.settings import IndexSettings, Settings

WATCH_STATES = ("running", "waiting", "backing off", "failing", "stopped", "killed")
"""The states of a watch. A watch that was `killed` has not said that it ended."""
Sample: TypeAlias = tuple[str, dict[str, str], float]
"""A value of a metric: its name, labels, and the number."""
RUN_PREFIX = "rag_index_run"
WATCH_PREFIX = "rag_index_watch"
HELP = "From the last run of each index, or its watch."
logger = logging.getLogger("rag_index.status")


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The status of one index; `collection` is None and counts are 0 if nothing is indexed yet."""

    index: str
    collection: str | None
    documents: int
    points: int
    indexed: int | None
    """About how many points the search index of a server has; None in the embedded store, or if
    nothing is indexed."""
    failed: int
    held_back: int
    last_run: dict[str, Any] | None
    """started and ended (ISO, UTC), state, message, seconds. `ended` is None while the run is under
    way; if its process died, `seconds` is None too and the state is interrupted."""

    watch: dict[str, Any] | None = None
    """How the watch of the index is, as `watch_report` returns it; None if it was never watched."""
    embedder: str = ""
    """The model that embedded it, with its prefixes; empty if nothing is indexed yet."""
    outdated: str = ""
    """Why it must be rebuilt although the settings are the same: it was made by another rag-index;
    otherwise empty."""
    restored: str = ""
    """How store and ledger differ, if one of them was put back to an older copy; otherwise
    empty."""
    as_of: dict[str, Any] | None = None
    """By when the index is complete: `at` (ISO, UTC) and `known_by`."""
    erasable: int = 0
    """Documents deleted or changed since the last erasure, each time, whose texts the store's files
    may keep."""
    erasable_since: str | None = None
    by_words: int = 0
    """Documents that have no vectors yet, so that their words alone find them."""
    findable: str = ""
    """What can be found of an index that was never complete; otherwise empty."""
    undecided: Sequence[dict[str, Any]] = ()
    """The values that nobody decided on, as the last run found them: `name`, `value` and `rows` of
    each."""


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """The status of all indexes of the settings, and a sentence about each that is kept although
    they lack it."""

    indexes: list[IndexStatus]
    unwanted: dict[str, str]


def status(settings: Settings) -> ProjectStatus:
    """Return the status of all indexes. This reads only the ledger and the names in the store, and
    asks a server for its search indexes. So it answers while a run holds the embedded store."""
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        live = live_aliases(settings.store, settings.aliases)
        ours = {
            index.name: live[alias]
            for index in settings.indexes
            if (alias := settings.alias(index.name)) in live
        }
        indexed = count_indexed(settings.store, ours.values())
        restored = ledger.find_restored(ours, partial(commit_marks, settings.store))
        found = [
            _index_status(settings, index, ledger, live, indexed) for index in settings.indexes
        ]
        found = [replace(one, restored=restored.get(one.index, "")) for one in found]
        return ProjectStatus(found, unwanted_indexes(settings, ledger, live))


def ledger_status(settings: Settings) -> ProjectStatus:
    """Return the status of all indexes as the ledger alone knows it: the newest collection counts
    as the live one."""
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        ready = {
            alias: [c.name for c in ledger.collections(alias) if c.state == "ready"]
            for alias in settings.aliases
        }
        newest: dict[str, str] = {alias: names[-1] for alias, names in ready.items() if names}
        return ProjectStatus(
            [_index_status(settings, index, ledger, newest, {}) for index in settings.indexes], {}
        )


def _index_status(
    settings: Settings,
    index: IndexSettings,
    ledger: Ledger,
    live: dict[str, str],
    indexed: dict[str, int],
) -> IndexStatus:
    alias = settings.alias(index.name)
    last = ledger.last_run(alias)
    run, watch = _last_run(ledger, last), watch_report(settings, index, ledger)
    undecided = last.report.get("undecided", []) if last else []
    collection = ledger.collection(live[alias]) if alias in live else None
    if collection is None:
        return IndexStatus(
            index.name, live.get(alias), 0, 0, None, 0, 0, run, watch, undecided=undecided
        )
    totals = ledger.totals(collection.id)
    failed = ledger.count_failures(collection.id) - ledger.count_failures(collection.id, "skipped")
    counts = (
        totals.documents,
        totals.points,
        indexed.get(collection.name),
        failed,
        collection.held,
    )
    reached, as_of = ledger.reached().get(alias), None
    if reached is not None and reached.collection == collection.name:
        ahead = reached.at > ledger.clock()
        how = "a clock that was ahead" if ahead else reached.how
        as_of = {"at": iso_time(reached.at), "known_by": how}
    erasable = ledger.erasable(alias)
    return IndexStatus(
        index.name,
        collection.name,
        *counts,
        run,
        watch,
        embedder=collection.embedder,
        outdated=collection.outdated,
        as_of=as_of,
        erasable=erasable.documents,
        erasable_since=iso_time(erasable.since) if erasable.documents else None,
        by_words=totals.by_words,
        findable=totals.findable if as_of is None and not collection.whole_in else "",
        undecided=undecided,
    )


def _last_run(ledger: Ledger, last: RunRow | None) -> dict[str, Any] | None:
    if last is None:
        return None
    told = _began_and_ended(ledger, last)
    died = told["state"] == "interrupted"
    message = "the process died during the run; the next run resumes it" if died else last.message
    seconds = None if died else round((last.ended_at or ledger.clock()) - last.started_at, 3)
    return {**told, "message": message, "seconds": seconds}


def _began_and_ended(ledger: Ledger, run: RunRow) -> dict[str, Any]:
    ended = iso_time(run.ended_at) if run.ended_at else None
    return {"started": iso_time(run.started_at), "ended": ended, "state": run_state(ledger, run)}


def run_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the report of each index's last run, or of the run whose id begins with `run_id`."""
    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        found = [ledger.last_run(settings.alias(index.name), run_id) for index in indexes]
        return [
            {"run": run.id, **_began_and_ended(ledger, run), **run.report} for run in found if run
        ]


def iso_time(seconds: float) -> str:
    """Return a time (seconds since 1970) as ISO text in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def watch_report(settings: Settings, index: IndexSettings, ledger: Ledger) -> dict[str, Any] | None:
    """Return how the watch of an index is; None if it was never watched. `seconds_behind` is the
    age of the index: it has every change that was committed before."""
    alias = settings.alias(index.name)
    record, reached = ledger.watch(alias), ledger.reached().get(alias)
    if record is None:
        return None
    lives = holder(ledger, lease_name(settings.project)) is not None
    return {
        "index": index.name,
        "state": record.state if lives or record.state == "stopped" else "killed",
        "message": record.message,
        "seconds_behind": round(abs(ledger.clock() - (reached.at if reached else record.since)), 3),
        "last_applied": iso_time(record.applied_at) if record.applied_at else None,
    }


@dataclass(frozen=True, slots=True)
class FailedDocument:
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


def failed(settings: Settings, indexes: Sequence[IndexSettings]) -> list[FailedDocument]:
    """Return the documents listed as failed, incomplete or skipped in the live collections of these
    indexes."""
    from rag_index.core.documents.keys import (
        document_id,
    )  # `status` prints reports, and does without

    with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
        live = live_aliases(settings.store, settings.aliases)
        documents = []
        for index in indexes:
            collection = ledger.collection(live.get(settings.alias(index.name), ""))
            for row in ledger.failures(collection.id).values() if collection else ():
                is_incomplete = row.kind != "skipped"
                document = FailedDocument(
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
    """Write the file that `[run] metrics_file` names, if it names one. If it cannot be written, or
    the ledger is down, that is only logged."""
    path = settings.run.metrics_file
    if path is None:
        return
    from prometheus_client import write_to_textfile  # `status` does without it

    try:
        runs = run_reports(settings, settings.indexes)
        with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
            found = (watch_report(settings, index, ledger) for index in settings.indexes)
            watches = [report for report in found if report is not None]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), prometheus_registry(runs, watches))
    except OSError as error:
        logger.warning("[run] metrics_file %s", unwritable(path, error, "name another file"))
    except RagIndexError as error:
        logger.warning("the metrics cannot be written: %s", error)


def prometheus_registry(
    runs: Sequence[dict[str, Any]], watches: Sequence[dict[str, Any]]
) -> CollectorRegistry:
    """Return a gauge for each metric, given what `run_reports` and `watch_report` return. It has a
    sample for each index that has the metric. A run that has not ended has none."""
    from prometheus_client import CollectorRegistry, Gauge

    registry, gauges = CollectorRegistry(), dict[str, Gauge]()
    samples = [_samples(run) for run in runs if "index" in run] + [
        _watch_samples(watch) for watch in watches
    ]
    for name, labels, value in chain.from_iterable(samples):
        if name not in gauges:
            gauges[name] = Gauge(name, HELP, list(labels), registry=registry)
        gauges[name].labels(**labels).set(value)
    return registry


def _watch_samples(watch: dict[str, Any]) -> Iterator[Sample]:
    index, values = {"index": watch["index"]}, {"seconds_behind": watch["seconds_behind"]}
    if watch["last_applied"]:
        values["last_applied_timestamp_seconds"] = _timestamp(watch["last_applied"])
    for name, value in values.items():
        yield f"{WATCH_PREFIX}_{name}", index, value
    for state in WATCH_STATES:
        yield f"{WATCH_PREFIX}_state", index | {"state": state}, int(watch["state"] == state)


def _samples(run: dict[str, Any]) -> Iterator[Sample]:
    def sample(name: str, value: float, **labels: str) -> Sample:
        return f"{RUN_PREFIX}_{name}", {"index": run["index"], **labels}, value

    for state in get_args(State):
        yield sample("state", int(run["state"] == state), state=state)
    yield sample("ended_timestamp_seconds", _timestamp(run["ended"]))
    for name, value in {**run, **run.get("metrics", {})}.items():
        if name == "stages":
            for stage, seconds in value.items():
                yield sample(name, seconds, stage=stage)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield sample(name, value)


def _timestamp(at: str) -> float:
    return dt.datetime.fromisoformat(at).timestamp()
