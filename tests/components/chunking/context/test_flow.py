"""Contexts in whole runs: written, cached, counted, missing, requested again."""

import pytest

from tests.components.chunking.context.conftest import numbered
from tests.fakes.ollama import FakeOllama
from tests.project import SETTINGS, Project


@pytest.fixture
def fake():
    with FakeOllama(model="fake-talk") as server:
        yield server


@pytest.fixture
def project(tmp_path, fake) -> Project:
    """A project with 80 notes. Eight of them have several chunks, all different."""
    project = Project(tmp_path / "project").fill(80)
    lengthen_notes(project, 12)
    enable_contexts(project, fake)
    return project


def enable_contexts(project, fake):
    table = f'[indexes.context]\nmodel = "{fake.model}"\nhosts = ["{fake.url}"]\n'
    project.write_settings(SETTINGS.format(extra="[run]\nwait_for_recovery = 5\n") + table)


def lengthen_notes(project, sentences) -> None:
    for note in range(10, 81, 10):
        project.execute("UPDATE note SET body = ? WHERE id = ?", numbered(sentences, f"ticket {note}"), note)


def several(project) -> list[dict]:
    """Return the `_rag` payloads of all chunks of documents that have several."""
    reserved = [payload["_rag"] for payload, _ in project.points().values()]
    return [one for one in reserved if one["chunks"] > 1]


def test_contexts_are_written_once_cached_and_counted(project, fake):
    outcome = project.run().indexes[0]
    chunks = several(project)
    assert len(chunks) > 8
    assert all(one["context"].startswith("Context ") for one in chunks)
    assert all("Context " not in one["text"] for one in chunks)
    assert all(
        "context" not in payload["_rag"] for payload, _ in project.points().values() if payload["_rag"]["chunks"] == 1
    )
    assert (outcome.contexts_made, outcome.contexts_cached, outcome.contexts_missing) == (len(chunks), 0, 0)
    assert (outcome.state, outcome.message) == ("completed", "")
    assert f"{len(chunks)} contexts written" in outcome.sentence()

    hits = project.json("search", "printer network", "--limit", "3")["hits"]
    assert hits
    assert all("Context " not in hit["text"] for hit in hits)

    fake.clear()
    assert project.run().indexes[0].nothing_to_do
    assert fake.generates() == []

    rebuilt = project.run(full=True).indexes[0]
    assert (rebuilt.contexts_made, rebuilt.contexts_cached) == (0, len(chunks))
    assert (rebuilt.state, rebuilt.chunks_embedded) == ("completed", 0), "equal contexts leave vectors as they are"
    assert "of 20 sampled found themselves" in rebuilt.verified
    assert fake.generates() == []

    fake.digest = "d9" * 32
    refused = project.run().indexes[0]
    assert refused.state == "failed"
    assert "was chunked as" in refused.message
    assert "rag-index rebuild notes" in refused.message


def test_missing_contexts_are_listed_and_requested_again(project, fake):
    fake.fault("generated", path="/api/generate", marker="ticket 40 ", response="")
    report = project.run()
    outcome = report.indexes[0]
    assert (outcome.state, outcome.failed, outcome.incomplete) == ("completed", 0, 1)
    missing = outcome.contexts_missing
    assert missing >= 2
    assert outcome.message.startswith(f"{missing} chunks are without context: `rag-index status notes --failed`")
    assert outcome.message in report.sentence()
    (listed,) = project.json("status", "--failed")["failed"]
    assert (listed["document_id"], listed["kind"]) == ("40", "incomplete")
    assert listed["reason"] == f"{missing} of {missing} chunks have no context: the answer is empty"
    assert len(project.texts()["40"]) == missing, "it is indexed anyway"

    fake.clear()
    assert project.run().indexes[0].nothing_to_do
    assert fake.generates() == []

    retried = project.json("index-all", "--retry-failed", "--serial")["indexes"][0]
    assert (retried["changed"], retried["contexts_made"]) == (1, missing)
    assert len(fake.generates()) == missing
    assert project.json("status", "--failed")["failed"] == []
    assert all(one["context"] for one in several(project))
