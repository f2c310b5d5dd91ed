"""Values that nobody decided on: their rows leave the index, are reported, and are no loss to the
delete guard."""

import json
from contextlib import closing

import pytest

from rag_index.care.plan import plan_runs
from rag_index.components.sources.sql import SqlSource
from rag_index.errors import SourceUnavailable
from rag_index.etl import deletes
from tests.etl.plain import Nights, run_plain
from tests.project import Project, run_here

VISIBLE = """
[indexes.visible.priority]
show = [0, 1]
hide = [2]
"""
REMARKS = """
[[indexes.parts]]
table = "remark"
on = "note_id"
key = "id"
text = "words"
where = "$visible(remark.kind)"

[indexes.visible."remark.kind"]
show = ["public"]
"""
ARCHIVED = [{"name": "priority", "value": "7", "rows": 60}]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Guard from ten deletions on, for indexes that are as small."""
    monkeypatch.setattr(deletes, "UNGUARDED_DELETES", 10)


@pytest.fixture
def clock() -> Nights:
    return Nights()


@pytest.fixture
def project(tmp_path) -> Project:
    """A project with 100 notes, all of which are shown."""
    project = Project(tmp_path / "project").fill(100)
    project.execute("UPDATE note SET priority = id % 2")
    decide(project, VISIBLE)
    return project


@pytest.fixture
def desk(project, clock) -> Project:
    """The same, indexed."""
    assert run_plain(project, clock=clock).state == "completed"
    return project


def decide(project, tables, before=""):
    """Put tables of settings at the end of the index, in place of others."""
    text = project.config.read_text(encoding="utf-8")
    project.write_settings((text.partition(before)[0] if before else text) + tables)


def ids(project: Project) -> set[int]:
    return {int(payload["_rag"]["document_id"]) for payload, _ in project.points().values()}


def archive(project, where="id <= 60"):
    project.execute(f"UPDATE note SET priority = 7 WHERE {where}")


def test_rows_of_a_new_value_leave_the_index_without_the_guard_and_are_reported(desk, clock):
    archive(desk)
    [plan] = plan_runs(desk.settings, desk.settings.indexes)
    assert (plan.gone, plan.held_back, plan.to_json()["undecided"]) == (60, 0, ARCHIVED)
    outcome = run_plain(desk, clock=clock)
    assert (outcome.state, outcome.deleted, outcome.held_back) == ("completed", 60, 0)
    assert outcome.to_json()["undecided"] == ARCHIVED
    said = (
        "nobody decided who may see '7' (60 rows) of priority, so these rows are shown to nobody:"
        " add the values to show or hide in [indexes.visible.priority], and run `rag-index index"
        " notes`"
    )
    assert (outcome.message, plan.message) == (said, said)
    assert ids(desk) == set(range(61, 101))
    [status] = json.loads(run_here(desk.config, "status", "--json")[0])["indexes"]
    assert status["undecided"] == ARCHIVED
    assert said in run_here(desk.config, "status")[0]


def test_a_decision_is_followed_by_the_next_run(desk, clock):
    archive(desk)
    run_plain(desk, clock=clock)
    decide(desk, VISIBLE.replace("[0, 1]", "[0, 1, 7]"), before=VISIBLE)
    outcome = run_plain(desk, clock=clock)
    assert (outcome.new, outcome.message, outcome.to_json().get("undecided")) == (60, "", None)
    decide(desk, VISIBLE.replace("[2]", "[2, 7]"), before="\n[indexes.visible")
    assert run_plain(desk, clock=clock).held_back == 60, (
        "a person who hides what was shown has to allow it"
    )


def test_rows_that_are_gone_still_count(desk, clock):
    archive(desk, "id <= 30")
    desk.execute("DELETE FROM note WHERE id > 70")
    outcome = run_plain(desk, clock=clock)
    assert (outcome.state, outcome.held_back, outcome.deleted) == ("partial", 30, 30)
    assert "30 of 100 documents would be deleted" in outcome.message
    assert ids(desk) == set(range(31, 101)), (
        "what nobody decided on is shown to nobody all the same"
    )
    assert run_plain(desk, clock=clock, allow_deletes=True).deleted == 30
    assert ids(desk) == set(range(31, 71))


def test_rows_that_a_decision_hides_count_as_before(desk, clock):
    desk.execute("UPDATE note SET priority = 2 WHERE id <= 60")
    outcome = run_plain(desk, clock=clock)
    assert (outcome.held_back, outcome.undecided) == (60, [])


def test_a_row_that_is_hidden_anyway_is_no_question(desk, clock):
    decide(desk, '\n[indexes.visible.author]\nshow = ["author 1"]\nhide = ["author 2"]\n')
    desk.execute("UPDATE note SET author = 'author 1'")
    desk.execute("UPDATE note SET priority = 7, author = 'author 2' WHERE id <= 25")
    desk.execute("UPDATE note SET priority = 7, author = 'author 9' WHERE id > 98")
    outcome = run_plain(desk, clock=clock)
    assert outcome.held_back == 25
    found = [
        {"name": "author", "value": "author 9", "rows": 2},
        {"name": "priority", "value": "7", "rows": 2},
    ]
    assert sorted(outcome.to_json()["undecided"], key=lambda one: one["name"]) == found


def test_what_was_no_loss_does_not_make_a_later_loss_larger(desk, clock):
    archive(desk, "id <= 60")
    run_plain(desk, clock=clock)
    desk.execute("DELETE FROM note WHERE id > 89")
    outcome = run_plain(desk, clock=clock)
    assert (outcome.held_back, outcome.message.startswith("11 of 40 documents would be")) == (
        11,
        True,
    )
    desk.execute(
        "INSERT INTO note SELECT id + 100, title, body, author, 0 FROM note WHERE id BETWEEN 61"
        " AND 69"
    )
    assert run_plain(desk, clock=clock, allow_deletes=True).deleted == 11


def test_a_small_loss_after_it_is_deleted(desk, clock):
    archive(desk, "id <= 15")
    assert run_plain(desk, clock=clock).deleted == 15
    desk.execute("DELETE FROM note WHERE id > 85")
    assert run_plain(desk, clock=clock).deleted == 15, "together 30 of 100 would be too many"


def test_a_rebuilt_collection_may_lack_what_nobody_decided_on(desk):
    archive(desk)
    [outcome] = desk.run(full=True).indexes
    assert (outcome.state, outcome.to_json()["undecided"], len(ids(desk))) == (
        "completed",
        ARCHIVED,
        40,
    )
    desk.execute("DELETE FROM note WHERE id > 80")
    [outcome] = desk.run(full=True).indexes
    assert "20 of 40 documents of the live collection" in outcome.message
    assert desk.run().indexes[0].state == "partial"


def test_rows_of_parts_that_nobody_decided_on_are_not_lost(project, clock):
    project.execute(
        "CREATE TABLE remark (id INTEGER PRIMARY KEY, note_id INTEGER, words TEXT, kind TEXT)"
    )
    project.execute("INSERT INTO remark SELECT id, id, 'a remark', 'public' FROM note")
    decide(project, REMARKS)
    run_plain(project, clock=clock)
    project.execute("UPDATE remark SET kind = 'draft' WHERE id > 20")
    outcome = run_plain(project, clock=clock)
    assert (outcome.state, outcome.changed) == ("completed", 80)
    assert outcome.to_json()["undecided"] == [{"name": "remark.kind", "value": "draft", "rows": 80}]
    assert "draft' (80 rows) of remark.kind" in outcome.message
    assert '[indexes.visible."remark.kind"]' in outcome.message
    project.execute("DELETE FROM remark WHERE id <= 30")
    assert "part remark has 70 rows where it had 100" in project.run().indexes[0].message


def test_documents_that_another_table_hides_are_not_lost_either(project, clock):
    project.execute("CREATE TABLE folder (id INTEGER PRIMARY KEY, kind TEXT)")
    project.execute("INSERT INTO folder VALUES (0, 'open'), (1, 'open')")
    folders = "priority IN (SELECT id FROM folder WHERE $visible(folder.kind))"
    text = project.config.read_text(encoding="utf-8").replace(
        'key = "id"', f'key = "id"\nwhere = "{folders}"'
    )
    project.write_settings(text + '\n[indexes.visible."folder.kind"]\nshow = ["open"]\n')
    run_plain(project, clock=clock)
    project.execute("UPDATE folder SET kind = 'new' WHERE id = 1")
    outcome = run_plain(project, clock=clock)
    assert (outcome.deleted, outcome.held_back) == (50, 0)
    assert outcome.to_json()["undecided"] == [{"name": "folder.kind", "value": "new", "rows": 1}]


def test_a_count_that_fails_stops_no_run_and_keeps_the_guard(desk, clock, monkeypatch, caplog):
    def fail(self):
        raise SourceUnavailable("the source does not answer")

    archive(desk)
    monkeypatch.setattr(SqlSource, "undecided_values", fail)
    outcome = run_plain(desk, clock=clock)
    assert (outcome.state, outcome.held_back) == ("partial", 60)
    assert (
        "notes: values that nobody decided on could not be counted: the source does not answer"
        in caplog.text
    )


def test_a_time_that_passes_without_a_write_is_seen_by_the_next_run(project, clock):
    decide(
        project,
        '\n[indexes.visible.author]\nkind = "time"\nshow = ["empty", "future"]\nhide = ["past"]\n',
    )
    project.execute("UPDATE note SET author = NULL")
    project.execute("UPDATE note SET author = datetime('now', '+3 seconds') WHERE id <= 5")
    assert run_plain(project, clock=clock).new == 100
    with closing(project.source()) as db:
        while db.execute("SELECT max(author) > datetime('now') FROM note").fetchone() == (1,):
            pass
    outcome = run_plain(project, clock=clock)
    assert (outcome.deleted, ids(project)) == (5, set(range(6, 101)))


def test_a_document_of_such_a_row_is_deleted_by_its_id(desk):
    archive(desk, "id = 5")
    run_here(desk.config, "index", "notes", "--id", "5")
    assert 5 not in ids(desk)


def test_why_names_the_decision_that_hides_a_document(desk):
    archive(desk, "id = 5")
    found = json.loads(run_here(desk.config, "search", "--why", "notes/5", "printer", "--json")[0])
    assert found["reason"] == "where"
    assert (
        found["message"]
        == "The row is there, but hidden by visible.priority, which does not show its value."
    )


def test_many_values_are_cut(desk, clock):
    desk.execute("UPDATE note SET priority = 1000 + id WHERE id <= 50")
    desk.execute("UPDATE note SET priority = 7 WHERE id <= 4")
    outcome = run_plain(desk, clock=clock)
    assert (outcome.deleted, len(outcome.undecided), outcome.undecided[0].rows) == (50, 20, 4)
    assert "'7' (4 rows), " in outcome.message
    assert " and 17 more of priority" in outcome.message
