"""A file for monitoring with the metrics of each index's last run, as JSON or in Prometheus's text format.

The file always holds all indexes, so a run of one index does not remove the others. It is replaced as a whole.
https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, get_args

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily

from rag_index.database.files import replace_file
from rag_index.reports.outcome import State
from rag_index.status.runs import run_reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.settings import Settings

__all__ = ["RunCollector", "write_metrics"]

PREFIX = "rag_index_run"
HELP = "From the last run of each index."
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
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".prom":
        registry = CollectorRegistry()
        registry.register(RunCollector(runs))
        write_to_textfile(str(path), registry)
    else:
        replace_file(path, (json.dumps({"runs": runs}, ensure_ascii=False) + "\n").encode())


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
