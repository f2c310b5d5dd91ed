"""SQL sources: every document is read once, whatever its key is, and the source is never written.
Little is held of long texts and of the rows of a query; a sample is read; and a source of another
distribution."""

import hashlib
import json
import re
import sqlite3
import sys
import threading
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from rag_index.components.sources import Sample, open_source, read_sample
from rag_index.components.sources.engine import open_read_only
from rag_index.components.sources.pages import PAGE_CHARS
from rag_index.components.sources.row_file import RowFile
from rag_index.components.sources.sql import SqlSource
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.settings import load_settings
from rag_index.errors import SettingsError, SourceError, SourceTimedOut, SourceUnavailable
from tests.components.sources.conftest import SourceDatabase, pages, read
from tests.docs.pages import blocks, page
from tests.plugin_site import install_as_written
from tests.project import Project
from tests.reliability.test_disk_and_clock import Disk

QUERY = "SELECT id, body FROM note"
ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) AS id, 'x' AS"
    " body FROM n"
)
SECTION = page("sources").split("\n## A source of your own\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("given", [{}, {"query": f"{QUERY} -- all;\n;"}], ids=["table", "query"])
def test_pages_of_any_size_give_every_document_once_in_order(database, given):
    source = database.notes(7).source(**given)
    for rows in (1, 2, 3, 6, 7, 8, 100):
        assert read(source, rows) == {str(i): f"note {i}" for i in range(1, 8)}
    assert source.count() == 7
    first = source.page(None, 2)
    assert source.page(None, 2) == first
    if database.kind == "sqlite" or "query" not in given:
        assert source.page(first.cursor, 2) == source.page(first.cursor, 2)


def test_an_empty_table_is_one_empty_page(database):
    """Also if texts are in the payload, too."""
    database.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
    for more in {}, {"payload": ["id", "body"]}, {"title": "body", "payload": ["id", "body"]}:
        source = database.source(**more)
        page = source.page(None, 10)
        assert (len(page.documents), page.cursor, page.unreadable, source.count()) == (
            0,
            None,
            [],
            0,
        )
        assert len(source.documents(["1"]).documents) == 0


def test_named_documents_are_read_however_long_they_are(sqlite, monkeypatch):
    monkeypatch.setattr("rag_index.components.sources.pages.PAGE_CHARS", 10)
    source = sqlite.notes(7).source()
    assert len(source.page(None, 7).documents) == 2
    assert source.documents(list("1234567")).documents.keys == list("1234567")
    sqlite.notes(250, first=8)
    named = [str(number) for number in range(1, 258)]
    assert sorted(source.documents(named).documents.keys, key=int) == named


def test_queries_as_people_write_them(sqlite):
    sqlite.notes(3)
    for query in (
        "  SELECT id, body FROM note ; \n ; ",
        "SELECT id, body FROM note -- it's all of them",
        "/* a; b */ SELECT id, body FROM note /* the end; */ ;",
        "WITH all_notes AS (SELECT id, body FROM note) SELECT id, body FROM all_notes",
        "SELECT id, body FROM note WHERE body <> '; -- not the end'",
        (
            "SELECT id, body FROM note WHERE body <> ':colon' AND body NOT LIKE '%x%' AND '12:30'"
            " <> 'a\\:b'"
        ),
        'SELECT id, body, author AS ":odd" FROM note ORDER BY body DESC',
    ):
        assert read(sqlite.source(query=query), 1) == {
            "1": "note 1",
            "2": "note 2",
            "3": "note 3",
        }, query


def test_queries_that_are_not_valid(sqlite):
    sqlite.notes(1)
    for query, message in (
        ("SELECT id, body FROM note; DROP TABLE note", 'near ";": syntax error'),
        (" -- nothing\n ; ", "the query is empty"),
        ("SELECT id, body FROM notes", "no such table: notes"),
        ("DELETE FROM note", "syntax error"),
        ("SELECT id, id AS body FROM note", "gives int, not text"),
    ):
        with pytest.raises(SettingsError, match=f"index notes.*{message}") as caught:
            sqlite.source(query=query).check()
        assert "\n" not in str(caught.value), query


def test_columns_are_joined_by_newlines_and_templates_are_filled_with_literal_values(sqlite):
    sqlite.run("CREATE TABLE note (id INTEGER, [a.b] TEXT, b TEXT, c TEXT)")
    rows = [
        (1, "{b} {0} %s", "}", None),
        (2, None, "", " "),
        (3, None, "only b", "z"),
        (4, "x", None, "z"),
    ]
    sqlite.run("INSERT INTO note VALUES (?, ?, ?, ?)", rows=rows)
    assert read(sqlite.source(text=["a.b", "b", "c"])) == {
        "1": "{b} {0} %s\n}",
        "2": "",
        "3": "only b\nz",
        "4": "x\nz",
    }
    filled = {
        "1": "Title: {b} {0} %s\n} {as is}",
        "2": "",
        "3": "Title: \nonly b {as is}",
        "4": "Title: x\n {as is}",
    }
    assert read(sqlite.source(text="Title: {a.b}\n{b} {{as is}}")) == filled
    sqlite.run("UPDATE note SET b = 'a' || char(0) || 'b'")
    assert set(read(sqlite.source(text="b")).values()) == {"a b"}, "NUL characters are spaces"


def test_a_value_that_is_not_text_fails_only_its_document(sqlite):
    """SQLite allows values of any type in any column."""
    sqlite.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)",
        "INSERT INTO note VALUES (2, 'a'), (3, 'b')",
    )
    sqlite.run("INSERT INTO note VALUES (?, ?)", rows=[(1, b"\x00\x01")])
    source = sqlite.source()
    source.check()
    page = source.page(None, 10)
    assert (page.documents.keys, [failure.key for failure in page.unreadable]) == (
        ["2", "3"],
        ["1"],
    )
    assert re.search(r"column 'body' holds bytes, not text", page.unreadable[0].reason)


def test_bytes_that_are_not_utf8_are_read_in_the_charset_that_they_look_like(sqlite):
    sqlite.notes(3).run("UPDATE note SET body = CAST(x'61ff62' AS TEXT) WHERE id = 2")
    sqlite.run("UPDATE note SET author = CAST(x'636166e9206475' AS TEXT) WHERE id = 2")
    source = sqlite.source(payload=["author"])
    source.check()
    page = source.page(None, 10)
    assert page.documents.texts == ["note 1", "a\u00ffb", "note 3"]
    assert decode_payload(page.documents.payloads[1]) == {"author": "caf\u00e9 du"}
    assert sqlite.source(query=f"{QUERY} WHERE id = 2").check() is None


def test_malformed_dates_are_unchanged_in_the_payload(sqlite):
    sqlite.run("CREATE TABLE note (id INTEGER, body TEXT, at TIMESTAMP, day DATE)")
    sqlite.run("INSERT INTO note VALUES (1, 'x', '0000-00-00 25:00', 'soon')")
    page = sqlite.source(payload=["at", "day"]).page(None, 10)
    assert decode_payload(page.documents.payloads[0]) == {"at": "0000-00-00 25:00", "day": "soon"}


@pytest.mark.parametrize("given", [{}, {"query": "SELECT * FROM note"}], ids=["table", "query"])
def test_null_keys_are_refused_and_keys_that_occur_twice_wherever_pages_end(database, given):
    database.run("CREATE TABLE note (id VARCHAR(9), n INTEGER, body VARCHAR(9))")
    database.run("INSERT INTO note VALUES ('a', 1, 'x'), (NULL, 2, 'y'), ('b', NULL, 'z')")
    for source, keys in (
        (database.source(**given), 2),
        (database.source(**given, key=["n", "id"]), 1),
    ):
        with pytest.raises(SourceError, match=r"\d rows? ha.* NULL in the key"):
            source.check()
        assert source.count() == keys == len(source.page(None, 10).documents)
    database.run("UPDATE note SET id = 'b' WHERE id IS NULL")
    streams = bool(given) and database.kind != "sqlite"  # a run notices keys of other pages
    for rows in (10,) if streams else (1, 2, 3, 10):
        with pytest.raises(SourceError, match=r"key b \(id\) occurs more than once"):
            read(database.source(**given), rows)


def test_a_file_that_does_not_exist_or_is_no_database_and_a_server_that_does_not_answer(tmp_path):
    with pytest.raises(SettingsError, match=r"there is no file .*nothing\.db"):
        SourceDatabase(make_url(f"sqlite:///{tmp_path}/nothing.db")).source()
    (tmp_path / "x.db").write_bytes(b"this is no database at all, not at all " * 50)
    with pytest.raises(SettingsError, match="file is not a database"):
        SourceDatabase(make_url(f"sqlite:///{tmp_path}/x.db")).source().check()
    url = make_url("postgresql+psycopg://reader:s3cret%40@127.0.0.1:1/desk?application_name=s3cret")
    with pytest.raises(SourceUnavailable) as caught:
        SourceDatabase(url).source().check()
    message = str(caught.value)
    assert re.search(
        r"source postgresql\+psycopg://reader@127\.0\.0\.1:1/desk does not answer: .*refused",
        message,
    )
    assert not re.search("s3cret|\n", message)


def test_an_unknown_name_is_said_before_anything_is_read(database):
    database.notes(1)
    for given, place in (
        ({"table": "nots"}, "table 'nots' cannot be read: .*nots.*; did you mean note"),
        ({"table": "xyzzy"}, "table 'xyzzy' cannot be read: .*; there are note"),
        ({"schema": "mein"}, "table 'note' cannot be read: .*"),
        ({"key": "idd"}, "table 'note' cannot be read: .*idd.*; did you mean id"),
        (
            {"payload": ["xyzzy"]},
            "table 'note' cannot be read: .*xyzzy.*; there are id, body, author",
        ),
        (
            {"query": "SELECT * FROM note", "key": "idd"},
            "no column 'idd' in the query; did you mean id",
        ),
        ({"text": "id"}, r"column 'id' of table 'note' gives int, not text; cast it"),
    ):
        with pytest.raises(SettingsError, match=f"index notes: .*{place}") as caught:
            database.source(**given).check()
        assert ("\n" in str(caught.value), caught.value.exit_code) == (False, 2)


def test_writing_is_impossible_and_the_file_stays_unchanged(sqlite):
    sqlite.notes(20)
    path = Path(sqlite.url.database)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    engine = open_read_only(sqlite.url)
    with (
        engine.connect() as connection,
        pytest.raises(sa.exc.OperationalError, match="readonly database"),
    ):
        connection.exec_driver_sql("DELETE FROM note")
    engine.dispose()
    read(sqlite.source(payload=["author"]), 3)
    sqlite.close()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_writers_are_not_blocked_between_pages(sqlite, mode):
    sqlite.notes(9).run(f"PRAGMA journal_mode={mode}")

    def write(page):
        with sqlite3.connect(sqlite.url.database, timeout=0.1) as writer:
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("UPDATE note SET author = 'someone' WHERE id = 1")
        writer.close()

    assert len(read(sqlite.source(), 2, write)) == 9
    assert len(read(sqlite.source(query=QUERY), 2, write)) == 9


def test_a_locked_database_is_waited_for_and_then_a_transient_error(sqlite):
    source = sqlite.notes(3).source()
    source.check()
    writer = sqlite3.connect(sqlite.url.database, check_same_thread=False)
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceUnavailable, match=r"locked.*another process writes it"):
        sqlite.source(url=sqlite.url.set(query={"timeout": "0.1"})).page(None, 10)
    found = []
    reader = threading.Thread(target=lambda: found.append(source.page(None, 10)))
    reader.start()
    reader.join(0.3)
    assert reader.is_alive(), "it does not wait for the lock"
    writer.rollback()
    reader.join()
    assert len(found[0].documents) == 3
    writer.close()


@pytest.mark.parametrize(
    "ask", [SqlSource.check, SqlSource.count, lambda source: source.page(None, 10)]
)
def test_a_query_that_never_ends_is_interrupted(sqlite, ask):
    with pytest.raises(
        SourceTimedOut, match=r"did not answer a query within 0\.3 s.*raise \[source\] timeout"
    ):
        ask(sqlite.source(query=ENDLESS, timeout=0.3))


def test_a_query_gives_what_its_table_gives(desk):
    """All types that a driver gives, once directly and once by way of the file that rows are copied
    into."""
    columns = {
        "id": "uuid PRIMARY KEY",
        "body": "text",
        "at": "timestamptz",
        "clock": "timetz",
        "price": "numeric",
        "raw": "bytea",
        "tags": "numeric[]",
        "more": "jsonb",
        "span": "interval",
        "r": "tstzrange",
        "m": "int4multirange",
        "address": "inet",
        "share": "float8",
        "days": "date[][]",
        "pair": "point",
    }
    desk.run(
        f"CREATE TABLE note ({', '.join(' '.join(one) for one in columns.items())})",
        """INSERT INTO note VALUES ('00000000-0000-0000-0000-0000000000ff', 'x', '2024-05-01 12:30:00.000001+02',
           '24:00+02', 'NaN', '\\x00ff', '{1.50,NULL}', '{"z": [1e400, 0.1]}', '400 days', '[2024-05-01,)',
           '{[1,3),[5,7)}', '10.0.0.1/8', 'NaN', '{{2024-05-01},{infinity}}', '(1,2)')""",
    )
    given = {"payload": [name for name in columns if name not in ("id", "body")]}
    pages = [
        desk.source(**given, **one).page(None, 10) for one in ({}, {"query": "SELECT * FROM note"})
    ]
    assert pages[0].documents == pages[1].documents
    for name in columns:
        given = {"text": "{body} {" + name + "}", "format": {name: "plain"}}
        assert read(desk.source(query="SELECT * FROM note", **given)) == read(
            desk.source(**given)
        ), name


def test_no_table_is_held_and_the_file_of_its_rows_has_no_name(desk, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    source = desk.notes(9).source(query="SELECT * FROM note", folder=folder)
    first = source.page(None, 4)
    desk.run("ALTER TABLE note ADD COLUMN more text", "DELETE FROM note")
    assert not list(folder.iterdir())
    assert source.page(first.cursor, 4).documents == source.page(first.cursor, 4).documents, (
        "a page is read again"
    )
    assert source.page(source.page(first.cursor, 4).cursor, 4).documents.keys == ["9"]


@pytest.mark.mount
def test_a_disk_without_room_for_rows_is_named_before_it_is_full(project):
    with Disk(project, 40) as disk:
        for expected, rows in ((100_000, 1000), (None, 10**6)):
            with closing(RowFile(disk.path)) as file:
                with pytest.raises(
                    SourceError, match=r"need about .* MB in .* for the time of a run, and only"
                ):
                    file.write((["x" * 1000] for _ in range(rows)), expected)
                assert file.size < 36_000_000, "others still have room"


def sample_of(project, size) -> Sample:
    return read_sample(project.settings, project.settings.index("notes"), size)


def test_a_sample_is_the_same_each_time_and_spread_over_all_documents_read(project):
    sample = sample_of(project.fill(400), 40)
    assert (sample.count(), sample.documents) == (40, sample_of(project, 40).documents)
    numbers = [int(key.strip("[]")) for key in sample.documents.keys]
    assert numbers == sorted(numbers)
    assert min(numbers) < 100 < 300 < max(numbers)
    assert sample.seconds > 0
    assert [len(page.documents) for page in pages(sample, 15)] == [15, 15, 10]
    project.execute("UPDATE note SET title = '', body = NULL WHERE id <> 5")
    assert sample_of(project, 1000).count() == 1, "all that has a text, of a small source"
    project.execute("UPDATE note SET title = '', body = NULL")
    with pytest.raises(SourceError, match="notes has no documents with text"):
        sample_of(project, 10)


def read_pages(project: Project, rows: int) -> tuple[list[str], list[int], int]:
    """Return keys of all documents, the characters of each page, and the most bytes that were held
    at a time."""
    keys, sizes, cursor = [], [], None
    tracemalloc.start()
    with closing(open_source(project.settings, project.settings.indexes[0])) as source:
        while not sizes or cursor is not None:
            page = source.page(cursor, rows)
            keys += [*page.documents.keys, *page.unread]
            sizes.append(sum(map(len, page.documents.texts)))
            cursor = page.cursor
            del page
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return keys, sizes, peak


@pytest.mark.parametrize("rows", [2000, 7])
def test_a_page_is_bounded_by_its_characters(project, rows):
    """500 short texts, then 300 of 100,000 characters: 30 MB."""
    with project.fill(500).source() as db:
        long = ((number, f"{number} " * 25_000) for number in range(501, 801))
        db.executemany("INSERT INTO note VALUES (?, 'long', ?, 'a', 1)", long)
    keys, sizes, peak = read_pages(project, rows)
    assert keys == [str(i) for i in range(1, 801)]
    assert max(sizes) < PAGE_CHARS + 200_000
    assert len(sizes) == (800 // rows + 1 if rows == 7 else 8)
    assert peak < 3 * PAGE_CHARS


@pytest.fixture
def example(project, tmp_path, monkeypatch) -> Project:
    """A project with the settings of the example, whose package is installed."""
    install_as_written(
        blocks(SECTION, "text")[0], tmp_path / "site", {"notes.py": blocks(SECTION, "python")[0]}
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    project.write_settings('project = "test"\n' + blocks(SECTION, "text")[1])
    sys.modules.pop("notes", None)
    return project


def write_notes(example: Project, notes: dict[int, str]) -> None:
    lines = [json.dumps({"id": key, "text": text, "author": "kim"}) for key, text in notes.items()]
    (example.folder / "notes.jsonl").write_text("".join(f"{line}\n" for line in lines))


def counts_of(example: Project) -> dict[str, int]:
    outcome = example.run().indexes[0]
    assert outcome.state == "completed", outcome.message
    return {name: getattr(outcome, name) for name in ("new", "changed", "unchanged", "deleted")}


def test_the_example_is_indexed_and_kept_up_to_date(example):
    notes = {number: f"The printer of room {number} is broken." for number in range(50)}
    write_notes(example, notes)
    assert counts_of(example) == {"new": 50, "changed": 0, "unchanged": 0, "deleted": 0}
    assert {payload["author"] for payload, _ in example.points().values()} == {"kim"}
    write_notes(
        example,
        {**{key: text for key, text in notes.items() if key != 7}, 8: "It is the keyboard."},
    )
    assert counts_of(example) == {"new": 0, "changed": 1, "unchanged": 48, "deleted": 1}
    assert example.texts()["8"] == ["It is the keyboard."]


def test_a_kind_that_is_not_installed(project):
    project.write_settings('[[indexes]]\nname = "mails"\nkind = "mails"\n')
    message = r"index mails: kind 'mails' should be 'sql', 'code'.* once its package is installed"
    with pytest.raises(SettingsError, match=message):
        load_settings(project.config)
