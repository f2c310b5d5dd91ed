"""`changed_since`: which rows are read, which stay unread, and clocks that disagree; on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
import sqlite3

import pytest

from rag_index.database.urls import database_url
from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError, SourceError
from rag_index.settings.index import IndexSettings
from rag_index.sources.changed import ChangedSource
from tests.live.postgres import postgres

__all__ = ["postgres"]

KINDS = {"timestamptz": "timestamptz", "timestamp": "timestamp", "date": "date", "text": "text"}


class Table:
    """A table of (id, body, at) on SQLite or PostgreSQL. `ago` returns a time in the type of the column."""

    def __init__(self, kind: str, folder, server=None) -> None:
        self.kind = kind
        self._server = server
        if server is None:
            self.url = database_url(f"sqlite:///{folder}/s.db", folder)
            self._db = sqlite3.connect(folder / "s.db", isolation_level=None)
        else:
            self._context = server.database()
            name = self._context.__enter__()
            self.url = server.url(name)
            self._db = server.connect(name)
        self._db.execute(f"CREATE TABLE note (id integer PRIMARY KEY, body text, at {kind})")

    def close(self) -> None:
        self._db.close()
        if self._server is not None:
            self._context.__exit__(None, None, None)

    def ago(self, **past):
        time = dt.datetime.now(dt.UTC) - dt.timedelta(**past)
        return {
            "timestamptz": time, "timestamp": time.replace(tzinfo=None), "date": time.date(),
            "text": time.isoformat(sep=" ", timespec="seconds").removesuffix("+00:00"),
        }[self.kind]  # fmt: skip

    def put(self, number: int, at, body: str = "x") -> None:
        placeholder = "?" if self._server is None else "%s"
        self._db.execute(f"DELETE FROM note WHERE id = {number}")
        self._db.execute(f"INSERT INTO note VALUES ({placeholder}, {placeholder}, {placeholder})", (number, body, at))

    def source(self, **more) -> ChangedSource:
        settings = {"name": "n", "table": "note", "key": "id", "text": "body", "changed_since": "at", **more}
        return ChangedSource(self.url, IndexSettings(**settings))


@pytest.fixture(params=[*KINDS, "sqlite"])
def table(request, tmp_path):
    if request.param == "sqlite":
        made = Table("text", tmp_path)
    else:
        made = Table(KINDS[request.param], tmp_path, request.getfixturevalue("postgres"))
    yield made
    made.close()


def read(source: ChangedSource, rows: int = 3) -> tuple[list[str], list[str]]:
    """Return the keys that were read, and those that stayed unread."""
    documents, unread, cursor = [], [], None
    while True:
        page = source.page(cursor, rows)
        documents += page.documents.keys
        unread += page.unread
        if (cursor := page.cursor) is None:
            source.close()
            return documents, unread


def since(table: Table, watermark: str, must_read=lambda keys: False) -> tuple[list[str], list[str]]:
    source = table.source(changed_overlap=3600)
    source.read_since(watermark, must_read)
    return read(source)


def old(table: Table, count: int) -> None:
    """Add rows of ten days ago, and one of two days ago, whose time becomes the watermark."""
    for number in range(1, count + 1):
        table.put(number, table.ago(days=10))
    table.put(100, table.ago(days=2))


def test_only_what_changed_is_read(table):
    old(table, 10)
    source = table.source()
    assert read(source)[0] == [*map(str, range(1, 11)), "100"], "all rows, until `read_since` is called"
    watermark = table.source().watermark()
    table.put(4, table.ago(minutes=1), "new words")
    table.put(11, table.ago(minutes=1))
    table.put(7, None)
    documents, unread = since(table, watermark)
    assert documents == ["4", "7", "11", "100"], "rows without a time and those in the overlap are always read"
    assert unread == ["1", "2", "3", "5", "6", "8", "9", "10"]


def test_a_row_from_the_future_hides_nothing(table):
    old(table, 5)
    table.put(9, table.ago(days=-4000))
    watermark = table.source().watermark()
    table.put(3, table.ago(minutes=1))
    documents, unread = since(table, watermark)
    assert documents == ["3", "9", "100"]
    assert unread == ["1", "2", "4", "5"]


def test_a_change_that_is_committed_after_later_ones_is_read(table):
    """The row was dated before the scan and committed after it, which is what the overlap is for."""
    old(table, 3)
    watermark = table.source().watermark()
    table.put(1, table.ago(days=2, minutes=50))
    assert "1" in since(table, watermark)[0]


def test_a_page_with_a_key_that_must_be_read_is_read_in_full(table):
    old(table, 9)
    watermark = table.source().watermark()
    documents, unread = since(table, watermark, must_read=lambda keys: "5" in keys)
    assert documents == ["4", "5", "6", "100"]
    assert unread == ["1", "2", "3", "7", "8", "9"]


def test_without_rows_or_times_there_is_no_watermark(table):
    assert table.source().watermark() is None
    table.put(1, None)
    assert table.source().watermark() is None


def test_a_column_without_times_is_refused(tmp_path):
    table = Table("integer", tmp_path)
    table.put(1, 17)
    with pytest.raises(SettingsError, match=r"changed_since 'at' holds int \(17\), not times"):
        table.source().watermark()
    table.put(1, "yesterday")
    with pytest.raises(SettingsError, match="does not begin with a date"):
        table.source().watermark()
    with pytest.raises(SettingsError, match="there is no column 'when'"):
        table.source(changed_since="when").check()
    table.close()


def test_several_columns_as_key_and_a_query(tmp_path):
    db = sqlite3.connect(tmp_path / "s.db")
    db.execute("CREATE TABLE part (site text, number integer, body text, at text)")
    for site in "abc":
        for number in range(5):
            db.execute("INSERT INTO part VALUES (?, ?, 'x', '2026-01-02 10:00:00')", (site, number))
    db.commit()
    index = IndexSettings(name="n", query="SELECT * FROM part", key=["site", "number"], text="body", changed_since="at")
    url = database_url(f"sqlite:///{tmp_path}/s.db", tmp_path)
    db.execute("INSERT INTO part VALUES ('z', 1, 'x', '2026-01-09 10:00:00')")
    db.commit()
    watermark = ChangedSource(url, index).watermark()
    db.execute("UPDATE part SET at = '2026-11-01 00:00:00' WHERE site = 'b' AND number = 3")
    db.commit()
    source = ChangedSource(url, index)
    source.read_since(watermark, lambda keys: False)
    documents, unread = read(source, rows=4)
    assert documents == [encode_key(("b", 3)), encode_key(("z", 1))]
    assert len(unread) == 14
    db.execute("INSERT INTO part VALUES ('b', 3, 'twice', '2020-01-01')")
    db.commit()
    with pytest.raises(SourceError, match="more than once"):
        read(source, rows=4)
