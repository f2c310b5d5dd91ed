"""What tests need that run an index many times in this process."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from rag_index.embedders import open_embedder
from tests.reliability.scenario import make_project


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
