"""The file that monitoring reads: whole, of every index, in two forms."""

from __future__ import annotations

import json
import re

import pytest

from rag_index.errors import SettingsError
from rag_index.indexing.run import RunOptions, open_run
from rag_index.settings import load_settings
from rag_index.status.metrics_file import prometheus, write_metrics
from tests.project import Project

SAMPLE = re.compile(r'[a-z_]+\{index="[^"]+"(,[a-z]+="(?:[^"\\]|\\.)*")?\} -?[0-9.e+-]+')


def run_of(project: Project):
    """A run with an outcome, as it is noted in the ledger."""
    with open_run(project.settings, "notes", RunOptions(), run_id="1") as run:
        run.metrics.by_host = {'http://a"b\\c': 1.5}
        run.outcome.new = 7
        run.finish()


def test_json_has_what_report_prints(tmp_path):
    project = Project(tmp_path / "project", extra='[run]\nmetrics_file = "out/metrics.json"')
    write_metrics(project.settings)
    file = project.folder / "out" / "metrics.json"
    assert json.loads(file.read_text()) == {"runs": []}
    run_of(project)
    write_metrics(project.settings)
    assert json.loads(file.read_text()) == project.json("report")
    assert json.loads(file.read_text())["runs"][0]["new"] == 7
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"


def test_prometheus_reads_every_line(tmp_path):
    project = Project(tmp_path / "project", extra='[run]\nmetrics_file = "m.prom"')
    run_of(project)
    write_metrics(project.settings)
    lines = (project.folder / "m.prom").read_text().splitlines()
    assert 'rag_index_run_new{index="notes"} 7' in lines
    assert 'rag_index_run_state{index="notes",state="completed"} 1' in lines
    assert 'rag_index_run_state{index="notes",state="failed"} 0' in lines
    assert r'rag_index_run_by_host{index="notes",host="http://a\"b\\c"} 1.5' in lines
    assert all(SAMPLE.fullmatch(line) for line in lines if not line.startswith("# TYPE ")), lines
    assert sum("ended_timestamp_seconds{" in line for line in lines) == 1


def test_samples_of_a_metric_stand_together():
    runs = [
        {"index": name, "state": "completed", "ended": "2026-11-20T09:00:00Z", "new": 1, "metrics": {"stages": stages}}
        for name, stages in (("a", {"fetch": 1.0}), ("b", {"fetch": 2.0, "wait": 3.0}))
    ]
    lines = prometheus([*runs, {"run": "3", "state": "running", "ended": None}]).splitlines()
    metrics = [line.split("{")[0].removeprefix("# TYPE ").removesuffix(" gauge") for line in lines]
    assert [line for line in lines if "stages{" in line] == [
        'rag_index_run_stages{index="a",stage="fetch"} 1.0',
        'rag_index_run_stages{index="b",stage="fetch"} 2.0',
        'rag_index_run_stages{index="b",stage="wait"} 3.0',
    ]
    assert len([m for i, m in enumerate(metrics) if i == 0 or metrics[i - 1] != m]) == len(set(metrics))


def test_another_form_is_refused(tmp_path):
    project = Project(tmp_path / "project", extra='[run]\nmetrics_file = "metrics.txt"')
    with pytest.raises(SettingsError, match=r"metrics_file.*should end with \.json"):
        load_settings(project.config)
