"""What only servers have: types, schemas, rights, cursors, time limits, stops, and settings for all
connections."""

import re
import time
from contextlib import closing

import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.sources.engine import limit_on_server, limited, open_read_only
from rag_index.components.sources.source_tables import tables_read
from rag_index.components.sources.sql import Cursor
from rag_index.core.database import redacted_url
from rag_index.core.documents.canonical import decode_payload
from rag_index.errors import SettingsError, SourceError, SourceTimedOut, SourceUnavailable
from tests.components.sources.conftest import (
    SourceDatabase,
    State,
    open_database,
    read,
    rescan,
    scan,
)

QUERY = {"query": "SELECT * FROM note"}
REMARKS = '[[indexes.parts]]\ntable = "remark"\non = "note"\nkey = "id"\ntext = "body"\n'
LIMIT = "SET sql_select_limit = 4"
CUT = "gave {} rows of a query that has {}, so nothing is concluded from it"
NINES = "9" * 5000
ODD_VALUES = {  # the columns, the rows without their keys and texts, and the payloads
    "dates": (
        "at timestamptz, local timestamp, day date",
        ["'infinity', '-infinity', '0044-03-15 BC'", "NULL, '20000-01-01', 'infinity'"],
        [["infinity", "-infinity", "0044-03-15 BC"], [None, "20000-01-01 00:00:00", "infinity"]],
    ),
    "times and intervals": (
        "at time, zoned timetz, span interval",
        [
            "'24:00:00', '24:00:00+02', '178956970 years'",
            "'23:59:59', '23:59:59+02', '9999999 years'",
            "'00:00', '00:00+00', '-2 days'",
        ],
        [
            ["24:00:00", "24:00:00+02", "178956970 years"],
            ["23:59:59", "23:59:59+02:00", "9999999 years"],
            ["00:00:00", "00:00:00+00:00", -172800.0],
        ],
    ),
    "within arrays, ranges and domains": (
        (
            "at time[], nested timetz[], days date[], spans interval[], never tsmultirange, shut"
            " closing"
        ),
        [
            """'{24:00,01:00}', '{{24:00+02}}', '{infinity,0044-03-15 BC,20000-01-01}', '{178956970 years,1 day}',
         '{[2024-01-01,infinity)}', '24:00'"""
        ],
        [
            [
                ["24:00:00", "01:00:00"],
                [["24:00:00+02"]],
                ["infinity", "0044-03-15 BC", "20000-01-01"],
                ["178956970 years", 86400.0],
                "{[2024-01-01T00:00:00, infinity)}",
                "24:00:00",
            ]
        ],
    ),
    "numbers that Python does not read": (
        "one jsonb, several json[]",
        [f"""'{{"n": {NINES}}}', ARRAY['[{NINES}]', '[1]']::json[]""", """'{"n": 1}', NULL"""],
        [[f'{{"n": {NINES}}}', [f"[{NINES}]", [1]]], [{"n": 1}, None]],
    ),
    "arrays of own types, and ranges": (
        "moods mood[], tags citext[], at tstzrange, days daterange",
        ["""'{sad,ok}', '{Ink,"a,b"}', '[2024-05-01 12:00+02,)', '[2024-05-01,2024-06-01)'"""],
        [
            [
                ["sad", "ok"],
                ["Ink", "a,b"],
                "[2024-05-01T10:00:00Z, None)",
                "[2024-05-01, 2024-06-01)",
            ]
        ],
    ),
}
POSTGRESQL = {
    "DateStyle": ("'SQL, DMY'", "'German'", "'Postgres, MDY'"),
    "IntervalStyle": ("'iso_8601'", "'sql_standard'"),
    "bytea_output": ("'escape'",),
    "extra_float_digits": ("'-15'",),
    "TimeZone": ("'America/Los_Angeles'",),
    "standard_conforming_strings": ("off",),
    "row_security": ("off",),
    "client_encoding": ("'LATIN1'",),
    "default_transaction_isolation": ("'serializable'",),
}
MARIADB = (
    "sql_select_limit = 3",
    "max_join_size = 3",
    "time_zone = '+05:00'",
    "group_concat_max_len = 4",
    "sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
    "max_recursive_iterations = 3",
    "max_statement_time = 0.001",
    "init_connect = 'SET sql_select_limit = 3, character_set_results = latin1'",
)
"""Of these, ANSI_QUOTES and the like decide what the SQL of a person means, and stay."""


def payloads(source):
    return [decode_payload(payload) for payload in source.page(None, 10).documents.payloads]


def test_no_lock_is_held_between_pages(desk):
    desk.notes(7).source().page(None, 2)
    desk.run("ALTER TABLE note ADD COLUMN more text", "UPDATE note SET more = 'x'")


def test_schemas_odd_names_views_and_domains(desk):
    desk.run(
        'CREATE SCHEMA "Help Desk"',
        "CREATE DOMAIN prose AS text",
        'CREATE TABLE "Help Desk"."order" ("Key" integer PRIMARY KEY, "select" prose, "100% ""x""'
        ' :y" varchar(50))',
        """INSERT INTO "Help Desk"."order" VALUES (1, 'one', 'odd'), (2, 'two', NULL)""",
        'CREATE MATERIALIZED VIEW "Help Desk".recent AS SELECT * FROM "Help Desk"."order" WHERE'
        ' "Key" > 1',
    )
    given = {"schema": "Help Desk", "key": "Key", "text": ["select", '100% "x" :y']}
    assert read(desk.source(table="order", **given), 1) == {"1": "one\nodd", "2": "two"}
    assert read(desk.source(table="recent", **given), 1) == {"2": "two"}
    with pytest.raises(
        SettingsError, match=r"table 'order' cannot be read: .*column order.key does not exist"
    ):
        desk.source(table="order", **(given | {"key": "key"})).check()


def test_tables_of_joins_and_parts_are_in_the_schema_of_the_index_unless_they_name_one(desk):
    tables = (
        "CREATE TABLE {}customer (id integer PRIMARY KEY, name text)",
        (
            "CREATE TABLE {}ticket (id integer PRIMARY KEY, title text, body text, customer_id"
            " integer)"
        ),
        (
            "CREATE TABLE {}remark (id integer PRIMARY KEY, ticket_id integer, body text,"
            " customer_id integer)"
        ),
    )
    desk.run(
        "CREATE SCHEMA app", *[table.format(schema) for table in tables for schema in ("", "app.")]
    )
    desk.run(
        "INSERT INTO app.customer VALUES (1, 'Acme')",
        "INSERT INTO app.ticket VALUES (1, 'Ink', 'It is dry.', 1)",
    )
    desk.run(
        "INSERT INTO app.remark VALUES (1, 1, 'Shake it.', 1)",
        "INSERT INTO remark VALUES (1, 1, 'No.', 1)",
    )
    customer = {"table": "customer", "on": "customer_id"}
    part = {
        "table": "remark",
        "on": "ticket_id",
        "text": "{who.name}: {body}",
        "joins": {"who": customer},
    }
    given = {
        "table": "ticket",
        "schema": "app",
        "joins": {"customer": customer},
        "payload": ["customer.name"],
    }
    for more, text in (({}, "Acme: Shake it."), ({"schema": "public"}, "Acme: No.")):
        source = desk.source(**given, text="body", parts=[part | more])
        [found] = read(source).values()
        assert (found.split("\n")[-1], payloads(source)[0]["customer"]) == (text, {"name": "Acme"})


def test_payload_values_have_one_form_in_every_session(desk):
    name = desk.url.database
    desk.run(
        f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'",
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
        "at": "2024-05-01T10:30:00Z",
        "local": "2024-05-01T12:30:00",
        "day": "2024-05-01",
        "clock": "12:30:00",
        "price": 10.5,
        "big": "123456789012345678901234567890",
        "tags": ["b", "a", None],
        "days": ["2024-05-01"],
        "more": {"y": True, "z": {"a": [1.5, None], "b": 1}},
        "plain": {"a": 2, "b": 1},
        "raw": "AP8=",
        "span": 93600.0,
        "flag": True,
        "real_": 0.1,
        "address": "10.0.0.1",
        "code": "ab   ",
        "id": "00000000-0000-0000-0000-0000000000ff",
    }
    assert page.documents.keys == ['{"uuid":"00000000-0000-0000-0000-0000000000ff"}']
    desk.run(f"ALTER DATABASE {name} SET timezone = 'America/New_York'")
    assert (
        desk.source(payload=names).page(None, 10)
        == desk.source(**QUERY, payload=names).page(None, 10)
        == page
    )


def test_types_of_mariadb_are_converted(mariadb_desk):
    mariadb_desk.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, price DECIMAL(12, 2), about JSON, at"
        " TIMESTAMP NULL, flag BIT(1), mask BIT(12))",
        "INSERT INTO note VALUES "
        "(1, 'Über Drucker 🖨', 1.00, '{\"room\": 1}', '2026-01-01 00:00:01', b'1',"
        " b'101000000001')",
    )
    source = mariadb_desk.source(payload=["price", "about", "at", "flag", "mask"])
    assert read(source) == {"1": "Über Drucker 🖨"}
    payload = payloads(source)[0]
    assert payload.pop("about") in ('{"room": 1}', {"room": 1})
    assert payload == {"price": 1, "at": "2026-01-01T00:00:01", "flag": 1, "mask": 0b101000000001}


def test_a_view_may_be_read_by_a_user_who_sees_only_its_rows(mariadb_desk):
    mariadb_desk.notes(2).run(
        "CREATE VIEW v_note AS SELECT id, body FROM note",
        "CREATE OR REPLACE USER only_reader IDENTIFIED BY 'x'",
        "GRANT SELECT ON parted.v_note TO only_reader",
    )
    url = mariadb_desk.url.set(username="only_reader", password="x")
    try:
        assert read(mariadb_desk.source(url=url, table="v_note")) == {"1": "note 1", "2": "note 2"}
        with pytest.raises(SettingsError, match="denied"):
            mariadb_desk.source(url=url).check()
        with closing(sa.create_engine(url).connect()) as connection:
            assert tables_read(connection, ["v_note"]) == set(), (
                "the definition is for those who have SHOW VIEW"
            )
    finally:
        mariadb_desk.close()
        mariadb_desk.run("DROP USER only_reader")


def test_a_database_without_an_encoding_is_read_as_utf8_unless_the_url_names_another(postgres):
    """PostgreSQL in the locale C makes SQL_ASCII databases, whose texts the driver gives as
    bytes."""
    name = "desk_without_encoding"
    with postgres.connect() as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING SQL_ASCII LOCALE 'C' TEMPLATE template0"
        )
    desk = SourceDatabase(postgres.url(name))
    try:
        with postgres.connect(name) as connection:
            connection.execute("SET client_encoding = utf8")
            connection.execute("CREATE TABLE note (id text PRIMARY KEY, body text)")
            connection.execute("INSERT INTO note VALUES ('é', 'Über 東京')")
        Ledger(desk.url).close()
        assert read(desk.source()) == {'"é"': "Über 東京"}
        desk.run(r"UPDATE note SET body = E'na\357ve'")  # Latin-1
        assert read(desk.source(url=desk.url.update_query_dict({"client_encoding": "latin1"}))) == {
            '"Ã©"': "naïve"
        }
        assert read(desk.source()) == {'"é"': "naïve"}
    finally:
        desk.close()
        with postgres.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("values", ODD_VALUES)
def test_values_that_python_cannot_represent_become_text(desk, values):
    columns, rows, expected = ODD_VALUES[values]
    desk.run(
        "CREATE EXTENSION citext",
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE DOMAIN closing AS time",
    )
    desk.run(f"CREATE TABLE note (id integer PRIMARY KEY, body text, {columns})")
    desk.run(
        *(f"INSERT INTO note VALUES ({number}, 'x', {row})" for number, row in enumerate(rows))
    )
    names = re.findall(r"(?:^|, )(\w+) ", columns)
    for given in ({}, QUERY):
        found = payloads(desk.source(payload=names, **given))
        assert sorted(([one[name] for name in names] for one in found), key=str) == sorted(
            expected, key=str
        )


def test_pages_of_composite_keys_use_the_index(desk):
    """PostgreSQL looks up row values in the index of the key even if the first column has equal
    values."""
    desk.run(
        "CREATE TABLE note (a integer, b text, body text, PRIMARY KEY (a, b))",
        "INSERT INTO note SELECT 1, 'k' || i, 'x' FROM generate_series(1, 20000) i",
        "ANALYZE note",
    )
    source = desk.source(key=["a", "b"])
    with open_read_only(desk.url).connect() as connection:
        statement = source._in_order(connection, source._select(), Cursor((1, "k5"), 0)).limit(10)
        compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
        plan = "\n".join(
            row[0] for row in connection.exec_driver_sql(f"EXPLAIN {compiled}", compiled.params)
        )
    assert re.search(r"Index Cond: .*ROW\(a, b\) > ROW", plan), plan


@pytest.mark.long
def test_parts_of_many_documents_with_a_composite_key(desk):
    """PostgreSQL has no stack for as many pairs in a list, and takes 65,535 parameters."""
    desk.run(
        "CREATE TABLE note (a integer, b bigint, c integer, body text, PRIMARY KEY (a, b, c))",
        "CREATE TABLE remark (a integer, b bigint, c integer, body text)",
        "INSERT INTO note SELECT 1, i, 1, 'note ' || i FROM generate_series(1, 11000) i",
        "INSERT INTO remark SELECT 1, i, 1, 'remark ' || i FROM generate_series(1, 11000) i WHERE i"
        " % 5500 = 0",
    )
    part = {"table": "remark", "on": ["a", "b", "c"], "text": "body", "inline": True}
    texts = read(desk.source(key=["a", "b", "c"], parts=[part], text="body"), 11_000).values()
    assert len(texts) == 11_000
    assert [text for text in texts if "remark" in text] == [
        f"note {n}\n\nremark {n}" for n in (5500, 11000)
    ]


def test_nothing_can_be_written(desk):
    desk.notes(2)
    engine = open_read_only(desk.url)
    for statement in ("DELETE FROM note", "CREATE TABLE x (y integer)", "CREATE TEMP SEQUENCE s"):
        with (
            engine.connect() as connection,
            pytest.raises(sa.exc.DBAPIError, match="read-only transaction"),
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    desk.run(
        "CREATE FUNCTION harm() RETURNS text LANGUAGE plpgsql AS $$ BEGIN DELETE FROM note; RETURN"
        " 'x'; END $$"
    )
    for query in (
        "SELECT 1 AS id, harm() AS body",
        "WITH gone AS (DELETE FROM note RETURNING *) SELECT * FROM gone",
        "SELECT id, body FROM note; DELETE FROM note",
    ):
        with pytest.raises(
            SettingsError,
            match=r"the query cannot be read: .*(read-only|data-modifying|syntax error)",
        ):
            desk.source(query=query).check()
    assert desk.source().count() == 2


def test_a_wrong_password_a_missing_database_and_a_missing_right_are_terminal_errors(
    desk, postgres
):
    name = desk.notes(1).url.database
    desk.run(
        f"CREATE ROLE reader_{name} LOGIN PASSWORD 'x'",
        f"GRANT SELECT (id) ON note TO reader_{name}",
    )
    wrong = r"password authentication failed.*; correct user and password in \[source\] url"
    for url, message in (
        (postgres.url(name, password="wr0ng"), wrong),
        (postgres.url("nowhere"), 'database "nowhere" does not exist'),
    ):
        with pytest.raises(SourceError, match=message) as caught:
            desk.source(url=url).check()
        assert "wr0ng" not in str(caught.value)
        assert redacted_url(url) in str(caught.value)
    reader = desk.source(url=postgres.url(name, f"reader_{name}", "x"))
    with pytest.raises(SettingsError, match="permission denied for table note"):
        reader.check()
    desk.run(f"GRANT SELECT (body) ON note TO reader_{name}")
    assert read(reader) == {"1": "note 1"}, (
        "rights for the columns that the settings name are enough"
    )
    desk.run(f"DROP OWNED BY reader_{name}", f"DROP ROLE reader_{name}")


@pytest.mark.long
def test_a_server_that_stops_is_a_transient_error_and_reading_continues_when_it_is_back(
    desk, postgres
):
    source, copied = desk.notes(7).source(), desk.source(**QUERY)
    first, begun = source.page(None, 3), copied.page(None, 3)
    postgres.stop()
    try:
        assert copied.page(begun.cursor, 3).documents.keys == ["4", "5", "6"], "a query was read"
        for lost, cursor in ((source, first.cursor), (copied, None)):
            with pytest.raises(
                SourceUnavailable, match=r"does not answer|a restart, ended the connection"
            ):
                lost.page(cursor, 3)
    finally:
        postgres.start()
    assert source.page(first.cursor, 3).documents.keys == ["4", "5", "6"]
    assert len(copied.page(None, 10).documents) == 7


def run_limited(engine, statement, *, told, both=False):
    """Run a statement with a limit, of which the server is told or not, or is told and too slow to
    say."""
    with engine.connect() as connection, limited(connection, 0.4, "source x"):
        if told:
            limit_on_server(connection, 0.1 if both else 0.4, streams=False)
        try:
            connection.exec_driver_sql(statement)
        finally:
            time.sleep(0.6 if both else 0)


@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_a_query_that_takes_too_long_is_ended_by_the_server_or_broken_off(
    kind, request, tmp_path, monkeypatch
):
    sleep = {"postgresql": "SELECT pg_sleep(300)", "mariadb": "SELECT SLEEP(300)"}[kind]
    with open_database(kind, request, tmp_path) as database:
        engine = open_read_only(database.url)
        for told, both, grace in ((True, False, 200.0), (True, True, 0.0), (False, False, 0.0)):
            monkeypatch.setattr("rag_index.components.sources.engine.GRACE_SECONDS", grace)
            with pytest.raises(
                SourceTimedOut, match=r"source x did not answer a query within 0\.4 s"
            ):
                run_limited(engine, sleep, told=told, both=both)
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1, "the pool has another connection"
        engine.dispose()


def test_settings_of_postgresql_change_nothing_of_what_is_read(desk):
    desk.run(
        "CREATE TABLE note (id integer, at timestamptz, body text, day date, local timestamp, took"
        " interval, raw bytea, share real, old timestamptz, PRIMARY KEY (id, at))",
        "INSERT INTO note SELECT i, timestamptz '2024-02-03 04:05:06+00' + i * interval '1 day', "
        "'It''s 5 \\ 2 – ' || i, '2024-02-03', "
        "'2024-02-03 04:05:06', '1 year 2 months 3 days 04:05:06', '\\x00ff', 0.1, "
        "'0044-03-15 12:00+00 BC' FROM generate_series(1, 30) i",
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
    )
    given = {
        "key": ["id", "at"],
        "payload": ["day", "local", "took", "raw", "share", "old", "at"],
        "title": "{at}",
    }
    given |= {"text": "body", "where": "body LIKE 'It''s 5 \\\\%'"}
    table, query = given | {"table": "note"}, given | {"query": "SELECT * FROM note", "where": None}

    def pages():
        return [desk.source(**some).page(None, 100).documents for some in (table, query)]

    before = pages()
    assert len(before[0]) == 30
    for name, values in POSTGRESQL.items():
        for value in values:
            desk.run(f"ALTER DATABASE {desk.url.database} SET {name} = {value}")
            assert pages() == before, f"{name} = {value}"
            desk.run(f"ALTER DATABASE {desk.url.database} RESET {name}")


def test_a_setting_in_the_url_stays(desk):
    desk.notes(1)
    url = desk.url.update_query_dict({"options": "-c TimeZone=Asia/Tokyo"})
    query = {"query": "SELECT 1 AS id, current_setting('TimeZone') AS body"}
    assert read(desk.source(url=url, **query)) == {"1": "Asia/Tokyo"}
    assert read(desk.source(**query)) == {"1": "UTC"}


@pytest.mark.long
@pytest.mark.parametrize("setting", MARIADB)
def test_settings_of_mariadb_change_nothing_of_what_is_read(mariadb_desk, setting):
    name = setting.partition(" =")[0]
    desk = mariadb_desk.run(
        "CREATE TABLE note (id CHAR(20), at TIMESTAMP, body TEXT, PRIMARY KEY (id, at))",
        "CREATE TABLE remark (id INTEGER PRIMARY KEY, note CHAR(20), body TEXT)",
        "INSERT INTO note SELECT CONCAT('a long key ', seq), FROM_UNIXTIME(1700000000 + seq), "
        "CONCAT('It''s 5 \\\\ 2 – ', seq) FROM seq_1_to_90",
        "INSERT INTO remark SELECT seq, CONCAT('a long key ', seq % 90 + 1), CONCAT('Yes – ', seq)"
        " FROM seq_1_to_180",
        "CREATE OR REPLACE USER plain_reader IDENTIFIED BY 'x'",
        "GRANT SELECT ON parted.* TO plain_reader",
    )
    given = {"key": ["id", "at"], "payload": ["at"], "text": "body"}
    remarks = {"table": "remark", "on": {"note": "id"}, "key": "id", "text": "body"}
    recursive = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i AS"
        " id, "
    )
    recursive += "(SELECT GROUP_CONCAT(body ORDER BY id) FROM remark) AS body FROM n"
    reader = desk.url.set(
        username="plain_reader", password="x"
    )  # init_connect is not run for others

    def pages():
        given_all = (
            {**given, "parts": [remarks]},
            {**given, "query": "SELECT * FROM note"},
            {"query": recursive},
        )
        sources = [desk.source(url=reader, **one) for one in given_all]
        return [read(source, 40) for source in sources], sources[0].page(
            None, 100
        ).documents.payloads

    before = pages()
    assert list(map(len, before[0])) == [90, 90, 50]
    desk.run(f"SET GLOBAL {setting}")
    try:
        assert pages() == before
    finally:
        default = "''" if name == "init_connect" else "DEFAULT"
        desk.run(f"SET GLOBAL {name} = {default}")
        desk.run("DROP USER plain_reader")


def test_a_read_that_is_cut_off_is_an_error_and_nobody_takes_the_rest_for_gone(mariadb_desk):
    """The URL sets what others set for all, and what a URL sets stays."""
    desk = mariadb_desk.notes(9).run(
        "CREATE TABLE remark (id INTEGER PRIMARY KEY, note INTEGER, body TEXT, at DATETIME)",
        "INSERT INTO remark SELECT seq, seq % 9 + 1, 'Yes', '2024-01-01' FROM seq_1_to_18",
    )
    cut = desk.url.update_query_dict({"init_command": LIMIT})
    remarks = {"table": "remark", "on": "note", "key": "id", "text": "body"}
    access, state = "SELECT id, author FROM note", State()
    rescan(desk, state)
    for read_it, found, there in (
        (lambda: desk.source(url=cut, query="SELECT * FROM note").page(None, 100), 4, 9),
        (lambda: desk.source(url=cut, parts=[remarks]).page(None, 100), 4, 18),
        (lambda: desk.source(url=cut, access=access).page(None, 100), 4, 9),
        (lambda: desk.source(url=cut).documents([str(number) for number in range(1, 10)]), 4, 9),
        (lambda: scan(desk.digests(url=cut), state), 7, 9),
    ):
        with pytest.raises(SourceUnavailable, match=CUT.format(found, there)):
            read_it()
    assert len(read(desk.source(url=cut))) == 9, "pages have a limit of their own"


@pytest.mark.parametrize("rows", ['query = "SELECT * FROM note"', f'table = "note"\n{REMARKS}'])
def test_a_run_deletes_nothing_because_a_read_was_cut_off(mariadb_desk, project, rows):
    desk = mariadb_desk.notes(9).run("CREATE TABLE remark AS SELECT id, id AS note, body FROM note")
    found = []
    for url in (desk.url, desk.url.update_query_dict({"init_command": LIMIT})):
        source = f'[source]\nurl = "{url.render_as_string(hide_password=False)}"\n'
        once = "[run]\nwait_for_recovery = 0\n"
        index = f'[[indexes]]\nname = "notes"\nkey = "id"\ntext = "body"\n{rows}'
        project.write_settings(f'project = "test"\n{source}{once}{index}')
        found.append((project.run().exit_code, project.points()))
    assert found == [(0, found[0][1]), (1, found[0][1])]


def test_a_proxy_that_adds_a_limit_is_noticed_on_the_first_page(desk):
    source = desk.notes(9).source()

    def proxy(connection, cursor, statement, parameters, context, executemany):
        return statement.replace("LIMIT", "LIMIT 4 +  0 *"), parameters

    sa.event.listen(source._engine, "before_cursor_execute", proxy, retval=True)
    with pytest.raises(SourceUnavailable, match=CUT.format(4, 9)):
        source.page(None, 100)
