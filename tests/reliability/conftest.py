"""What tests need that run an index many times in this process."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from rag_index.components.embedders import open_embedder
from rag_index.core.machine.child import Process
from rag_index.etl import local_steps
from tests.reliability.scenario import make_project


class KeptProcess(Process):
    """One child for all runs, in place of the one of each; it lives on when a run ends it."""

    kept: "KeptProcess | None" = None

    def __new__(cls, *_: object):
        cls.kept = cls.kept or super().__new__(cls)
        return cls.kept

    def __init__(self, *_: object) -> None:
        if not hasattr(self, "_lock"):
            super().__init__()

    def shutdown(self, wait=True, *, cancel_futures=False):
        """Leave the child to the next run."""


@pytest.fixture(scope="package", autouse=True)  # other tests look for children that are left
def kept_child():
    yield
    if KeptProcess.kept is not None:
        Process.shutdown(KeptProcess.kept)
        KeptProcess.kept = None


@pytest.fixture(autouse=True)
def one_child(monkeypatch):
    """Let the runs in this process embed their suspects in one child: its start takes longer than
    they do."""
    monkeypatch.setattr(local_steps, "Process", KeptProcess)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    embedder = open_embedder(
        make_project(tmp_path_factory.mktemp("any") / "p", 1).settings.embedder
    )
    yield embedder
    embedder.close()


@pytest.fixture
def folder():
    """A folder in memory if possible, because thousands of small writes are made durable."""
    memory = Path("/dev/shm")
    made = Path(
        tempfile.mkdtemp(prefix="every-step-", dir=memory if os.access(memory, os.W_OK) else None)
    )
    yield made
    shutil.rmtree(made)
