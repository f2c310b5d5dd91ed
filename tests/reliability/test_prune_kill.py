"""What is pruned, on the files that real runs made; and a death in the midst of it, at every step."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.chunking.context.cache import cache_url, count_contexts
from rag_index.ledger import Ledger
from tests.fakes.ollama import FakeOllama
from tests.project import PROGRAM, Project

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
DAY = 86_400.0
OLD = 100 * DAY
DOCUMENTS = 40
EVERY = 4
"""A death at each so-many-th step, from a random one on: a whole pruning has more than 150."""


def alone(project: Project, *arguments: str) -> None:
    """Run the program as a user without a Prefect server does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [*PROGRAM, "--config", str(project.config), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, env=clean, check=False)
    assert ended.returncode == 0, (ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def writer():
    with FakeOllama(model="writer") as fake:
        yield fake


@pytest.fixture(scope="module")
def project(tmp_path_factory, writer):
    """A project with a year of history in every place where something grows."""
    project = Project(tmp_path_factory.mktemp("pruned") / "project").fill(DOCUMENTS)
    text = project.config.read_text()
    project.write_settings(f'{text}[indexes.context]\nmodel = "writer"\nhosts = ["{writer.url}"]\n')
    alone(project, "index", "notes", "--shard-documents", "10", "--workers", "1")  # by the flow, with a Prefect server
    project.execute("UPDATE note SET body = body || ' Changed.' WHERE id <= 20")
    alone(project, "index", "notes", "--serial")
    data = project.settings.data
    assert (data / "prefect" / "prefect.db").is_file()
    trash = data / "qdrant" / "trash" / "dropped-4711" / "segments"
    trash.mkdir(parents=True)
    for name in ("a", "b", "c"):
        (trash / name).write_bytes(b"x")
    with closing(Ledger(project.settings.ledger_url)) as ledger:
        now = ledger.clock()
        ledger.clock = lambda: now - OLD
        for number in range(5):
            ledger.start_run(f"old {number}", "test_notes", host="h", pid=1)
        ledger.put_changes([("test_gone", str(number), now - OLD) for number in range(3)])
        ledger.put_look_ups([("test_gone", "customer_id", "7", now - OLD)])
        ledger.put_changes([("test_notes", "1", now - OLD)])
        given = {"store_id": "s", "embedder_fingerprint": "e", "embedder": "e", "chunking": "c", "dimension": 4}
        gone = ledger.add_collection(alias="test_gone", name="test_gone__1", state="ready", **given).id
        ledger.begin_scan()
        ledger.record_digests(gone, {1: "one", 2: "two"}, unread=())
    with closing(sqlite3.connect(data / "contexts.db")) as db, db:
        db.execute("UPDATE rag_index_contexts SET used_day = used_day - 100")
    return project


def test_a_death_at_any_step_of_pruning_loses_nothing_and_the_next_run_finishes_it(project, writer):
    victim = [sys.executable, "-m", "tests.reliability.prune_victim", str(project.folder), project.config.name]
    victim += [str(random.randint(1, EVERY)), str(EVERY)]
    ended = subprocess.run(victim, capture_output=True, text=True, timeout=550, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stderr
    trials = [json.loads(line) for line in ended.stdout.splitlines()]
    *deaths, whole = trials
    assert not whole["killed"]
    assert all(trial["killed"] for trial in deaths)
    assert len(deaths) > 30, "statements and files"
    expected = whole["died"]
    places = {place for place, rows in expected.items() if any(trial["died"][place] != rows for trial in deaths)}
    assert {place.split(" ")[0] for place in places} == {"trash", "ledger.db", "contexts.db"}
    for trial in trials:
        for place, rows in expected.items():
            assert set(rows) <= set(trial["died"][place]), place
        assert trial["after"] == expected
    assert expected["trash"] == []
    waiting = expected["ledger.db rag_index_inbox"]
    assert ["'test_notes'" in row for row in waiting] == [True], "an index that lives loses no change"


def test_the_next_run_prunes_it_all_and_a_rebuild_asks_the_model_for_nothing(project, writer):
    before = project.json("doctor")["kept"]
    assert (before["old_runs"], before["old_changes"], before["old_buckets"]) == (5, 4, 2)
    assert before["prefect_bytes"] > 0
    assert before["trash_bytes"] > 0
    contexts = before["contexts"]
    alone(project, "index", "notes", "--serial")
    kept = project.json("doctor")["kept"]
    assert {name: kept[name] for name in kept if name.startswith("old_")} == dict.fromkeys(
        ("old_runs", "old_failed", "old_changes", "old_watches", "old_buckets"), 0
    )
    assert 0 < kept["contexts"] < contexts, "those of the texts that were changed are gone"
    asked = len(writer.generates())
    alone(project, "rebuild", "notes", "--serial")
    assert len(writer.generates()) == asked
    assert count_contexts(cache_url(project.settings.ledger_url)) == kept["contexts"]
    assert project.json("doctor")["findings"] == []
