"""What the ledger forgets: old runs and what it has of indexes that are gone, and never what is in use."""

from typing import Any

import pytest

from rag_index.documents.batches import Failure
from rag_index.ledger import Ledger
from rag_index.ledger.runs import IndexLease
from rag_index.settings import load_settings
from tests.indexing.plain import run_plain
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


def collection(ledger: Any, alias: str) -> int:
    return add(ledger, f"{alias}__1").id


def test_old_runs_go_and_the_newest_of_each_index_stays(ledger):
    for day in (800, 801, 999):
        run(ledger, f"run {day}", "test_notes", day)
    run(ledger, "run of another", "other_notes", 700)
    run(ledger, "id-1", "test_notes", 800)
    run(ledger, "id-2", "test_notes", 999)
    run(ledger, "watch-test_notes", "test_notes", 700)
    assert ledger.prune(910 * DAY, {"test_notes"}) == 3
    assert ledger.last_run("test_notes").id == "run 999"
    assert ledger.last_run("other_notes").id == "run of another"
    assert ledger.last_run("test_notes", "id-").id == "id-2"
    assert ledger.prune(910 * DAY, {"test_notes"}) == 0


def test_a_run_that_holds_its_index_stays_however_old_it_is(ledger):
    ledger.clock.now = 1_000 * DAY
    with IndexLease(ledger, "test_notes", "long"):
        ledger.clock.now = 800 * DAY
        ledger.start_run("long", "test_notes", host="h", pid=1)
        run(ledger, "newer", "test_notes", 900)
        assert ledger.prune(950 * DAY, {"test_notes"}) == 0
    assert ledger.prune(950 * DAY, {"test_notes"}) == 1


def test_failures_and_digests_of_indexes_that_are_gone_go(ledger):
    ledger.clock.now = 700 * DAY
    ours, other, gone = (collection(ledger, alias) for alias in ("test_notes", "other_notes", "test_gone"))
    ledger.fail(4711, [Failure("k", "reason", b"h")])  # of a collection that nobody knows
    for one in (ours, other, gone):
        ledger.fail(one, [Failure("k", "reason", b"h")])
        ledger.begin_scan()
        ledger.record_digests(one, {1: "one", 2: "two"}, unread=())
    for alias in ("test_notes", "test_gone"):
        run(ledger, f"run {alias}", alias, 700)
    run(ledger, "another project runs every night", "other_notes", 999)
    new = collection(ledger, "test_new")  # a first run is under way elsewhere
    ledger.record_digests(new, {1: "one"}, unread=())
    assert ledger.prune(910 * DAY, {"test_notes"}) == 4
    assert [ledger.count_failures(one) for one in (ours, other, gone, 4711)] == [1, 1, 0, 0]
    assert [len(ledger.digests(one)) for one in (ours, other, gone, new)] == [2, 2, 0, 1]


@pytest.mark.parametrize("step", range(1, 9))
def test_a_pruning_that_dies_has_deleted_nothing_and_is_repeated_by_the_next_run(ledger, monkeypatch, step):
    waits(ledger, "test_gone", 700)
    collection(ledger, "test_gone")
    run(ledger, "old", "test_notes", 700)
    run(ledger, "new", "test_notes", 999)
    write, left = type(ledger)._write, [step]

    def die(self, statement):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return write(self, statement)

    with monkeypatch.context() as patch:
        patch.setattr(type(ledger), "_write", die)
        with pytest.raises(KeyboardInterrupt):
            ledger.prune(910 * DAY, {"test_notes"})
    assert ledger.watch("test_gone").full_number is None
    assert ledger.prune(910 * DAY, {"test_notes"}) == 3


def waits(ledger: Any, alias: str, day: float) -> None:
    """Let a document and a look-up wait."""
    ledger.clock.now = day * DAY
    ledger.put_changes([(alias, "1", day * DAY)])
    ledger.put_look_ups([(alias, "customer_id", "2", day * DAY)])


def test_changes_and_watches_of_indexes_that_are_gone_go(ledger):
    for alias in ("test_notes", "test_gone", "other_lives", "other_runs", "other_watched"):
        waits(ledger, alias, 700)
    ledger.note_mended("test_gone", "night", 0, [("9", "new")])
    waits(ledger, "other_lives", 950)
    waits(ledger, "other_looks", 700)
    ledger.put_look_ups([("other_looks", "customer_id", "3", 950 * DAY)])
    run(ledger, "another project runs every night", "other_runs", 999)
    ledger.update_watch("other_watched", caught_up_at=950 * DAY)
    live = ("test_notes", "other_lives", "other_runs", "other_watched", "other_looks")
    before = {alias: ledger.watch(alias) for alias in live}
    assert ledger.prune(910 * DAY, {"test_notes"}) == 3
    assert ledger.count_waiting("test_gone") == 0
    assert ledger.watch("test_gone") is None
    assert ledger.last_mended("test_gone") is None
    assert {alias: ledger.watch(alias) for alias in before} == before
    assert [ledger.count_waiting(alias) for alias in before] == [2, 2, 2, 2, 3]


def test_an_index_that_comes_back_with_its_collection_has_lost_no_change(ledger):
    waits(ledger, "test_gone", 700)
    collection(ledger, "test_gone")
    assert ledger.prune(910 * DAY, {"test_notes"}) == 2
    back = ledger.watch("test_gone")
    assert back is not None
    assert back.full_number == back.last_number, "everything has to be read once"
    assert ledger.prune(910 * DAY, {"test_notes"}) == 0
    assert ledger.watch("test_gone") == back
    ledger.clear_changes("test_gone", back.last_number)
    assert ledger.watch("test_gone").full_number is None
    assert ledger.prune(910 * DAY, {"test_notes"}) == 0
    assert ledger.watch("test_gone").full_number is None, "nothing waited"


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
