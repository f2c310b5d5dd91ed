"""Known items of a column: asked where the column is not part of the text, and nothing real is written."""

import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.errors import SettingsError
from rag_index.evaluation.measures import parse_metric
from rag_index.stores import open_store
from rag_index.tuning.column_evaluation import evaluate_items, read_items, temporary_indexes
from tests.indexing.plain import run_plain
from tests.project import SETTINGS, Project

OPTIONS = (parse_metric("recall@10"),)
BODY_ALONE = SETTINGS.replace('["title", "body"]', '["body"]')


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "p").fill(60)
    project.execute("UPDATE note SET title = 'Both of them' WHERE id IN (3, 4)")
    project.execute("UPDATE note SET title = ' ' WHERE id = 5")
    return project


def read(project, column="title", **options):
    return read_items(project.settings, ["notes"], column, **{"queries": 200, "documents": 5000, **options})


def test_the_values_of_the_column_are_queries_for_their_documents(project):
    items = read(project)
    queries = {one.query: dict(one.relevant) for one in items.queries}
    assert len(queries) == 58
    assert queries["Note 7"] == {"7": 1}
    assert queries["Both of them"] == {"3": 1, "4": 1}
    assert {one.index for one in items.queries} == {"notes"}


def test_a_column_of_the_text_is_left_out_of_a_temporary_index_and_nothing_real_is_written(project):
    items, before = read(project), sorted(project.folder.rglob("*"))
    assert items.samples is not None
    with temporary_indexes(items.settings, items.samples) as settings, closing(open_store(settings.store)) as store:
        points = list(store.scroll(settings.alias("notes")))
    assert len({point.payload["_rag"]["document_id"] for point in points}) == 60
    assert not [point for point in points if "Note" in point.payload["_rag"]["text"]]
    assert sorted(project.folder.rglob("*")) == before
    assert not list(Path(tempfile.gettempdir()).glob(f"{settings.store.path.parent.name}*"))
    evaluation = evaluate_items(items, OPTIONS, lambda _: None)
    assert [scope.queries for scope in evaluation.scopes] == [58]


def test_a_column_beside_the_text_is_asked_of_the_live_index(project):
    filtered = 'required_filter = { author = "author 1" }\npayload = ["author"'
    project.write_settings(BODY_ALONE.format(extra="").replace('payload = ["author"', filtered))
    run_plain(project)
    project.execute("UPDATE note SET title = substr(body, 1, 90)")
    items = read(project)
    assert items.samples is None
    [scope] = evaluate_items(items, OPTIONS, lambda _: None).scopes
    assert {way.way: way.metrics["recall@10"].mean for way in scope.ways}["sparse"] == 1  # the filter hides nothing


@pytest.mark.parametrize(
    ("settings", "column", "message"),
    [
        (SETTINGS, "titel", "table 'note' cannot be read: no such column: note.titel"),
        (SETTINGS, "priority", "index notes: column 'priority' holds int (1), not text; name another"),
        (BODY_ALONE, "body", "the text of index notes is the column 'body' alone, and nothing is left to be found"),
        (SETTINGS.replace('["title", "body"]', '"{{title}}: {{body}}"'), "author", ""),
    ],
)
def test_columns_that_make_no_queries(project, settings, column, message):
    project.write_settings(settings.format(extra=""))
    if not message:
        assert read(project, column).samples is None
        return
    with pytest.raises(SettingsError) as refused:
        read(project, column)
    assert message in str(refused.value)


def test_an_empty_column_and_source_code_make_no_queries(project):
    project.execute("UPDATE note SET title = NULL")
    with pytest.raises(SettingsError, match="column 'title' is empty in all documents"):
        read(project)
    project.write_settings('project = "x"\n[[indexes]]\nname = "notes"\nkind = "code"\nroot = "."\n')
    with pytest.raises(SettingsError, match="index notes has kind 'code' and no columns to make queries of"):
        read(project)
