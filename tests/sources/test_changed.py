"""`changed_since`: which rows are read, which stay unread, and clocks that disagree."""

import datetime as dt

import pytest

from rag_index.components.sources.changed_rows import ChangedSource
from rag_index.core.documents.keys import encode_key
from rag_index.errors import SettingsError, SourceError
from tests.sources.databases import open_database, pages, read_since

KINDS = {"timestamptz": "postgresql", "timestamp": "postgresql", "date": "postgresql", "datetime": "mariadb",
         "text": "sqlite", "integer": "sqlite", "bigint": "mariadb"}  # fmt: skip


class Table:
    """A table of (id, body, at). `ago` returns a time in the type of the column."""

    def __init__(self, kind: str, database) -> None:
        self.kind, self.database = kind, database
        database.run(f"CREATE TABLE note (id integer PRIMARY KEY, body text, at {kind} NULL)")

    def ago(self, **past):
        time = dt.datetime.now(dt.UTC) - dt.timedelta(**past)
        plain = time.replace(tzinfo=None)
        text = plain.isoformat(sep=" ", timespec="seconds")
        seconds = int(time.timestamp())
        numbers = {"integer": seconds, "bigint": 1000 * seconds}
        return {"timestamptz": time, "date": time.date(), "text": text, **numbers}.get(self.kind, plain)

    def put(self, number: int, at, body: str = "x") -> None:
        self.database.run(f"DELETE FROM note WHERE id = {number}")
        self.database.run("INSERT INTO note VALUES (?, ?, ?)", rows=[(number, body, at)])

    def source(self, **more) -> ChangedSource:
        return self.database.source(ChangedSource, **{"changed_since": "at", **more})


@pytest.fixture(params=KINDS)
def table(request, tmp_path):
    with open_database(KINDS[request.param], request, tmp_path) as database:
        yield Table(request.param, database)


def read(source: ChangedSource, rows: int = 3) -> tuple[list[str], list[str]]:
    """Return the keys that were read, and those that stayed unread."""
    documents, unread = [], []
    for page in pages(source, rows):
        documents += page.documents.keys
        unread += page.unread
    return documents, unread


def since(table: Table, watermark: str, must_read=lambda keys: False) -> tuple[list[str], list[str]]:
    source = table.source()
    read_since(source, watermark, must_read)
    return read(source)


def old(table: Table, count: int) -> str:
    """Add rows of ten days ago, and one of two days ago, whose time becomes the watermark that is returned."""
    for number in range(1, count + 1):
        table.put(number, table.ago(days=10))
    table.put(100, table.ago(days=2))
    return table.source().watermark()


def test_only_what_changed_is_read(table):
    assert table.source().watermark() is None
    table.put(1, None)
    assert table.source().watermark() is None, "no row has a time"
    watermark = old(table, 10)
    assert read(table.source())[0] == [*map(str, range(1, 11)), "100"], "all rows, unless a scan state says otherwise"
    table.put(4, table.ago(minutes=1), "new words")
    table.put(11, table.ago(minutes=1))
    table.put(7, None)
    documents, unread = since(table, watermark)
    assert documents == ["4", "7", "11", "100"], "rows without a time and those in the overlap are always read"
    assert unread == ["1", "2", "3", "5", "6", "8", "9", "10"]


def test_rows_from_the_future_hide_nothing_and_late_commits_are_read(table):
    old(table, 5)
    table.put(9, table.ago(days=-4000))
    watermark = table.source().watermark()
    table.put(3, table.ago(minutes=1))
    table.put(1, table.ago(days=2, minutes=50))  # dated before the scan and committed after it: the overlap is for that
    documents, unread = since(table, watermark)
    assert documents == ["1", "3", "9", "100"]
    assert unread == ["2", "4", "5"]


def test_a_page_with_a_key_that_must_be_read_is_read_in_full(table):
    documents, unread = since(table, old(table, 9), must_read=lambda keys: "5" in keys)
    assert documents == ["4", "5", "6", "100"]
    assert unread == ["1", "2", "3", "7", "8", "9"]


@pytest.mark.parametrize(("written_since", "newest_is_there"), [(False, True), (True, True), (True, False)])
def test_a_source_that_was_put_back_to_an_older_copy_is_read_in_full(table, written_since, newest_is_there):
    """The index has the newer text of a row that has its old time again, and no other row says so."""
    old(table, 3)
    table.put(2, table.ago(hours=1), "changed, and then lost")
    watermark = table.source().watermark()
    assert len(since(table, watermark)[1]) >= 2, "nothing was put back"
    if newest_is_there:
        table.put(2, table.ago(days=10))
    else:
        table.database.run("DELETE FROM note WHERE id = 2")
    if written_since:
        table.put(101, table.ago(minutes=1))
    assert since(table, watermark)[1] == []


def test_a_column_without_times_is_refused(sqlite):
    table = Table("integer", sqlite)
    for value, shown in ((17, r"int \(17\)"), ("yesterday", r"str \('yesterday'\)")):
        table.put(1, value)
        with pytest.raises(SettingsError, match=rf"changed_since 'at' holds {shown}, not times"):
            table.source().watermark()
    with pytest.raises(SettingsError, match=r"table 'note' cannot be read: .*when"):
        table.source(changed_since="when").check()


def test_several_columns_as_key_and_a_query(database):
    database.run("CREATE TABLE part (site VARCHAR(9), number integer, body VARCHAR(9), at VARCHAR(30))")
    rows = [(site, number, "x", "2026-01-02 10:00:00") for site in "abc" for number in range(5)]
    database.run("INSERT INTO part VALUES (?, ?, ?, ?)", rows=[*rows, ("z", 1, "x", "2026-01-09 10:00:00")])
    index = {"query": "SELECT * FROM part", "key": ["site", "number"], "changed_since": "at"}
    source = database.source(ChangedSource, **index)
    watermark = source.watermark()
    database.run("UPDATE part SET at = '2026-11-01 00:00:00' WHERE site = 'b' AND number = 3")
    read_since(source, watermark)
    documents, unread = read(source, rows=4)
    assert documents == [encode_key(("b", 3)), encode_key(("z", 1))]
    assert len(unread) == 14
    database.run("INSERT INTO part VALUES ('b', 3, 'twice', '2020-01-01')")
    with pytest.raises(SourceError, match="more than once"):
        read(source, rows=4)
