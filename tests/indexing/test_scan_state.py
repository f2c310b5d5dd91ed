"""Runs of an index with `changed_since`: nothing is lost by what they leave unread."""

from __future__ import annotations

import pytest

from rag_index.ledger import Ledger
from tests.fakes.ollama import FakeOllama
from tests.project import Project

AGES = "strftime('%Y-%m-%d %H:%M:%S', 'now', '-{days} days')"


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(200)
    project.execute("ALTER TABLE note ADD COLUMN at TEXT")
    project.execute(f"UPDATE note SET at = {AGES.format(days=30)}")
    project.execute(f"UPDATE note SET at = {AGES.format(days=3)} WHERE id = 200")
    project.write_settings(project.config.read_text() + 'changed_since = "at"\n')
    return project


def figures(project, **parameters) -> dict:
    outcome = project.run(**parameters).indexes[0].to_json()
    assert outcome["state"] == "completed", outcome
    names = ("new", "changed", "payload_only", "unchanged", "empty", "deleted", "failed")
    assert outcome["documents"] == sum(outcome[name] for name in names if name != "deleted")
    return {name: outcome[name] for name in names if outcome[name]}


def change(project, number: int, *, days: int, body: str = "Another story.") -> None:
    project.execute(f"UPDATE note SET body = ?, at = {AGES.format(days=days)} WHERE id = ?", body, number)


def test_changes_deletions_and_rows_with_an_old_time_are_followed(project):
    assert figures(project) == {"new": 200}
    assert figures(project) == {"unchanged": 200}
    change(project, 7, days=0)
    project.execute("DELETE FROM note WHERE id IN (40, 41)")
    project.execute(f"INSERT INTO note VALUES (900, 'Old', 'imported with its time', 'a', 1, {AGES.format(days=900)})")
    project.execute("INSERT INTO note VALUES (901, 'None', 'has no time', 'a', 1, NULL)")
    project.execute(f"UPDATE note SET title = '', body = NULL, at = {AGES.format(days=0)} WHERE id = 50")
    assert figures(project) == {"new": 2, "changed": 1, "unchanged": 196, "empty": 1, "deleted": 3}
    assert project.texts()["7"] == ["Note 7\nAnother story."]
    assert figures(project) == {"unchanged": 199, "empty": 1}


@pytest.mark.long
def test_a_change_without_a_new_time_waits_for_the_full_compare(project):
    figures(project)
    figures(project)
    change(project, 7, days=30, body="changed behind its back")
    assert figures(project) == {"unchanged": 200}, "rows are left unread, else this would have been seen"
    later = Ledger(project.settings.ledger_url)
    with later.transaction() as connection:
        connection.exec_driver_sql("UPDATE rag_index_scan_states SET full_at = full_at - 7 * 86400")
    later.close()
    assert figures(project) == {"changed": 1, "unchanged": 199}


@pytest.mark.long
def test_other_settings_of_the_index_are_a_reason_to_read_all(project):
    figures(project)
    project.write_settings(project.config.read_text().replace('["author", "priority"]', '["author"]'))
    assert figures(project) == {"payload_only": 200}


@pytest.mark.long
def test_what_failed_is_tried_again_though_it_did_not_change(tmp_path):
    with FakeOllama() as fake:
        hosts = f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\nwait_for_recovery = 5\n'
        project = Project(tmp_path / "p", extra=hosts).fill(50)
        project.execute("ALTER TABLE note ADD COLUMN at TEXT")
        project.execute(f"UPDATE note SET at = {AGES.format(days=30)}")
        project.execute(f"UPDATE note SET at = {AGES.format(days=3)} WHERE id = 50")
        project.execute("UPDATE note SET body = 'POISON' WHERE id = 17")
        project.write_settings(project.config.read_text() + 'changed_since = "at"\n[run]\ntolerate_failed = 0.5\n')
        fake.fault("status", code=400, marker="POISON")
        for _ in range(5):
            assert project.run().indexes[0].failed == 1
        fake.clear()
        fake.requests.clear()
        given_up = project.run().indexes[0]
        assert (given_up.failed, given_up.unchanged) == (1, 49)
        assert project.run(retry_failed=True).indexes[0].new == 1
        assert figures(project) == {"unchanged": 50}


@pytest.mark.long
def test_a_run_that_did_not_come_to_its_end_is_not_relied_on(project):
    figures(project)
    project.execute("DELETE FROM note WHERE id > 50")  # more than delete_guard allows
    project.execute(f"UPDATE note SET title = '', body = NULL, at = {AGES.format(days=0)} WHERE id = 30")
    assert project.run().state == "partial"
    assert figures(project, allow_deletes=True) == {"unchanged": 49, "empty": 1, "deleted": 151}
    assert "30" not in project.texts()
