"""What `status` and the metrics file say of a watch."""

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rag_index.care.index_status import status, try_to_write_metrics
from rag_index.components.ledger.runs import IndexLease, lease_name
from rag_index.components.ledger.tables import positions
from rag_index.core.reports.progress import RunRecord
from rag_index.etl.opened import RunOptions, open_index
from rag_index.search import Retriever
from tests.etl.plain import run_plain
from tests.project import Project, run_here

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", extra='[run]\nmetrics_file = "metrics.prom"')


def test_the_age_of_an_index_and_the_state_of_its_watch_are_said(project, ledger):
    assert status(project.settings).indexes[0].watch is None
    run_plain(project.fill(3))
    ledger.begin_watch(ALIAS)
    ledger.update_watch(ALIAS, state="backing off", message="it is down", applied_at=1000.0)
    with IndexLease(ledger, lease_name("test"), "watch"):
        found = status(project.settings).indexes[0].watch
        assert (found["state"], found["message"], found["seconds_behind"] < 300) == ("backing off", "it is down", True)
        ledger._write(positions.update().values(at=ledger.clock() - 400))
        assert 400 <= status(project.settings).indexes[0].watch["seconds_behind"] < 600
        assert re.search("watch backing off, 4.. s behind: it is down", run_here(project.config, "status")[0])
        try_to_write_metrics(project.settings)
    text = (project.folder / "metrics.prom").read_text()
    assert 'rag_index_watch_state{index="notes",state="backing off"} 1.0' in text
    assert 'rag_index_watch_last_applied_timestamp_seconds{index="notes"} 1000.0' in text
    assert re.search(r'rag_index_watch_seconds_behind{index="notes"} [45]\d\d', text)
    assert status(project.settings).indexes[0].watch["state"] == "killed"


def test_an_index_grows_old_while_deletions_are_held_back(project, ledger):
    run_plain(project.fill(300))
    ledger.begin_watch(ALIAS)
    before = ledger.reached()[ALIAS].at
    project.execute("DELETE FROM note")
    run_plain(project)
    assert ledger.reached()[ALIAS].at == before
    assert ledger.note_look(ALIAS, ledger.clock(), after=before), "it is not forgotten"
    assert ledger.reached()[ALIAS].at == before
    run_plain(project, allow_deletes=True)
    assert ledger.reached()[ALIAS].at > before


def test_the_dashboard_shows_metrics_that_are_served(project, ledger):
    run_plain(project.fill(3))
    ledger.begin_watch(ALIAS)
    try_to_write_metrics(project.settings)
    with Retriever.from_settings(project.settings) as retriever:
        retriever.search_sync("pump")
        served = (project.folder / "metrics.prom").read_text() + generate_latest(retriever.metrics()).decode()
    dashboard = Path(__file__).parents[2] / "deployments" / "grafana.json"
    shown = set(re.findall(r"rag_index_\w+", dashboard.read_text(encoding="utf-8")))
    assert len(shown) > 8
    declared = dict(re.findall(r"^# TYPE (\w+) (\w+)$", served, re.MULTILINE))
    assert {name.removesuffix("_bucket") for name in shown} <= declared.keys()


def run_of(project: Project):
    """Record a run with an outcome in the ledger."""
    record = RunRecord("notes")
    record.outcome.new = 7
    with open_index(project.settings, "notes", RunOptions(), run_id="1") as opened:
        report = record.end(project.settings.embedder, on_server=False)
        opened.ledger.finish_run("1", state="completed", message="", report=report)


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the values that Prometheus reads, by name and labels."""
    families = list(text_string_to_metric_families(text))
    assert {family.type for family in families} <= {"gauge"}
    assert len({family.name for family in families}) == len(families), "the samples of a metric stand together"
    found = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in found}


def test_prometheus_reads_the_file(tmp_path):
    project = Project(tmp_path / "project", extra='[run]\nmetrics_file = "out/m.prom"')
    run_of(project)
    try_to_write_metrics(project.settings)
    file = project.folder / "out" / "m.prom"
    found = samples(file.read_text())
    index = ("index", "notes")
    assert found["rag_index_run_new", (index,)] == 7
    assert found["rag_index_run_state", (index, ("state", "completed"))] == 1
    assert found["rag_index_run_state", (index, ("state", "failed"))] == 0
    assert found["rag_index_run_stages", (index, ("stage", "other"))] >= 0
    assert found["rag_index_run_ended_timestamp_seconds", (index,)] > 1.7e9
    assert list(file.parent.iterdir()) == [file], "nothing is left beside it"
