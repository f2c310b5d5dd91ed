"""The pruning of what Prefect's temporary server keeps."""

from __future__ import annotations

import sqlite3
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from rag_index.orchestration.api_server import FILE_NAME, prune_history
from tests.forked_program import without_api
from tests.project import PROGRAM, Project

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86_400.0


def alone(project: Project, *arguments: str) -> None:
    """Run the program as a user without a Prefect server does."""
    command = [*PROGRAM, "--config", str(project.config), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=without_api(), check=False)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)


def counts(file: Path) -> dict[str, int]:
    connection = sqlite3.connect(file)
    try:
        tables = ("flow_run", "task_run", "flow_run_state", "task_run_state", "log", "events", "event_resources")
        return {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    finally:
        connection.close()


@pytest.mark.long
def test_runs_that_ended_long_ago_are_deleted_with_all_that_belongs_to_them(tmp_path):
    project = Project(tmp_path / "project").fill(20)
    alone(project, "index", "notes", "--workers", "1", "--shard-documents", "10")
    home = project.settings.data / "prefect"
    file = home / FILE_NAME
    before = counts(file)
    assert before["flow_run"] > 0
    assert before["event_resources"] > before["events"] > 0
    assert prune_history(home, 90) == prune_history(home, 1e300) == 0
    assert counts(file) == before, "nothing is old"
    with sqlite3.connect(file) as db:  # one that runs now, or was killed
        columns = [row[1] for row in db.execute("PRAGMA table_info(flow_run)")]
        values = ", ".join({"id": f"'{uuid.uuid4()}'", "end_time": "NULL"}.get(name, name) for name in columns)
        db.execute(f"INSERT INTO flow_run SELECT {values} FROM flow_run LIMIT 1")
    assert prune_history(home, 90, clock=lambda: time.time() + 91 * DAY) > 0
    assert counts(file)["flow_run"] == 1, "a run without an end may live"
    assert counts(file)["task_run"] == counts(file)["events"] == counts(file)["event_resources"] == 0
    prune_history(home, 90, clock=lambda: time.time() + 122 * DAY)
    assert counts(file)["flow_run"] == counts(file)["flow_run_state"] == counts(file)["log"] == 0
    alone(project, "rebuild", "notes", "--workers", "1", "--shard-documents", "10")  # Prefect works with what is left
    assert counts(file)["flow_run"] > 0
    with sqlite3.connect(file) as db:
        db.execute("UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000'")
    alone(project, "index", "notes")
    assert counts(file)["flow_run"] == 0, "a run that needs no server prunes too"


def test_a_database_in_use_and_one_of_another_kind_are_left_alone(tmp_path):
    assert prune_history(tmp_path, 90) == 0
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("CREATE TABLE other (id INTEGER)")
    assert prune_history(tmp_path, 90) == 0
