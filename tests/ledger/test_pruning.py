"""What the ledger forgets: old runs and failures of collections that are gone, and never what is in use."""

from typing import Any

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.core.documents.batches import Failure
from rag_index.core.settings import load_settings
from tests.etl.plain import run_plain
from tests.ledger.conftest import add
from tests.project import Project

DAY = 86_400.0


@pytest.fixture
def ledger(ledger, clock):
    """The ledger, whose clock is `ledger.clock.now`."""
    clock.now = 1_000 * DAY
    return ledger


def run(ledger: Any, run_id: str, alias: str, day: float) -> None:
    ledger.clock.now = day * DAY
    ledger.start_run(run_id, alias, host="h", pid=1)
    ledger.finish_run(run_id, state="completed", message="", report={})


def test_old_runs_go_and_the_newest_of_each_index_stays(ledger):
    for day in (800, 801, 999):
        run(ledger, f"run {day}", "test_notes", day)
    run(ledger, "run of another", "other_notes", 700)
    run(ledger, "id-1", "test_notes", 800)
    run(ledger, "id-2", "test_notes", 999)
    run(ledger, "watch-test_notes", "test_notes", 700)
    assert ledger.prune(910 * DAY) == 3
    assert ledger.last_run("test_notes").id == "run 999"
    assert ledger.last_run("other_notes").id == "run of another"
    assert ledger.last_run("test_notes", "id-").id == "id-2"
    assert ledger.prune(910 * DAY) == 0


def test_a_run_that_holds_its_index_stays_however_old_it_is(ledger):
    ledger.clock.now = 1_000 * DAY
    with IndexLease(ledger, "test_notes", "long"):
        ledger.clock.now = 800 * DAY
        ledger.start_run("long", "test_notes", host="h", pid=1)
        run(ledger, "newer", "test_notes", 900)
        assert ledger.prune(950 * DAY) == 0
    assert ledger.prune(950 * DAY) == 1


def test_failures_of_collections_that_are_gone_go(ledger):
    ours = add(ledger, "test_notes__1").id
    for one in (ours, 4711):  # of a collection that nobody knows
        ledger.fail(one, [Failure("k", "reason", b"h")])
    assert ledger.prune(910 * DAY) == 1
    assert [ledger.count_failures(one) for one in (ours, 4711)] == [1, 0]


def test_a_run_prunes_with_default_settings_and_leaves_another_project_of_the_folder_alone(tmp_path):
    project = Project(tmp_path / "project").fill(3)
    second = project.config.read_text().replace('project = "test"', 'project = "second"')
    (project.folder / "second.toml").write_text(second)
    ledger = Ledger(load_settings(project.config).ledger_url)
    now = ledger.clock()
    for name, alias, days in (("one", "test_notes", 200), ("two", "second_notes", 200), ("three", "second_notes", 100)):
        ledger.clock = lambda days=days: now - days * DAY
        ledger.start_run(name, alias, host="h", pid=1)
        ledger.finish_run(name, state="completed", message="", report={})
    assert run_plain(project).state == "completed"
    assert ledger.last_run("test_notes", "one") is None
    assert ledger.last_run("test_notes").state == "completed"
    assert ledger.last_run("second_notes").id == "three", "the last one says how it went"
    ledger.close()
