"""Vectors that need not be made again."""

import numpy as np
import pytest

from rag_index.core.documents.batches import PointBatch
from tests.etl.plain import run_plain
from tests.project import WORDS, Project


@pytest.fixture
def project(tmp_path) -> Project:
    project = Project(tmp_path / "project").fill(300)
    project.execute("ALTER TABLE note ADD COLUMN number TEXT")
    project.execute("UPDATE note SET number = 'N' || id")
    assert run_plain(project).chunks_embedded == len(project.points()) == 390
    return project


def test_a_rebuild_after_a_change_of_the_key_column_embeds_nothing(project):
    before = {payload["_rag"]["text"]: vector for payload, vector in project.points().values()}
    project.write_settings(project.config.read_text().replace('key = "id"', 'key = "number"'))
    project.execute("UPDATE note SET body = 'One text is new.' WHERE id = 7")
    outcome = run_plain(project, full=True)
    assert (outcome.state, outcome.new, outcome.chunks_embedded) == ("completed", 300, 1)
    after = {payload["_rag"]["text"]: vector for payload, vector in project.points().values()}
    assert set(project.texts()) == {f"N{i}" for i in range(1, 301)}
    assert all(vector == before.get(text, vector) for text, vector in after.items())


def test_a_rebuild_reuses_no_vector_of_what_a_dead_run_left_half_written(project, ledger):
    def vector() -> list[float]:
        return next(vector for payload, vector in project.points().values() if payload["_rag"]["document_id"] == "7")

    before = vector()
    with project.store() as store:
        ledger.mark_pending(ledger.collections("test_notes")[-1].id, ["7"])
        found = next(one for one in store.scroll("test_notes", vectors=True) if one.payload["_rag"]["key"] == "7")
        wrong = np.roll(np.asarray([found.vector], np.float32), 1)
        store.upsert("test_notes", PointBatch([found.id], wrong, [found.payload]))
    assert np.allclose(vector(), wrong)
    run_plain(project, full=True)
    assert np.allclose(vector(), before)


def test_a_run_after_a_change_of_the_key_column_holds_the_old_documents_back(project):
    project.write_settings(project.config.read_text().replace('key = "id"', 'key = "number"'))
    outcome = run_plain(project)
    assert (outcome.state, outcome.new, outcome.held_back) == ("partial", 300, 300)
    refused = run_plain(project, full=True)
    assert "run again with --allow-deletes" in refused.message, "the old documents are held back, not moved"
    rebuilt = run_plain(project, full=True, allow_deletes=True)
    assert (rebuilt.state, rebuilt.chunks_embedded, len(project.texts())) == ("completed", 0, 300)


def paragraphs(changed: int | None = None) -> str:
    return "\n\n".join(
        f"Paragraph {n} {'is new' if n == changed else 'is old'}: {' '.join(WORDS)}." for n in range(100)
    )


def test_a_run_embeds_only_the_chunks_whose_text_changed(tmp_path):
    project = Project(tmp_path / "project").fill(20)
    project.execute("UPDATE note SET body = ? WHERE id <= 2", paragraphs())
    whole = run_plain(project).chunks_embedded
    project.execute("UPDATE note SET body = ? WHERE id = 1", paragraphs(changed=50))
    project.execute("UPDATE note SET body = 'short, and new' WHERE id = 3")
    outcome = run_plain(project)
    assert (outcome.changed, whole > 200, 2 <= outcome.chunks_embedded <= 5) == (2, True, True), outcome
    fresh = Project(tmp_path / "fresh").fill(20)
    fresh.execute("UPDATE note SET body = ? WHERE id = 1", paragraphs(changed=50))
    fresh.execute("UPDATE note SET body = ? WHERE id = 2", paragraphs())
    fresh.execute("UPDATE note SET body = 'short, and new' WHERE id = 3")
    run_plain(fresh)
    assert project.points() == fresh.points()


def test_one_text_in_place_of_many_is_a_loss(project):
    """Documents of one text are matched one to one: a table that has one row left did not keep the others."""
    project.execute("UPDATE note SET title = 'same', body = 'text'")
    run_plain(project)
    project.write_settings(project.config.read_text().replace('key = "id"', 'key = "number"'))
    project.execute("DELETE FROM note WHERE id > 1")
    outcome = run_plain(project, full=True)
    assert (outcome.state, "lacks 299 of 300 documents" in outcome.message) == ("partial", True)


@pytest.mark.parametrize(("prefix", "embedded"), [("document", 3), ("query", 0)])
def test_a_rebuild_for_another_prefix_reuses_no_vector_that_has_it(tmp_path, fake, prefix, embedded):
    """The same model with another prefix of documents gives vectors of the same dimension, with another meaning."""
    project = Project(tmp_path / "project", extra=f'{fake.settings}{prefix}_prefix = "first: "\n').fill(3)
    assert run_plain(project).chunks_embedded == 3
    project.write_settings(project.config.read_text().replace('"first: "', '"second: "'))
    assert run_plain(project, full=True).chunks_embedded == embedded


def test_a_rebuild_does_not_believe_a_payload_that_another_program_changed(project):
    """Its vector is that of the text that was there before."""
    project.execute("UPDATE note SET title = 'printer', body = 'It prints again.' WHERE id = 7")
    with project.store() as store:
        found = next(one for one in store.scroll("test_notes") if one.payload["_rag"]["key"] == "7")
        found.payload["_rag"]["text"] = "printer\nIt prints again."
        store.update_payloads("test_notes", [(found.id, found.payload)])
    outcome = run_plain(project, full=True)
    assert (outcome.state, outcome.chunks_embedded, outcome.verified[-9:]) == ("completed", 1, "hemselves")
