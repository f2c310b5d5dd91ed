"""What tests need that run an index many times in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from rag_index.embedders import open_embedder
from rag_index.indexing import embed
from tests.reliability.scenario import make_project


class KeptChildren:
    """The child of each embedder, as what `_start` returns; it lives on when a run ends it."""

    def __init__(self) -> None:
        self.children = {}
        self._start = embed._start

    def send(self, job):
        known = self.children.get(str(job.embedder))
        if known is None or not known[0].is_alive():
            known = self.children[str(job.embedder)] = self._start()
        _, connection = known
        connection.send(job)
        self.recv = connection.recv

    def close(self):
        """Leave the child to the next run."""


@pytest.fixture(scope="package")  # other tests look for children that are left
def kept_children():
    kept = KeptChildren()
    yield kept
    for process, _ in kept.children.values():
        process.kill()
        process.join()


@pytest.fixture(autouse=True)
def one_child(kept_children, monkeypatch):
    """Let the runs in this process embed their suspects in one child: its start takes longer than they do."""
    lives = SimpleNamespace(kill=lambda: None, join=lambda: None)
    monkeypatch.setattr(embed, "_start", lambda: (lives, kept_children))


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    project = make_project(tmp_path_factory.mktemp("any") / "p", 1)
    embedder = open_embedder(project.settings.embedder)
    yield embedder
    embedder.close()


@pytest.fixture
def folder():
    """A folder in memory if possible, because thousands of small writes are made durable."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="every-step-", dir=memory if os.access(memory, os.W_OK) else None))
    yield made
    shutil.rmtree(made)
