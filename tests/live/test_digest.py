"""Digests of buckets on PostgreSQL and MariaDB: every random edit of values of any type is found."""

from __future__ import annotations

import datetime as dt
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_index.settings import IndexSettings
from rag_index.sources.digest import DigestSource
from tests.live.mariadb import mariadb
from tests.sources.digests import Corpus, alike, change_places, edits, many_buckets

__all__ = ["mariadb"]

pytest_plugins = ["tests.live.fixtures"]
FEW, MANY = (
    settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck)) for examples in (6, 25)
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
TIMES = st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(2037, 1, 1))  # noqa: DTZ001
DECIMALS = st.decimals(-(10**12), 10**12, places=4, allow_nan=False)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-1, 1), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
).map(json.dumps)
POSTGRES = {
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
}
MARIADB = {
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
}
KEYS = {
    "numbers": ("BIGINT", st.integers(-50, 400)),
    "texts": ("VARCHAR(9)", st.text("abcxyz01_", min_size=1, max_size=4)),
    "times": ("TIMESTAMP", TIMES.map(lambda at: at.replace(microsecond=0))),
}


class Server(Corpus):
    """A table on a server, over a connection that may write."""

    def __init__(self, connection, url, columns, key) -> None:
        self.connection, self.url, self.columns = connection, url, columns
        names = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
        self.execute("DROP TABLE IF EXISTS note")
        self.execute(f"CREATE TABLE note (id {key} PRIMARY KEY, {names})")

    def execute(self, statement, values=None):
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)

    def source(self, **more) -> DigestSource:
        payload = [name for name in self.columns if name != "body"]
        given = {"name": "n", "key": "id", "text": "body", "payload": payload, **more}
        given = given if "query" in given else {"table": "note", **given}
        return DigestSource(self.url, IndexSettings(**given))


@pytest.fixture(scope="module")
def on_postgres(postgres):
    with postgres.database() as name, postgres.connect(name) as connection:
        yield connection, postgres.url(name)


@pytest.fixture(scope="module")
def on_mariadb(mariadb):
    connection = mariadb.connect()
    yield connection, mariadb.url
    connection.close()


def some_columns(data, columns):
    names = data.draw(st.lists(st.sampled_from(sorted(columns)), max_size=3, unique=True), label="columns")
    return {name: columns[name] for name in {"body": 0, **dict.fromkeys(names)}}


def edit_at_random(on, dialect, keys, data):
    column, key = KEYS[keys]
    columns = some_columns(data, dialect)
    corpus = Server(*on, columns, column)
    more = data.draw(st.sampled_from([{}, {"query": "SELECT * FROM note WHERE id IS NOT NULL -- all"}]))
    values = {name: st.one_of(st.none(), one) for name, (_, one) in columns.items()}
    edits(corpus, data, key, values, rounds=2, **more)


@pytest.mark.parametrize("keys", KEYS)
@FEW
@given(data=st.data())
def test_every_edit_of_postgresql_is_found(on_postgres, keys, data):
    edit_at_random(on_postgres, POSTGRES, keys, data)


@pytest.mark.parametrize("keys", KEYS)
@FEW
@given(data=st.data())
def test_every_edit_of_mariadb_is_found(on_mariadb, keys, data):
    edit_at_random(on_mariadb, MARIADB, keys, data)


@pytest.mark.long
@MANY
@given(data=st.data())
def test_many_edits_are_found(on_postgres, on_mariadb, data):
    edit_at_random(on_postgres, POSTGRES, "texts", data)
    edit_at_random(on_mariadb, MARIADB, "texts", data)


TEXTS = {"body": ("TEXT", TEXT), "one": ("TEXT", TEXT), "two": ("TEXT", TEXT)}
SERVERS = ["postgres", "mariadb"]
QUERY = {"query": "SELECT * FROM note WHERE id IS NOT NULL -- all"}


@pytest.fixture
def server(request):
    """Return what `Server` needs first for the database that the test names."""
    return request.getfixturevalue(f"on_{request.param}")


@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("more", [{}, QUERY], ids=["table", "query"])
def test_values_that_change_places_are_found(server, more):
    corpus = Server(*server, TEXTS, "BIGINT")
    for number in range(20):
        corpus.execute("INSERT INTO note (id, body) VALUES (%s, 'text')", (number,))
    change_places(corpus, 6, 7, **more)  # of one bucket


@pytest.mark.parametrize(("server", "kind", "values"), [
    ("postgres", "text", [None, "", " ", "  ", "NULL", "-", "a", "a ", "A"]),
    ("postgres", "json", [None, "null", "{}", "[]", '""', '{"a": null}', '{"a": ""}']),
    ("postgres", "text[]", [None, [], [""], [None], ["", ""], ["a", "b"], ["a,b"]]),
    ("postgres", "numeric", [None, 0, 1, 10, -1]),
    ("mariadb", "TEXT", [None, "", " ", "  ", "NULL", "-", "a", "a ", "A", "\u00e4"]),
    ("mariadb", "JSON", [None, "null", "{}", "[]", '""', '{"a": null}', '{"a": ""}']),
    ("mariadb", "DECIMAL(10,2)", [None, 0, 1, 10, -1]),
], indirect=["server"])  # fmt: skip
def test_values_that_look_alike_differ(server, kind, values):
    corpus = Server(*server, {"body": ("TEXT", TEXT), "one": (kind, TEXT)}, "BIGINT")
    for number in range(1000):
        corpus.execute("INSERT INTO note (id, body) VALUES (%s, 'text')", (number,))
    alike(corpus, "one", values, mark=f"%s::{kind}" if server[1].drivername.startswith("postgres") else "%s")


@pytest.mark.parametrize("server", SERVERS, indirect=True)
@pytest.mark.parametrize("key", [int, str])
def test_more_buckets_than_a_query_can_list(server, monkeypatch, key):
    monkeypatch.setattr("rag_index.sources.digest.MAX_LISTED", 3)
    corpus = Server(*server, TEXTS, "BIGINT" if key is int else "VARCHAR(9)")
    many_buckets(corpus, key)
