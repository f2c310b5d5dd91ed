"""Digests of buckets: every random edit of values of any type is found, and little is read to find
it."""

import datetime as dt
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.components.sources.conftest import State, is_current, rescan

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TIMES = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2037, 1, 1))  # noqa: DTZ001
DECIMALS = st.decimals(-(10**12), 10**12, places=4, allow_nan=False)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1, 1), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
).map(json.dumps)
ANY = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(
        [
            "",
            "\0",
            "1",
            "1.0",
            "a\nb",
            "é",
            "e\u0301",
            "{}",
            "[1,2]",
            '{"a": null}',
            b"",
            b"1",
            0,
            1,
            -0.0,
        ]
    ),
)
COLUMNS = {
    "sqlite": {
        "body": ("", st.one_of(TEXT, st.sampled_from(["", " ", "\0"]))),
        "one": ("", ANY),
        "two": ("", ANY),
    },
    "postgresql": {
        "body": ("text", TEXT),
        "an_int": ("bigint", st.integers(-(2**63), 2**63 - 1)),
        "a_float": ("double precision", st.floats()),
        "a_real": ("real", st.floats(width=32)),
        "a_number": ("numeric", DECIMALS),
        "a_time": ("timestamptz", TIMES.map(lambda at: at.replace(tzinfo=dt.UTC))),
        "a_day": ("date", st.dates()),
        "a_flag": ("boolean", st.booleans()),
        "raw": ("bytea", st.binary(max_size=9)),
        "a_json": ("json", JSON.filter(lambda text: "\\u0000" not in text)),
        "a_jsonb": ("jsonb", JSON.filter(lambda text: "\\u0000" not in text)),
        "words": ("text[]", st.lists(st.one_of(st.none(), TEXT), max_size=3)),
        "numbers": ("int[]", st.lists(st.integers(-9, 9), max_size=3)),
        "padded": ("char(5)", st.text("ab ", max_size=5)),
    },
    "mariadb": {
        "body": ("LONGTEXT", TEXT),
        "an_int": ("BIGINT", st.integers(-(2**63), 2**63 - 1)),
        "a_float": ("DOUBLE", st.floats(allow_nan=False, allow_infinity=False)),
        "a_real": ("FLOAT", st.floats(-(2.0**99), 2.0**99, width=32)),
        "a_number": ("DECIMAL(30,4)", DECIMALS),
        "a_time": ("TIMESTAMP(6) NULL", TIMES),
        "a_day": ("DATE", st.dates(dt.date(1, 1, 1))),
        "a_span": ("TIME(6)", st.timedeltas(dt.timedelta(hours=-800), dt.timedelta(hours=800))),
        "a_flag": ("BOOLEAN", st.booleans()),
        "raw": ("LONGBLOB", st.binary(max_size=9)),
        "bits": ("BIT(12)", st.integers(0, 4095)),
        "a_json": ("JSON", JSON),
        "latin": ("TEXT CHARACTER SET latin1", st.text("aé ", max_size=5)),
        "a_choice": ("ENUM('', 'one', 'One more')", st.sampled_from(["", "one", "One more"])),
    },
}
KEYS = {
    "numbers": ("BIGINT", st.integers(-50, 400)),
    "far apart": ("BIGINT", st.integers(-(2**63), 2**63 - 1)),
    "texts": ("VARCHAR(9)", st.text("abcxyz01_", min_size=1, max_size=4)),
    "any type": (
        "",
        st.one_of(st.integers(0, 99), st.text(max_size=2), st.floats(0, 9).filter(lambda n: n % 1)),
    ),
    "times": ("TIMESTAMP", TIMES.map(lambda at: at.replace(microsecond=0))),
}
INDEX, SERVERS = {"payload": ["one", "two"]}, ("postgresql", "mariadb")
PART = {"table": "part", "on": "note_id", "text": "body"}
QUERY = {"query": "SELECT * FROM note WHERE id IS NOT NULL -- all"}
ALIKE = [
    ("sqlite", "", [None, "", 0, "0", 0.0, b"0", "None", "NULL", 1, "1", 1.0, b"1"]),
    ("postgresql", "text", [None, "", " ", "  ", "NULL", "-", "a", "a ", "A"]),
    ("postgresql", "json", [None, "null", "{}", "[]", '""', '{"a": null}', '{"a": ""}']),
    ("postgresql", "text[]", [None, [], [""], [None], ["", ""], ["a", "b"], ["a,b"]]),
    ("postgresql", "numeric", [None, 0, 1, 10, -1]),
    ("mariadb", "TEXT", [None, "", " ", "  ", "NULL", "-", "a", "a ", "A", "\u00e4"]),
    ("mariadb", "JSON", [None, "null", "{}", "[]", '""', '{"a": null}', '{"a": ""}']),
    ("mariadb", "DECIMAL(10,2)", [None, 0, 1, 10, -1]),
]


def create(database, key="INTEGER", one="", two=""):
    database.run("DROP TABLE IF EXISTS note")
    if database.kind != "sqlite":
        one, two = one or "TEXT", two or "TEXT"
    database.run(
        f"CREATE TABLE note (id {key} PRIMARY KEY, body VARCHAR(90), one {one}, two {two})"
    )
    return database


@pytest.mark.parametrize(
    ("database", "keys"),
    [("sqlite", key) for key in ("numbers", "far apart", "texts", "any type")]
    + [(kind, "texts") for kind in SERVERS]
    + [
        pytest.param(kind, key, marks=pytest.mark.long)
        for kind in SERVERS
        for key in ("numbers", "times")
    ],
    indirect=["database"],
)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_edit_is_found(database, keys, data):
    column, key = KEYS[keys]
    known = COLUMNS[database.kind]
    names = data.draw(
        st.lists(st.sampled_from(sorted(known)), max_size=3, unique=True), label="columns"
    )
    columns = {name: known[name] for name in {"body": 0, **dict.fromkeys(names)}}
    values = {name: st.one_of(st.none(), one) for name, (_, one) in columns.items()}
    database.run("DROP TABLE IF EXISTS note")
    types = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    database.run(f"CREATE TABLE note (id {column} PRIMARY KEY NOT NULL, {types})")
    index = {
        "payload": [name for name in columns if name != "body"],
        **data.draw(st.sampled_from([{}, QUERY])),
    }
    there: list[object] = []

    def insert(some):
        marks = ", ".join(["?"] * (len(columns) + 1))
        rows = [[new, *map(data.draw, values.values())] for new in some]
        database.run(f"INSERT INTO note (id, {', '.join(columns)}) VALUES ({marks})", rows=rows)
        there.extend(some)

    distinct = str if keys == "any type" else lambda value: value
    insert(data.draw(st.lists(key, max_size=40, unique_by=distinct), label="keys"))
    state = State()
    for _ in range(3):
        rescan(database, state, **index)
        assert is_current(state, database, **index)
        for _ in range(data.draw(st.integers(0, 4), label="edits")):
            kind = data.draw(
                st.sampled_from(["insert", "update", "delete"] if there else ["insert"]),
                label="kind",
            )
            if kind == "insert":
                new = data.draw(key, label="key")
                if distinct(new) not in set(map(distinct, there)):
                    insert([new])
                continue
            some = data.draw(st.sampled_from(there), label="of")
            if kind == "delete":
                database.run("DELETE FROM note WHERE id = ?", rows=[(some,)])
                there.remove(some)
            else:
                name = data.draw(st.sampled_from(sorted(columns)), label="column")
                database.run(
                    f"UPDATE note SET {name} = ? WHERE id = ?",
                    rows=[(data.draw(values[name]), some)],
                )


@pytest.mark.parametrize(("database", "kind", "values"), ALIKE, indirect=["database"])
def test_values_that_look_alike_differ(database, kind, values):
    """Each takes the place of each other one: every one of these changes is found, in a bucket of
    its own."""
    create(database, one=kind).run(
        "INSERT INTO note (id, body) VALUES (?, 'text')", rows=[(n,) for n in range(100)]
    )
    keys = [500 * number for number in range(1, len(values) + 1)]
    database.run("INSERT INTO note (id, body) VALUES (?, 'text')", rows=[(key,) for key in keys])
    state, mark = State(), f"?::{kind}" if database.kind == "postgresql" else "?"
    for turn in range(len(values)):
        turned = zip([*values[turn:], *values[:turn]], keys, strict=True)
        database.run(f"UPDATE note SET one = {mark} WHERE id = ?", rows=list(turned))
        assert rescan(database, state, **INDEX) == (set(map(str, keys)) if turn else state.read), (
            turn
        )


def test_values_that_change_places_are_found(database):
    create(database).run(
        "INSERT INTO note (id, body) VALUES (?, 'text')", rows=[(n,) for n in range(20)]
    )
    database.run("UPDATE note SET one = 'left', two = 'right', body = 'a text' WHERE id = 6")
    database.run("UPDATE note SET one = 'left', two = 'right', body = 'another' WHERE id = 7")
    state = State()
    rescan(database, state, **INDEX)
    for statement in (
        "UPDATE note SET one = 'right', two = 'left' WHERE id = 6",
        "UPDATE note SET one = 'rightl', two = 'eft' WHERE id = 6",
        "UPDATE note SET one = 'left', two = 'right' WHERE id = 6",
        "UPDATE note SET body = CASE id WHEN 6 THEN 'another' ELSE 'a text' END WHERE id IN (6, 7)",
        "DELETE FROM note WHERE id = 6",
        "UPDATE note SET id = 6 WHERE id = 7",
    ):
        database.run(statement)
        assert rescan(database, state, **INDEX), statement
        assert is_current(state, database, **INDEX), statement
        assert not rescan(database, state, **INDEX), statement


@pytest.mark.long
def test_only_the_ranges_of_keys_with_changes_are_read(sqlite, monkeypatch):
    many, state = create(sqlite), State()
    many.run("INSERT INTO note VALUES (?, 'text', 1, NULL)", rows=[(n,) for n in range(1, 5001)])
    assert len(rescan(many, state)) == 5000
    assert not rescan(many, state)
    many.run("UPDATE note SET body = '' WHERE id = 2500")
    assert len(rescan(many, state)) < 40
    many.run("INSERT INTO note VALUES (?, 'new', 1, NULL)", rows=[(n,) for n in range(5001, 5101)])
    assert 100 <= len(rescan(many, state)) < 300
    many.run("UPDATE note SET body = 'b'")
    assert len(rescan(many, state)) == 5100, "everything changed"
    assert not rescan(many, state)
    monkeypatch.setattr("rag_index.components.sources.digest.MAX_LISTED", 3)
    many.run("UPDATE note SET body = 'c' WHERE id % 900 = 0")
    assert len(rescan(many, state)) == 5100, "more buckets than a query can list"
    assert not rescan(many, state)


def test_groups_of_a_column_are_read_beside_digests(database):
    create(database).run(
        "INSERT INTO note VALUES (1, 'text', 'staff', NULL), (2, 'text', 'board', NULL)"
    )
    plain, state = database.source(access="one").page(None, 10).documents, State()
    for _ in range(2):
        rescan(database, state, access="one")
        hashes = {key: payload for key, (_, _, payload) in state.documents.items()}
        assert hashes == dict(zip(plain.keys, plain.payload_hashes, strict=True))


@pytest.mark.parametrize(
    ("database", "note_key", "pair_key"),
    [
        ("sqlite", "INTEGER", "INTEGER"),
        ("sqlite", "INTEGER", "TEXT"),
        ("postgresql", "bigint", "int"),
        ("postgresql", "int", "numeric(9,2)"),
        ("mariadb", "INTEGER", "BIGINT"),
    ],
    indirect=["database"],
)
def test_who_may_see_a_document_by_a_query_has_digests(database, note_key, pair_key):
    database.run(f"CREATE TABLE note (id {note_key} PRIMARY KEY, body VARCHAR(20))")
    database.run(f"CREATE TABLE grants (note_id {pair_key}, name VARCHAR(20))")
    database.run("INSERT INTO note VALUES (?, 'text')", rows=[(500 * n,) for n in range(1, 10)])
    database.run("INSERT INTO grants VALUES (?, 'staff')", rows=[(500 * n,) for n in range(1, 9)])
    index, state = {"access": "SELECT note_id, name FROM grants"}, State()
    rescan(database, state, **index)
    assert pair_key == "TEXT" or not rescan(database, state, **index), "a number is no text"
    for statement, ids in (
        ("INSERT INTO grants VALUES (4500, 'board')", {"4500"}),
        ("UPDATE grants SET name = 'board' WHERE note_id = 2500", {"2500"}),
        ("INSERT INTO grants VALUES (2500, 'staff')", {"2500"}),
        ("DELETE FROM grants WHERE note_id = 500", {"500"}),
        ("UPDATE grants SET note_id = 500 WHERE note_id = 1000", {"500", "1000"}),
    ):
        database.run(statement)
        assert (rescan(database, state, **index) == ids) or pair_key == "TEXT", statement
        assert is_current(state, database, **index), statement


@pytest.mark.parametrize(
    ("database", "note_type", "part_type", "values"),
    [
        ("postgresql", "int", "numeric(9,2)", ("2500", "4500")),
        ("postgresql", "text", "numeric", ("'2500'", "4500.0")),
        ("postgresql", "int", "text", ("2500", "'4500'")),
        ("postgresql", "char(9)", "varchar(9)", ("'2500'", "'4500'")),
        ("postgresql", "varchar(9)", "char(9)", ("'2500'", "'4500'")),
        ("mariadb", "INTEGER", "VARCHAR(9)", ("2500", "'4500'")),
        (
            "mariadb",
            "VARCHAR(9) COLLATE utf8mb4_bin",
            "VARCHAR(9) COLLATE utf8mb4_general_ci",
            ("'Ab'", "'ab'"),
        ),
        (
            "mariadb",
            "VARCHAR(9) COLLATE utf8mb4_unicode_ci",
            "VARCHAR(9) COLLATE utf8mb4_general_ci",
            ("'Ab'", "'ab'"),
        ),
        (
            "mariadb",
            "VARCHAR(9) CHARACTER SET latin1",
            "VARCHAR(9) CHARACTER SET utf8mb4",
            ("'Ab'", "'ab'"),
        ),
        ("sqlite", "INTEGER", "TEXT", ("2500", "'4500'")),
        ("sqlite", "TEXT COLLATE NOCASE", "TEXT", ("'Ab'", "'Ab'")),
        ("sqlite", "TEXT", "TEXT COLLATE NOCASE", ("'Ab'", "'ab'")),
    ],
    indirect=["database"],
)
def test_a_new_part_is_found_however_the_types_of_its_key_differ(
    database, note_type, part_type, values
):
    """A part whose document is not known yet when it comes: whatever reading adds to a document is
    in its digest."""
    own = [f"'{n}'" if values[0].startswith("'") else str(n) for n in range(500, 5000, 500)]
    database.run(f"CREATE TABLE note (id {note_type} PRIMARY KEY, body VARCHAR(20))")
    database.run(f"CREATE TABLE part (note_id {part_type}, body VARCHAR(20))")
    database.run(*(f"INSERT INTO note VALUES ({value}, 'text')" for value in {*own, values[0]}))
    index, state = {"parts": [PART]}, State()
    rescan(database, state, **index)
    for body in ("first", "second"):
        database.run(f"INSERT INTO part VALUES ({values[1]}, '{body}')")
        assert rescan(database, state, **index), body
        assert is_current(state, database, **index), body
    database.run("DELETE FROM part")
    rescan(database, state, **index)
    assert is_current(state, database, **index)


def test_digests_find_changed_rows_whose_keys_are_above_the_signed_numbers(mariadb_desk):
    state, first = State(), 2**63 - 500
    database = mariadb_desk.run(
        "CREATE TABLE note (id BIGINT UNSIGNED PRIMARY KEY, body VARCHAR(9))"
    )
    database.run(
        "INSERT INTO note VALUES (?, 'x')", rows=[(first + number,) for number in range(1000)]
    )
    assert len(rescan(database, state)) == 1000
    database.run(f"UPDATE note SET body = 'y' WHERE id IN ({first + 10}, {first + 990})")
    assert 2 <= len(rescan(database, state)) < 500
    assert is_current(state, database)
