"""What the doctor says beside its findings: what the next run does, and settings that hurt."""

from contextlib import closing

import pytest

from rag_index.doctor import checkup, examine
from rag_index.documents.batches import Failure
from rag_index.errors import IndexLocked
from rag_index.indexing.diff import MAX_TRIES
from rag_index.ledger import Ledger
from rag_index.ledger.runs import IndexLease
from rag_index.sources import open_source
from tests.project import Project
from tests.twin import twin


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("advice") / "project").fill(20)
    assert project.run().state == "completed"
    return project


@pytest.fixture
def project(clean, tmp_path) -> Project:
    return twin(clean, tmp_path / "project")


def advice(project) -> list[str]:
    """Return the advice of a project in which nothing is wrong."""
    diagnosis = examine(project.settings)
    assert (diagnosis.findings, diagnosis.exit_code) == ([], 0)
    return [one.message for one in diagnosis.advice]


def test_changes_in_the_source_are_advice(project, tmp_path):
    assert advice(project) == []
    project.execute("UPDATE note SET body = 'changed' WHERE id = 3")
    project.execute("DELETE FROM note WHERE id = 4")
    project.fill(2, first=2000)
    assert advice(project) == [
        "2 new, 1 changed, 1 gone since the last run; the next run indexes that, or `rag-index index notes` does now"
    ]
    assert "nothing is indexed yet" in advice(Project(tmp_path / "empty").fill(3))[0]


def test_a_document_that_was_given_up_is_not_what_the_next_run_indexes(project):
    project.execute("UPDATE note SET body = 'refused' WHERE id = 3")
    project.execute("INSERT INTO note VALUES (2000, 'new', 'refused too', 'a', 1)")
    source = closing(open_source(project.settings, project.settings.index("notes")))
    with source as opened, closing(Ledger(project.settings.ledger_url)) as ledger:
        documents = opened.page(None, 100).documents
        hashes = dict(zip(documents.keys, documents.text_hashes, strict=True))
        for _ in range(MAX_TRIES):
            ledger.fail(1, [Failure(key, "too long", hashes[key]) for key in ("3", "2000")])
    diagnosis = examine(project.settings)
    assert [(one.kind, one.count) for one in diagnosis.findings] == [("failed_documents", 2)]
    assert diagnosis.advice == []
    project.execute("UPDATE note SET body = 'shorter' WHERE id = 3")
    assert [one.message.partition(" since")[0] for one in examine(project.settings).advice] == ["1 changed"]


def test_a_locked_index_names_the_holder(project):
    with (
        closing(Ledger(project.settings.ledger_url)) as ledger,
        IndexLease(ledger, "test_notes", "a run"),
        pytest.raises(IndexLocked, match="process"),
    ):
        examine(project.settings)


@pytest.mark.parametrize(
    ("golden", "finding"),
    [(None, True), ('{"query": "printer"}', True), ('{"query": "printer", "relevant": ["1"]}', False)],
    ids=["missing", "broken", "small"],
)
def test_a_golden_file_that_the_gate_cannot_use_is_a_finding(project, golden, finding):
    project.write_settings(f"{project.config.read_text()}[indexes.gate]\nqueries = 'golden.jsonl'\n")
    if golden is not None:
        (project.folder / "golden.jsonl").write_text(golden)
    diagnosis = examine(project.settings)
    assert [one.kind for one in diagnosis.findings] == ["unusable_gate"] * finding
    assert all("golden.jsonl" in one.message for one in diagnosis.findings)
    assert diagnosis.advice == []


def test_a_network_filesystem_is_advised_against(project, monkeypatch):
    monkeypatch.setattr(checkup, "_filesystem", lambda path: "nfs4")
    found = [one.message for one in checkup.place_advice(project.settings)]
    assert [one.partition(":")[0] for one in found] == ["[store] path", "[ledger] url"]


def test_an_embedder_that_does_not_answer_is_advice(project):
    text = project.config.read_text()
    project.write_settings(text + '[embedder]\nkind = "ollama"\nmodel = "x"\nhosts = ["http://127.0.0.1:9"]\n')
    assert any("the embedder does not answer" in message for message in advice(project))
