"""The benchmark: its report of real worker processes, known items of a column, and that it leaves the index alone."""

import json
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from rag_index.care.benchmark import known_items
from rag_index.components.stores import open_store
from rag_index.errors import SettingsError
from rag_index.search.evaluation.evaluation import evaluate
from rag_index.search.evaluation.measures import parse_metric
from tests.fakes.ollama import FakeOllama
from tests.forked_program import run_program, without_api
from tests.project import SETTINGS, Project

OPTIONS = (parse_metric("recall@10"),)
BODY_ALONE = SETTINGS.replace('["title", "body"]', '["body"]')


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "p").fill(60)
    project.execute("UPDATE note SET title = 'Both of them' WHERE id IN (3, 4)")
    project.execute("UPDATE note SET title = ' ' WHERE id = 5")
    return project


def made(project, column="title"):
    """Return the queries that are made of a column, by their text, and the texts that are searched."""
    with known_items(project.settings, ["notes"], column) as (settings, queries):
        with closing(open_store(settings.store)) as store:
            points = list(store.scroll(settings.alias("notes")))
        assert {one.index for one in queries} == {"notes"}
        return {one.query: dict(one.relevant) for one in queries}, [point.payload["_rag"] for point in points]


def test_values_of_the_column_are_asked_of_documents_without_it_and_nothing_real_is_written(project):
    before = sorted(project.folder.rglob("*"))
    queries, chunks = made(project)
    assert (len(queries), queries["Note 7"], queries["Both of them"]) == (58, {"7": 1}, {"3": 1, "4": 1})
    assert len({chunk["document_id"] for chunk in chunks}) == 60
    assert not [chunk for chunk in chunks if "Note" in chunk["text"]]
    assert sorted(project.folder.rglob("*")) == before
    assert not list(Path(tempfile.gettempdir()).glob("rag-index-evaluate-*"))


def test_a_filter_hides_no_document_from_its_own_query(project):
    filtered = 'required_filter = { author = "author 1" }\npayload = ["author"'
    project.write_settings(BODY_ALONE.format(extra="").replace('payload = ["author"', filtered))
    project.execute("UPDATE note SET title = substr(body, 1, 90)")
    with known_items(project.settings, ["notes"], "title") as (settings, queries):
        [scope] = evaluate(settings, queries, ["notes"], OPTIONS).scopes
    assert {way.way: way.metrics["recall@10"].mean for way in scope.ways}["sparse"] == 1


def test_queries_are_made_of_titles_and_of_joined_columns(project):
    project.execute("CREATE TABLE kind (number INTEGER PRIMARY KEY, name TEXT)")
    project.execute("INSERT INTO kind VALUES (1, 'Fault')")
    joined = 'title = "title"\n[indexes.joins.kind]\ntable = "kind"\non = {number = "priority"}\n'
    project.write_settings(project.config.read_text() + joined)
    queries, chunks = made(project)
    assert queries["Note 7"] == {"7": 1}
    assert not [chunk for chunk in chunks if "title" in chunk or "Note" in chunk["text"]]
    assert set(made(project, "kind.name")[0]["Fault"]) == {str(number) for number in range(1, 61, 3)}


@pytest.mark.parametrize(
    ("settings", "column", "message"),
    [
        (SETTINGS, "titel", "table 'note' cannot be read: no such column: note.titel"),
        (SETTINGS, "priority", "index notes: column 'priority' holds int, not text; name another"),
        (BODY_ALONE, "body", "the text of index notes is the column 'body' alone, and nothing is left to be found"),
        (SETTINGS, "author", "index notes: column 'author' is empty in all documents"),
        (
            'project = "x"\n[[indexes]]\nname = "notes"\nkind = "code"\nroot = "."\n', "title",
            "index notes has kind 'code' and no columns to make queries of",
        ),
    ],
)  # fmt: skip
def test_columns_that_make_no_queries(project, settings, column, message):
    project.execute("UPDATE note SET author = NULL")
    project.write_settings(settings.format(extra=""))
    with pytest.raises(SettingsError) as refused:
        made(project, column)
    assert message in str(refused.value)


@pytest.mark.long
def test_the_serial_way_sends_one_text_per_request_to_one_host_and_all_make_the_same_points(tmp_path):
    with FakeOllama(seconds_per_text=0.002) as one, FakeOllama(seconds_per_text=0.002) as other:
        hosts = f'hosts = ["{one.url}", "{other.url}"]\nnum_thread = 1'
        more = "batch_texts = 16\n[parallel]\nshard_documents = 25"
        extra = f'[embedder]\nkind = "ollama"\nmodel = "{one.model}"\n{hosts}\n{more}'
        project = Project(tmp_path / "p", extra=extra).fill(120)
        command = ["--config", str(project.config), "benchmark", "--sample-size", "100", "--workers", "2", "--json"]
        answer = json.loads(run_program(command, without_api()).stdout)
        single = [request for request in one.embeds() if len(request.texts) == 1]
        assert len(single) >= 100
        assert sum("num_thread" not in (request.body.get("options") or {}) for request in single) >= 100
        assert max(len(request.texts) for request in other.embeds()) > 1
    serial, [parallel] = answer["serial"], answer["parallel"]
    assert (answer["index"], answer["documents"], parallel["workers"]) == ("notes", 100, 2)
    assert (parallel["same_ids"], parallel["largest_difference"]) == (True, 0.0)
    assert parallel["speed_up"] == pytest.approx(serial["seconds"] / parallel["seconds"], rel=0.05)
    for way in (serial, parallel):
        assert way["stages"].keys() == {"fetch", "chunk", "embed", "upsert"}
        assert sum(way["stages"].values()) == pytest.approx(1, abs=0.01)
    assert not [path for path in project.folder.rglob("*") if path.name == ".rag-index"]
