"""Which rows an index shows by the values of a column: conditions of each database, and where SQL
refers to them."""

import datetime as dt
from contextlib import closing

import pytest
from sqlalchemy.dialects import mssql, oracle

from rag_index.components.sources.decisions import decided, decisions_of
from rag_index.components.sources.policies import RowRights
from rag_index.components.sources.value_text import value_sql
from rag_index.core.settings import IndexSettings
from rag_index.errors import SettingsError
from tests.components.sources.conftest import read

LONG_AGO, FAR_AHEAD = "2001-02-03 04:05:06", "2199-02-03 04:05:06"


def shown(database, **given):
    """Return the ids of the rows that an index shows."""
    return {int(key) for key in read(database.source(**given))}


def texts(database, column, *values, kind="VARCHAR(40)"):
    """Make a table whose rows have these values of a column, with ids from 1 on."""
    database.run(f"CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50), {column} {kind})")
    rows = [(number, f"note {number}", value) for number, value in enumerate(values, 1)]
    return database.run("INSERT INTO note VALUES (?, ?, ?)", rows=rows)


def test_rows_of_values_that_are_named_are_shown_and_no_others(database):
    texts(database, "state", "open", "closed", "draft", "archived", None, "", "open")
    assert shown(database, visible={"state": {"show": ["open", "closed"], "hide": ["draft"]}}) == {
        1,
        2,
        7,
    }
    assert shown(database, visible={"state": {"show": ["open", ""], "hide": ["draft"]}}) == {
        1,
        5,
        6,
        7,
    }


def test_a_value_is_the_same_in_all_of_its_characters_whatever_the_collation(database):
    kinds = {"sqlite": "TEXT COLLATE NOCASE", "mariadb": "VARCHAR(40) COLLATE utf8mb4_general_ci"}
    texts(
        database,
        "state",
        "open",
        "Open",
        "open ",
        "öpen",
        "o'pen\\n",
        kind=kinds.get(database.kind, "TEXT"),
    )
    assert shown(database, visible={"state": {"show": ["open"]}}) == {1}
    assert shown(database, visible={"state": {"show": ["öpen", "o'pen\\n"]}}) == {4, 5}


@pytest.mark.parametrize(("show", "expected"), [(["3"], {2}), ([3], {2}), (["", 0], {1, 3})])
def test_numbers_are_compared_as_the_database_shows_them(database, show, expected):
    texts(database, "level", 0, 3, None, 30, kind="INTEGER")
    assert shown(database, visible={"level": {"show": show}}) == expected


def test_truth_values_are_those_of_each_database(database):
    texts(database, "hidden", True, False, None, kind="BOOLEAN")
    assert shown(database, visible={"hidden": {"show": [False]}}) == {2}
    as_text = "false" if database.kind == "postgresql" else "0"
    assert shown(database, visible={"hidden": {"show": [as_text, ""], "hide": [True]}}) == {2, 3}


def test_padded_texts_and_enumerations_have_the_values_that_people_see(database):
    if database.kind == "postgresql":
        database.run("CREATE TYPE mood AS ENUM ('ok', 'sad')")
    kind = {"sqlite": "TEXT", "postgresql": "mood", "mariadb": "ENUM('ok', 'sad')"}[database.kind]
    texts(database, "state", "ok", "sad", None, kind=kind)
    database.run("ALTER TABLE note ADD COLUMN flag CHAR(3) DEFAULT 'y'")
    assert shown(database, visible={"state": {"show": ["ok"]}, "flag": {"show": ["y"]}}) == {1}


def test_bits_are_numbers(mariadb_desk):
    texts(mariadb_desk, "hidden", 1, 0, None, kind="BIT(1)")
    assert shown(mariadb_desk, visible={"hidden": {"show": ["0"], "hide": ["1"]}}) == {2}


def test_bytes_that_are_no_text_are_no_empty_text(mariadb_desk):
    texts(mariadb_desk, "state", b"\xff\xfe", b"open", None, kind="VARBINARY(10)")
    assert shown(mariadb_desk, visible={"state": {"show": [""]}}) == {3}
    assert shown(mariadb_desk, visible={"state": {"show": ["open"]}}) == {2}


def test_a_key_of_an_object_has_a_value_like_a_column(database):
    values = [
        '{"private": true}',
        '{"private": false}',
        '{"private": "true"}',
        '{"private": null}',
        "{}",
        "",
        None,
    ]
    kinds = {"mariadb": "JSON", "postgresql": "TEXT", "sqlite": "TEXT"}
    values = [value or None for value in values] if database.kind == "mariadb" else values
    texts(database, "extra", *values, "[]", '{"nested": {"private": 7}}', kind=kinds[database.kind])
    hidden = {"show": ["false", ""], "hide": ["true"]}
    assert shown(database, visible={"extra.private": hidden}) == {2, 4, 5, 6, 7, 8, 9}
    assert shown(database, visible={"extra.nested.private": {"show": [7]}}) == {9}


def test_objects_of_postgresql_need_not_be_text(desk):
    texts(desk, "extra", '{"a.b": "x"}', '{"a.b": "y"}', "[1]", "3", kind="JSONB")
    assert shown(desk, visible={'extra."a.b"': {"show": ["x", ""]}}) == {1, 3}, "3 is no object"


def test_what_is_no_json_is_shown_only_if_it_is_named(sqlite):
    texts(sqlite, "extra", "{broken", '{"private": false}')
    assert shown(sqlite, visible={"extra.private": {"show": ["false", ""]}}) == {2}
    assert shown(sqlite, visible={"extra.private": {"show": ["(not JSON)"]}}) == {1}


@pytest.mark.parametrize(
    ("show", "expected"), [(["empty"], {1}), (["past"], {2}), (["future", "empty"], {1, 3})]
)
def test_a_time_is_empty_past_or_future(database, show, expected):
    kind = {"postgresql": "TIMESTAMP WITH TIME ZONE", "mariadb": "DATETIME"}.get(
        database.kind, "TEXT"
    )
    texts(database, "deleted_at", None, LONG_AGO, FAR_AHEAD, kind=kind)
    assert shown(database, visible={"deleted_at": {"kind": "time", "show": show}}) == expected


def test_the_time_is_that_of_the_database_to_the_second(database):
    now = dt.datetime.now(dt.UTC).replace(tzinfo=None)
    before, after = (str(now + dt.timedelta(seconds=by)).partition(".")[0] for by in (-90, 90))
    kind = {"postgresql": "TIMESTAMP", "mariadb": "TIMESTAMP NULL"}.get(database.kind, "TEXT")
    texts(database, "shown_at", before, after, kind=kind)
    assert shown(database, visible={"shown_at": {"kind": "time", "show": ["past"]}}) == {1}


def test_a_time_may_be_a_number_of_seconds_or_milliseconds(database):
    texts(
        database,
        "deleted_at",
        0,
        None,
        981173106,
        7230485106,
        981173106000,
        7230485106000,
        kind="BIGINT",
    )
    assert shown(database, visible={"deleted_at": {"kind": "time", "show": ["empty"]}}) == {1, 2}
    assert shown(database, visible={"deleted_at": {"kind": "time", "show": ["future"]}}) == {4, 6}


@pytest.mark.parametrize("kind", ["DATETIME", "DATE"])
def test_a_time_of_zeros_is_empty(mariadb_desk, kind):
    mariadb_desk.run("SET SESSION sql_mode = ''")
    texts(mariadb_desk, "deleted_at", "0000-00-00", LONG_AGO, kind=f"{kind} NOT NULL")
    assert shown(mariadb_desk, visible={"deleted_at": {"kind": "time", "show": ["empty"]}}) == {1}


def test_a_text_that_is_no_time_is_shown_to_nobody(database):
    texts(database, "deleted_at", "", "yesterday", LONG_AGO, "2199-02-03T04:05:06Z")
    every = {"kind": "time", "show": ["empty", "past", "future"]}
    assert shown(database, visible={"deleted_at": every}) == {1, 3, 4}


def test_times_of_postgresql_beyond_those_of_python(desk):
    texts(desk, "at", "infinity", "-infinity", "0044-03-15 BC", "20000-01-01", kind="DATE")
    assert shown(desk, visible={"at": {"kind": "time", "show": ["future"]}}) == {1, 4}


def test_a_condition_of_the_settings_holds_beside_the_decision(database):
    texts(database, "state", "open", "open", "draft")
    assert shown(
        database, where="id > 1 OR id = 1 -- all;", visible={"state": {"show": ["open"]}}
    ) == {1, 2}
    assert shown(database, where="id = 1 OR id = 3;", visible={"state": {"show": ["open"]}}) == {1}


def test_the_newest_version_is_not_shown_in_an_older_one(database):
    database.run(
        "CREATE TABLE note (id INTEGER, version INTEGER, body VARCHAR(50), state VARCHAR(9))"
    )
    rows = [(1, 1, "old", "open"), (1, 2, "new", "draft"), (2, 1, "only", "open")]
    database.run("INSERT INTO note VALUES (?, ?, ?, ?)", rows=rows)
    assert shown(database, newest="version", visible={"state": {"show": ["open"]}}) == {2}


def test_a_query_is_shown_by_the_columns_that_it_returns(database, tmp_path):
    texts(database, "state", "open", "draft", None)
    query = "SELECT id, body, state FROM note; -- all of them"
    assert shown(database, query=query, folder=tmp_path, visible={"state": {"show": ["open"]}}) == {
        1
    }
    with pytest.raises(SettingsError, match=r"visible 'No State' of the query cannot be read"):
        database.source(
            query="SELECT id, body FROM note", visible={"No State": {"show": ["No State"]}}
        ).check()
    missing = {"query": "SELECT id, body FROM note", "visible": {"state": {"show": ["open"]}}}
    with pytest.raises(
        SettingsError, match=r"index notes: visible 'state' of the query cannot be read: .*state"
    ):
        database.source(**missing).check()


def test_a_column_that_does_not_exist_is_named(database):
    texts(database, "state", "open")
    with pytest.raises(
        SettingsError, match=r"visible 'stat' of table 'note' cannot be read: .*did you mean state"
    ):
        database.source(visible={"stat": {"show": ["open"]}}).check()
    with pytest.raises(SettingsError, match=r"visible 'No State' of table 'note' cannot be read"):
        database.source(visible={"No State": {"show": ["No State"]}}).check()
    where = "id IN (SELECT id FROM note WHERE $visible(note.stat))"
    with pytest.raises(SettingsError, match=r"visible 'note\.stat' of table 'note' cannot be read"):
        database.source(where=where, visible={"note.stat": {"show": ["open"]}}).check()


def desk_of(database):
    """Make tickets of a customer each, with comments."""
    database.run(
        "CREATE TABLE customer (id INTEGER PRIMARY KEY, kind VARCHAR(9))",
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50), customer_id INTEGER, state"
        " VARCHAR(9))",
        "CREATE TABLE remark (id INTEGER PRIMARY KEY, note_id INTEGER, body VARCHAR(50), held"
        " INTEGER)",
        "INSERT INTO customer VALUES (1, 'usual'), (2, 'secret'), (3, 'odd')",
        "INSERT INTO note VALUES (1, 'a', 1, 'open'), (2, 'b', 2, 'open'), (3, 'c', 3, 'open'), (4,"
        " 'd', 1, 'draft')",
        "INSERT INTO remark VALUES (1, 1, 'seen', 0), (2, 1, 'held', 1), (3, 1, 'unknown', NULL)",
    )
    return database


CUSTOMERS = {"show": ["usual"], "hide": ["secret"]}
TOKEN = "customer_id IN (SELECT id FROM customer WHERE $visible(customer.kind))"


def test_a_condition_refers_to_the_decision_on_a_column_of_another_table(database):
    desk_of(database)
    assert shown(database, where=TOKEN, visible={"customer.kind": CUSTOMERS}) == {1, 4}
    both = {"customer.kind": CUSTOMERS, "state": {"show": ["open"]}}
    assert shown(database, where=TOKEN, visible=both) == {1}
    hidden = (
        "customer_id NOT IN (SELECT c.id FROM customer c, remark WHERE NOT"
        " c.$visible(customer.kind))"
    )
    assert shown(database, where=hidden, visible={"customer.kind": CUSTOMERS}) == {1, 4}


def test_joins_and_a_query_refer_to_decisions_as_well(database, tmp_path):
    desk_of(database)
    joins = {
        "customer": {
            "table": "customer",
            "on": "customer_id",
            "where": "$visible(customer.kind)",
            "required": True,
        }
    }
    assert shown(database, joins=joins, visible={"customer.kind": CUSTOMERS}) == {1, 4}
    query = f"SELECT id, body, state FROM note WHERE {TOKEN}"
    both = {"customer.kind": CUSTOMERS, "state": {"show": ["open"]}}
    assert shown(database, query=query, folder=tmp_path, visible=both) == {1}


def test_parts_refer_to_decisions_on_their_own_rows_and_on_the_document(database):
    desk_of(database)
    part = {"table": "remark", "on": "note_id", "key": "id", "text": "body"}
    seen = {"remark.held": {"show": ["0"], "hide": ["1"]}, "state": {"show": ["open", "draft"]}}
    of_shown = "note_id IN (SELECT id FROM note WHERE $visible(state))"
    source = database.source(
        parts=[{**part, "where": f"$visible(remark.held) AND {of_shown}"}], visible=seen
    )
    source.check()
    [first, *_] = source.page(None, 10).documents.texts
    assert ("seen" in first, "held" in first, "unknown" in first) == (True, False, False)
    with pytest.raises(
        SettingsError,
        match=r"no \$visible\(remark\.held\) refers to it, so that 'remark' is a column",
    ):
        database.source(parts=[part], visible=seen).check()


def test_whoever_may_see_a_document_may_follow_from_a_decision(database):
    desk_of(database)
    access = "SELECT note_id, 'staff' FROM remark WHERE $visible(remark.held)"
    source = database.source(access=access, visible={"remark.held": {"show": ["1"]}})
    source.check()
    assert [b'"staff"' in payload for payload in source.page(None, 10).documents.payloads] == [
        True
    ] + [False] * 3


def test_the_database_is_asked_for_the_rights_to_shown_rows_alone(desk):
    texts(desk, "state", "open", "draft", "new")
    index = IndexSettings(
        name="n", table="note", key="id", text="body", visible={"state": {"show": ["open"]}}
    )
    with closing(RowRights(desk.url)) as rights:
        assert rights.permitted(index, desk.url.username, {}, ["1", "2", "3"], 30) == {"1"}


def test_values_that_nobody_decided_on_are_counted_in_rows_that_nothing_else_hides(database):
    texts(database, "state", "open", "draft", "new", "new", "neü", None, "x" * 40)
    decided_on = {"state": {"show": ["open"], "hide": ["draft"]}}
    source = database.source(visible=decided_on)
    found = {one.value: one.rows for one in source.undecided_values()}
    assert found == {"new": 2, "neü": 1, "": 1, "x" * 40: 1}
    assert sorted(key for keys in source.undecided_keys() for key in keys) == [
        "3",
        "4",
        "5",
        "6",
        "7",
    ]
    source = database.source(where="id < 4", visible=decided_on)
    assert [(one.value, one.rows) for one in source.undecided_values()] == [("new", 1)]
    assert [*source.undecided_keys()] == [["3"]]


def test_values_that_nobody_decided_on_in_a_query_and_by_several_columns(database, tmp_path):
    desk_of(database)
    where = "customer_id IN (SELECT id FROM customer WHERE $visible(customer.kind))"
    query = f"SELECT id, body, state FROM note WHERE {where}"
    visible = {"customer.kind": CUSTOMERS, "state": {"show": ["open"]}}
    source = database.source(query=query, folder=tmp_path, visible=visible)
    found = {(one.name, one.value, one.rows) for one in source.undecided_values()}
    assert found == {("customer.kind", "odd", 1), ("state", "draft", 1)}
    assert sorted(key for keys in source.undecided_keys() for key in keys) == [
        "3",
        "4",
    ], "2 is hidden by a decision"


def test_keys_of_several_columns_and_versions_are_found_too(database):
    database.run(
        "CREATE TABLE note (id INTEGER, part VARCHAR(9), version INTEGER, body VARCHAR(50), state"
        " VARCHAR(9))"
    )
    rows = [
        (1, "a", 1, "old", "new"),
        (1, "a", 2, "now", "open"),
        (1, "b", 1, "x", "open"),
        (1, "b", 2, "y", "new"),
    ]
    database.run("INSERT INTO note VALUES (?, ?, ?, ?, ?)", rows=rows)
    source = database.source(
        key=["id", "part"], newest="version", visible={"state": {"show": ["open"]}}
    )
    assert [*source.undecided_keys()] == [['[1,"b"]']]
    assert [(one.value, one.rows) for one in source.undecided_values()] == [("new", 1)]


def test_the_parts_of_a_name_are_a_table_only_if_sql_refers_to_it():
    def names(where, *named):
        visible = {name: {"show": ["x"]} for name in named}
        index = IndexSettings(
            name="n", table="note", key="id", text="body", where=where, visible=visible
        )
        return [(one.schema, one.table, one.column, *one.keys) for one in decisions_of(index)]

    assert names(None, "state", "extra.private") == [
        (None, None, "state"),
        (None, None, "extra", "private"),
    ]
    there = (
        "id IN (SELECT id FROM Desk.Ticket WHERE $visible(desk.ticket.state) AND"
        " $visible(ticket.extra.a))"
    )
    found = [
        ("desk", "ticket", "state"),
        (None, "ticket", "extra", "a"),
        (None, None, "extra", "ticket"),
    ]
    assert names(there, "desk.ticket.state", "ticket.extra.a", "extra.ticket") == found


def test_values_of_a_column_that_is_named_like_a_secret_are_counted_and_not_told(database):
    texts(database, "post_password", "", "winter", "summer")
    [found] = database.source(visible={"post_password": {"show": [""]}}).undecided_values()
    assert (found.value, found.rows) == ("[secret]", 2)


def test_other_databases_compare_as_exactly_as_they_can():
    sql = value_sql(mssql.dialect())
    text = sql.text("[state]")
    assert text == "RTRIM(CAST([state] AS VARCHAR(255))) COLLATE Latin1_General_BIN2"
    is_any = (
        f"(CASE WHEN {text} IN ('a''b') OR {text} IS NULL OR {text} = '' THEN 1 ELSE 0 END = 1)"
    )
    assert sql.is_any(text, ["a'b", ""]) == is_any
    sql = value_sql(oracle.dialect())
    assert sql.quoted("order") == '"order"'
    assert sql.text("at", kind="time").startswith(
        "CASE WHEN at IS NULL THEN 'empty' WHEN at > CURRENT_TIMESTAMP"
    )
    with pytest.raises(
        SettingsError,
        match=r"\(extra\.private\) is read from SQLite, .* not from oracle: name a view",
    ):
        sql.text("extra", ["private"])


def test_an_index_without_decisions_is_the_same(sqlite):
    source = sqlite.notes(1).source()
    assert source._index is source._declared
    assert decided(source._declared, source._engine.dialect) is source._declared
