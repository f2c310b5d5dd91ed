"""Somebody is told: a run that failed, one whose machine died, a night without a worker. A receiver on loopback."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from tests.deployments.server import wait_until
from tests.fakes.ollama import FakeOllama
from tests.project import Project

NAMES = ["not complete", "crashed", "not heard of", "late", "missing"]


@pytest.fixture
def receiver():
    """What a webhook was sent, and its URL."""
    told: list[dict] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield told, f"http://127.0.0.1:{server.server_port}/hook-with-a-secret"
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(30)


@pytest.fixture
def automations(deployed, project, receiver):
    """Made by the command, and taken away again."""

    def make(*options: str) -> list[dict]:
        _, url = receiver
        made = project.json("automations", "--webhook", url, *options, PREFECT_API_URL=f"{deployed.url}/api")
        assert made["automations"] == [f"rag-index: {name}" for name in NAMES]
        return deployed.post("/automations/filter")

    yield make
    for one in deployed.post("/automations/filter"):
        deployed.delete(f"/automations/{one['id']}")


def about(told, state) -> list[dict]:
    return [one for one in told if one["state"] == state]


def test_a_server_has_to_be_named(project, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    ended = project.cli("automations", "--webhook", "https://example.org/x")
    assert ended.returncode == 2
    assert "PREFECT_API_URL" in ended.stderr
    assert project.cli("automations", "--webhook", "example.org").returncode == 2


@pytest.mark.long
def test_a_partial_run_calls_the_webhook_and_making_twice_makes_none_twice(
    deployed, project, receiver, automations, tmp_path
):
    told, url = receiver
    automations()
    assert len(automations()) == len(NAMES)
    assert url not in json.dumps(deployed.post("/block_documents/filter"))
    project.execute("INSERT INTO note VALUES (31, 'blob', ?, 'a', 1)", b"\x00\x01")
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
        run = deployed.ended(deployed.start("index-all/index-all", serial=True)["id"])
        assert run["state_name"] == "PartiallyIndexed"
        wait_until(lambda: about(told, "PartiallyIndexed"), "the webhook is called", seconds=30)
    said = told[0]
    assert all(one == said for one in told), "Prefect delivers at least once"
    assert said["flow_run"] == "index all"
    assert said["id"] == run["id"]
    assert run["id"] in said["url"]
    assert "1 document failed: `rag-index failed notes` lists them" in said["message"]
    assert said["text"].startswith("rag-index: index all ended incomplete: PartiallyIndexed 1 index: 30 documents")


@pytest.mark.long
def test_a_run_whose_machine_dies_is_crashed_and_told_within_minutes(deployed, tmp_path, receiver, automations):
    told, _ = receiver
    automations("--silent-after", "60")
    with FakeOllama() as fake:
        fake.seconds_per_text = 1.0
        embedder = f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\n'
        project = Project(tmp_path / "slow", extra=embedder).fill(500)
        with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)) as worker:
            run = deployed.start("index-all/index-all", workers=1, shard_documents=10)["id"]
            wait_until(fake.embeds, "documents are being embedded", seconds=60)
            for process in [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]:
                process.kill()
            killed = time.monotonic()
            ended = deployed.ended(run, seconds=150)
            wait_until(lambda: about(told, "Crashed"), "the webhook is called", seconds=30)
            assert time.monotonic() - killed < 150
    assert ended["state_name"] == "Crashed"
    assert "not heard of for 60 s" in ended["state"]["message"]
    said = about(told, "Crashed")[0]
    assert (said["flow_run"], said["id"]) == ("index all", run)


@pytest.mark.long
def test_a_night_that_does_not_happen_is_told(deployed, receiver, automations):
    told, _ = receiver
    automations("--late-after", "10", "--missing-after", "0.01")
    run = deployed.start("index-all/index-all", state={"type": "SCHEDULED"})["id"]  # and no worker is there
    wait_until(lambda: about(told, "Late"), "a late run is told", seconds=90)
    said = about(told, "Late")[0]
    assert said["id"] == run
    assert "was not started: is a worker running?" in said["text"]
    wait_until(lambda: about(told, "Missing"), "a missing run is told", seconds=90)
    deployed.delete(f"/flow_runs/{run}")
