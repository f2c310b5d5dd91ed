"""Keys of every type, in every database: rows are read once each, in any order, and found again by
their key."""

import datetime as dt
import string
from contextlib import ExitStack, closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_index.components.sources.digest import DigestSource
from rag_index.components.sources.sql import SqlSource
from rag_index.core.documents.keys import document_id
from rag_index.errors import SettingsError, SourceError
from tests.components.sources.conftest import (
    KnownStamps,
    SourceDatabase,
    open_database,
    pages,
    read,
)
from tests.live.sessions import new_database

WORDS = st.text(string.ascii_letters + "äÄßéİ -_%'\\~0127", max_size=5)
FILLED = WORDS.map(str.strip).filter(bool)
LATIN = st.text("aAäÄzZßss", max_size=4)
SMALL, NUMBERS = st.integers(-128, 127), st.integers(-(2**31), 2**31 - 1).map(str)
LONG, NATURAL = st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**64 - 1)
PLAIN = {"allow_nan": False, "allow_infinity": False, "allow_subnormal": False}
FLOATS, DOUBLES = st.floats(width=32, **PLAIN).map(str), st.floats(**PLAIN).map(str)
DECIMALS = st.decimals(-(10**9), 10**9, places=4).map(str)
MEMBERS = ["sad", "ok", "Zoo", "happy", "a", "é", "B"]
ENUM = "(" + ", ".join(f"'{one}'" for one in MEMBERS) + ")"
MOODS, SETS = st.sampled_from(MEMBERS), st.sets(st.sampled_from(MEMBERS)).map(",".join)
DATES = st.one_of(
    st.dates().map(str), st.sampled_from(["0044-03-15 BC", "infinity", "20000-01-01"])
)
TIMES = st.datetimes().map(str)
ZONED = st.builds("{}{}".format, TIMES, st.sampled_from(["+00", "+05:30", "-08"]))
RECENT = st.integers(10**8, 2 * 10**9).map(
    lambda at: dt.datetime.fromtimestamp(at, dt.UTC).isoformat(" ")[:19]
)
BYTES, UUIDS = st.binary(max_size=4), st.uuids().map(str)
TYPES = {
    "postgresql": {
        "smallint": SMALL,
        "integer": NUMBERS,
        "bigint": LONG,
        "numeric": DECIMALS,
        "real": FLOATS,
        "float8": DOUBLES,
        "money": NUMBERS,
        "text": WORDS,
        'text COLLATE "C"': WORDS,
        'text COLLATE "und-x-icu"': WORDS,
        "text COLLATE folded": WORDS,
        "varchar(9)": WORDS,
        "char(7)": WORDS,
        "citext": WORDS,
        "name": WORDS,
        '"char"': st.sampled_from("abAB"),
        "mood": MOODS,
        "bool": st.sampled_from(["true", "false"]),
        "uuid": UUIDS,
        "bytea": BYTES,
        "date": DATES,
        "timestamp": TIMES,
        "timestamptz": ZONED,
        "price": FLOATS,
        "bit(3)": st.text("01", min_size=3, max_size=3),
        "varbit": st.text("01", max_size=4),
        "oid": SMALL.map(abs),
    },
    "mariadb": {
        "TINYINT": SMALL,
        "INTEGER": NUMBERS,
        "BIGINT UNSIGNED": NATURAL,
        "DECIMAL(30, 4)": DECIMALS,
        "DOUBLE": DOUBLES,
        "YEAR": st.integers(1901, 2155),
        "BIT(9)": st.integers(0, 511),
        "VARCHAR(9)": FILLED,
        "CHAR(7)": FILLED,
        "CHAR(7) COLLATE utf8mb4_nopad_bin": FILLED,
        "VARCHAR(9) COLLATE utf8mb4_bin": FILLED,
        "BINARY(4)": BYTES,
        "VARCHAR(9) CHARACTER SET latin1 COLLATE latin1_german2_ci": LATIN,
        "VARBINARY(4)": BYTES,
        "VARCHAR(9) COLLATE utf8mb4_swedish_ci": FILLED,
        f"ENUM{ENUM}": MOODS,
        f"SET{ENUM}": SETS,
        f"ENUM{ENUM} CHARACTER SET latin1": MOODS,
        "DATETIME(6)": TIMES,
        "TIMESTAMP(6)": RECENT,
        "UUID": UUIDS,
        "ENUM('b', 'a', 'A', 'B') COLLATE utf8mb4_bin": st.sampled_from("abAB"),
        "DATE": st.one_of(st.dates().map(str), st.just("0000-00-00")),
        "INET6": st.ip_addresses(v=6).map(str),
    },
    "sqlite": {
        "INTEGER": LONG,
        "REAL": st.floats(**PLAIN),
        "TEXT": WORDS,
        "TEXT COLLATE NOCASE": LATIN,
        "BLOB": BYTES,
        "TEXT COLLATE RTRIM": st.text("a ", max_size=4),
        "NUMERIC": st.one_of(NUMBERS, FLOATS, WORDS),
        "": st.one_of(LONG, WORDS, BYTES, st.floats(**PLAIN)),
    },
}
INSERT = {
    "postgresql": "INSERT INTO",
    "mariadb": "INSERT IGNORE INTO",
    "sqlite": "INSERT OR IGNORE INTO",
}
CONFLICT = {"postgresql": " ON CONFLICT DO NOTHING", "mariadb": "", "sqlite": ""}
CASES = [(kind, column) for kind, columns in TYPES.items() for column in columns]


@pytest.fixture(scope="module")
def databases(request, tmp_path_factory):
    """One database of each kind, opened when it is first asked for."""
    with ExitStack() as opened:
        found = {}

        def database(kind):
            if kind not in found:
                found[kind] = opened.enter_context(
                    open_database(kind, request, tmp_path_factory.mktemp(kind))
                )
                if kind == "postgresql":
                    found[kind].run(
                        "CREATE EXTENSION citext",
                        "CREATE DOMAIN price AS real",
                        f"CREATE TYPE mood AS ENUM {ENUM}",
                        "CREATE COLLATION folded (provider = icu, locale = 'und-u-ks-level2',"
                        " deterministic = false)",
                    )
            return found[kind]

        yield database


@pytest.fixture
def table(databases, kind, column):
    """An empty table `note` with a key of this type, which is unique together with a number."""
    database, unique = databases(kind), " COLLATE BINARY" if kind == "sqlite" else ""
    database.run(
        "DROP TABLE IF EXISTS note",
        f"CREATE TABLE note (id {column} NOT NULL, a INTEGER, body VARCHAR(9), at TIMESTAMP)",
        f"CREATE UNIQUE INDEX of_note ON note (id{unique}, a)",
    )
    return database


@pytest.mark.parametrize(("kind", "column"), CASES)
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), rows=st.integers(1, 7))
def test_the_keys_that_are_read_are_the_keys_that_are_there(table, kind, column, data, rows):
    values = data.draw(st.lists(TYPES[kind][column], unique=True, min_size=1, max_size=20))
    key = data.draw(st.sampled_from([["id", "a"], ["a", "id"], "id"]))
    reader = data.draw(st.sampled_from([SqlSource, DigestSource]))
    some = [
        (value, a, "x", "2020-01-01 00:00:00")
        for value in values
        for a in ((1,) if key == "id" else (1, 2))
    ]
    table.run("DELETE FROM note").run(
        f"{INSERT[kind]} note VALUES (?, ?, ?, ?){CONFLICT[kind]}", rows=some
    )
    source = table.source(reader, key=key)
    source.check()
    source.use_scan_state(KnownStamps())
    count, found = source.count(), keys_of(source, rows)
    assert len({*found}) == len(found) == count
    assert sorted(source.documents(list(map(document_id, found))).documents.keys) == sorted(found)
    source.close()


@pytest.mark.parametrize(
    ("kind", "column", "part", "value", "equal"),
    [
        ("postgresql", "real", "real", "0.1", "0.1"),
        ("postgresql", "real", "integer", "1", "1"),
        ("postgresql", "citext", "text", "Ä", "ä"),
        ("mariadb", "VARCHAR(9) CHARACTER SET latin1", "VARCHAR(9)", "Ä", "Ä"),
        ("mariadb", "VARCHAR(9)", "VARCHAR(9)", "é", "E "),
        ("mariadb", f"ENUM{ENUM}", f"ENUM{ENUM}", "Zoo", "Zoo"),
        ("sqlite", "TEXT", "TEXT", "Ä", "Ä"),
    ],
)
@pytest.mark.parametrize("on", [["id"], ["id", "a"]])
def test_a_part_finds_its_document_whatever_the_type_that_joins_them(
    databases, kind, column, part, value, equal, on
):
    database = databases(kind)
    database.run("DROP TABLE IF EXISTS note", "DROP TABLE IF EXISTS remark")
    database.run(f"CREATE TABLE note (id {column}, a INTEGER, body VARCHAR(9))")
    database.run(f"CREATE TABLE remark (id {part}, a INTEGER, body VARCHAR(9))")
    database.run("INSERT INTO note VALUES (?, 1, 'note')", rows=[(value,)])
    database.run("INSERT INTO remark VALUES (?, 1, 'remark')", rows=[(equal,)])
    source = database.source(
        key=on, text="body", parts=[{"table": "remark", "on": on, "text": "body"}]
    )
    assert [*read(source).values()] == (["note\n\nremark"] if equal != "ä" else ["note"])
    database.run("DROP TABLE remark")


def keys_of(source, rows, between=lambda: None):
    found = []
    for page in pages(source, rows):
        found += [*page.documents.keys, *page.unread]
        between()
    return found


def test_a_key_that_the_database_cannot_find_again_is_refused(databases):
    databases("mariadb").run(
        "DROP TABLE IF EXISTS note", "CREATE TABLE note (id FLOAT, body VARCHAR(9))"
    )
    with pytest.raises(SettingsError, match=r"key column 'id' is a FLOAT.* cast it to DOUBLE"):
        databases("mariadb").source().check()


def test_a_scan_that_missed_rows_fails(request, tmp_path):
    """Here `>` of texts is not the order of texts, as may be with types and collations that nobody
    here knows."""
    own = new_database(
        "postgresql", request, tmp_path, ""
    )  # the kept one is in use by the other tests of this file
    with own as url, closing(SourceDatabase(url)) as database:
        database.run(
            "CREATE FUNCTION by_length(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT"
            " length($1) > length($2)'",
            "CREATE OPERATOR public.> (LEFTARG = text, RIGHTARG = text, FUNCTION = by_length)",
            f"ALTER DATABASE {database.url.database} SET search_path = public, pg_catalog",
            "CREATE TABLE note (id text PRIMARY KEY, body text)",
        )
        database.run(
            "INSERT INTO note VALUES (?, 'x')",
            rows=[("b",), ("aaa",), ("aab",), ("cc",), ("dddd",)],
        )
        source = database.source()
        assert source.count() == 5
        with pytest.raises(
            SourceError, match=r"5 rows are there, and \d are found by their key \(id\)"
        ):
            keys_of(source, 2)


@pytest.mark.parametrize("kind", TYPES)
def test_writers_explain_rows_that_were_not_read(databases, kind):
    database = databases(kind).run("DROP TABLE IF EXISTS note").notes(20, first=101)
    source = database.source()
    assert source.count() == 20
    changes = iter(
        ["DELETE FROM note WHERE id > 115", "INSERT INTO note VALUES (1, '', ''), (2, '', '')"]
    )
    assert len(keys_of(source, 6, lambda: database.run(next(changes, "SELECT 1")))) == 15
