"""A migration that changes the type of a key: no document is found twice, and nothing is embedded that was embedded."""

import pytest

from rag_index.etl.changed import index_documents
from tests.etl.plain import watched_run
from tests.project import Project

DOCUMENTS = 12


def project_of(folder, key: str, *, rows: str = 'table = "note"') -> Project:
    project = Project(folder / "project")
    project.write_settings(project.config.read_text().replace('table = "note"', rows))
    return migrate(project, key)


def migrate(project: Project, key: str, *, count: int = DOCUMENTS, first: int = 1) -> Project:
    """Make the source's table again, with a key that is this expression of a number `n`."""
    project.execute("DROP TABLE note")
    project.execute("CREATE TABLE note (id, title TEXT, body TEXT, author TEXT, priority INTEGER)")
    numbers = f"WITH RECURSIVE s(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM s WHERE n < {first + count - 1})"
    project.execute(
        f"INSERT INTO note {numbers} SELECT {key}, 'Note ' || n, 'The printer of floor ' || n, 'kim', n FROM s"
    )
    return project


CHANGES = {
    "text": ("n", "'' || n", "id is text and was integer"),
    "integer": ("'' || n", "n", "id is integer and was text"),
    "padded number": ("printf('%05d', n)", "n", "id is integer and was text"),
    "float": ("n", "n + 0.0", "id is float and was integer"),
    "bytes": ("'k' || n", "CAST('k' || n AS BLOB)", "id is bytes and was text"),
    "char": ("'k' || n", "substr('k' || n || '          ', 1, 10)", "id is text padded with blanks and was text"),
    "full char": ("'k' || n", "substr('k' || n || '          ', 1, 3)", "id is text padded with blanks and was text"),
    "varchar": ("substr('k' || n || '          ', 1, 10)", "'k' || n", "id is text and was text padded with blanks"),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("rows", "before", "after", "said"),
    [('query = "SELECT * FROM note"', *CHANGES["text"]), *(('table = "note"', *one) for one in CHANGES.values())],
    ids=["query", *CHANGES],
)
def test_a_key_of_another_type_is_refused_and_a_rebuild_takes_it_without_embedding(tmp_path, before, after, said, rows):
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
    assert (outcome.state, outcome.documents, outcome.chunks_embedded) == ("completed", DOCUMENTS, 0)
    assert len(project.texts()) == DOCUMENTS
    assert project.run().indexes[0].unchanged == DOCUMENTS


def test_a_composite_key_names_the_column_that_changed(tmp_path):
    project = project_of(tmp_path, "n")
    project.write_settings(project.config.read_text().replace('key = "id"', 'key = ["author", "id"]'))
    project.run()
    migrate(project, "'' || n")
    assert "(id is text and was integer)" in project.run().indexes[0].message


def test_single_documents_and_runs_of_a_watch_are_refused_too(tmp_path):
    project = project_of(tmp_path, "n")
    project.run()
    migrate(project, "'' || n", count=DOCUMENTS + 1)
    before = project.points().keys()
    assert "id is text and was integer" in index_documents(project.settings, "notes", ["3", "13"]).message
    assert "id is text and was integer" in str(watched_run(project).error)
    assert project.points().keys() == before


MIXED = {
    "all at once": ("n", "CASE WHEN n > 6 THEN '' || (n - 6) ELSE n END"),
    "before and after": ("CASE WHEN n > 6 THEN '' || n ELSE n END", "CASE WHEN n > 6 THEN n ELSE '' || n END"),
    "other texts": ("n", "'t' || n"),
    "other numbers": ("n", "n + 1000"),
    "the same": ("n", "n"),
}


@pytest.mark.long
@pytest.mark.parametrize(("before", "after"), MIXED.values(), ids=MIXED)
def test_a_source_with_several_types_or_other_keys_goes_on(tmp_path, before, after):
    project = project_of(tmp_path, before)
    project.run()
    migrate(project, after)
    (outcome,) = project.run().indexes
    assert (outcome.state, len(project.texts())) == ("completed", len({*keys_of(project)}))


def test_numbers_that_come_before_texts_of_the_same_name_are_documents_of_their_own(tmp_path, monkeypatch):
    """The first page has numbers alone, and the ledger texts alone: the texts are still there."""
    project = project_of(tmp_path, "'' || n", rows='table = "note"')
    monkeypatch.setattr("rag_index.etl.run.MAX_PAGE_ROWS", 5)
    project.run()
    project.execute("INSERT INTO note SELECT CAST(id AS INTEGER), title, body, author, priority FROM note")
    (outcome,) = project.run().indexes
    assert (outcome.state, outcome.new, outcome.unchanged) == ("completed", DOCUMENTS, DOCUMENTS)


def test_an_index_without_documents_takes_any_type(tmp_path):
    project = project_of(tmp_path, "n")
    project.execute("DELETE FROM note")
    project.run()
    migrate(project, "'' || n")
    assert project.run().state == "completed"


def keys_of(project: Project):
    with project.source() as db:
        return [str(key) for (key,) in db.execute("SELECT id FROM note")]
