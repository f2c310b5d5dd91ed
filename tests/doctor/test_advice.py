"""What the doctor says beside its findings."""

from contextlib import closing

import pytest

from rag_index.care.doctor import examine
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.errors import IndexLocked
from tests.project import Project


@pytest.fixture
def project(indexed_notes) -> Project:
    return indexed_notes(20)


def advice(project) -> list[str]:
    """Return the advice of a project in which nothing is wrong."""
    diagnosis = examine(project.settings)
    assert (diagnosis.findings, diagnosis.exit_code) == ([], 0)
    return [one.message for one in diagnosis.advice]


def test_an_index_without_a_run_and_one_that_a_run_has_made(project, tmp_path):
    assert advice(project) == []
    project.fill(2, first=2000)
    assert advice(project) == [], "`plan` says what the next run does"
    assert "nothing is indexed yet" in advice(Project(tmp_path / "empty").fill(3))[0]


def test_a_locked_index_names_the_holder(project):
    with (
        closing(Ledger(project.settings.ledger_url)) as ledger,
        IndexLease(ledger, "test_notes", "a run"),
        pytest.raises(IndexLocked, match="process"),
    ):
        examine(project.settings)


@pytest.mark.parametrize(
    ("golden", "advised"),
    [(None, True), ('{"query": "printer"}', True), ('{"query": "printer", "relevant": ["1"]}', False)],
    ids=["missing", "broken", "small"],
)
def test_a_golden_file_that_the_gate_cannot_use_is_advice(project, golden, advised):
    project.write_settings(f"{project.config.read_text()}[indexes.gate]\nqueries = 'golden.jsonl'\n")
    if golden is not None:
        (project.folder / "golden.jsonl").write_text(golden)
    assert [message.startswith("the next rebuild ends at its start: ") for message in advice(project)] == [
        True
    ] * advised
    assert all("golden.jsonl" in message for message in advice(project))


def test_an_embedder_that_does_not_answer_is_advice(project):
    text = project.config.read_text()
    project.write_settings(text + '[embedder]\nkind = "ollama"\nmodel = "x"\nhosts = ["http://127.0.0.1:9"]\n')
    assert any("the embedder does not answer" in message for message in advice(project))
