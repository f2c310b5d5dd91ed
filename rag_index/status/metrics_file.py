"""The figures of each index's last run in a file, for monitoring: as JSON, or in Prometheus's text exposition format.

The file always has all indexes, so that one that was run alone does not take the others away. It is written whole:
who reads it while it is replaced sees the old one. https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import datetime as dt
import json
import os
from typing import TYPE_CHECKING, Any, get_args

from rag_index.reports.outcome import State
from rag_index.status.runs import run_reports

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rag_index.settings import Settings

__all__ = ["prometheus", "write_metrics"]

PREFIX = "rag_index_run"
LABELS = {"stages": "stage", "by_worker": "worker", "by_host": "host", "symbols": "kind"}
"""Figures that are several, and what tells them apart."""


def write_metrics(settings: Settings) -> None:
    """Write `[run] metrics_file`, where the settings name one: its ending says which form.

    Raises OSError where it cannot be written.
    """
    path = settings.run.metrics_file
    if path is None:
        return
    runs = run_reports(settings, settings.indexes)
    text = prometheus(runs) if path.suffix == ".prom" else json.dumps({"runs": runs}, ensure_ascii=False) + "\n"
    _replace(path, text)


def prometheus(runs: Sequence[dict[str, Any]]) -> str:
    """Runs as `overview.run_reports` gives them. A metric's samples stand together, as the format demands."""
    samples: dict[str, list[str]] = {}
    for run in runs:
        if "index" in run:  # else it has not ended
            for name, labels, value in _samples(run):
                shown = "".join(f',{label}="{_escaped(text)}"' for label, text in labels)
                samples.setdefault(f"{PREFIX}_{name}", []).append(f'{{index="{run["index"]}"{shown}}} {value}')
    lines = []
    for metric, values in samples.items():
        lines += [f"# TYPE {metric} gauge", *(f"{metric}{value}" for value in values)]
    return "\n".join(lines) + "\n"


Sample = tuple[str, list[tuple[str, str]], float]


def _samples(run: dict[str, Any]) -> Iterator[Sample]:
    for state in get_args(State):
        yield "state", [("state", state)], int(run["state"] == state)
    yield "ended_timestamp_seconds", [], dt.datetime.fromisoformat(run["ended"]).timestamp()
    for name, value in {**run, **run.get("metrics", {})}.items():
        if isinstance(value, dict) and name in LABELS:
            for label, number in value.items():
                yield name, [(LABELS[name], label)], number
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield name, [], value


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
