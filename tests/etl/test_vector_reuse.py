"""What need not be embedded again: equal texts under another key or a key of another type, and
texts that get their words. Every way to write a document writes its words too."""

from unittest import mock

import numpy as np
import pytest

from rag_index import Retriever
from rag_index.components.embedders.bm25 import BM25_VERSION, Bm25Encoder, Bm25Model
from rag_index.core.documents.batches import PointBatch, StoredPoint
from rag_index.etl.changed import index_documents
from tests.etl.plain import printed, run_plain, watched_run
from tests.project import SETTINGS, WORDS, Project, run_here

DOCUMENTS = 12
CHANGES = {
    "text": ("n", "'' || n", "id is text and was integer"),
    "integer": ("'' || n", "n", "id is integer and was text"),
    "padded number": ("printf('%05d', n)", "n", "id is integer and was text"),
    "float": ("n", "n + 0.0", "id is float and was integer"),
    "bytes": ("'k' || n", "CAST('k' || n AS BLOB)", "id is bytes and was text"),
    "char": (
        "'k' || n",
        "substr('k' || n || '          ', 1, 10)",
        "id is text padded with blanks and was text",
    ),
    "full char": (
        "'k' || n",
        "substr('k' || n || '          ', 1, 3)",
        "id is text padded with blanks and was text",
    ),
    "varchar": (
        "substr('k' || n || '          ', 1, 10)",
        "'k' || n",
        "id is text and was text padded with blanks",
    ),
}
MIXED = {
    "all at once": ("n", "CASE WHEN n > 6 THEN '' || (n - 6) ELSE n END"),
    "before and after": (
        "CASE WHEN n > 6 THEN '' || n ELSE n END",
        "CASE WHEN n > 6 THEN n ELSE '' || n END",
    ),
    "other texts": ("n", "'t' || n"),
    "other numbers": ("n", "n + 1000"),
    "the same": ("n", "n"),
}


@pytest.fixture
def numbered(project) -> Project:
    project.fill(300).execute("ALTER TABLE note ADD COLUMN number TEXT")
    project.execute("UPDATE note SET number = 'N' || id")
    assert run_plain(project).chunks_embedded == len(project.points()) == 390
    return project


def test_a_rebuild_after_a_change_of_the_key_column_embeds_nothing(numbered):
    before = {payload["_rag"]["text"]: vector for payload, vector in numbered.points().values()}
    numbered.write_settings(numbered.config.read_text().replace('key = "id"', 'key = "number"'))
    numbered.execute("UPDATE note SET body = 'One text is new.' WHERE id = 7")
    outcome = run_plain(numbered, full=True)
    assert (outcome.state, outcome.new, outcome.chunks_embedded) == ("completed", 300, 1)
    after = {payload["_rag"]["text"]: vector for payload, vector in numbered.points().values()}
    assert set(numbered.texts()) == {f"N{i}" for i in range(1, 301)}
    assert all(vector == before.get(text, vector) for text, vector in after.items())


def test_a_rebuild_reuses_no_vector_of_what_a_dead_run_left_half_written(numbered, ledger):
    def vector() -> list[float]:
        return next(
            vector
            for payload, vector in numbered.points().values()
            if payload["_rag"]["document_id"] == "7"
        )

    before = vector()
    with numbered.store() as store:
        ledger.mark_pending(ledger.collections("test_notes")[-1].id, ["7"])
        found = next(
            one
            for one in store.points("test_notes").scroll(vectors=True)
            if one.payload["_rag"]["key"] == "7"
        )
        wrong = np.roll(np.asarray([found.vector], np.float32), 1)
        store.points("test_notes").upsert(PointBatch([found.id], wrong, [found.payload]))
    assert np.allclose(vector(), wrong)
    run_plain(numbered, full=True)
    assert np.allclose(vector(), before)


def test_a_run_after_a_change_of_the_key_column_holds_the_old_documents_back(numbered):
    numbered.write_settings(numbered.config.read_text().replace('key = "id"', 'key = "number"'))
    outcome = run_plain(numbered)
    assert (outcome.state, outcome.new, outcome.held_back) == ("partial", 300, 300)
    refused = run_plain(numbered, full=True)
    assert "run again with --allow-deletes" in refused.message, (
        "the old documents are held back, not moved"
    )
    rebuilt = run_plain(numbered, full=True, allow_deletes=True)
    assert (rebuilt.state, rebuilt.chunks_embedded, len(numbered.texts())) == ("completed", 0, 300)


def paragraphs(changed: int | None = None) -> str:
    return "\n\n".join(
        f"Paragraph {n} is {'new' if n == changed else 'old'}: {' '.join(WORDS)}."
        for n in range(100)
    )


def test_a_run_embeds_only_the_chunks_whose_text_changed(tmp_path):
    project = Project(tmp_path / "project").fill(20)
    project.execute("UPDATE note SET body = ? WHERE id <= 2", paragraphs())
    whole = run_plain(project).chunks_embedded
    project.execute("UPDATE note SET body = ? WHERE id = 1", paragraphs(changed=50))
    project.execute("UPDATE note SET body = 'short, and new' WHERE id = 3")
    outcome = run_plain(project)
    assert (outcome.changed, whole > 200, 2 <= outcome.chunks_embedded <= 5) == (
        2,
        True,
        True,
    ), outcome
    fresh = Project(tmp_path / "fresh").fill(20)
    fresh.execute("UPDATE note SET body = ? WHERE id = 1", paragraphs(changed=50))
    fresh.execute("UPDATE note SET body = ? WHERE id = 2", paragraphs())
    fresh.execute("UPDATE note SET body = 'short, and new' WHERE id = 3")
    run_plain(fresh)
    assert project.points() == fresh.points()


def test_one_text_in_place_of_many_is_a_loss(numbered):
    """Documents of one text are matched one to one: a table that has one row left did not keep the
    others."""
    numbered.execute("UPDATE note SET title = 'same', body = 'text'")
    run_plain(numbered)
    numbered.write_settings(numbered.config.read_text().replace('key = "id"', 'key = "number"'))
    numbered.execute("DELETE FROM note WHERE id > 1")
    outcome = run_plain(numbered, full=True)
    assert (outcome.state, "lacks 299 of 300 documents" in outcome.message) == ("partial", True)


@pytest.mark.parametrize(("prefix", "embedded"), [("document", 3), ("query", 0)])
def test_a_rebuild_for_another_prefix_reuses_no_vector_that_has_it(
    tmp_path, fake, prefix, embedded
):
    """The same model with another prefix of documents gives vectors of the same dimension, with
    another meaning."""
    project = Project(
        tmp_path / "project", extra=f'{fake.settings}{prefix}_prefix = "first: "\n'
    ).fill(3)
    assert run_plain(project).chunks_embedded == 3
    project.write_settings(project.config.read_text().replace('"first: "', '"second: "'))
    assert run_plain(project, full=True).chunks_embedded == embedded


def test_a_rebuild_does_not_believe_a_payload_that_another_program_changed(numbered):
    """Its vector is that of the text that was there before."""
    numbered.execute("UPDATE note SET title = 'printer', body = 'It prints again.' WHERE id = 7")
    with numbered.store() as store:
        found = next(
            one for one in store.points("test_notes").scroll() if one.payload["_rag"]["key"] == "7"
        )
        found.payload["_rag"]["text"] = "printer\nIt prints again."
        store.points("test_notes").update_payloads([(found.id, found.payload)])
    outcome = run_plain(numbered, full=True)
    assert (outcome.state, outcome.chunks_embedded, outcome.verified[-9:]) == (
        "completed",
        1,
        "hemselves",
    )


def project_of(folder, key: str, *, rows: str = 'table = "note"') -> Project:
    project = Project(folder / "project")
    project.write_settings(project.config.read_text().replace('table = "note"', rows))
    return migrate(project, key)


def migrate(project: Project, key: str, *, count: int = DOCUMENTS) -> Project:
    """Make the source's table again, with a key that is this expression of a number `n`."""
    project.execute("DROP TABLE note")
    project.execute("CREATE TABLE note (id, title TEXT, body TEXT, author TEXT, priority INTEGER)")
    numbers = f"WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {count})"
    project.execute(
        f"INSERT INTO note {numbers} SELECT {key}, 'Note ' || n, 'Printer of floor ' || n, 'kim', n"
        " FROM s"
    )
    return project


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "before", "after", "said"),
    [
        ('query = "SELECT * FROM note"', *CHANGES["text"]),
        *(('table = "note"', *one) for one in CHANGES.values()),
    ],
    ids=["query", *CHANGES],
)
def test_a_key_of_another_type_is_refused_and_a_rebuild_takes_it_without_embedding(
    tmp_path, before, after, said, rows
):
    project = project_of(tmp_path, before, rows=rows)
    assert project.run().state == "completed"
    points = project.points()
    migrate(project, after)
    for options in ({}, {"allow_deletes": True}):
        (outcome,) = project.run(**options).indexes
        assert (outcome.state, outcome.error_class) == ("failed", "SourceError")
        assert said in outcome.message
        assert "`rag-index rebuild notes`" in outcome.message
    assert project.points().keys() == points.keys()
    (outcome,) = project.run(full=True).indexes
    assert (outcome.state, outcome.documents, outcome.chunks_embedded) == (
        "completed",
        DOCUMENTS,
        0,
    )
    assert (len(project.texts()), project.run().indexes[0].unchanged) == (DOCUMENTS, DOCUMENTS)


def test_a_composite_key_names_the_column_that_changed(tmp_path):
    project = project_of(tmp_path, "n")
    project.write_settings(
        project.config.read_text().replace('key = "id"', 'key = ["author", "id"]')
    )
    project.run()
    migrate(project, "'' || n")
    assert "(id is text and was integer)" in project.run().indexes[0].message


def test_single_documents_and_runs_of_a_watch_are_refused_too(tmp_path):
    project = project_of(tmp_path, "n")
    project.run()
    migrate(project, "'' || n", count=DOCUMENTS + 1)
    before = project.points().keys()
    assert (
        "id is text and was integer"
        in index_documents(project.settings, "notes", ["3", "13"]).message
    )
    assert "id is text and was integer" in str(watched_run(project).error)
    assert project.points().keys() == before


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), MIXED.values(), ids=MIXED)
def test_a_source_with_several_types_or_other_keys_goes_on(tmp_path, before, after):
    project = project_of(tmp_path, before)
    project.run()
    migrate(project, after)
    (outcome,) = project.run().indexes
    with project.source() as db:
        keys = {str(key) for (key,) in db.execute("SELECT id FROM note")}
    assert (outcome.state, len(project.texts())) == ("completed", len(keys))


def test_numbers_that_come_before_texts_of_the_same_name_are_documents_of_their_own(
    tmp_path, monkeypatch
):
    """The first page has numbers alone, and the ledger texts alone: the texts are still there."""
    project = project_of(tmp_path, "'' || n")
    monkeypatch.setattr("rag_index.etl.fetch.MAX_PAGE_ROWS", 5)
    project.run()
    project.execute(
        "INSERT INTO note SELECT CAST(id AS INTEGER), title, body, author, priority FROM note"
    )
    (outcome,) = project.run().indexes
    assert (outcome.state, outcome.new, outcome.unchanged) == ("completed", DOCUMENTS, DOCUMENTS)


def test_an_index_without_documents_takes_any_type(tmp_path):
    project = project_of(tmp_path, "n")
    project.execute("DELETE FROM note")
    project.run()
    migrate(project, "'' || n")
    assert project.run().state == "completed"


def points(project: Project) -> dict[str, StoredPoint]:
    """Return the live points with both vectors."""
    with project.store() as store:
        return {
            point.id: point
            for point in store.points(project.settings.alias("notes")).scroll(vectors=True)
        }


def check_words(project: Project) -> dict[str, StoredPoint]:
    """Check that every point has exactly the sparse vector of its text and of its document's names,
    and return them."""
    found, encoder = points(project), Bm25Encoder(Bm25Model("english"))
    for point in found.values():
        ours = point.payload["_rag"]
        names = () if ours["chunk"] else (ours["document_id"], "", ours["text"].partition("\n")[0])
        assert point.sparse == encoder.documents([ours["text"]], names=[names]).row(0)
    return found


def best(project: Project, query: str) -> str:
    with Retriever.from_settings(project.config) as retriever:
        return retriever.search_sync(query).hits[0].document_id


def test_a_run_and_single_documents_write_words_that_follow_the_text(project):
    assert project.fill(60).run().state == "completed"
    before = check_words(project)
    project.execute(
        "UPDATE note SET body = 'the gate shows XQ-77' WHERE id = 10"
    )  # it had several chunks
    project.execute("UPDATE note SET author = 'somebody' WHERE id = 11")
    project.execute("DELETE FROM note WHERE id = 12")
    assert project.run().state == "completed"
    assert len(check_words(project)) < len(before)
    assert best(project, "XQ-77") == "10"
    project.execute("UPDATE note SET body = 'the gate shows ZZ-12' WHERE id = 13")
    run_here(project.config, "index", "notes", "--id", "13")
    check_words(project)
    assert best(project, "ZZ-12") == "13"


@pytest.mark.long
@pytest.mark.parametrize("before", ["no words", "words of another version"])
def test_an_index_gets_its_words_by_a_rebuild_that_embeds_nothing(project, before):
    if before == "no words":
        project.write_settings(SETTINGS.format(extra="") + 'search = "dense"\n')
    with mock.patch.object(Bm25Model.__init__, "__defaults__", (False, BM25_VERSION - 1)):
        assert project.fill(60).run().state == "completed"
    old = points(project)
    assert {point.sparse is None for point in old.values()} == {before == "no words"}
    project.write_settings(SETTINGS.format(extra=""))
    refused = project.run().indexes[0]
    assert refused.state == "failed"
    assert f"bm25-{BM25_VERSION}-english" in refused.message
    assert "rag-index rebuild notes" in refused.message
    assert best(project, "Note 7")  # it is searched by meaning until then
    assert project.run(full=True).state == "completed"
    hybrid = check_words(project)
    assert {i: point.vector for i, point in hybrid.items()} == {
        i: point.vector for i, point in old.items()
    }
    runs = [run["metrics"] for run in printed(project, "status", "--report")["runs"]]
    assert [(run["texts"], run["reused"]) for run in runs if run.get("reused")] == [
        (0, len(hybrid))
    ]
