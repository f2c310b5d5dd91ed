"""A service that does not answer: the progress says so within seconds, and the run ends in words where it ends."""

from __future__ import annotations

import pytest

from tests.fakes.ollama import FakeOllama
from tests.project import Project
from tests.waiting import when


class Recorder:
    """A display that keeps every sentence it is shown."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def show(self, progress) -> None:
        self.sentences.append(progress.sentence())

    def finish(self, progress, sentence) -> None:
        self.sentences.append(sentence)

    def says(self, *parts: str) -> bool:
        return any(all(part in sentence for part in parts) for sentence in self.sentences)


@pytest.fixture
def fake():
    with FakeOllama() as server:
        yield server


@pytest.fixture
def shown(monkeypatch) -> Recorder:
    """What a person sees of the progress."""
    recorder = Recorder()
    monkeypatch.setattr("rag_index.orchestration.states.open_display", lambda: recorder)
    return recorder


@pytest.fixture
def project(tmp_path, prefect_server, fake) -> Project:
    extra = f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\n'
    return Project(tmp_path / "project", extra=extra).fill(80)


def silent(fake: FakeOllama) -> str:
    return f"Ollama at {fake.url} does not answer, waiting since "


def test_a_server_that_hangs_in_the_middle_is_named_without_an_eta(project, fake, shown):
    """With the default settings; only the shards are small, so that some are done before."""
    fake.seconds_per_text = 0.01
    with (
        when(lambda: len(fake.embeds()) >= 4, lambda: fake.fault("hang")),
        when(lambda: shown.says(silent(fake)), lambda: (fake.clear(), fake.restart())),
    ):
        report = project.index(shard_documents=10, workers=1)
    assert report.state == "completed", report.sentence()
    said = [sentence for sentence in shown.sentences if "does not answer" in sentence]
    assert said
    assert not [sentence for sentence in said if " left" in sentence or "/s" in sentence or "busy" in sentence], said
    assert len(project.texts()) == 80


def test_a_server_that_hangs_while_the_flows_own_process_embeds_is_named(project, fake, shown, monkeypatch):
    monkeypatch.setattr("rag_index.hosts.pool.MIN_SILENCE", 1.0)
    fake.fault("hang", marker="ticket 3 ")
    with when(lambda: shown.says(silent(fake), "0 of 80"), lambda: (fake.clear(), fake.restart())):
        report = project.index(serial=True)
    assert report.state == "completed", report.sentence()
    assert len(project.texts()) == 80


@pytest.mark.long
def test_a_server_that_stops_in_the_middle_is_named_with_the_reason(project, fake, shown):
    fake.seconds_per_text = 0.02
    with (
        when(lambda: len(fake.embeds()) >= 4, fake.stop_listening),
        when(lambda: shown.says(silent(fake), "accepts no connection"), fake.listen),
    ):
        report = project.index(shard_documents=10, workers=1)
    assert report.state == "completed", report.sentence()
    assert len(project.texts()) == 80
