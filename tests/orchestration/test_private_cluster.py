"""A run's own Dask cluster: whoever reaches its ports, or shares its temporary folder, can run nothing on it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from distributed import Client
from distributed.core import connect
from distributed.security import Security

from rag_index.orchestration.cluster import Workers
from rag_index.settings import ParallelSettings
from tests.waiting import eventually

IN_SHARED_TMP = """
from rag_index.orchestration.cluster import Workers
from rag_index.settings import ParallelSettings

if __name__ == "__main__":
    with Workers(ParallelSettings(workers=1)) as workers, workers.cluster() as cluster:
        from distributed import Client

        def imported():
            import planted_by_another_user

        with Client(cluster) as client:
            for place in (imported, lambda: client.submit(imported).result()):
                try:
                    place()
                except ImportError:
                    print("not found")
"""


@pytest.fixture(scope="module")
def cluster():
    with Workers(ParallelSettings(workers=1)) as workers, workers.cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(1)
        yield client


def addresses(client) -> list[str]:
    """Return the addresses of the scheduler, its worker and the worker's nanny."""
    [(worker, found)] = client.scheduler_info()["workers"].items()
    return [client.scheduler.address, worker, found["nanny"]]


def answers(address: str, **security) -> bool:
    """Return whether a server of Dask's takes a message from somebody who knows nothing but the port."""

    async def ask() -> bool:
        try:
            comm = await connect(address, timeout=5, **security)
            await comm.write({"op": "identity", "reply": True})
            return isinstance(await comm.read(), dict)
        except (OSError, TimeoutError):
            return False
        finally:
            if "comm" in locals():
                comm.abort()

    return asyncio.run(ask())


def test_no_port_of_the_cluster_takes_a_message_without_its_certificate(client):
    assert client.submit(os.getpid).result() != os.getpid()
    stranger = Security.temporary().get_connection_args("client")
    for address in addresses(client):
        plain = "tcp://" + address.partition("://")[2]
        assert not answers(plain), f"{address} takes pickles from everybody"
        assert not answers("tls://" + address.partition("://")[2], **stranger), address


def test_a_worker_that_is_started_again_takes_none_either(client):
    first = client.submit(os.getpid).result()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: client.submit(os.getpid, pure=False).result() != first, "the worker is started again")
    for address in addresses(client):
        assert not answers("tcp://" + address.partition("://")[2]), address


def test_its_pages_tell_nothing(client):
    port = client.scheduler_info()["services"]["dashboard"]
    with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}") as browser:
        pages = ("/info/main/workers.html", "/json/index.html", "/metrics", "/info/logs.html", "/status")
        assert {page: browser.get(page).status_code for page in pages} == dict.fromkeys(pages, 404)
    assert not client.dashboard_link


def test_nothing_is_imported_from_a_shared_temporary_folder(tmp_path):
    planted = tmp_path / "dask-scratch-space"
    planted.mkdir()
    (planted / "planted_by_another_user.py").write_text("")
    planted.chmod(0o777)
    program = tmp_path / "run.py"
    program.write_text(IN_SHARED_TMP)
    before = set(tmp_path.iterdir())
    ended = subprocess.run(
        [sys.executable, program],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "not found\nnot found\n"), ended.stderr
    assert [path for path in Path(tmp_path).iterdir() if path not in before] == []
