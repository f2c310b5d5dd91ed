"""An existing Dask cluster: its scheduler and workers are other processes, elsewhere, with only the
wheel installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import dask
import psutil
import pytest
from distributed.security import Security

from rag_index.etl import upsert
from tests.deployments.server import ROOT, kill_all
from tests.fakes.ollama import vector_of
from tests.forked_program import without_api
from tests.ports import free_port
from tests.project import Project
from tests.waiting import eventually, when

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A folder with the installed wheel and nothing else of this repository."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True, timeout=200
    )
    (built,) = folder.glob("rag_index-*.whl")
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", folder / "site", built], check=True, timeout=100
    )
    return folder / "site"


def test_the_scheduler_of_the_page_is_not_open_on_all_addresses(tmp_path):
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^dask (scheduler .*)$", page, re.MULTILINE)
    port, dashboard = str(free_port()), str(free_port())
    line = line.replace("10.0.0.5", "127.0.0.2").replace("8786", port).replace("8787", dashboard)
    with started(tmp_path / "scheduler", ROOT, *line.split()) as process:

        def listening() -> list[tuple[str, str]]:
            found = [
                one.laddr
                for one in psutil.Process(process.pid).net_connections()
                if one.status == "LISTEN"
            ]
            return sorted((address.ip, str(address.port)) for address in found)

        expected = [("127.0.0.1", dashboard), ("127.0.0.2", port)]
        eventually(lambda: listening() == expected, listening, every=0.25)


@contextmanager
def started(folder: Path, site: Path, *arguments: str):
    """Run a `dask` command in its own folder until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    clean = {
        key: value
        for key, value in without_api().items()
        if not key.startswith(("RAG_INDEX_", "DASK_"))
    }
    environment = clean | {"PYTHONPATH": str(site), "PREFECT_HOME": str(folder / "prefect")}
    command = [sys.executable, "-m", "dask", *arguments]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        kill_all(process)
        process.wait()


class Cluster:
    """A scheduler and workers; the flow finds them at `address`."""

    def __init__(self, folder: Path, stack: ExitStack, *, tls: tuple[str, ...] = ()) -> None:
        self._folder, self._stack, self._tls = folder, stack, tls
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{free_port()}"
        self.workers: list[subprocess.Popen] = []

    def start(self, site: Path, workers: int) -> Cluster:
        scheduler = (
            "scheduler",
            "--host",
            self.address.rpartition(":")[0],
            "--port",
            self.address.rpartition(":")[2],
            "--dashboard-address",
            "127.0.0.1:0",
            *self._tls,
        )
        self._stack.enter_context(started(self._folder / "scheduler", site, *scheduler))
        for number in range(workers):
            self.add(site, f"worker{number}")
        return self

    def add(self, site: Path, name: str) -> None:
        worker = (
            "worker",
            self.address,
            "--nthreads",
            "1",
            "--no-dashboard",
            "--name",
            name,
            *self._tls,
        )
        self.workers.append(self._stack.enter_context(started(self._folder / name, site, *worker)))

    def wait_for(self, workers: int) -> None:
        log = (self._folder / "scheduler" / "log").read_text
        eventually(
            lambda: log().count("Register worker") >= workers, "the workers are there", seconds=60
        )


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def project_at(tmp_path, fake, qdrant):
    """Return a function that makes a project with a fake Ollama and a fake Qdrant for the cluster
    at an address."""
    services = f'{fake.settings}[store]\nurl = "{qdrant.url}"\n'
    return lambda address: Project(
        tmp_path / "project", extra=f'{services}[parallel]\naddress = "{address}"\n'
    )


def test_the_death_of_one_of_two_workers_of_a_cluster_with_tls_loses_nothing(
    tmp_path, prefect_server, fake, project_at, wheel, stack, monkeypatch
):
    write = upsert.write_shard

    def words_alone(points, shard, **options):
        assert not len(shard.vectors), (
            "the flow writes vectors that its workers should have written"
        )
        return write(points, shard, **options)

    monkeypatch.setattr(upsert, "write_shard", words_alone)
    made, certificate, key = (
        Security.temporary(),
        tmp_path / "certificate.pem",
        tmp_path / "key.pem",
    )
    certificate.write_text(made.tls_ca_file)  # it is its own authority
    key.write_text(made.tls_client_key)
    files = {"tls-ca-file": certificate, "tls-cert": certificate, "tls-key": key}
    options = tuple(part for name, file in files.items() for part in (f"--{name}", str(file)))
    cluster = Cluster(tmp_path, stack, tls=options).start(wheel, 2)
    cluster.wait_for(2)
    flow = {"ca-file": certificate, "client.cert": certificate, "client.key": key}
    stack.enter_context(
        dask.config.set({f"distributed.comm.tls.{name}": str(file) for name, file in flow.items()})
    )
    project = project_at(cluster.address).fill(300)
    fake.seconds_per_text = 0.02

    with when(lambda: len(fake.embeds()) > 6, lambda: kill_all(cluster.workers[0])):
        report = project.index(shard_documents=10)
    assert (report.state, report.indexes[0].new) == ("completed", 300), report.sentence()
    assert len(project.texts()) == 300
    for payload, vector in project.points().values():
        assert vector == pytest.approx(vector_of(payload["_rag"]["text"]), abs=1e-6)
    assert project.index().indexes[0].unchanged == 300


def test_a_worker_of_another_version_is_refused(tmp_path, prefect_server, project_at, wheel, stack):
    other = tmp_path / "other"
    shutil.copytree(wheel, other)
    (metadata,) = other.glob("rag_index-*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("\nVersion: ", "\nVersion: 0.0.0.", 1))
    cluster = Cluster(tmp_path, stack).start(wheel, 1)
    cluster.add(other, "old")
    cluster.wait_for(2)
    report = project_at(cluster.address).fill(20).index(shard_documents=5)
    assert report.state == "failed"
    assert "has rag-index 0.0.0." in report.indexes[0].message
    assert "install the same on both" in report.indexes[0].message
