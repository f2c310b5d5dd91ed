"""Automations call a webhook: a run failed, its machine died, or no worker was there. The receiver
is on loopback."""

import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml

from tests.deployments.server import ROOT, SUSPENDED, kill_all
from tests.project import Project
from tests.waiting import eventually

pytestmark = pytest.mark.long

FILE = ROOT / "deployments" / "automations.yaml"


@pytest.fixture
def receiver():
    """Yield the calls of a webhook, and its URL."""
    calls: list[dict] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            calls.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield calls, f"http://127.0.0.1:{server.server_port}/hook-with-a-secret"
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path) -> Project:
    return Project(tmp_path / "project").fill(30)


@pytest.fixture
def automations(deployed, receiver, tmp_path):
    """Make the automations of the file by Prefect's command, and delete them at the end."""

    def make(**seconds: float) -> list[dict]:
        """`seconds` has how long some of them wait, by name."""
        saved = (
            'from prefect.blocks.webhook import Webhook; print(Webhook(url="%s").save("rag-index",'
            " overwrite=True))"
        )
        program = [sys.executable, "-c", saved % receiver[1]]
        block = subprocess.run(
            program, env=deployed.environment, capture_output=True, text=True, check=True
        ).stdout
        text = FILE.read_text(encoding="utf-8").replace("WEBHOOK_BLOCK_ID", block.strip())
        wanted = yaml.safe_load(text)["automations"]
        for one in wanted:
            name = one["name"].removeprefix("rag-index: ").replace(" ", "_")
            one["trigger"]["within"] = seconds.get(name, one["trigger"].get("within", 0))
        path = tmp_path / "automations.yaml"
        path.write_text(yaml.safe_dump({"automations": wanted}))
        deployed.prefect("automation", "create", "--from-file", str(path))
        made = deployed.post("/automations/filter")
        assert len(made) == len(wanted)
        return made

    yield make
    for one in deployed.post("/automations/filter"):
        deployed.delete(f"/automations/{one['id']}")


def calls_about(calls, state) -> list[dict]:
    return [one for one in calls if one["state"] == state]


def test_a_partial_run_calls_the_webhook(deployed, project, receiver, automations, tmp_path):
    calls, url = receiver
    automations()
    assert url not in json.dumps(deployed.post("/block_documents/filter"))
    project.execute("INSERT INTO note VALUES (31, 'blob', ?, 'a', 1)", b"\x00\x01")
    with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
        run = deployed.wait_for_end(deployed.start("index-all/index-all", serial=True)["id"])
        assert (run["state_name"], run["tags"]) == ("Failed", ["partial", "rag-index"])
        eventually(lambda: calls_about(calls, "Failed"), "the webhook is called", every=0.25)
    call = calls[0]
    assert all(one == call for one in calls), "Prefect delivers at least once"
    page = f"{deployed.url}/runs/flow-run/{run['id']}"
    assert (call["flow_run"], call["id"], call["url"]) == ("index all", run["id"], page)
    assert "1 document failed: `rag-index status notes --failed` lists them" in call["message"]
    assert call["text"].startswith(
        "rag-index: index all: Failed partially indexed: 1 index: 30 documents"
    )


def worker_is_stopped(worker) -> None:
    worker.terminate()
    worker.wait(timeout=120)


def test_runs_that_lose_their_machine_or_worker_are_reported_and_the_next_goes_on(
    deployed, tmp_path, receiver, automations, fake
):
    calls, _ = receiver
    automations(not_heard_of=60, not_begun=60, not_started=60)
    runs = {}
    fake.seconds_per_text = 1.0
    for happens in (kill_all, worker_is_stopped):
        project, before = (
            Project(tmp_path / happens.__name__, extra=fake.settings).fill(100),
            len(fake.embeds()),
        )
        with deployed.worker(
            tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)
        ) as worker:
            run = deployed.start("index-all/index-all", workers=1, shard_documents=10)["id"]
            eventually(
                lambda before=before: len(fake.embeds()) > before,
                "documents are being embedded",
                every=0.25,
            )
            happens(worker)
        runs[run] = project
    fake.seconds_per_text = 0
    for run, project in runs.items():
        ended = deployed.wait_for_end(run)
        eventually(
            lambda run=run: any(one["id"] == run for one in calls_about(calls, "Crashed")),
            "it is called",
            every=0.25,
        )
        assert ended["state_name"] == "Crashed"
        assert "not heard of for" in ended["state"]["message"]
        [call, *_] = [one for one in calls_about(calls, "Crashed") if one["id"] == run]
        assert call["flow_run"] == "index all"
        with deployed.worker(tmp_path / "elsewhere", RAG_INDEX_CONFIG=str(project.config)):
            ended = deployed.wait_for_end(deployed.start("index-all/index-all")["id"])
        assert ended["state_name"] == "Completed", ended["state"]["message"]
        assert len(project.texts()) == 100


def test_runs_that_no_worker_and_no_process_cares_for_are_reported_or_ended(
    deployed, receiver, automations
):
    calls, _ = receiver
    automations(late=10, missing=36, not_begun=10, not_started=10, not_cancelled=10)
    late = deployed.start("index-all/index-all", state={"type": "SCHEDULED"})[
        "id"
    ]  # no worker is there
    taken_up = {}
    # A worker takes a run up, and its machine dies, or a person suspends it.
    for state in ("SUSPENDED", "PENDING", "RUNNING", "CANCELLING"):
        run = taken_up[state] = deployed.start("index-collection/index-collection", index="notes")[
            "id"
        ]
        for reached in ["PENDING", "RUNNING", "CANCELLING"]:
            deployed.post(f"/flow_runs/{run}/set_state", state={"type": reached})
            if reached == state:
                break
            if (state, reached) == ("SUSPENDED", "RUNNING"):
                deployed.post(f"/flow_runs/{run}/set_state", state=SUSPENDED)
                break
    running, pending = taken_up["RUNNING"], taken_up["PENDING"]
    eventually(lambda: deployed.run(running)["state_name"] == "Crashed", "the run ends", every=0.25)
    assert "not heard of for" in deployed.run(running)["state"]["message"]
    eventually(
        lambda: deployed.run(pending)["state_type"] == "SCHEDULED",
        "it waits for a worker",
        every=0.25,
    )
    assert deployed.run(pending)["next_scheduled_start_time"]
    assert deployed.run(taken_up["SUSPENDED"])["state_name"] == "Suspended", (
        "no one says that it died"
    )
    ended = deployed.wait_for_end(taken_up["CANCELLING"])
    assert (ended["state_name"], ended["state_type"]) == ("Cancelled", "CANCELLED")
    eventually(lambda: calls_about(calls, "Crashed"), "the webhook is called for it", every=0.25)
    eventually(
        lambda: calls_about(calls, "Late"), "the webhook is called for a late run", every=0.25
    )
    assert calls_about(calls, "Late")[0]["id"] == late
    eventually(
        lambda: calls_about(calls, "Missing"), "the webhook is called for a missing run", every=0.25
    )
    for left in (late, pending, taken_up["SUSPENDED"]):
        deployed.delete(f"/flow_runs/{left}")


def test_runs_whose_worker_is_stopped_while_they_start_are_started_again(
    deployed, project, tmp_path, automations
):
    """Each run is at another point of its start; one that had begun is marked as crashed."""
    automations(not_heard_of=60, not_begun=60, not_started=60)
    runs = []
    project.run()
    given = {"RAG_INDEX_CONFIG": str(project.config)}
    with deployed.worker(tmp_path / "first", **given) as worker:
        for _ in range(4):
            runs.append(deployed.start("doctor/doctor")["id"])
            eventually(
                lambda: deployed.run(runs[-1])["state_type"] != "SCHEDULED",
                "it is taken up",
                every=0.1,
            )
            time.sleep(1)
        worker_is_stopped(worker)
    expected = [
        "Crashed" if deployed.run(run)["state_type"] in {"RUNNING", "CRASHED"} else "Completed"
        for run in runs
    ]
    assert "Completed" in expected, "not all had begun"
    with deployed.worker(tmp_path / "second", **given):
        assert [deployed.wait_for_end(run)["state_name"] for run in runs] == expected
