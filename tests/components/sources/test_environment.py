"""What is set for all connections of a role, a database or a server changes nothing of what is read."""

import pytest
import sqlalchemy as sa

from rag_index.errors import SourceUnavailable
from tests.components.sources.databases import read
from tests.components.sources.digests import State, rescan, scan
from tests.project import Project

POSTGRESQL = {
    "DateStyle": ("'SQL, DMY'", "'German'", "'Postgres, MDY'"), "IntervalStyle": ("'iso_8601'", "'sql_standard'"),
    "bytea_output": ("'escape'",), "extra_float_digits": ("'-15'",), "TimeZone": ("'America/Los_Angeles'",),
    "standard_conforming_strings": ("off",), "row_security": ("off",), "client_encoding": ("'LATIN1'",),
    "default_transaction_isolation": ("'serializable'",),
}  # fmt: skip
MARIADB = (
    "sql_select_limit = 3", "max_join_size = 3", "time_zone = '+05:00'", "group_concat_max_len = 4",
    "sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
    "max_recursive_iterations = 3", "max_statement_time = 0.001",
    "init_connect = 'SET sql_select_limit = 3, character_set_results = latin1'",
)  # fmt: skip
"""Of these, ANSI_QUOTES and the like decide what the SQL of a person means, and stay."""


def test_settings_of_postgresql_change_nothing_of_what_is_read(desk):
    desk.run(
        "CREATE TABLE note (id integer, at timestamptz, body text, day date, local timestamp, took interval, "
        "raw bytea, share real, old timestamptz, PRIMARY KEY (id, at))",
        "INSERT INTO note SELECT i, timestamptz '2024-02-03 04:05:06+00' + i * interval '1 day', "
        "'It''s 5 \\ 2 – ' || i, '2024-02-03', "
        "'2024-02-03 04:05:06', '1 year 2 months 3 days 04:05:06', '\\x00ff', 0.1, "
        "'0044-03-15 12:00+00 BC' FROM generate_series(1, 30) i",
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
    )
    given = {"key": ["id", "at"], "payload": ["day", "local", "took", "raw", "share", "old", "at"], "title": "{at}"}
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
        "INSERT INTO remark SELECT seq, CONCAT('a long key ', seq % 90 + 1), CONCAT('Yes – ', seq) FROM seq_1_to_180",
        "CREATE OR REPLACE USER plain_reader IDENTIFIED BY 'x'",
        "GRANT SELECT ON parted.* TO plain_reader",
    )
    given = {"key": ["id", "at"], "payload": ["at"], "text": "body"}
    remarks = {"table": "remark", "on": {"note": "id"}, "key": "id", "text": "body"}
    recursive = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) "
        "SELECT i AS id, (SELECT GROUP_CONCAT(body ORDER BY id) FROM remark) AS body FROM n"
    )

    reader = desk.url.set(username="plain_reader", password="x")  # init_connect is not run for others

    def pages():
        given_all = ({**given, "parts": [remarks]}, {**given, "query": "SELECT * FROM note"}, {"query": recursive})
        sources = [desk.source(url=reader, **one) for one in given_all]
        return [read(source, 40) for source in sources], sources[0].page(None, 100).documents.payloads

    before = pages()
    assert list(map(len, before[0])) == [90, 90, 50]
    desk.run(f"SET GLOBAL {setting}")
    try:
        assert pages() == before
    finally:
        default = "''" if name == "init_connect" else "DEFAULT"
        desk.run(f"SET GLOBAL {name} = {default}")
        desk.run("DROP USER plain_reader")


REMARKS = '[[indexes.parts]]\ntable = "remark"\non = "note"\nkey = "id"\ntext = "body"\n'
LIMIT = "SET sql_select_limit = 4"
CUT = "gave {} rows of a query that has {}, so nothing is concluded from it"


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
def test_a_run_deletes_nothing_because_a_read_was_cut_off(mariadb_desk, tmp_path, monkeypatch, rows):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    desk, project = mariadb_desk.notes(9), Project(tmp_path / "project")
    desk.run("CREATE TABLE remark AS SELECT id, id AS note, body FROM note")
    found = []
    for url in (desk.url, desk.url.update_query_dict({"init_command": LIMIT})):
        source = f'project = "test"\n[source]\nurl = "{url.render_as_string(hide_password=False)}"\n'
        project.write_settings(f'{source}[[indexes]]\nname = "notes"\nkey = "id"\ntext = "body"\n{rows}')
        report = project.run(wait=0.0)
        found.append((report.exit_code, project.points()))
    assert [code for code, _ in found] == [0, 1]
    assert found[0][1] == found[1][1]


def test_a_proxy_that_adds_a_limit_is_noticed_on_the_first_page(desk):
    source = desk.notes(9).source()

    def proxy(connection, cursor, statement, parameters, context, executemany):
        return statement.replace("LIMIT", "LIMIT 4 +  0 *"), parameters

    sa.event.listen(source._engine, "before_cursor_execute", proxy, retval=True)
    with pytest.raises(SourceUnavailable, match=CUT.format(4, 9)):
        source.page(None, 100)
