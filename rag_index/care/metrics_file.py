"""A file for monitoring with the metrics of each index's last run, in Prometheus's text format. The file always holds
all indexes, so a run of one index does not remove the others. It is replaced as a whole.
https://prometheus.io/docs/instrumenting/exposition_formats/"""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from prometheus_client import CollectorRegistry, Gauge, write_to_textfile

from rag_index.care.index_status import WATCH_STATES, run_reports, watch_report
from rag_index.components.ledger import Ledger
from rag_index.core.reports.outcome import State
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.core.settings import Settings

Sample: TypeAlias = tuple[str, dict[str, str], float]
"""A value of a metric: its name, labels, and the number."""
RUN_PREFIX = "rag_index_run"
WATCH_PREFIX = "rag_index_watch"
HELP = "From the last run of each index, or its watch."
logger = logging.getLogger("rag_index.status")
LABELS = {"stages": "stage", "by_host": "host"}
"""Metrics with several values, and the label that tells these apart."""


def try_to_write_metrics(settings: Settings) -> None:
    """Write the file that `[run] metrics_file` names, if it names one. If it cannot be written, or the ledger is down,
    that is only logged."""
    path = settings.run.metrics_file
    if path is None:
        return
    try:
        runs = run_reports(settings, settings.indexes)
        with closing(Ledger(settings.ledger_url, read_only=True)) as ledger:
            found = (watch_report(settings, index, ledger) for index in settings.indexes)
            watches = [report for report in found if report is not None]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), prometheus_registry(runs, watches))
    except OSError as error:
        logger.warning("[run] metrics_file %s cannot be written: %s", error.filename, error.strerror)
    except RagIndexError as error:
        logger.warning("the metrics cannot be written: %s", error)


def prometheus_registry(runs: Sequence[dict[str, Any]], watches: Sequence[dict[str, Any]]) -> CollectorRegistry:
    """Return a gauge for each metric, given what `run_reports` and `watch_report` return. It has a sample for each
    index that has the metric. A run that has not ended has none."""
    registry, gauges = CollectorRegistry(), dict[str, Gauge]()
    samples = [_samples(run) for run in runs if "index" in run] + [_watch_samples(watch) for watch in watches]
    for name, labels, value in chain.from_iterable(samples):
        if name not in gauges:
            gauges[name] = Gauge(name, HELP, list(labels), registry=registry)
        gauges[name].labels(**labels).set(value)
    return registry


def _watch_samples(watch: dict[str, Any]) -> Iterator[Sample]:
    index, missed = {"index": watch["index"]}, watch["missed"]
    values = {name: watch[name] for name in ("seconds_behind", "changes_waiting")}
    values["documents_missed"] = missed["documents"] if missed is not None and not missed["expected"] else 0
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
        if isinstance(value, dict) and name in LABELS:
            for label, number in value.items():
                yield sample(name, number, **{LABELS[name]: label})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield sample(name, value)


def _timestamp(time: str) -> float:
    return dt.datetime.fromisoformat(time).timestamp()
