"""A run's own Dask cluster: nobody else can run anything on it, and it keeps no shards. What is
asked of another's. What a worker that waits for a service tells the run."""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import dask
import httpx
import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.core import connect
from distributed.security import Security

from rag_index.core.recovery import asking
from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import ParallelSettings
from rag_index.errors import TransientError
from rag_index.orchestration import liveness
from rag_index.orchestration.cluster import OWN_CLUSTER, Workers, count_workers
from rag_index.orchestration.liveness import Liveness
from tests.ports import free_port
from tests.waiting import eventually

IN_SHARED_TMP = """
from rag_index.orchestration.cluster import Workers
from rag_index.core.settings import ParallelSettings

if __name__ == "__main__":
    with Workers(ParallelSettings(workers=1)) as workers:
        from distributed import Client

        def imported():
            import planted_by_another_user

        with Client(workers.cluster()) as client:
            for place in (imported, lambda: client.submit(imported).result()):
                try:
                    place()
                except ImportError:
                    print("not found")
"""
FOR_ALL = {
    "distributed.deploy.lost-worker-timeout": (
        "1ms"
    ),  # stands for a restart that takes longer than Dask's 15 s
    "distributed.comm.timeouts": {"connect": "1ms", "tcp": "1ms"},
    **{
        f"distributed.{part}.preload": ["no_such_module"]
        for part in ("scheduler", "nanny", "worker", "client")
    },
    "distributed.admin.event-loop": "no_such_one",
    "distributed.client.heartbeat": "no time",
    "distributed.scheduler.bandwidth": "no number",
    "distributed.scheduler.validate": "no_such_one",
    **dict.fromkeys(("distributed.nanny.pre-spawn-environ", "distributed.nanny.environ"), 5),
    **{
        f"distributed.comm.{what}": "no_such_one"
        for what in ("compression", "require-encryption", "tls.ciphers")
    },
    "distributed.comm.default-scheme": "no_such_scheme",
    "distributed.comm.offload": "no size",
    "scheduler-address": "tcp://127.0.0.1:1",
    "temporary-directory": "/no/such/folder",
}
"""What somebody has set for all of Dask, and which stops no cluster of ours."""
SHARDS, SHARD_BYTES = 80, 900_000  # Dask keeps messages of less than a megabyte


@pytest.fixture(scope="module")
def client():
    with (
        dask.config.set(FOR_ALL),
        Workers(ParallelSettings(workers=1)) as workers,
        Client(workers.cluster(), set_as_default=False) as client,
    ):
        client.wait_for_workers(1)
        yield client


def test_a_heartbeat_cut_off_by_the_end_is_no_traceback_in_the_log(client):
    def logged(message: str) -> bool:
        return bool(
            logging.getLogger("distributed.worker").filter(logging.makeLogRecord({"msg": message}))
        )

    [lost] = client.run(logged, "Failed to communicate with scheduler during heartbeat.").values()
    [other] = client.run(logged, "Unexpected exception during heartbeat. Closing worker.").values()
    assert (lost, other) == (False, True)


def test_a_client_that_is_cut_off_is_no_traceback_in_the_log(client, caplog):
    """As at the end of a run that was frozen: the scheduler still has something to say to it."""
    scheduler, log = client.cluster.scheduler, logging.getLogger("distributed.scheduler")
    with Client(client.cluster, set_as_default=False) as other:

        async def cut_off() -> None:
            scheduler.client_comms[other.id].abort()
            scheduler.send_all({other.id: [{}]}, {})
            log.critical("something else")

        client.cluster.sync(cut_off)
        assert [one.message for one in caplog.records if one.levelname == "CRITICAL"] == [
            "something else"
        ]


def addresses(client) -> list[str]:
    """Return the addresses of the scheduler, its worker and the worker's nanny."""
    [(worker, found)] = eventually(
        lambda: list(client.scheduler_info()["workers"].items())
    )  # it learns late
    return [client.scheduler.address, worker, found["nanny"]]


def answers(address: str, **security) -> bool:
    """Return whether a server of Dask's takes a message from somebody who knows nothing but the
    port."""

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
        assert not answers("tcp://" + address.partition("://")[2]), (
            f"{address} takes pickles from everybody"
        )
        assert not answers("tls://" + address.partition("://")[2], **stranger), address


def test_a_worker_that_dies_twice_is_started_again_and_takes_none_either(client):
    for _ in range(2):
        first = client.submit(os.getpid, pure=False).result()
        os.kill(first, signal.SIGKILL)
        eventually(
            lambda pid=first: client.submit(os.getpid, pure=False).result() != pid,
            "it is started again",
        )
    for address in addresses(client):
        assert not answers("tcp://" + address.partition("://")[2]), address


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_sigterm_to_all_processes_of_a_run_leaves_its_end_to_the_run(client):
    worker = client.submit(os.getpid, pure=False).result()
    for process in (worker, psutil.Process(worker).ppid()):  # the second one starts workers
        os.kill(process, signal.SIGTERM)
    assert client.submit(os.getpid, pure=False).result() == worker
    os.kill(worker, signal.SIGKILL)
    eventually(
        lambda: client.submit(os.getpid, pure=False).result() != worker,
        "another one can be started",
    )


def test_its_pages_tell_nothing(client):
    port = client.scheduler_info()["services"]["dashboard"]
    with httpx.Client(trust_env=False, base_url=f"http://127.0.0.1:{port}", timeout=60) as browser:
        pages = (
            "/info/main/workers.html",
            "/json/index.html",
            "/metrics",
            "/info/logs.html",
            "/status",
        )
        assert {page: browser.get(page).status_code for page in pages} == dict.fromkeys(pages, 404)
    assert not client.dashboard_link


def private_bytes(pid: str = "self") -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc (Linux)")
@pytest.mark.long
def test_shards_that_are_done_leave_the_memory(client):
    worker = str(client.run(lambda dask_worker: os.getpid()).popitem()[1])

    def send(count: int) -> list[int]:
        for _ in range(count):
            shard = os.urandom(SHARD_BYTES)  # nothing compresses it
            assert client.submit(len, shard, pure=False).result() == SHARD_BYTES
        return [private_bytes(), private_bytes(worker)]

    for early, late in zip(send(15), send(SHARDS), strict=True):
        assert late - early < SHARDS * SHARD_BYTES / 4


@pytest.mark.long
def test_nothing_is_imported_from_a_shared_temporary_folder():
    with (
        tempfile.TemporaryDirectory() as name
    ):  # shorter than those of pytest: addresses of sockets are in it
        place = Path(name)
        (place / "dask-scratch-space").mkdir()
        (place / "dask-scratch-space" / "planted_by_another_user.py").write_text("")
        (place / "dask-scratch-space").chmod(0o777)
        (place / "run.py").write_text(IN_SHARED_TMP)
        before, environment = set(place.iterdir()), {**os.environ, "TMPDIR": name}
        command = [sys.executable, place / "run.py"]
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (0, "not found\nnot found\n"), ended.stderr
        assert set(place.iterdir()) == before


def test_a_missing_scheduler_is_told_and_missing_workers_may_come_with_the_work():
    with LocalCluster(
        n_workers=0, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        settings = ParallelSettings(address=f"tcp://127.0.0.1:{free_port()}")
        soon = mock.patch("rag_index.orchestration.cluster.CONNECT_SECONDS", 1)
        with (
            soon,
            pytest.raises(
                TransientError, match=f"the Dask scheduler at {settings.address} does not answer"
            ),
        ):
            count_workers(settings)
        settings = ParallelSettings(address=cluster.scheduler_address)
        assert count_workers(settings) == 0


@pytest.mark.long
def test_a_frozen_worker_loses_its_shards_to_the_other(monkeypatch):
    monkeypatch.setitem(
        OWN_CLUSTER, "distributed.scheduler.worker-ttl", "2s"
    )  # Dask takes five at least
    with Workers(ParallelSettings(workers=2)) as workers:
        client = Client(workers.cluster())
        client.wait_for_workers(2)
        [frozen, _] = client.run(os.getpid).values()
        os.kill(frozen, signal.SIGSTOP)
        assert frozen not in [
            shard.result(120) for shard in [client.submit(os.getpid, pure=False) for _ in range(4)]
        ]


@pytest.fixture
def in_thread(monkeypatch):
    monkeypatch.setattr(
        "rag_index.etl.embed._Process.worker", None
    )  # afterwards this process is no worker
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
        ) as cluster,
        Client(cluster, set_as_default=False) as in_thread,
    ):
        yield in_thread


QDRANT_ANSWERS = threading.Event()
"""Whether the server for which `wait_for_qdrant` waits is there again."""


def wait_for_qdrant() -> None:
    with asking("Qdrant at h", patience=0.0):
        QDRANT_ANSWERS.wait(60)


def test_the_run_hears_what_a_worker_waits_for_until_the_workers_are_gone(
    in_thread, monkeypatch
) -> None:
    monkeypatch.setattr(liveness, "WORKERS_CHECK_SECONDS", 0.0)
    now = [0.0]
    alive = Liveness(in_thread, RunRecord("notes"), clock=lambda: now[0])

    def is_told():  # beside what earlier tests of this process have given up
        return "Qdrant at h" in [one.service for one in alive.outages]

    waiting = in_thread.submit(wait_for_qdrant, pure=False)
    eventually(is_told)
    QDRANT_ANSWERS.set()
    waiting.result(60)
    eventually(lambda: not is_told())
    alive.tick()
    QDRANT_ANSWERS.clear()
    lost = in_thread.submit(wait_for_qdrant, pure=False)
    eventually(is_told)
    in_thread.cluster.scale(0)
    QDRANT_ANSWERS.set()  # a worker ends with its thread
    eventually(lambda: not in_thread.nthreads())
    for now[0] in (1.0, 80.0, 160.0):
        alive.tick()
        assert not alive.outages, (
            f"a worker that is gone waits for nothing, and {lost} for a worker"
        )
    now[0] = 240.0
    with pytest.raises(TransientError, match=r"there has been no worker process for \d+ s"):
        alive.tick()
