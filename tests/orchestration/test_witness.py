"""The witness of a run: it puts off a run whose process was killed or stopped, and no other. The server is real."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest

from tests.forked_program import run_code
from tests.waiting import eventually

RUN = """
import os, psutil, signal
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from rag_index.orchestration.witness import start_witness
with temporary_settings({{PREFECT_API_URL: "{url}", PREFECT_API_AUTH_STRING: "me:secret"}}):
    start_witness("some-id")
    (witness,) = psutil.Process().children()
    print(witness.pid, flush=True)
    {end}
"""
KILLED = "os.kill(os.getpid(), 9)"
STOPPED = """
    signal.signal(15, lambda *_: (signal.signal(15, signal.SIG_DFL), os.kill(os.getpid(), 15)))  # as Prefect does
    os.kill(os.getpid(), 15)
"""
LOST = "signal.signal(15, lambda *_: None); os.kill(os.getpid(), 15)"
"""The exception of the signal became one of another kind, and the process exits by itself."""
TAKEN = """
    from rag_index.orchestration.stopping import hold_sigterm
    signal.signal(15, lambda *_: None)
    with hold_sigterm(lambda: {taken}):
        os.kill(os.getpid(), 15)
"""


class Api(ThreadingHTTPServer):
    """The part of Prefect's API that a witness asks: one run in a state, and what is proposed for it."""

    def __init__(self, state: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state
        self.asked: list[tuple[str, str | None]] = []
        self.proposed: list[dict] = []


class Handler(BaseHTTPRequestHandler):
    server: Api

    def do_GET(self):
        self._answer({"state_type": self.server.state})

    def do_POST(self):
        self.server.proposed.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self._answer({"status": "ACCEPT"})

    def _answer(self, value):
        self.server.asked.append((self.path, self.headers["Authorization"]))
        words = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        self.wfile.write(words)

    def log_message(self, *arguments):
        pass


def run(state: str, end: str) -> Api:
    """Let a process with a witness end in this way, and return the server when the witness has ended, too."""
    with Api(state) as api:
        threading.Thread(target=api.serve_forever, daemon=True).start()
        code = RUN.format(url=f"http://127.0.0.1:{api.server_port}/api", end=end)
        ended = run_code(code, os.environ, timeout=100)
        witness = int(ended.stdout)
        eventually(lambda: not psutil.pid_exists(witness), "the witness ends")
        api.shutdown()
    return api


@pytest.fixture(autouse=True, scope="module")
def imported(prefect_server):
    """With the address of an API, the process that the runs are forked from has imported Prefect."""


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
def test_a_run_whose_process_was_killed_is_put_off(state):
    api = run(state, KILLED)
    (proposed,) = api.proposed
    assert (proposed["state"]["type"], proposed["state"]["name"]) == ("SCHEDULED", "AwaitingRetry")
    assert "the next worker resumes it" in proposed["state"]["message"]
    assert not proposed["force"], "the server decides whether a run that is being cancelled may be put off"
    assert {path for path, _ in api.asked} == {"/api/flow_runs/some-id", "/api/flow_runs/some-id/set_state"}
    assert {given for _, given in api.asked} == {"Basic bWU6c2VjcmV0"}


@pytest.mark.parametrize(
    ("state", "end"),
    [("RUNNING", TAKEN.format(taken=False)), ("CRASHED", STOPPED), ("CRASHED", LOST), ("FAILED", LOST)],
)
def test_a_run_that_was_stopped_outside_of_its_work_is_put_off_whatever_prefect_made_of_it(state, end):
    (proposed,) = run(state, end).proposed
    assert proposed["state"]["name"] == "AwaitingRetry"


@pytest.mark.parametrize(
    ("state", "end"),
    [("COMPLETED", KILLED), ("CANCELLING", KILLED), ("CRASHED", KILLED), ("CANCELLING", STOPPED), ("SCHEDULED", LOST)],
)
def test_a_run_that_is_over_or_is_being_cancelled_stays_as_it_is(state, end):
    assert run(state, end).proposed == []


@pytest.mark.parametrize("end", ["pass", "raise ValueError", TAKEN.format(taken=True)])
def test_a_process_that_exits_by_itself_needs_no_witness(end):
    assert run("RUNNING", end).asked == []
