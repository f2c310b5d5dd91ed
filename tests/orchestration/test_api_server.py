"""The Prefect server of a run: it asks for a password that nobody sees, and gets the time that the machine needs."""

from __future__ import annotations

import itertools
import ssl

import httpx
import psutil
import pytest

from rag_index.errors import TransientError
from rag_index.machine.watchdog import Patience, processor_seconds
from rag_index.orchestration import api_server
from rag_index.orchestration.api_server import ApiServer, light_clients
from tests.dask_workers import command
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
    with Victim(project, "--workers", "1", "--shard-documents", "100", own_prefect=True) as victim:
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
    assert len(project.texts()) == 300
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert kept == []


@pytest.mark.parametrize(
    ("share", "seconds", "said"),
    [
        (1.0, 60, "is silent after 60 s of processor time"),
        (0.1, 600, "is silent after 60 s of processor time"),
        (0.02, 3000, "is silent after 60 s of processor time"),
        (0.001, 125, "is silent, and has done nothing for 120 s"),
    ],
)
def test_a_start_is_given_the_same_work_on_a_busy_machine_and_two_minutes_of_nothing(share, seconds, said):
    """`share` is how much of the processor the server gets. Each look takes five seconds."""
    looks = itertools.count(step=5.0)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now = next(looks)
        return now

    patience = Patience(lambda: now * share, busy=api_server.BUSY_SECONDS, idle=api_server.IDLE_SECONDS, clock=clock)
    while not (found := patience.exhausted()):
        pass
    assert (found, now) == (said, pytest.approx(seconds, abs=10 / share * (share > 0.01) + 5))


@pytest.mark.long
def test_a_real_server_starts_where_each_second_of_work_takes_more_than_a_minute(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with ApiServer() as server:
        looks = []

        def clock() -> float:
            looks.append(100 * processor_seconds(server._process.pid))
            return looks[-1]

        assert server.wait(clock=clock).startswith("http://127.0.0.1:")
    assert looks[-1] > 120, "that is more than the two minutes that a start may take"


def test_a_server_that_ends_is_named_with_its_code(monkeypatch):
    with ApiServer() as server:
        server.end()
        with pytest.raises(TransientError, match="the temporary Prefect server ended with -15"):
            server.wait()


@pytest.mark.parametrize(
    ("url", "more", "named", "light"),
    [
        ("http://prefect.example/api", "", None, True),
        ("https://prefect.example/api", "", None, False),
        ("http://prefect.example/api", '[parallel]\naddress = "tcp://10.0.0.7:8786"', None, False),
        ("http://prefect.example/api", "", "/etc/all_authorities.pem", True),
        ("https://prefect.example/api", "", "/etc/all_authorities.pem", False),
    ],
    ids=["no TLS", "TLS", "workers elsewhere", "no TLS, a file", "TLS, a file"],
)
def test_clients_of_an_api_without_tls_read_one_certificate(tmp_path, url, more, named, light):
    from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_API_URL, temporary_settings

    project = Project(tmp_path / "project", extra=more)
    with temporary_settings({PREFECT_API_URL: url, PREFECT_API_SSL_CERT_FILE: named}):
        with light_clients(project.settings):
            file = PREFECT_API_SSL_CERT_FILE.value()
        assert PREFECT_API_SSL_CERT_FILE.value() == named
    if light:
        assert len(ssl.create_default_context(cafile=file).get_ca_certs()) == 1
    else:
        assert file == named
