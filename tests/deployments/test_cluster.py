"""A Dask cluster that is there already: scheduler and workers as other processes, elsewhere, with the wheel alone."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tests.deployments.server import ROOT, free_port, wait_until
from tests.fakes.ollama import FakeOllama, vector_of
from tests.fakes.qdrant import FakeQdrant
from tests.project import Project

pytestmark = pytest.mark.long

SETTINGS = """\
[embedder]
kind = "ollama"
model = "{ollama.model}"
hosts = ["{ollama.url}"]
[store]
url = "{qdrant.url}"
[parallel]
address = "{address}"
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A folder with the installed wheel, and nothing of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", folder, ROOT], check=True, timeout=200)
    (built,) = folder.glob("rag_index-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", built], check=True, timeout=100)
    return folder / "site"


@pytest.fixture
def services():
    with FakeOllama() as ollama, FakeQdrant() as qdrant:
        yield ollama, qdrant


@contextmanager
def started(folder: Path, site: Path, *arguments: str):
    """A `dask` command in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "RAG_INDEX_", "DASK_"))
    }
    environment |= {"PYTHONPATH": str(site), "PREFECT_HOME": str(folder / "prefect")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", *arguments], cwd=folder, env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        for one in [*psutil_children(process), process]:
            kill(one)
        process.wait()


def psutil_children(process) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def kill(process) -> None:
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        process.kill()


class Cluster:
    """A scheduler and workers; `address` is where the flow finds it."""

    def __init__(self, folder: Path, stack: ExitStack, *, tls: tuple[str, ...] = ()) -> None:
        self._folder, self._stack, self._tls = folder, stack, tls
        port = free_port()
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{port}"
        self._site = folder
        self.workers: list[subprocess.Popen] = []

    def start(self, site: Path, workers: int) -> Cluster:
        scheduler = (
            "scheduler", "--host", self.address.rpartition(":")[0], "--port", self.address.rpartition(":")[2],
            "--dashboard-address", "127.0.0.1:0", *self._tls,
        )  # fmt: skip
        self._stack.enter_context(started(self._folder / "scheduler", site, *scheduler))
        for number in range(workers):
            self.add(site, f"worker{number}")
        return self

    def add(self, site: Path, name: str) -> None:
        worker = ("worker", self.address, "--nthreads", "1", "--no-dashboard", "--name", name, *self._tls)
        self.workers.append(self._stack.enter_context(started(self._folder / name, site, *worker)))

    def log(self, name: str) -> str:
        return (self._folder / name / "log").read_text()


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


def ready(cluster: Cluster, workers: int) -> None:
    wait_until(
        lambda: cluster.log("scheduler").count("Register worker") >= workers, "the workers are there", seconds=60
    )


def project_on(tmp_path, services, address: str, more: str = "") -> Project:
    ollama, qdrant = services
    return Project(tmp_path / "project", extra=SETTINGS.format(ollama=ollama, qdrant=qdrant, address=address) + more)


def test_two_workers_of_which_one_is_killed(tmp_path, prefect_server, services, wheel, stack):
    ollama, _ = services
    cluster = Cluster(tmp_path, stack).start(wheel, 2)
    ready(cluster, 2)
    project = project_on(tmp_path, services, cluster.address).fill(300)
    ollama.seconds_per_text = 0.02
    killed = threading.Event()

    def kill_one() -> None:
        wait_until(lambda: len(ollama.embeds()) > 6, "documents are being embedded", seconds=90)
        for one in [*psutil_children(cluster.workers[0]), cluster.workers[0]]:
            kill(one)
        killed.set()

    threading.Thread(target=kill_one, daemon=True).start()
    report = project.index(shard_documents=10)
    assert killed.is_set()
    assert (report.state, report.indexes[0].new) == ("completed", 300), report.sentence()
    assert len(project.texts()) == 300
    for payload, vector in project.points().values():
        assert vector == pytest.approx(vector_of(payload["_rag"]["text"]), abs=1e-6)
    assert "upsert notes" in cluster.log("worker1"), "vectors go from the worker to the store"
    again = project.index()
    assert again.indexes[0].unchanged == 300


def test_a_worker_of_another_version_is_refused(tmp_path, prefect_server, services, wheel, stack):
    other = tmp_path / "other"
    shutil.copytree(wheel, other)
    (metadata,) = other.glob("rag_index-*.dist-info/METADATA")
    metadata.write_text(metadata.read_text().replace("\nVersion: ", "\nVersion: 0.0.0.", 1))
    cluster = Cluster(tmp_path, stack).start(wheel, 1)
    cluster.add(other, "old")
    ready(cluster, 2)
    project = project_on(tmp_path, services, cluster.address).fill(20)
    report = project.index(shard_documents=5)
    assert report.state == "failed"
    assert "has rag-index 0.0.0." in report.indexes[0].message
    assert "install the same on both" in report.indexes[0].message


def test_no_scheduler_and_no_worker_are_told_apart(tmp_path, prefect_server, services, wheel, stack):
    project = project_on(tmp_path, services, f"tcp://127.0.0.1:{free_port()}").fill(5)
    began = time.monotonic()
    report = project.index()
    assert time.monotonic() - began < 60
    assert "does not answer" in report.indexes[0].message
    cluster = Cluster(tmp_path, stack).start(wheel, 0)
    wait_until(lambda: "Scheduler at" in cluster.log("scheduler"), "the scheduler is there")
    project = project_on(tmp_path / "second", services, cluster.address).fill(5)
    message = project.index().indexes[0].message
    assert f"has no workers: dask worker {cluster.address}" in message


def test_with_tls(tmp_path, prefect_server, services, wheel, stack):
    certificate, key = signed(tmp_path)
    files = {"tls-ca-file": certificate, "tls-cert": certificate, "tls-key": key}
    options = tuple(part for name, file in files.items() for part in (f"--{name}", str(file)))
    cluster = Cluster(tmp_path, stack, tls=options).start(wheel, 1)
    ready(cluster, 1)
    (tmp_path / "project").mkdir()
    more = "".join(f'{name.replace("-", "_")} = "../{file.name}"\n' for name, file in files.items())
    project = project_on(tmp_path, services, cluster.address, more).fill(30)
    report = project.index(shard_documents=10)
    assert (report.state, report.indexes[0].new) == ("completed", 30), report.sentence()
    assert len(project.texts()) == 30


def signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "rag-index test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    )
    return paths
