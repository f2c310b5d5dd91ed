"""SQL sources on a real PostgreSQL server."""

from __future__ import annotations

import re
import uuid

import pytest
import sqlalchemy as sa

from rag_index.database.urls import redacted_url
from rag_index.documents.canonical import decode_payload
from rag_index.documents.keys import document_id
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.ledger import Ledger
from rag_index.settings import IndexSettings, load_settings
from rag_index.sources import open_source
from rag_index.sources.engine import open_read_only
from rag_index.sources.scaffold import scaffold
from rag_index.sources.sql import SqlSource

PROSE = "The printer on the third floor does not answer any more, please help us."


class Desk:
    """A database that a test fills, and sources that read it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        self.url = server.url(name)
        self._open = []

    def run(self, *statements):
        with self.server.connect(self.name) as connection:
            for statement in statements:
                connection.execute(statement)
        return self

    def rows(self, statement):
        with self.server.connect(self.name) as connection:
            return connection.execute(statement).fetchall()

    def source(self, url=None, **given):
        values = {"name": "notes", "key": "id", "text": "body"} | given
        if "query" not in values:
            values = {"table": "note"} | values
        self._open.append(SqlSource(url or self.url, IndexSettings(**values)))
        return self._open[-1]

    def close(self):
        for source in self._open:
            source.close()


@pytest.fixture
def desk(postgres):
    with postgres.database() as name:
        desk = Desk(postgres, name)
        yield desk
        desk.close()


def read(source, rows=1000, between=lambda number: None):
    source.check()
    documents, cursor, number = {}, None, 0
    while True:
        page = source.page(cursor, rows)
        assert len(page.documents) <= rows
        for key, text in zip(page.documents.keys, page.documents.texts, strict=True):
            assert key not in documents
            documents[key] = text
        number += 1
        between(number)
        if page.cursor is None:
            return documents
        cursor = page.cursor


def notes(desk, count):
    return desk.run(
        "CREATE TABLE note (id integer PRIMARY KEY, body text)",
        f"INSERT INTO note SELECT i, 'note ' || i FROM generate_series(1, {count}) i",
    )


EXPECTED = {str(i): f"note {i}" for i in range(1, 8)}


@pytest.mark.parametrize("rows", [1, 3, 7, 8])
def test_pages_of_a_table_and_of_a_streamed_query(desk, rows):
    notes(desk, 7)
    assert read(desk.source(), rows) == EXPECTED
    source = desk.source(query="SELECT id, body::text, '%s :x' AS odd FROM note -- all;\n;", payload=["odd"])
    assert read(source, rows) == EXPECTED
    assert source.count() == 7
    assert decode_payload(source.page(None, 1).documents.payloads[0]) == {"odd": "%s :x"}


def test_a_query_is_read_by_one_cursor_from_one_snapshot(desk):
    """Sorting everything again for each page would cost more than embedding. Changes are for the next run."""
    notes(desk, 7)

    def change(number):
        desk.run("DELETE FROM note WHERE id > 5", f"INSERT INTO note VALUES ({100 + number}, 'new')")

    assert read(desk.source(query="SELECT id, body FROM note"), 2, change) == EXPECTED
    assert len(read(desk.source(query="SELECT id, body FROM note WHERE id < 6"), 2)) == 5


def test_writers_are_not_blocked_and_no_lock_is_held_between_pages(desk):
    source = notes(desk, 7).source()
    source.page(None, 2)
    desk.run("ALTER TABLE note ADD COLUMN more text", "UPDATE note SET more = 'x'")


def test_schemas_odd_names_views_and_domains(desk):
    desk.run(
        'CREATE SCHEMA "Help Desk"',
        "CREATE DOMAIN prose AS text",
        'CREATE TABLE "Help Desk"."order" ("Key" integer PRIMARY KEY, "select" prose, "100% ""x"" :y" varchar(50))',
        """INSERT INTO "Help Desk"."order" VALUES (1, 'one', 'odd'), (2, 'two', NULL)""",
        'CREATE VIEW "Help Desk".recent AS SELECT * FROM "Help Desk"."order" WHERE "Key" > 1',
    )
    given = {"schema": "Help Desk", "key": "Key", "text": ["select", '100% "x" :y']}
    assert read(desk.source(table="order", **given), 1) == {"1": "one\nodd", "2": "two"}
    assert read(desk.source(table="recent", **given), 1) == {"2": "two"}
    for wrong, message in (
        ({"table": "orders", "schema": "Help Desk"}, "no table 'orders' in schema 'Help Desk', did you mean 'order'?"),
        ({"table": "order", "schema": "Help desk"}, "no schema 'Help desk', did you mean 'Help Desk'?"),
        ({"table": "Help Desk.order", "schema": None}, 'write schema = "Help Desk" and table = "order"'),
        (
            {"table": "order", "schema": "Help Desk", "key": "key"},
            "no column 'key' in table 'order', did you mean 'Key'?",
        ),
    ):
        with pytest.raises(SettingsError) as caught:
            desk.source(**(given | wrong)).check()
        assert message in str(caught.value)


def test_tables_of_joins_and_parts_are_in_the_schema_of_the_index_unless_they_name_one(desk):
    tables = (
        "CREATE TABLE {}customer (id integer PRIMARY KEY, name text)",
        "CREATE TABLE {}ticket (id integer PRIMARY KEY, title text, body text, customer_id integer)",
        "CREATE TABLE {}remark (id integer PRIMARY KEY, ticket_id integer, body text, customer_id integer)",
    )
    desk.run("CREATE SCHEMA app", *[table.format(schema) for table in tables for schema in ("", "app.")])
    desk.run("INSERT INTO app.customer VALUES (1, 'Acme')", "INSERT INTO app.ticket VALUES (1, 'Ink', 'It is dry.', 1)")
    desk.run("INSERT INTO app.remark VALUES (1, 1, 'Shake it.', 1)", "INSERT INTO remark VALUES (1, 1, 'No.', 1)")
    customer = {"table": "customer", "on": "customer_id"}
    part = {"table": "remark", "on": "ticket_id", "text": "{who.name}: {body}", "joins": {"who": customer}}
    given = {"table": "ticket", "schema": "app", "joins": {"customer": customer}, "payload": ["customer.name"]}
    for more, text in (({}, "Acme: Shake it."), ({"schema": "public"}, "Acme: No.")):
        source = desk.source(**given, parts=[part | more])
        source.check()
        documents = source.page(None, 10).documents
        assert decode_payload(documents.payloads[0])["customer"] == {"name": "Acme"}
        assert documents.texts[0].split("\n")[-1] == text


def test_payload_values_have_one_form_in_every_session(desk):
    desk.run(
        f"ALTER DATABASE {desk.name} SET timezone = 'Asia/Tokyo'",
        """CREATE TABLE note (id uuid PRIMARY KEY, body text, at timestamptz, local timestamp, day date, clock time,
           price numeric(12, 4), big numeric(40), tags text[], days date[], more jsonb, plain json, raw bytea,
           span interval, flag boolean, real_ float8, address inet, code char(5))""",
        """INSERT INTO note VALUES ('00000000-0000-0000-0000-0000000000ff', 'x', '2024-05-01 12:30:00+02',
           '2024-05-01 12:30', '2024-05-01', '12:30', 10.5000, 123456789012345678901234567890, '{b,a,NULL}',
           '{2024-05-01}',
           '{"z": {"b": 1, "a": [1.5, null]}, "y": true}', '{"b": 1, "a": 2}', '\\x00ff', '1 day 2 hours', true, 0.1,
           '10.0.0.1', 'ab')""",
    )
    names = "at local day clock price big tags days more plain raw span flag real_ address code id".split()
    page = desk.source(payload=names).page(None, 10)
    assert decode_payload(page.documents.payloads[0]) == {
        "at": "2024-05-01T10:30:00Z", "local": "2024-05-01T12:30:00", "day": "2024-05-01", "clock": "12:30:00",
        "price": 10.5, "big": "123456789012345678901234567890", "tags": ["b", "a", None], "days": ["2024-05-01"],
        "more": {"y": True, "z": {"a": [1.5, None], "b": 1}}, "plain": {"a": 2, "b": 1}, "raw": "AP8=", "span": 93600.0,
        "flag": True, "real_": 0.1, "address": "10.0.0.1", "code": "ab   ",
        "id": "00000000-0000-0000-0000-0000000000ff",
    }  # fmt: skip
    assert page.documents.keys == ['{"uuid":"00000000-0000-0000-0000-0000000000ff"}']
    desk.run(f"ALTER DATABASE {desk.name} SET timezone = 'America/New_York'")
    assert desk.source(payload=names).page(None, 10) == page
    assert desk.source(query="SELECT * FROM note", payload=names).page(None, 10) == page


def test_a_database_without_an_encoding_is_read_as_utf8_unless_the_url_names_another(postgres):
    """PostgreSQL in the locale C makes SQL_ASCII databases, whose texts the driver gives as bytes."""
    name = "desk_without_encoding"
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0")
    desk = Desk(postgres, name)
    try:
        with postgres.connect(name) as connection:
            connection.execute("SET client_encoding = utf8")
            connection.execute("CREATE TABLE note (id text PRIMARY KEY, body text)")
            connection.execute("INSERT INTO note VALUES ('é', 'Über 東京')")
        Ledger(desk.url).close()
        assert read(desk.source()) == {'"é"': "Über 東京"}
        desk.run(r"UPDATE note SET body = E'na\357ve'")  # Latin-1
        assert read(desk.source(desk.url.update_query_dict({"client_encoding": "latin1"}))) == {'"Ã©"': "naïve"}
        with pytest.raises(SourceError, match="invalid byte sequence"):
            read(desk.source())
    finally:
        desk.close()
        with postgres.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_dates_that_python_cannot_represent_become_text(desk):
    desk.run(
        "CREATE TABLE note (id integer, body text, at timestamptz, local timestamp, day date)",
        "INSERT INTO note VALUES (1, 'x', 'infinity', '-infinity', '0044-03-15 BC')",
        "INSERT INTO note VALUES (2, 'y', NULL, '20000-01-01', 'infinity')",
    )
    for given in ({}, {"query": "SELECT * FROM note"}):
        page = desk.source(payload=["at", "local", "day"], **given).page(None, 10)
        assert sorted(decode_payload(payload)["day"] for payload in page.documents.payloads) == [
            "0044-03-15 BC",
            "infinity",
        ]
        assert {decode_payload(payload)["local"] for payload in page.documents.payloads} == {
            "-infinity",
            "20000-01-01 00:00:00",
        }


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("uuid", [str(uuid.UUID(int=i << 90)) for i in range(5)]),
        ("bigint", [-(2**40), 0, 2**62, 5, 7]),
        ("numeric(40, 2)", ["1.50", *(f"12345678901234567890123456789012345678.{cents}" for cents in (25, 26))]),
        ("timestamptz", ["2024-01-01 00:00+01", "2024-01-01 00:30+01", "2023-01-01 00:00+00"]),
        ("timestamp", ["2024-01-01 00:00:00.000001", "2024-01-01 00:00:00.000002", "2024-01-01"]),
        ("date", ["2024-01-01", "2023-12-31", "2024-01-02"]),
        ("bytea", ["\\x00", "\\x0001", "\\xff"]),
        ("varchar(10)", ["a", "B", "é", "%", "'", ""]),
        ("char(4)", ["a", "ab", "b"]),
        ("mood", ["sad", "ok", "happy"]),
        ("float8", ["0.1", "-1e300", "5"]),
        ('text COLLATE "de-x-icu"', ["a", "Ä", "z", "Z", "A"]),
        ("boolean", ["true", "false"]),
    ],
)  # fmt: skip
def test_keys_of_every_usual_type_are_paged(desk, kind, values):
    """Test each type alone and as the second of two key columns, with one row per page."""
    desk.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')",
        f"CREATE TABLE note (a integer, id {kind}, body text, PRIMARY KEY (a, id))",
    )
    with desk.server.connect(desk.name) as connection:
        for value in values:
            for a in (1, 2):
                connection.execute("INSERT INTO note VALUES (%s, %s, 'x')", (a, value))
    assert len(read(desk.source(key=["a", "id"]), 1)) == 2 * len(values)
    assert len(read(desk.source(key=["id", "a"]), 1)) == 2 * len(values)
    desk.run("DELETE FROM note WHERE a = 2")
    assert len(read(desk.source(), 1)) == len(values)


def test_pages_of_composite_keys_use_the_index(desk):
    """PostgreSQL looks up row values in the index of the key even if the first column has equal values."""
    desk.run(
        "CREATE TABLE note (a integer, b text, body text, PRIMARY KEY (a, b))",
        "INSERT INTO note SELECT 1, 'k' || i, 'x' FROM generate_series(1, 20000) i",
        "ANALYZE note",
    )
    source = desk.source(key=["a", "b"])
    statement = source._select().where(source._after((1, "k5"))).order_by(*source._order).limit(10)
    with open_read_only(desk.url).connect() as connection:
        compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params))
    assert re.search(r"Index Cond: .*ROW\(a, b\) > ROW", plan), plan


def test_null_keys_and_keys_that_occur_twice(desk):
    desk.run("CREATE TABLE note (id text, body text)", "INSERT INTO note VALUES ('a', 'x'), (NULL, 'y'), ('b', 'z')")
    for given in ({}, {"query": "SELECT * FROM note"}):
        source = desk.source(**given)
        with pytest.raises(SourceError, match="1 row has NULL in the key"):
            source.check()
        assert source.count() == 2
        assert sorted(source.page(None, 10).documents.keys) == ['"a"', '"b"']
    desk.run("DELETE FROM note WHERE id IS NULL", "INSERT INTO note VALUES ('a', 'again')")
    for rows in (1, 2, 10):
        with pytest.raises(SourceError, match=r"key a .* more than once"):
            read(desk.source(), rows)
    with pytest.raises(SourceError, match="more than once"):
        desk.source(query="SELECT * FROM note").page(None, 10)


# Read only


def test_nothing_can_be_written(desk):
    notes(desk, 2)
    engine = open_read_only(desk.url)
    for statement in (
        "DELETE FROM note",
        "CREATE TABLE x (y integer)",
        "SELECT nextval('s')",
        "CREATE TEMP SEQUENCE s",
    ):
        with (
            engine.connect() as connection,
            pytest.raises(sa.exc.DBAPIError, match=r"read-only transaction|does not exist"),
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    desk.run(
        "CREATE FUNCTION harm() RETURNS text LANGUAGE plpgsql AS $$ BEGIN DELETE FROM note; RETURN 'x'; END $$",
    )
    for query in ("SELECT 1 AS id, harm() AS body", "WITH gone AS (DELETE FROM note RETURNING *) SELECT * FROM gone"):
        with pytest.raises(SettingsError, match=r"the query fails: .*(read-only transaction|data-modifying statement)"):
            desk.source(query=query).check()
    assert len(desk.rows("SELECT * FROM note")) == 2


# Errors


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"query": "SELECT id, bdy AS body FROM note"}, 'the query fails: column "bdy" does not exist'),
        ({"query": "SELECT FROM FROM"}, 'the query fails: syntax error at or near "FROM"'),
        ({"query": "SELECT id, body AS bdy FROM note"}, "no column 'body' in the query, did you mean 'bdy'?"),
        ({"query": "SELECT id, id AS body FROM note"}, "column 'body' of the query gives int (1), not text; cast it"),
        ({"text": "id"}, "column 'id' of table 'note' is INTEGER, not text"),
    ],
)
def test_settings_that_do_not_fit(desk, given, message):
    notes(desk, 1)
    with pytest.raises(SettingsError) as caught:
        desk.source(**given).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_password_a_missing_database_and_a_missing_right_are_terminal_errors(desk):
    notes(desk, 1).run(f"CREATE ROLE reader_{desk.name} LOGIN PASSWORD 'x'")
    urls = [
        (desk.server.url(desk.name, password="wr0ng"), "password authentication failed"),
        (desk.server.url("nowhere"), 'database "nowhere" does not exist'),
        (desk.server.url(desk.name, f"reader_{desk.name}", "x"), "permission denied for table note"),
    ]
    for url, message in urls:
        with pytest.raises(SourceError, match=message) as caught:
            desk.source(url).check()
        assert "wr0ng" not in str(caught.value)
        assert redacted_url(url) in str(caught.value)
    desk.run(f"DROP ROLE reader_{desk.name}")


def test_a_server_that_stops_is_a_transient_error_and_reading_continues_when_it_is_back(desk):
    source = notes(desk, 7).source()
    streamed = desk.source(query="SELECT id, body FROM note")
    first, begun = source.page(None, 3), streamed.page(None, 3)
    desk.server.stop()
    try:
        for lost, cursor in ((source, first.cursor), (streamed, begun.cursor), (streamed, None)):
            with pytest.raises(SourceUnavailable, match="does not answer"):
                lost.page(cursor, 3)
    finally:
        desk.server.start()
    assert source.page(first.cursor, 3).documents.keys == ["4", "5", "6"]
    with pytest.raises(SourceUnavailable, match="connection was lost during the query; run it again"):
        streamed.page(begun.cursor, 3)
    assert len(streamed.page(None, 10).documents) == 7


def test_a_long_pause_does_not_end_the_cursor(desk):
    """Embedding a page may take longer than the server lets a transaction be idle."""
    notes(desk, 7).run(f"ALTER DATABASE {desk.name} SET idle_in_transaction_session_timeout = '100ms'")
    with desk.server.connect(desk.name) as connection:
        documents = read(
            desk.source(query="SELECT id, body FROM note"), 3, lambda _: connection.execute("SELECT pg_sleep(0.15)")
        )
    assert documents == EXPECTED


# The scaffold


def test_a_scaffold_for_a_server_fits_it_and_has_no_password(desk, tmp_path, monkeypatch):
    desk.run(
        """CREATE TABLE comment (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text, state varchar(20),
           at timestamptz DEFAULT now(), more jsonb, search tsvector)""",
        f"INSERT INTO comment (body, state) SELECT '{PROSE} ' || i, (ARRAY['open', 'done'])[1 + i % 2] "
        "FROM generate_series(1, 30) i",
    )
    whole = desk.url.render_as_string(hide_password=False)
    text = scaffold(whole.replace("+psycopg", "") + "?connect_timeout=5").text
    assert "s3cret" not in text
    assert "RAG_INDEX_SOURCE__URL" in text.split("url =")[0]
    (tmp_path / "rag-index.toml").write_text(text)
    monkeypatch.setenv("RAG_INDEX_SOURCE__URL", whole)
    settings = load_settings(tmp_path / "rag-index.toml")
    (index,) = settings.indexes
    assert (index.name, index.key, index.text, index.payload) == ("comment", "id", ["body"], ["state", "at"])
    source = open_source(settings, index)
    assert len(read(source, 7)) == 30
    assert uuid.UUID(document_id(source.page(None, 1).documents.keys[0]))
    source.close()


@pytest.mark.parametrize(
    ("kind", "value", "document", "other"),
    [
        ("integer", "7", "7", "seven"),
        ("text", "'7'", "7", "8"),
        ("uuid", "'5f2d6a52-3c64-5a0e-9d0b-6a6f1f5b7c11'", "5f2d6a52-3c64-5a0e-9d0b-6a6f1f5b7c11", "7"),
        ("bytea", r"'\x6162'", "6162", "6263"),
        ("numeric", "1.50", "1.5", "x"),
        ("timestamptz", "'2026-01-31 10:00:00+02'", "2026-01-31T08:00:00Z", "today"),
        ("date", "'2026-01-31'", "2026-01-31", "7"),
    ],
)
def test_a_single_document_is_found_by_its_id(desk, kind, value, document, other):
    desk.run(f"CREATE TABLE note (id {kind} PRIMARY KEY, body text)", f"INSERT INTO note VALUES ({value}, 'text')")
    source = desk.source()
    found = source.documents([other, document])
    assert [document_id(key) for key in found.documents.keys] == [document]
    assert found.documents.keys == source.page(None, 10).documents.keys
