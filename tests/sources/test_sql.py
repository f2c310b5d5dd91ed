"""SQL sources on SQLite: every document is read once, whatever its key is, and the source is never written."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import threading
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import URL, make_url

from rag_index.documents.canonical import decode_payload
from rag_index.documents.keys import document_id
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.settings import IndexSettings
from rag_index.sources.engine import open_read_only
from rag_index.sources.sql import SqlSource


class Database:
    """A SQLite file that a test fills, and sources that read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = URL.create("sqlite", database=str(path))
        self.run()

    def run(self, *statements, rows=None):
        with sqlite3.connect(self.path) as connection:
            for statement in statements:
                if rows is None:
                    connection.execute(statement)
                else:
                    connection.executemany(statement, rows)
        connection.close()
        return self

    def source(self, **given):
        values = {"name": "notes", "key": "id", "text": "body"} | given
        if "query" not in values:
            values = {"table": "note"} | values
        return SqlSource(self.url, IndexSettings(**values))

    def notes(self, count, first=1):
        self.run("CREATE TABLE IF NOT EXISTS note (id INTEGER PRIMARY KEY, body TEXT, author TEXT)")
        return self.run(
            "INSERT INTO note VALUES (?, ?, ?)",
            rows=[(i, f"note {i}", f"author {i}") for i in range(first, first + count)],
        )


@pytest.fixture
def database(tmp_path):
    return Database(tmp_path / "source.db")


def read(source, rows=1000, between=lambda page: None):
    """Return all texts by key, read page by page; `between` is called after each page."""
    source.check()
    documents, cursor = {}, None
    while True:
        page = source.page(cursor, rows)
        assert len(page.documents) + len(page.unreadable) <= rows
        for key, text in zip(page.documents.keys, page.documents.texts, strict=True):
            assert key not in documents
            documents[key] = text
        between(page)
        if page.cursor is None:
            return documents
        cursor = page.cursor


# Every document once


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 7, 8, 100])
def test_pages_of_any_size_give_every_document_once_in_order(database, rows):
    source = database.notes(7).source()
    assert read(source, rows) == {str(i): f"note {i}" for i in range(1, 8)}
    assert source.count() == 7


def test_a_page_read_twice_is_the_same(database):
    source = database.notes(5).source()
    first = source.page(None, 2)
    assert source.page(None, 2) == first
    assert source.page(first.cursor, 2) == source.page(first.cursor, 2)


def test_an_empty_table_is_one_empty_page(database):
    source = database.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)").source()
    page = source.page(None, 10)
    assert (len(page.documents), page.cursor, page.unreadable, source.count()) == (0, None, [], 0)


def test_pages_have_texts_hashes_and_payloads(database):
    page = database.notes(2).source(payload=["author", "id", "body"]).page(None, 10)
    documents = page.documents
    assert [decode_payload(payload) for payload in documents.payloads] == [
        {"author": "author 1", "id": 1, "body": "note 1"},
        {"author": "author 2", "id": 2, "body": "note 2"},
    ]
    assert len({*documents.text_hashes, *documents.payload_hashes}) == 4
    assert all(len(value) == 16 for value in documents.text_hashes)


keys = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: value + 0.5),
    st.binary(max_size=4),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(keys, max_size=30), st.integers(1, 10))
def test_keys_of_any_type_even_mixed_are_read_once(tmp_path, values, rows):
    """A column without a type holds values of any type, and SQLite decides which of them are equal keys."""
    database = Database(tmp_path / f"{uuid.uuid4()}.db").run("CREATE TABLE note (id PRIMARY KEY, body TEXT)")
    database.run("INSERT OR IGNORE INTO note VALUES (?, 'x')", rows=[(value,) for value in values])
    source = database.source()
    assert len(read(source, rows)) == source.count()
    source.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.tuples(st.integers(0, 3), st.text("aAbé", max_size=2), st.integers(0, 3))), st.integers(1, 7))
def test_keys_of_three_columns_are_read_once(tmp_path, values, rows):
    database = Database(tmp_path / f"{uuid.uuid4()}.db")
    database.run("CREATE TABLE note (a INTEGER, b TEXT, c INTEGER, body TEXT, PRIMARY KEY (a, b, c))")
    database.run("INSERT INTO note VALUES (?, ?, ?, 'x')", rows=list(values))
    source = database.source(key=["a", "b", "c"])
    assert {tuple(json.loads(document_id(key))) for key in read(source, rows)} == values
    source.close()


def test_the_portable_form_of_composite_keys_reads_the_same(database):
    """Databases without row values get this form; the test uses it on SQLite."""
    database.run("CREATE TABLE note (a INTEGER, b INTEGER, c INTEGER, body TEXT)")
    database.run("INSERT INTO note VALUES (?, ?, ?, 'x')", rows=[(i // 9, i // 3 % 3, i % 3) for i in range(27)])
    source = database.source(key=["a", "b", "c"])
    source._row_values = False
    assert len(read(source, 4)) == 27


def test_types_of_keys_are_kept(database):
    database.run("CREATE TABLE note (id, body TEXT)", "INSERT INTO note VALUES (1, 'number'), ('1', 'text')")
    assert read(database.source(), 1) == {"1": "number", '"1"': "text"}


def test_uuids_in_a_text_column_are_kept_as_text(database):
    ids = sorted(str(uuid.uuid5(uuid.NAMESPACE_URL, str(i))) for i in range(5))
    database.run("CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT)")
    database.run("INSERT INTO note VALUES (?, 'x')", rows=[(i,) for i in reversed(ids)])
    assert [document_id(key) for key in read(database.source(), 2)] == ids


def test_keys_that_differ_only_in_case_are_two_even_if_the_column_ignores_case(database):
    database.run("CREATE TABLE note (id TEXT COLLATE NOCASE, body TEXT)")
    database.run("INSERT INTO note VALUES (?, 'x')", rows=[(key,) for key in "aAbBcC"])
    for rows in (1, 2, 3):
        assert len(read(database.source(), rows)) == 6


def test_composite_keys_that_are_equal_for_the_database_are_refused_not_lost(database):
    database.run("CREATE TABLE note (a INTEGER, b TEXT COLLATE NOCASE, body TEXT)")
    database.run("INSERT INTO note VALUES (1, ?, 'x')", rows=[(key,) for key in "aAbB"])
    with pytest.raises(SourceError, match="more than once"):
        read(database.source(key=["a", "b"]), 1)


@pytest.mark.parametrize("kind", ["table", "query"])
def test_rows_are_inserted_deleted_and_changed_between_pages(database, kind):
    """Rows that stay are read once; a row that is inserted before the cursor is for the next run."""
    database.notes(10)
    given = {"query": "SELECT id, body FROM note"} if kind == "query" else {"table": "note"}

    def change(page):
        if page.documents.keys[:1] == ["1"]:
            database.run(
                "DELETE FROM note WHERE id IN (1, 3, 4, 9)",
                "UPDATE note SET body = 'changed' WHERE id = 6",
                "INSERT INTO note VALUES (0, 'before', ''), (11, 'after', '')",
            )

    documents = read(database.source(**given), 3, change)
    assert list(documents) == ["1", "2", "3", "5", "6", "7", "8", "10", "11"]
    assert documents["6"] == "changed"


# Names and statements


def test_reserved_and_odd_names(database):
    database.run(
        'CREATE TABLE "order" ("select" TEXT, "the text, ""quoted"" 100% :now" TEXT, "a b" TEXT, [group] TEXT)',
        """INSERT INTO "order" VALUES ('k', 'body', 'spaced', 'g')""",
    )
    source = database.source(
        table="order", key="select", text=['the text, "quoted" 100% :now', "a b"], payload=["group", "a b"]
    )
    assert read(source, 1) == {'"k"': "body\nspaced"}
    database.run("CREATE TABLE class (id INTEGER, body TEXT)", "INSERT INTO class VALUES (1, 'x')")
    assert read(database.source(table="class")) == {"1": "x"}


def test_a_view_and_a_schema(database):
    database.notes(3).run("CREATE VIEW recent AS SELECT id, body FROM note WHERE id > 1")
    assert list(read(database.source(table="recent"), 1)) == ["2", "3"]
    assert list(read(database.source(schema="main"), 2)) == ["1", "2", "3"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, body FROM note",
        "SELECT id, body FROM note;",
        "  SELECT id, body FROM note ; \n ; ",
        "SELECT id, body FROM note -- all of them",
        "SELECT id, body FROM note; -- all of them; really\n",
        "/* a; b */ SELECT id, body FROM note /* the end */ ;",
        "WITH all_notes AS (SELECT id, body FROM note) SELECT id, body FROM all_notes",
        "SELECT id, body FROM note UNION ALL SELECT 4, 'four' WHERE 1 = 0",
        "SELECT id, body FROM note WHERE body <> '; -- not the end'",
        "SELECT id, body FROM note WHERE body <> ':colon' AND body NOT LIKE '%x%' AND '12:30' <> 'a\\:b'",
        'SELECT id, body, author AS ":odd" FROM note ORDER BY body DESC',
    ],
)
def test_queries_as_people_write_them(database, query):
    assert read(database.notes(3).source(query=query), 1) == {"1": "note 1", "2": "note 2", "3": "note 3"}


def test_colons_in_a_query_stay_as_they_are(database):
    database.notes(1)
    source = database.source(query="SELECT id, '12:30 \\:x ::y :z' AS body FROM note")
    assert read(source) == {"1": "12:30 \\:x ::y :z"}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT id, body FROM note; DROP TABLE note", "several statements"),
        (" -- nothing\n ; ", "the query is empty"),
        ("SELECT id, body FROM notes", "no such table: notes"),
        ("SELECT FROM note", "syntax error"),
        ("DELETE FROM note", "syntax error"),
        ("SELECT id AS key, body FROM note", "no column 'id' in the query"),
        ("SELECT id, id AS body FROM note", "gives int \\(1\\), not text"),
    ],
)
def test_queries_that_are_not_valid(database, query, message):
    database.notes(1)
    with pytest.raises(SettingsError, match=message) as caught:
        database.source(query=query).check()
    assert "\n" not in str(caught.value)
    assert "index notes" in str(caught.value)


# Texts


def test_columns_are_joined_by_newlines_without_the_empty_ones(database):
    database.run("CREATE TABLE note (id INTEGER, a TEXT, b TEXT, c TEXT)")
    database.run(
        "INSERT INTO note VALUES (?, ?, ?, ?)", rows=[(1, "x", None, "z"), (2, "", "", None), (3, " ", "\n", "")]
    )
    assert read(database.source(text=["a", "b", "c"])) == {"1": "x\nz", "2": "", "3": ""}


def test_a_template_is_filled_with_literal_values(database):
    database.run("CREATE TABLE note (id INTEGER, [a.b] TEXT, b TEXT)")
    database.run(
        "INSERT INTO note VALUES (?, ?, ?)", rows=[(1, "{b} {0} %s", "}"), (2, None, None), (3, None, "only b")]
    )
    source = database.source(text="Title: {a.b}\n{b} {{as is}}")
    assert read(source) == {"1": "Title: {b} {0} %s\n} {as is}", "2": "", "3": "Title: \nonly b {as is}"}


def test_nul_characters_become_spaces(database):
    database.run("CREATE TABLE note (id INTEGER, body TEXT)", "INSERT INTO note VALUES (1, 'a' || char(0) || 'b')")
    assert read(database.source()) == {"1": "a b"}


def test_a_value_that_is_not_text_fails_only_its_document(database):
    """SQLite allows values of any type in any column."""
    database.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)", "INSERT INTO note VALUES (1, 'good'), (3, 'too')"
    )
    database.run("INSERT INTO note VALUES (?, ?)", rows=[(2, b"\x00\x01")])
    page = database.source().page(None, 10)
    assert page.documents.keys == ["1", "3"]
    assert [failure.key for failure in page.unreadable] == ["2"]
    assert re.search(r"column 'body' holds bytes .*not text", page.unreadable[0].reason)


def test_bytes_that_are_not_utf8_are_read_in_the_charset_that_they_look_like(database):
    database.notes(3).run("UPDATE note SET body = CAST(x'61ff62' AS TEXT) WHERE id = 2")
    database.run("UPDATE note SET author = CAST(x'636166e9206475' AS TEXT) WHERE id = 2")
    source = database.source(payload=["author"])
    source.check()
    page = source.page(None, 10)
    assert page.documents.texts == ["note 1", "a\u00ffb", "note 3"]
    assert decode_payload(page.documents.payloads[1]) == {"author": "caf\u00e9 du"}
    assert database.source(query="SELECT id, body FROM note WHERE id = 2").check() is None


def test_a_key_that_is_not_utf8_is_refused(database):
    database.run("CREATE TABLE note (id TEXT, body TEXT)", "INSERT INTO note VALUES (CAST(x'61ff' AS TEXT), 'x')")
    with pytest.raises(SourceError, match="not valid Unicode"):
        read(database.source())


def test_malformed_dates_are_unchanged_in_the_payload(database):
    database.run("CREATE TABLE note (id INTEGER, body TEXT, at TIMESTAMP, day DATE)")
    database.run("INSERT INTO note VALUES (1, 'x', '0000-00-00 25:00', 'soon')")
    page = database.source(payload=["at", "day"]).page(None, 10)
    assert decode_payload(page.documents.payloads[0]) == {"at": "0000-00-00 25:00", "day": "soon"}


# Keys that are not valid


def test_null_keys_are_counted_and_refused(database):
    database.run(
        "CREATE TABLE note (id INTEGER, body TEXT)", "INSERT INTO note VALUES (1, 'x'), (NULL, 'y'), (NULL, 'z')"
    )
    source = database.source()
    with pytest.raises(SourceError, match=r"2 rows have NULL in the key \(id\)"):
        source.check()
    assert source.count() == 1
    assert source.page(None, 10).documents.keys == ["1"]


def test_null_in_one_column_of_a_key(database):
    database.run("CREATE TABLE note (a INTEGER, b TEXT, body TEXT)")
    database.run("INSERT INTO note VALUES (?, ?, 'x')", rows=[(1, "x"), (2, None), (3, "y")])
    source = database.source(key=["a", "b"])
    with pytest.raises(SourceError, match="1 row has NULL in the key"):
        source.check()
    first = source.page(None, 1)
    assert source.page(first.cursor, 5).documents.keys == ['[3,"y"]']


@pytest.mark.parametrize("rows", [1, 2, 3, 10])
def test_a_key_that_occurs_twice_is_refused_wherever_pages_end(database, rows):
    database.run("CREATE TABLE note (id TEXT, body TEXT)")
    database.run("INSERT INTO note VALUES (?, 'x')", rows=[(key,) for key in ["a", "b", "b", "c"]])
    with pytest.raises(SourceError, match=r"key b \(id\) occurs more than once"):
        read(database.source(), rows)


# Missing files, tables and columns


def test_a_file_that_does_not_exist(tmp_path):
    with pytest.raises(SettingsError, match=r"there is no file .*nothing\.db"):
        SqlSource(make_url(f"sqlite:///{tmp_path}/nothing.db"), IndexSettings(name="n", table="t", key="k", text="t"))


def test_a_file_that_is_not_a_database(tmp_path):
    (tmp_path / "x.db").write_bytes(b"this is no database at all, not at all " * 50)
    with pytest.raises(SourceError, match="file is not a database"):
        Database.source(type("D", (), {"url": make_url(f"sqlite:///{tmp_path}/x.db")})()).check()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"table": "nots"}, "there is no table 'nots', did you mean 'note'?"),
        ({"table": "NOTES"}, "there is no table 'NOTES', did you mean 'note'?"),
        ({"table": "zzzzzz"}, "there is no table 'zzzzzz'; choose one of: log, note"),
        ({"table": "public.note"}, 'if \'public\' is a schema, write schema = "public" and table = "note"'),
        ({"schema": "mein"}, "there is no schema 'mein', did you mean 'main'?"),
        ({"key": "idd"}, "there is no column 'idd' in table 'note', did you mean 'id'?"),
        ({"text": "Body"}, "there is no column 'Body' in table 'note', did you mean 'body'?"),
        ({"payload": ["xyzzy"]}, "there is no column 'xyzzy' in table 'note'; choose one of: author, body, id"),
        ({"text": "id"}, "column 'id' of table 'note' is INTEGER, not text"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(database, given, message):
    database.notes(1).run("CREATE TABLE log (id INTEGER)")
    with pytest.raises(SettingsError) as caught:
        database.source(**given).check()
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


# Read only


def test_writing_is_impossible_and_the_file_stays_unchanged(database):
    database.notes(20)
    before = hashlib.sha256(database.path.read_bytes()).hexdigest()
    engine = open_read_only(database.url)
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly database"):
        connection.exec_driver_sql("DELETE FROM note")
    engine.dispose()
    source = database.source(payload=["author"])
    read(source, 3)
    source.close()
    assert hashlib.sha256(database.path.read_bytes()).hexdigest() == before
    assert [path.name for path in database.path.parent.iterdir()] == ["source.db"]


def test_a_file_with_an_odd_name(tmp_path):
    folder = tmp_path / "50% of ?all#"
    folder.mkdir()
    assert read(Database(folder / "a b?mode=rw&x=1.db").notes(2).source()) == {"1": "note 1", "2": "note 2"}


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_writers_are_not_blocked_between_pages(database, mode):
    database.notes(9).run(f"PRAGMA journal_mode={mode}")

    def write(page):
        with sqlite3.connect(database.path, timeout=0.1) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE note SET author = 'someone' WHERE id = 1")
        writer.close()

    assert len(read(database.source(), 2, write)) == 9
    assert len(read(database.source(query="SELECT id, body FROM note"), 2, write)) == 9


def test_a_locked_database_is_waited_for(database):
    database.notes(3)
    source = database.source()
    source.check()
    writer = sqlite3.connect(database.path, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    pages = []
    reader = threading.Thread(target=lambda: pages.append(source.page(None, 10)))
    reader.start()
    reader.join(0.3)
    assert reader.is_alive(), "it does not wait for the lock"
    writer.rollback()
    reader.join()
    assert len(pages[0].documents) == 3
    writer.close()


def test_a_database_that_stays_locked_is_a_transient_error(database):
    database.notes(3)
    source = SqlSource(
        database.url.set(query={"timeout": "0.1"}), IndexSettings(name="n", table="note", key="id", text="body")
    )
    writer = sqlite3.connect(database.path)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceUnavailable, match="locked"):
        source.page(None, 10)
    writer.rollback()
    assert len(source.page(None, 10).documents) == 3
    writer.close()


# Other databases, without a server


def test_a_server_that_does_not_answer_is_a_transient_error_without_the_password():
    url = make_url("postgresql+psycopg://reader:s3cret%40@127.0.0.1:1/desk?application_name=s3cret")
    source = SqlSource(url, IndexSettings(name="n", table="t", key="k", text="t"))
    with pytest.raises(SourceUnavailable) as caught:
        source.check()
    message = str(caught.value)
    assert re.search(r"source postgresql\+psycopg://reader@127\.0\.0\.1:1/desk does not answer: .*refused", message)
    assert "s3cret" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql+mysqldb://u:s3cret@h/d", r"no driver for 'mysql\+mysqldb' is installed .*rag-index\[mariadb\]"),
        ("nosuch://u:s3cret@h/d", "no driver for 'nosuch' is installed"),
        ("postgresql+asyncpg://u:s3cret@h/d", "asyncpg"),
    ],
)
def test_a_missing_driver_is_reported_in_one_line_with_the_remedy(url, message):
    with pytest.raises(SettingsError, match=message) as caught:
        open_read_only(make_url(url))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
