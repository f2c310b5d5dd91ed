"""Runs of an index with `changed_since`: nothing is lost by what they leave unread."""

import shutil
import sqlite3
from contextlib import closing, nullcontext

import pytest

from tests.etl.plain import Died, counts, run_plain
from tests.project import Project

AGES = "strftime('%Y-%m-%d %H:%M:%S', 'now', '-{days} days')"


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(100)
    project.execute("ALTER TABLE note ADD COLUMN at TEXT")
    project.execute(f"UPDATE note SET at = {AGES.format(days=30)}")
    project.execute(f"UPDATE note SET at = {AGES.format(days=3)} WHERE id = 100")
    project.write_settings(project.config.read_text() + 'changed_since = "at"\n')
    assert figures(project) == {"new": 100}
    return project


def figures(project) -> dict:
    return counts(run_plain(project))


def test_changes_deletions_and_rows_with_an_old_time_are_followed(project):
    assert figures(project) == {"unchanged": 100}
    project.execute(f"UPDATE note SET body = 'Another story.', at = {AGES.format(days=0)} WHERE id = 7")
    project.execute("DELETE FROM note WHERE id IN (40, 41)")
    project.execute(f"INSERT INTO note VALUES (900, 'Old', 'imported with its time', 'a', 1, {AGES.format(days=900)})")
    project.execute("INSERT INTO note VALUES (901, 'None', 'has no time', 'a', 1, NULL)")
    project.execute(f"UPDATE note SET title = '', body = NULL, at = {AGES.format(days=0)} WHERE id = 50")
    assert figures(project) == {"new": 2, "changed": 1, "unchanged": 96, "empty": 1, "deleted": 3}
    assert project.texts()["7"] == ["Note 7\nAnother story."]
    assert figures(project) == {"unchanged": 99, "empty": 1}


@pytest.mark.parametrize("died", [False, True])
def test_what_a_wrong_database_overwrote_is_read_again(project, died):
    """A copy of the database for tests, say, with the same keys and newer times."""
    right, settings = project.points(), project.config.read_text()
    shutil.copy(project.folder / "source.db", project.folder / "copy.db")
    with closing(sqlite3.connect(project.folder / "copy.db")) as db, db:
        db.execute(f"UPDATE note SET body = 'only a test', at = {AGES.format(days=0)}")
    project.write_settings(settings.replace("source.db", "copy.db"))
    with pytest.raises(Died) if died else nullcontext():
        assert run_plain(project, delete=not died).changed == 100
    project.write_settings(settings)
    assert figures(project) == {"changed": 100}
    assert project.points() == right


def test_an_ordinary_night_leaves_the_rhythm_of_the_full_comparison_alone(project):
    due = {"changed": 5, "unchanged": 95}  # also after a run whose clock was ahead
    for days, found in ((6, {"unchanged": 100}), (2, due), (-400, due)):
        project.execute("UPDATE note SET title = ? WHERE id <= 5", f"without a new time {days}")
        with closing(sqlite3.connect(project.folder / ".rag-index/ledger.db")) as db, db:
            db.execute("UPDATE rag_index_scan_states SET full_at = full_at - ? * 86400", (days,))
        assert figures(project) == found
