"""What tests need that run an index many times in this process."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from rag_index.embedders import open_embedder
from rag_index.indexing import embed
from tests.reliability.scenario import make_project


class KeptChildren:
    """The child of each embedder, in place of the one of a run; it lives on when a run ends it."""

    def __init__(self) -> None:
        self.children = {}
        self._start = embed._Child

    def ask(self, job):
        known = self.children.get(str(job.embedder))
        if known is None or not known._process.is_alive():
            known = self.children[str(job.embedder)] = self._start()
        return known.ask(job)

    def end(self):
        """Leave the child to the next run."""


@pytest.fixture(scope="package")  # other tests look for children that are left
def kept_children():
    kept = KeptChildren()
    yield kept
    for one in kept.children.values():
        one.end()


@pytest.fixture(autouse=True)
def one_child(kept_children, monkeypatch):
    """Let the runs in this process embed their suspects in one child: its start takes longer than they do."""
    monkeypatch.setattr(embed, "_Child", lambda: kept_children)


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
