"""A queue of triggers in SQLite, from the printed SQL to what a search finds."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from rag_index.status.status import status
from rag_index.watch import collector
from rag_index.watch.loop import Stop
from rag_index.watch.plain import PlainRunner, open_watch
from tests.project import SETTINGS, Project
from tests.waiting import eventually

SECOND = """
[[indexes]]
name = "titles"
table = "note"
key = "id"
text = "title"
"""


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project", extra='changes = "queue"').fill(30)
    project.write_settings(SETTINGS.format(extra='changes = "queue"') + SECOND)
    return project


def run(project, *arguments):
    ended = project.cli(*arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def set_up(project):
    with project.source() as db:
        db.executescript(run(project, "watch", "--setup"))


@pytest.mark.long
def test_changes_are_indexed_and_those_of_an_index_that_is_not_watched_wait(project):
    refused = project.cli("watch", "--once")
    assert refused.returncode == 2
    assert "the source has no queue rag_index_test; run the SQL that `rag-index watch --setup` prints" in refused.stderr
    set_up(project)
    run(project, "watch", "--once")
    everything = {str(number) for number in range(1, 31)}
    assert project.texts("notes").keys() == project.texts("titles").keys() == everything
    project.execute("DELETE FROM note WHERE id = 7")
    project.execute("UPDATE note SET id = 400 WHERE id = 8")
    run(project, "watch", "notes", "--once")
    after = everything - {"7", "8"} | {"400"}
    assert (project.texts("notes").keys(), project.texts("titles").keys()) == (after, everything)
    run(project, "watch", "--once")
    assert project.texts("titles").keys() == after
    assert "leave out the names" in project.cli("watch", "notes", "--setup").stderr


@pytest.mark.long
@pytest.mark.parametrize("changes", ["queue", "poll"])
def test_a_table_that_is_gone_keeps_no_other_from_being_watched(tmp_path, changes):
    second = SECOND.replace('"note"', '"other"') + 'changed_since = "at"\n'
    project = Project(tmp_path / "project", extra=f'changes = "{changes}"').fill(5)
    project.write_settings(project.config.read_text() + 'changed_since = "author"\n' + second)
    project.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, title TEXT, at TEXT)")
    project.execute("INSERT INTO other VALUES (1, 'one', '2026-01-01')")
    project.execute("UPDATE note SET author = '2026-01-01'")
    if changes == "queue":
        set_up(project)
    run(project, "watch", "--once")
    project.execute("DROP TABLE note")
    project.execute("UPDATE other SET title = 'two', at = datetime('now')")
    ended = project.cli("watch", "--once")
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "notes: changes cannot be received: " in ended.stderr
    assert project.texts("titles")["1"] == ["two"]
    record = project.json("status")["indexes"][0]["watch"]
    assert "note" in record["message"]


@pytest.mark.long
def test_a_running_watch_notices_that_its_triggers_are_gone(project, monkeypatch):
    """A table that is swapped by a rename has none, and gives nothing, as if nothing changed."""
    set_up(project)
    monkeypatch.setattr(collector, "CHECK_SECONDS", 0.05)
    settings, stop = project.settings, Stop()

    def states():
        return {((one.watch or {}).get("state"), one.documents) for one in status(settings).indexes}

    def known_by():
        return {(one.as_of or {}).get("known_by") for one in status(settings).indexes}

    with closing(PlainRunner(settings)) as runner, open_watch(settings, None, runner, stop) as watch:
        thread = threading.Thread(target=watch.run)
        thread.start()
        try:
            eventually(lambda: states() == {("running", 30)} and known_by() == {"queue"})
            with project.source() as db:
                db.executescript(
                    "ALTER TABLE note RENAME TO gone; CREATE TABLE note AS SELECT * FROM gone WHERE id < 9"
                )
            eventually(lambda: states() == {("failing", 30)})
            assert known_by() == {None}  # nobody knows since when
            set_up(project)
            eventually(lambda: states() == {("running", 8)} and known_by() == {"queue"})
        finally:
            stop.set()
            thread.join()
