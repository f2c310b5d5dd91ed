"""A service that does not answer: the progress says so within seconds, and the run ends in words where it ends."""

from __future__ import annotations

import socket

import pytest

from rag_index.hosts.endpoint import PLAIN_TEXT
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


# At the start: five indexes, and the whole ends once


@pytest.fixture
def five(project) -> Project:
    """The project with five indexes, and with a short limit at the start."""
    text = project.config.read_text()
    head, one = text.split("[[indexes]]")
    indexes = [one.replace('"notes"', f'"notes{number}"') for number in range(5)]
    project.write_settings("[[indexes]]".join([head, *indexes]).replace("hosts = ", "start_timeout = 4\nhosts = "))
    return project


@pytest.fixture
def patient(monkeypatch) -> None:
    """Let four seconds of waiting count as a wait that is not repeated, and be told soon."""
    monkeypatch.setattr("rag_index.indexing.retries.MIN_SECONDS", 3.0)
    monkeypatch.setattr("rag_index.hosts.survey.MIN_SILENCE", 1.0)
    monkeypatch.setattr("rag_index.indexing.retries.QUICK_SECONDS", 3.0)


def assert_ended_once(report, shown: Recorder, url: str) -> None:
    messages = [outcome.message for outcome in report.indexes]
    assert [outcome.state for outcome in report.indexes] == ["failed"] * 5
    assert f"{url} did not answer within 4 s: restart Ollama there if it hangs" in messages[0]
    assert "start_timeout" in messages[0]
    assert all("does not ask again" in message for message in messages[1:]), messages
    assert shown.says("not begun", f"Ollama at {url} does not answer, waiting since "), shown.sentences


@pytest.mark.long
def test_a_server_that_lists_its_models_but_does_not_embed_ends_the_whole_once(five, fake, shown, patient):
    fake.fault("hang")
    assert_ended_once(five.index(), shown, fake.url)
    assert len(fake.embeds()) == 1


@pytest.mark.long
def test_a_socket_that_accepts_and_is_silent_ends_the_whole_once(five, fake, shown, patient):
    fake.stop_listening()
    with socket.create_server(("127.0.0.1", fake.port), backlog=100):
        assert_ended_once(five.index(), shown, fake.url)


@pytest.mark.long
def test_the_embedder_is_asked_once_for_all_indexes(five, fake):
    report = five.index(serial=True)
    assert report.state == "completed", report.sentence()
    assert (
        len([request for request in fake.embeds() if request.texts == [PLAIN_TEXT]]) == 2
    )  # by the check, and by the first worker


def test_an_embedder_that_goes_silent_is_waited_for_once_and_the_other_indexes_fail_at_once(tmp_path, fake):
    extra = f'[embedder]\nkind = "ollama"\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\nwait_for_recovery = 1\n'
    project = Project(tmp_path / "project", extra=extra).fill(3)
    settings = project.config.read_text()
    project.write_settings(settings + settings[settings.index("[[indexes]]") :].replace('"notes"', '"others"'))
    fake.fault("hang", marker="Note")  # not at the plain text of the start
    with when(lambda: any("Note" in text for one in fake.embeds() for text in one.texts), fake.stop_listening):
        first, second = project.run().indexes
    assert (first.state, second.state) == ("failed", "failed")
    assert "within 1 s" in first.message
    assert second.message.endswith("(the run has waited for it, and does not ask again)")
