"""Whom an earlier version kept out of an index does not come back by the upgrade, until a condition keeps them out."""

import datetime as dt
import decimal
import uuid

import pytest

from rag_index.care.transfer import move, target_settings
from rag_index.components.ledger.tables import tombstones
from rag_index.components.stores import KEPT_OUT
from rag_index.core.documents.keys import encode_key, key_mark
from rag_index.etl.reconcile import HASH_CHARS
from tests.etl.plain import printed, watched_run
from tests.project import Project, run_here
from tests.twin import lose_ledger

SAID = "1 document that a person had erased would come back from the source, such as 7, so nothing was indexed"
SAME = [
    (7, "7", 7.0, decimal.Decimal("7.00"), "007", b"7"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5)), uuid.UUID(int=5).bytes, uuid.UUID(int=5).hex.upper()),
    (dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC), "2024-05-01 10:00:00+00:00", "2024-05-01T10:00"),
    (dt.date(2024, 5, 1), "2024-05-01"),
    ("anna@example.org", b"anna@example.org"),
]


def keep_out(project, *keys):
    """Leave the marks in the live collection that an earlier version left there."""
    with project.store() as store:
        live = store.aliases()["test_notes"]
        store.set_metadata(live, {KEPT_OUT: [key_mark(encode_key(key), ("id",)) for key in keys]})


def marks(project):
    with project.store() as store:
        return store.metadata(store.aliases()["test_notes"]).get(KEPT_OUT)


@pytest.fixture
def project(request, tmp_path, qdrant):
    """A project whose live collection lacks document 7, which its source has."""
    extra = f'[store]\nurl = "{qdrant.url}"' if getattr(request, "param", "") == "server" else ""
    project = Project(tmp_path / "place", extra).fill(12)
    where(project, "id <> 7")
    project.run()
    keep_out(project, [7], [99])
    where(project, "id > 0")
    return project


def where(project, condition):
    lines = [line for line in project.config.read_text().splitlines() if not line.startswith("where = ")]
    project.write_settings("\n".join(lines).replace('key = "id"', f'key = "id"\nwhere = "{condition}"'))


def refused(project, **options):
    report = project.run(**options)
    assert report.state == "failed"
    assert SAID in report.indexes[0].message
    assert "Leave them out by a condition in `where` or in the query" in report.indexes[0].message


@pytest.mark.long
@pytest.mark.parametrize("project", ["embedded", "server"], indirect=True)
def test_every_run_is_refused_until_a_condition_keeps_them_out(project):
    for options in ({}, {"full": True}, {"full": True, "allow_loss": True, "allow_deletes": True}):
        refused(project, **options)
    assert SAID in run_here(project.config, "index", "notes", "--id", "7", code=2)[1]
    assert SAID in str(watched_run(project).error)
    assert len(project.texts()) == 11, "nothing was written"
    where(project, "id <> 7")
    assert project.run().indexes[0].unchanged == 11
    assert marks(project) is None
    project.run(full=True)
    assert (len(project.texts()), "7" in project.texts()) == (11, False)


def move_it(project):
    move(project.settings, target_settings(project.settings, str(project.folder / "new")))
    store = f'[store]\npath = "{project.folder}/new"\n[[indexes]]'
    project.write_settings(project.config.read_text().replace("[[indexes]]", store))


CHANGES = {
    "an erasure": lambda project: printed(project, "erase", "notes"),
    "a move": move_it,
    "a ledger that was lost": lambda project: (lose_ledger(project), run_here(project.config, "doctor", "--repair")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_copy_does_not_lose_whom_it_has_to_keep_out(project, change):
    change(project)
    refused(project)
    assert len(project.texts()) == 11


@pytest.mark.long
@pytest.mark.parametrize(
    ("scope", "first"),
    [
        ("test_notes", False), ("test_notes", True), ("project test: note id", False),
        ("source :/source.db: note id", False),
    ],
    ids=["indexed", "dropped", "another index over the table", "a project of another name"],
)  # fmt: skip
def test_what_the_ledger_alone_knows_of_them_counts_too(tmp_path, scope, first):
    project = Project(tmp_path / "place").fill(12)
    marks_of = [(scope, *key_mark(encode_key([7]), ["id"])), ("project test: other id", *key_mark("8", ["id"]))]
    with project.ledger() as ledger:
        ledger._put_rows(tombstones, marks_of)
    where(project, "id <> 7")
    if not first:
        assert project.run().state == "completed"
    where(project, "id > 0")
    refused(project)
    where(project, "id <> 7")
    for _ in range(2):
        assert project.run().state == "completed"
    assert (marks(project), len(project.texts())) == ([], 11)
    project.run(full=True)
    assert (marks(project), len(project.texts())) == ([], 11)
    where(project, "id > 0")
    assert project.run().indexes[0].new == 1, "a person wants them back"


@pytest.mark.parametrize(("kind", "value", "example"), [("REAL", "id", "7.0"), ("TEXT", "printf('%05d', id)", "00007")])
def test_they_are_recognised_in_keys_of_other_types(tmp_path, kind, value, example):
    project = Project(tmp_path).fill(12)
    project.run()
    keep_out(project, [7])
    with project.source() as db:
        db.executescript(
            f"CREATE TABLE other (id {kind} PRIMARY KEY, title TEXT, body TEXT, author TEXT, priority INTEGER);"
            f"INSERT INTO other SELECT {value}, title, body, author, priority FROM note;"
            "DROP TABLE note; ALTER TABLE other RENAME TO note;"
        )
    for options in ({}, {"full": True}):
        assert f"such as {example}, so nothing was indexed" in project.run(**options).indexes[0].message


@pytest.mark.parametrize("values", SAME, ids=lambda values: str(values[0]))
def test_a_value_is_recognised_in_another_type(values):
    found = [key_mark(encode_key([value])) for value in values]
    assert len({same for same, _ in found}) == 1
    for (_, one), value in zip(found, values, strict=True):
        assert one[:-HASH_CHARS] == ("t" if isinstance(value, str) else "v")
    assert key_mark(encode_key(["7 "]))[1] == key_mark(encode_key(["7"]))[1], "padded by CHAR(n)"


def test_keys_that_look_alike_are_others_and_the_columns_of_a_key_may_change_places():
    assert len({key_mark(encode_key([value])) for value in ("1", "1.0", "01")}) == 3
    assert key_mark(encode_key([1, 2]), ("a", "b")) == key_mark(encode_key([2, 1]), ("b", "a"))
    assert key_mark(encode_key([1, 2]), ("a", "b")) != key_mark(encode_key([2, 1]), ("a", "b"))
