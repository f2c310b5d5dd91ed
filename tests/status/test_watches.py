"""What `status` and the metrics file say of a watch."""

import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from rag_index.care.index_status import status, try_to_write_metrics
from rag_index.components.ledger.runs import IndexLease, lease_name
from rag_index.search import Retriever
from tests.etl.plain import run_plain
from tests.project import Project
from tests.waiting import eventually

ALIAS = "test_notes"


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project", extra='[run]\nmetrics_file = "metrics.prom"')


def test_what_waits_and_since_when_is_said(project, ledger):
    assert status(project.settings).indexes[0].watch is None
    now = ledger.clock()
    ledger.begin_watch(ALIAS)
    ledger.update_watch(ALIAS, state="backing off", message="it is down", applied_at=now - 500, caught_up_at=now - 400)
    ledger.put_changes([(ALIAS, "1", now - 100), (ALIAS, "2", now - 50)])
    with IndexLease(ledger, lease_name("test"), "watch"):
        found = status(project.settings).indexes[0].watch
        assert (found["state"], found["message"], found["changes_waiting"]) == ("backing off", "it is down", 2)
        assert 100 <= found["seconds_behind"] < 300
        ledger.clear_changes(ALIAS, ledger.watch(ALIAS).last_number)
        assert 400 <= status(project.settings).indexes[0].watch["seconds_behind"] < 600
        try_to_write_metrics(project.settings)
        assert 'state="backing off"} 1.0' in (project.folder / "metrics.prom").read_text()
        assert re.search("watch backing off, 4.. s behind: it is down", project.cli("status").stdout)
        ledger.update_watch(ALIAS, state="running", message="")
        assert status(project.settings).indexes[0].watch["seconds_behind"] == 0
    found = status(project.settings).indexes[0].watch
    assert found["state"] == "killed"
    assert 400 <= found["seconds_behind"] < 600


def test_an_index_is_behind_since_deletions_are_held_back_and_no_position_is_reached(project, ledger):
    run_plain(project.fill(300))
    ledger.begin_watch(ALIAS)
    with IndexLease(ledger, lease_name("test"), "watch"):
        assert status(project.settings).indexes[0].watch["seconds_behind"] == 0
        project.execute("DELETE FROM note")
        run_plain(project)
        [collection] = ledger.collections(ALIAS)
        later = ledger.clock() + 0.01
        assert ledger.count_held(collection.id) == 300
        eventually(lambda: ledger.clock() > later)
        assert status(project.settings).indexes[0].watch["seconds_behind"] > 0
        run_plain(project, allow_deletes=True)
        assert status(project.settings).indexes[0].watch["seconds_behind"] == 0


def test_of_many_missed_documents_the_first_ten_are_said(project, ledger):
    ids = [f"id{number:02}" for number in range(12)]
    ledger.begin_watch(ALIAS)
    ledger.note_mended(ALIAS, "night", 0, [(one, "changed") for one in ids])
    ledger.record_missed(ALIAS, ids)
    said = status(project.settings).indexes[0].watch["missed"]["message"]
    assert f"12 documents that the watch missed: {', '.join(ids[:10])}, …. The index is right again." in said


@pytest.mark.parametrize(("blind", "metric"), [("", "2.0"), ("polling sees no deletions", "0.0")])
def test_prometheus_reads_it_and_what_the_watch_missed_unless_it_cannot_see_it(project, ledger, blind, metric):
    ledger.begin_watch(ALIAS, blind=blind)
    ledger.note_mended(ALIAS, "night", 0, [("1", "changed"), ("2", "deleted"), ("3", "new")])
    ledger.record_missed(ALIAS, ["1", "2"])
    ledger.put_changes([(ALIAS, "1", ledger.clock())])
    ledger.update_watch(ALIAS, applied_at=1000.0)
    with IndexLease(ledger, lease_name("test"), "watch"):
        try_to_write_metrics(project.settings)
    text = (project.folder / "metrics.prom").read_text()
    assert 'rag_index_watch_state{index="notes",state="running"} 1.0' in text
    assert 'rag_index_watch_changes_waiting{index="notes"} 1.0' in text
    assert 'rag_index_watch_last_applied_timestamp_seconds{index="notes"} 1000.0' in text
    assert f'rag_index_watch_documents_missed{{index="notes"}} {metric}' in text
    assert status(project.settings).indexes[0].watch["missed"]["documents"] == 2


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
