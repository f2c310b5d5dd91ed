"""A run that begins plainly and is left to the flow: it continues from the ledger, nothing twice and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
from collections import Counter

import pytest

from rag_index.chunking.text import TextChunker
from rag_index.errors import TransientError
from rag_index.indexing.run import RunOptions
from rag_index.orchestration.launch import FlowStart, names_api
from rag_index.orchestration.plain_run import run_plainly
from tests.fakes.ollama import FakeOllama
from tests.forked_program import without_api
from tests.project import PROGRAM, Project


class Start(FlowStart):
    """A start that is ready once it was asked a number of times, and that runs the flow on the tests' server."""

    def __init__(self, project: Project, *, after: int, error: BaseException | None = None) -> None:
        self.asked, self.after, self.fails, self.calls = 0, after, error, []
        super().__init__(load_index_all, project.folder / ".prefect")

    @property
    def ready(self) -> bool:
        self.asked += 1
        return self.asked > self.after

    def call(self, **parameters):
        self.calls.append(parameters)
        if self.fails:
            raise self.fails
        return super().call(**parameters)


def load_index_all():
    from flows.index_all import index_all

    return index_all


def run(project: Project, start: FlowStart, **options):
    settings = project.settings
    return run_plainly(start, settings, settings.indexes, RunOptions(**options), config=str(project.config), **options)


@pytest.fixture(autouse=True)
def any_work_is_worth_it(monkeypatch):
    """The fake server is so fast that nothing would be left to workers once it is measured."""
    monkeypatch.setattr("rag_index.orchestration.plain_run.MIN_SECONDS_TO_CONTINUE", 0.0)


@pytest.fixture
def fake():
    with FakeOllama() as fake:
        yield fake


@pytest.fixture
def project(tmp_path, fake) -> Project:
    """A project whose embedder is slow enough, by the assumed rate, to be worth workers."""
    extra = fake.settings + "[parallel]\nmax_shard_documents = 200\n"
    return Project(tmp_path / "project", extra=extra).fill(2500)


def query(project: Project, statement: str) -> list:
    with sqlite3.connect(project.folder / ".rag-index" / "ledger.db") as db:
        return db.execute(statement).fetchall()


@pytest.mark.long
def test_the_flow_continues_from_the_ledger(project, fake, prefect_server):
    start = Start(project, after=3)
    report = run(project, start)
    [outcome] = report.indexes
    assert (report.state, outcome.new, outcome.documents, outcome.unchanged) == ("completed", 2500, 2500, 0)
    assert [call["indexes"] for call in start.calls] == [["notes"]]
    texts = Counter(text for one in fake.embeds() for text in one.texts)
    assert [text for text, times in texts.items() if times > 1 and "ticket" in text] == [], "embedded twice"
    assert len(project.texts()) == 2500
    runs = query(project, "SELECT state, report FROM rag_index_runs ORDER BY started_at")
    assert [state for state, _ in runs] == ["continued", "completed"]
    done = [json.loads(one)["metrics"]["documents"] for _, one in runs]
    assert (0 < json.loads(runs[0][1])["new"] < 2500, done[1]) == (True, 2500)
    assert query(project, "SELECT run_id FROM rag_index_leases") == [(None,)]


@pytest.mark.long
def test_the_other_indexes_follow_in_the_flow(project, prefect_server):
    section = project.config.read_text().partition("[[indexes]]")[2]
    small, last = section.replace('"notes"', '"small"'), section.replace('"notes"', '"last"')
    small = small.replace('table = "note"', 'table = "few"')
    project.execute("CREATE TABLE few AS SELECT * FROM note WHERE id <= 20")
    before = project.config.read_text().partition("[[indexes]]")[0]
    project.write_settings(before + "".join(f"[[indexes]]{one}" for one in (small, section, last)))
    start = Start(project, after=1)
    report = run(project, start)
    assert [(one.index, one.new) for one in report.indexes] == [("small", 20), ("notes", 2500), ("last", 2500)]
    assert [call["indexes"] for call in start.calls] == [["notes", "last"]]
    assert len(query(project, "SELECT * FROM rag_index_runs")) == 4


@pytest.mark.long
def test_a_server_that_does_not_start_ends_the_run_and_nothing_is_lost(project, fake, prefect_server):
    with pytest.raises(TransientError, match="did not start"):
        run(project, Start(project, after=2, error=TransientError("the server did not start")))
    assert query(project, "SELECT state FROM rag_index_runs") == [("continued",)]
    assert query(project, "SELECT run_id FROM rag_index_leases") == [(None,)]
    done = query(project, "SELECT count(*) FROM rag_index_documents WHERE pending = 0")[0][0]
    assert 0 < done < 2500
    [outcome] = run(project, Start(project, after=10_000)).indexes
    assert (outcome.unchanged, outcome.new) == (done, 2500 - done)


class Deadly(TextChunker):
    """A chunker that one document makes kill its process."""

    def chunk(self, documents):
        if any("ticket 7 " in text for text in documents.texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().chunk(documents)


@pytest.mark.long
def test_a_shard_that_workers_could_have_had_ends_a_child_and_not_the_run(tmp_path, monkeypatch):
    project = Project(tmp_path / "project", extra="[parallel]\nmax_shard_documents = 100\n").fill(300)
    monkeypatch.setattr("rag_index.indexing.run.open_chunker", lambda settings, index: Deadly(200, 20))
    start = Start(project, after=10_000)
    [outcome] = run(project, start).indexes
    assert (outcome.new, outcome.failed, start.begun) == (299, 1, False)
    [(_, reason)] = query(project, "SELECT key, reason FROM rag_index_failed_documents")
    assert "dies on this document" in reason


@pytest.mark.parametrize(("active", "named"), [('"a"', True), ('"b"', False), ("not toml", False)])
def test_whoever_names_a_prefect_server_in_a_profile_sees_the_runs_there(tmp_path, monkeypatch, active, named):
    for name in os.environ.keys() - without_api().keys():
        monkeypatch.delenv(name)
    assert not names_api(tmp_path)
    profile = f'active = {active}\n[profiles.a]\nPREFECT_API_URL = "http://127.0.0.1:1/api"\n'
    (tmp_path / "profiles.toml").write_text(profile)
    assert names_api(tmp_path) is named


@pytest.mark.long
def test_workers_continue_a_command_without_a_prefect_server(tmp_path):
    """The real start: server, workers and flow; `--shard-documents` says that workers are to have the shards."""
    project = Project(tmp_path / "project").fill(600)
    command = [*PROGRAM, "--config", str(project.config), "index-all", "--shard-documents", "100", "--json"]
    ended = subprocess.run(command, env=without_api(), capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    [outcome] = json.loads(ended.stdout)["indexes"]
    assert outcome["new"] == len(project.texts()) == 600
    [metrics] = [run["metrics"] for run in project.json("report")["runs"]]
    assert (metrics["shards"], metrics["stages"]["wait"] > 0) == (6, True)
