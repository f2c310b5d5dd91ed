"""Runs of an index with `changed_since`: nothing is lost by what they leave unread."""

from __future__ import annotations

import pytest

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
