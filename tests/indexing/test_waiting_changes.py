"""A run that reads only what has changed since does not settle what waits in the inbox of a watch."""

from __future__ import annotations

from contextlib import closing

import pytest

from rag_index.ledger import Ledger
from tests.indexing.plain import run_plain
from tests.project import Project

SETTINGS = """\
project = "test"
[source]
url = "sqlite:///source.db"
[[indexes]]
name = "notes"
query = "SELECT n.id, n.title, n.at, p.name FROM note n JOIN person p ON p.id = n.person"
key = "id"
text = "{name}: {title}"
changed_since = "at"
"""


@pytest.fixture
def project(tmp_path):
    """An index that was read whole, and whose next run reads only what has changed since."""
    project = Project(tmp_path / "project")
    project.write_settings(SETTINGS)
    project.execute("DROP TABLE note")
    project.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, at TEXT, person INTEGER)")
    project.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT)")
    project.execute("INSERT INTO person VALUES (1, 'kim'), (2, 'bo')")
    for number in range(1, 21):
        project.execute("INSERT INTO note VALUES (?, 'a title', '2026-01-01 10:00:00', ?)", number, number % 2 + 1)
    project.execute("INSERT INTO note VALUES (99, 'a later title', '2026-06-01 10:00:00', 2)")
    assert run_plain(project).new == 21
    project.execute("UPDATE person SET name = 'kim lee' WHERE id = 1")
    return project


def test_what_waits_in_the_inbox_still_waits_after_a_run_that_left_it_unread(project):
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.put_changes([("test_notes", str(number), 0.0) for number in range(2, 21, 2)])
        assert run_plain(project).changed == 0
        assert ledger.count_waiting("test_notes") == 10


def test_a_run_reads_everything_if_nobody_knows_what_changed(project):
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        ledger.need_full_scan("test_notes")
        assert run_plain(project).changed == 10
        record = ledger.watch("test_notes")
        assert record is not None
        assert record.full_number is None
        assert run_plain(project).changed == 0
