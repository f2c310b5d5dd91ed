"""What a person had erased stays away, whatever gets another name, type or order, and nothing else does."""

import datetime as dt
import decimal
import shutil
import uuid

import pytest

from rag_index.components.ledger.erased import MARK_HASH_CHARS
from rag_index.core.documents.keys import encode_key, key_mark
from tests.project import SETTINGS, Project, run_here

SECRET = "Erika Mustermann lives at Heidestrasse 17 in the second house"
INDEX = '[[indexes]]\nname = "{}"\ntable = "note"\nkey = {}\ntext = ["title", "body"]\n'
HEAD = 'project = "{}"\n[source]\nurl = "sqlite:///{}"\n'


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "place").fill(12)
    project.execute("UPDATE note SET body = ? WHERE id = 7", SECRET)
    project.run()
    return project


def erased(project):
    run_here(project.config, "erase", "notes", "--id", "7")
    assert len(project.texts()) == 11


def describe(project, *names, project_name="test", source="source.db", key='"id"'):
    head = HEAD.format(project_name, source)
    project.write_settings(head + "".join(INDEX.format(name, key) for name in names))


def retype(project, kind, value="id"):
    with project.source() as db:
        db.executescript(
            f"CREATE TABLE other (id {kind} PRIMARY KEY, title TEXT, body TEXT, author TEXT, priority INTEGER);"
            f"INSERT INTO other SELECT {value}, title, body, author, priority FROM note;"
            "DROP TABLE note; ALTER TABLE other RENAME TO note;"
        )


def rename_folder(project):
    project.folder.rename(project.folder.parent / "elsewhere")
    project.folder = project.folder.parent / "elsewhere"
    project.config = project.folder / project.config.name


def rename_source(project):
    (project.folder / "source.db").rename(project.folder / "moved.db")
    describe(project, "notes", source="moved.db")


def lose_the_ledger(project):
    for file in project.settings.store.path.parent.glob("ledger.db*"):
        file.unlink()
    run_here(project.config, "doctor", "--repair")


def rename_and_lose_the_ledger(project):
    describe(project, "memos")
    project.run()
    lose_the_ledger(project)


CHANGES = {
    "a key of text": lambda project: retype(project, "TEXT"),
    "a key of numbers with a point": lambda project: retype(project, "REAL"),
    "a key with zeros before": lambda project: retype(project, "TEXT", "printf('%05d', id)"),
    "another index": lambda project: describe(project, "memos"),
    "another project": lambda project: describe(project, "notes", project_name="other"),
    "another index and project": lambda project: describe(project, "memos", project_name="other"),
    "another folder": rename_folder,
    "another database": rename_source,
    "a key of the same column in a list": lambda project: describe(project, "notes", key='["ID"]'),
    "a ledger that was lost": lose_the_ledger,
    "a ledger that was lost after another index was made": rename_and_lose_the_ledger,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_erased_stays_away(project, change):
    erased(project)
    change(project)
    name = project.settings.indexes[0].name
    for options in ({"allow_deletes": True}, {"full": True, "allow_loss": True, "allow_deletes": True}):
        project.run(**options)
        texts = project.texts(name)
        assert len(texts) == 11
        assert SECRET not in str(texts)
    assert f"{name}: 1 new" not in run_here(project.config, "plan")[0]


@pytest.mark.parametrize("digest", ["false", "true"])
def test_it_stays_away_from_all_indexes_over_its_table_also_when_the_first_is_dropped(project, digest):
    describe(project, "notes", "again")
    project.write_settings(project.config.read_text().replace("[source]", f"[source]\ndigest = {digest}"))
    project.run()
    assert SECRET in str(project.texts("again"))
    out, _ = run_here(project.config, "erase", "notes", "--id", "7")
    assert "again has the same rows: its next run deletes these" in out
    project.run()
    assert SECRET not in str(project.texts("again"))
    describe(project, "first", "second")
    run_here(project.config, "drop", "notes", "--yes")
    project.run()
    assert all(len(project.texts(name)) == 11 for name in ("first", "second"))


def test_an_older_ledger_that_is_put_back_learns_it_from_the_store(project):
    ledger = project.settings.store.path.parent / "ledger.db"
    shutil.copy(ledger, project.folder / "copy")
    erased(project)
    for file in ledger.parent.glob("ledger.db*"):
        file.unlink()
    shutil.copy(project.folder / "copy", ledger)
    run_here(project.config, "doctor", "--repair")
    project.run()
    assert SECRET not in str(project.texts())


def test_a_new_ledger_keeps_it_away_from_other_indexes_and_names_too(project):
    erased(project)
    lose_the_ledger(project)
    describe(project, "notes", "again")
    project.run()
    assert [len(project.texts(name)) for name in ("notes", "again")] == [11, 11]
    describe(project, "another")
    project.run()
    assert SECRET not in str(project.texts("another"))


def test_somebody_who_wants_it_back_gets_it_also_after_another_ledger_is_made(project):
    erased(project)
    run_here(project.config, "index", "notes", "--id", "7")
    lose_the_ledger(project)
    project.run()
    project.run(full=True)
    assert SECRET in str(project.texts())


def test_the_columns_of_a_key_may_change_places_and_no_other_document_is_lost(tmp_path):
    project = Project(tmp_path)
    with project.source() as db:
        db.executescript("CREATE TABLE pair (a INTEGER, b INTEGER, body TEXT, PRIMARY KEY (a, b));")
        db.executemany("INSERT INTO pair VALUES (?, ?, ?)", [(1, 2, SECRET), (2, 1, "one"), (1, 3, "two")])
    text = SETTINGS.format(extra="").partition("[[indexes]]")[0]
    index = '[[indexes]]\nname = "pairs"\ntable = "pair"\nkey = [{}]\ntext = "body"\n'
    project.write_settings(text + index.format('"a", "b"'))
    project.run()
    run_here(project.config, "erase", "pairs", "--id", "[1,2]")
    project.write_settings(text + index.format('"b", "a"'))
    project.run(allow_deletes=True)
    assert project.texts("pairs").keys() == {"[1,2]", "[3,1]"}, "the first of these is a = 2, b = 1"


def test_documents_whose_keys_look_alike_are_others(tmp_path):
    project = Project(tmp_path).fill(2)
    with project.source() as db:
        db.executescript("CREATE TABLE word (id TEXT PRIMARY KEY, title TEXT, body TEXT);")
        rows = [("1", "one", SECRET), ("1.0", "two", "b"), ("01", "three", "c")]
        db.executemany("INSERT INTO word VALUES (?, ?, ?)", rows)
    describe(project, "notes")
    project.write_settings(project.config.read_text() + INDEX.format("words", '"id"').replace('"note"', '"word"'))
    project.run()
    run_here(project.config, "erase", "words", "--id", "1")
    project.run()
    assert project.texts("words").keys() == {"1.0", "01"}
    assert project.texts("notes").keys() == {"1", "2"}, "another table"


SAME = [
    (7, "7", 7.0, decimal.Decimal("7.00"), "007", b"7"),
    (uuid.UUID(int=5), str(uuid.UUID(int=5)), uuid.UUID(int=5).bytes, uuid.UUID(int=5).hex.upper()),
    (dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC), "2024-05-01 10:00:00+00:00", "2024-05-01T10:00"),
    (dt.date(2024, 5, 1), "2024-05-01"),
    ("anna@example.org", b"anna@example.org"),
]


@pytest.mark.parametrize("values", SAME, ids=lambda values: str(values[0]))
def test_a_value_is_recognised_in_another_type(values):
    marks = [key_mark(encode_key([value])) for value in values]
    assert len({same for same, _ in marks}) == 1
    for (_, one), value in zip(marks, values, strict=True):
        assert one[:-MARK_HASH_CHARS] == ("t" if isinstance(value, str) else "v")
    assert key_mark(encode_key(["7 "]))[1] == key_mark(encode_key(["7"]))[1], "padded by CHAR(n)"
