"""The Prefect server of a run: it asks for a password that nobody sees, and deletes what is old as it ends."""

import os
import socket
import sqlite3
import subprocess

import httpx
import psutil
import pytest

from rag_index.errors import TransientError
from rag_index.orchestration.api_server import ApiServer
from rag_index.orchestration.launch import quiet
from tests.dask_workers import command
from tests.forked_program import without_api
from tests.project import Project
from tests.reliability.victim import Victim
from tests.waiting import eventually


def servers_below(process: psutil.Process) -> list[psutil.Process]:
    return [one for one in process.children(recursive=True) if "rag_index.orchestration.api_server" in command(one)]


def port_of(server: psutil.Process) -> int | None:
    listening = [c for c in server.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return listening[0].laddr.port if listening else None


@pytest.mark.long
def test_nobody_uses_the_server_of_a_run_without_its_password(tmp_path):
    project = Project(tmp_path / "project").fill(300)
    with Victim(project, "--workers", "1", "--sample-size", "100", plain=True, run="benchmark") as victim:
        run = psutil.Process(victim.process.pid)
        [server] = eventually(lambda: servers_below(run), "the run starts a server")
        url = f"http://127.0.0.1:{eventually(lambda: port_of(server))}/api"
        with httpx.Client(trust_env=False, timeout=60) as stranger:
            asked = stranger.post(f"{url}/flow_runs/filter", json={})  # waits for the start of the server
            made = stranger.post(f"{url}/flows/", json={"name": "mine"})
        password = server.environ()["PREFECT_SERVER_API_AUTH_STRING"].partition(":")[2]
        commands = [command(one) for one in [run, *run.children(recursive=True)]]
        assert victim.process.wait(timeout=120) == 0, (project.folder / "output.txt").read_text()
    assert (asked.status_code, made.status_code) == (401, 401)
    assert len(password) > 30
    assert not [line for line in commands if password in line]
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.long
def test_runs_that_ended_long_ago_are_deleted_as_the_server_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", without_api())
    quiet(tmp_path)

    def serve(*names: str) -> list[str]:
        """Make runs, end the server, and return the names of the runs that it keeps."""
        with ApiServer() as server, httpx.Client(base_url=server.wait(), trust_env=False, timeout=60) as api:
            api.auth = tuple(server.password.split(":"))
            flow = api.post("/flows/", json={"name": "index-all"}).json()["id"]
            for name in names:
                state = {"type": "COMPLETED" if name != "running" else "RUNNING"}
                api.post("/flow_runs/", json={"name": name, "flow_id": flow, "state": state}).raise_for_status()
        with sqlite3.connect(tmp_path / "prefect.db") as db:
            return sorted(name for (name,) in db.execute("SELECT name FROM flow_run"))

    assert serve("old", "new", "running") == ["new", "old", "running"]
    with sqlite3.connect(tmp_path / "prefect.db") as db:
        db.execute("UPDATE flow_run SET end_time = '2020-01-01 00:00:00.000000' WHERE name = 'old'")
    assert serve() == ["new", "running"]


@pytest.mark.long
def test_nobody_waits_while_a_server_that_ends_frees_what_it_has_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", without_api())
    quiet(tmp_path)
    before = os.times()
    with ApiServer() as server:
        server.wait()
        start = psutil.Process(server._process.pid).cpu_times()
    after = os.times()
    took = after.children_user + after.children_system - before.children_user - before.children_system
    assert server._process.returncode == 0
    assert took < 1.1 * (start.user + start.system)  # of processor time; to free it takes a fifth of the start


def test_its_answers_do_not_wait_for_the_client_to_acknowledge_the_first_packet(monkeypatch):
    class Started:
        def __init__(self, command, *, pass_fds, **options):
            self.listener = socket.socket(fileno=os.dup(pass_fds[0]))

    monkeypatch.setattr(subprocess, "Popen", Started)
    with ApiServer()._process.listener as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_server_that_ends_is_named_with_its_code():
    with ApiServer() as server:
        server.end()
        with pytest.raises(TransientError, match="the temporary Prefect server ended with -15"):
            server.wait()


@pytest.mark.long
def test_servers_that_start_at_once_in_a_fresh_folder_all_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", without_api())
    quiet(tmp_path)
    with ApiServer() as one, ApiServer() as two, ApiServer() as three:
        assert len({server.wait() for server in (one, two, three)}) == 3
