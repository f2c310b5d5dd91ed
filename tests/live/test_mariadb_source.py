"""MariaDB as a source: 200,000 rows, the conversion of its types, a read-only session, `changed_since`."""

from __future__ import annotations

import time

import pytest

from rag_index.documents.access import groups_in
from rag_index.documents.canonical import decode_payload
from rag_index.errors import SettingsError
from rag_index.settings.index import IndexSettings
from rag_index.sources.changed import ChangedSource
from rag_index.sources.sql import SqlSource
from tests.live.mariadb import mariadb

__all__ = ["mariadb"]

ROWS = 200_000
TABLE = f"""
CREATE TABLE note AS
SELECT seq AS id, CONCAT('Note ', seq, ' über Drucker 🖨') AS title, seq % 7 AS priority,
       CAST(seq AS decimal(12, 2)) AS price, JSON_OBJECT('room', seq % 977) AS about,
       TIMESTAMP '2026-01-01 00:00:00' + INTERVAL seq SECOND AS updated_at
FROM seq_1_to_{ROWS}
"""


def index(**more) -> IndexSettings:
    settings = {"name": "n", "table": "note", "key": "id", "text": "title", "payload": ["priority", "price", "about"]}
    return IndexSettings(**{**settings, **more})


@pytest.fixture(scope="module")
def table(mariadb):
    with mariadb.connect() as connection, connection.cursor() as cursor:
        cursor.execute(TABLE)
        cursor.execute("ALTER TABLE note ADD PRIMARY KEY (id)")
    return mariadb


def pages(source, rows=20_000):
    cursor = None
    while True:
        page = source.page(cursor, rows)
        yield page
        if (cursor := page.cursor) is None:
            source.close()
            return


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({}, id="table"),
        pytest.param({"table": None, "query": "SELECT * FROM note WHERE id > 0"}, marks=pytest.mark.long, id="query"),
    ],
)
def test_all_rows_are_read_in_order(table, how):
    source = SqlSource(table.url, index(**how))
    source.check()
    assert source.count() == ROWS
    began = time.monotonic()
    keys = [key for page in pages(source) for key in page.documents.keys]
    print(f"\n{ROWS:,} rows in {time.monotonic() - began:.1f} s")
    assert keys == [str(number) for number in range(1, ROWS + 1)]


def test_pairs_of_key_and_group_are_read_for_each_page(table):
    pairs = "SELECT id, CONCAT('team ', id % 3) FROM note WHERE id <= 500 AND id % 2 = 0"
    source = SqlSource(table.url, index(query="SELECT * FROM note WHERE id <= 700", table=None, access=pairs))
    source.check()
    found = {}
    for page in pages(source, 300):
        documents = page.documents
        found |= dict(zip(documents.keys, map(groups_in, documents.payloads), strict=True))
    assert found == {
        str(number): [f"team {number % 3}"] if number <= 500 and number % 2 == 0 else [] for number in range(1, 701)
    }


def test_types_are_converted(table):
    source = SqlSource(table.url, index(payload=["priority", "price", "about", "updated_at"]))
    page = source.page(None, 1)
    source.close()
    assert page.documents.texts == ["Note 1 über Drucker 🖨"]
    payload = decode_payload(page.documents.payloads[0])
    assert (payload["priority"], payload["price"], payload["updated_at"]) == (1, 1, "2026-01-01T00:00:01")
    assert payload["about"] in ('{"room": 1}', {"room": 1})


def test_a_wrong_column_is_reported(table):
    source = SqlSource(table.url, index(text="titel"))
    with pytest.raises(SettingsError, match=r"there is no column 'titel'.*did you mean 'title'"):
        source.check()
    source.close()


def test_a_view_whose_columns_may_not_be_seen_says_which_right_is_missing(table):
    with table.connect() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE OR REPLACE VIEW v_note AS SELECT id, title, priority, price, about FROM note")
        cursor.execute("CREATE OR REPLACE USER only_reader IDENTIFIED BY 'x'")
        cursor.execute("GRANT SELECT ON desk.v_note TO only_reader")
        source = SqlSource(table.url.set(username="only_reader", password="x"), index(table="v_note"))
        try:
            with pytest.raises(SettingsError, match=r"'v_note' cannot be read .SHOW VIEW command denied .* grant that"):
                source.check()
            cursor.execute("GRANT SHOW VIEW ON desk.v_note TO only_reader")
            source.check()
        finally:
            source.close()
            cursor.execute("DROP USER only_reader")


def test_only_what_changed_is_read(table):
    settings = index(changed_since="updated_at")
    watermark = ChangedSource(table.url, settings).watermark()
    with table.connect() as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE note SET title = 'new', updated_at = UTC_TIMESTAMP() WHERE id = 777")
    source = ChangedSource(table.url, settings)
    source.read_since(watermark, lambda keys: False)
    read, unread = [], 0
    for page in pages(source):
        read += page.documents.keys
        unread += len(page.unread)
    assert "777" in read
    assert len(read) < 5000, "only the newest hour of rows, which is the overlap"
    assert len(read) + unread == ROWS
