"""`rag-index tune` with a real Ollama: a configured server, and servers started for the search."""

from __future__ import annotations

import os

import psutil
import pytest

from tests.project import Project

pytestmark = [pytest.mark.ollama, pytest.mark.long]


def test_it_finds_working_settings_and_leaves_no_server_running(tmp_path, ollama_program, ollama_server, ollama_model):
    extra = f'[embedder]\nkind = "ollama"\nmodel = "{ollama_model}"\nhosts = ["{ollama_server.url}"]\nnum_thread = 1'
    project = Project(tmp_path / "p", extra=extra).fill(200)
    before = {process.pid for process in psutil.process_iter()}
    answer = project.json(
        "tune", "--budget", "10", "--local-servers", "--write",
        PATH=f"{ollama_program.parent}{os.pathsep}{os.environ['PATH']}",
        OLLAMA_MODELS=str(ollama_server.folder / "models"),
    )  # fmt: skip
    assert answer["knee"]["texts_per_second"] > 0
    assert answer["knee"]["texts_per_second"] >= 0.9 * answer["best"]["texts_per_second"]
    assert "2" in answer["servers"]
    assert answer["written"]
    one, several = [ollama_server.url], [f"http://127.0.0.1:{port}" for port in range(11434, 11450)]
    assert project.settings.embedder.hosts in (one, several[: len(project.settings.embedder.hosts)])  # what is faster
    left = [process for process in psutil.process_iter(["exe"]) if process.pid not in before]
    assert not [process for process in left if process.info["exe"] == str(ollama_program)]
