"""A file for monitoring with the metrics of each index's last run, as JSON or in Prometheus's text format.

The file always holds all indexes, so a run of one index does not remove the others. It is replaced as a whole.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from contextlib import closing
from typing import TYPE_CHECKING, Any, get_args

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily

from rag_index.database.files import replace_file
from rag_index.errors import RagIndexError
from rag_index.ledger import Ledger
from rag_index.reports.outcome import State
from rag_index.status.runs import STATES, run_reports, watch_reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.settings import Settings

PREFIX = "rag_index_run"
WATCH_PREFIX = "rag_index_watch"
HELP = "From the last run of each index."
logger = logging.getLogger("rag_index.status")
LABELS = {"stages": "stage", "by_worker": "worker", "by_host": "host", "symbols": "kind"}
"""Metrics with several values, and the label that tells these apart."""


def write_metrics(settings: Settings) -> None:
    """Write the file that `[run] metrics_file` names, if it names one; the suffix decides the format.

    Raises OSError if the file cannot be written.
    """
    path = settings.run.metrics_file
    if path is None:
        return
    runs = run_reports(settings, settings.indexes)
    with closing(Ledger(settings.ledger_url)) as ledger:
        watches = watch_reports(settings, settings.indexes, ledger)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".prom":
        registry = CollectorRegistry()
        registry.register(RunCollector(runs))
        registry.register(WatchCollector(watches))
        write_to_textfile(str(path), registry)
    else:
        replace_file(
            path,
            (
                json.dumps({"runs": runs, **({"watches": watches} if watches else {})}, ensure_ascii=False) + "\n"
            ).encode(),
        )


def try_to_write_metrics(settings: Settings) -> None:
    """Write the file as `write_metrics` does. One that cannot be written, or a ledger that is down, is only logged."""
    try:
        write_metrics(settings)
    except OSError as error:
        logger.warning("[run] metrics_file %s cannot be written: %s", error.filename, error.strerror)
    except RagIndexError as error:
        logger.warning("the metrics cannot be written: %s", error)


class RunCollector:
    """A Prometheus collector for the metrics of these runs, which are given as `run_reports` returns them."""

    def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
        self._runs = runs

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return a gauge for each metric, with a sample for each index that has it."""
        gauges: dict[str, GaugeMetricFamily] = {}
        for run in self._runs:
            if "index" not in run:  # the run has not ended
                continue
            for name, labels, value in _samples(run):
                if name not in gauges:
                    gauges[name] = GaugeMetricFamily(f"{PREFIX}_{name}", HELP, labels=["index", *labels])
                gauges[name].add_metric([run["index"], *labels.values()], value)
        return gauges.values()


class WatchCollector:
    """A Prometheus collector for the watches of indexes, which are given as `watch_reports` returns them."""

    def __init__(self, watches: Sequence[dict[str, Any]]) -> None:
        self._watches = watches

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return a gauge for each metric, with a sample for each index that is or was watched."""
        for name, told in (
            ("seconds_behind", "Seconds since the earliest change that is not indexed."),
            ("changes_waiting", "Documents that wait to be indexed."),
        ):
            gauge = GaugeMetricFamily(f"{WATCH_PREFIX}_{name}", told, labels=["index"])
            for one in self._watches:
                gauge.add_metric([one["index"]], one[name])
            yield gauge
        missed = GaugeMetricFamily(
            f"{WATCH_PREFIX}_documents_missed",
            "Documents that the last run had to mend because the watch missed them, although it can see them.",
            labels=["index"],
        )
        for one in self._watches:
            unexpected = one["missed"] is not None and not one["missed"]["expected"]
            missed.add_metric([one["index"]], one["missed"]["documents"] if unexpected else 0)
        yield missed
        applied = GaugeMetricFamily(
            f"{WATCH_PREFIX}_last_applied_timestamp_seconds", "When changes were last indexed.", labels=["index"]
        )
        state = GaugeMetricFamily(
            f"{WATCH_PREFIX}_state", "Whether the watch is in this state.", labels=["index", "state"]
        )
        for one in self._watches:
            if one["last_applied"]:
                applied.add_metric([one["index"]], dt.datetime.fromisoformat(one["last_applied"]).timestamp())
            for known in STATES:
                state.add_metric([one["index"], known], int(one["state"] == known))
        yield applied
        yield state


def _samples(run: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the metrics of a run: name, further labels, value."""
    for state in get_args(State):
        yield "state", {"state": state}, int(run["state"] == state)
    yield "ended_timestamp_seconds", {}, dt.datetime.fromisoformat(run["ended"]).timestamp()
    for name, value in {**run, **run.get("metrics", {})}.items():
        if isinstance(value, dict) and name in LABELS:
            for label, number in value.items():
                yield name, {LABELS[name]: label}, number
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, {}, value
