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


def test_the_doctor_needs_no_embedder(project):
    text = project.config.read_text()
    project.write_settings(text + '[embedder]\nkind = "ollama"\nmodel = "x"\nhosts = ["http://127.0.0.1:9"]\n')
    assert advice(project) == []
