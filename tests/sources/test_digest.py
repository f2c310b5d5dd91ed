"""Digests of buckets: every random edit of a real database is found, and little is read to find it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rag_index.database.urls import database_url
from rag_index.errors import SettingsError
from rag_index.settings import IndexSettings
from rag_index.sources.digest import DigestSource
from tests.sources.digests import Corpus, State, alike, change_places, edits, everything, many_buckets, scan

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.binary(max_size=8),
    st.sampled_from(
        ["", "\0", "1", "1.0", "a\nb", "é", "e\u0301", "{}", "[1,2]", '{"a": null}', b"", b"1", 0, 1, -0.0]
    ),
)
TEXTS = st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["", " ", "0", "\0"]))


class SqliteCorpus(Corpus):
    """A table of SQLite, whose columns hold values of any type."""

    def __init__(self, folder, key: str = "id INTEGER PRIMARY KEY") -> None:
        self.path = folder / "source.db"
        self.path.unlink(missing_ok=True)
        self.db = sqlite3.connect(self.path)
        self.db.execute(f"CREATE TABLE note ({key}, body, one, two)")

    def execute(self, statement, values=()):
        self.db.execute(statement.replace("%s", "?"), values)
        self.db.commit()

    def source(self, **more) -> DigestSource:
        return DigestSource(database_url(f"sqlite:///{self.path}", self.path.parent), index(**more))


def index(**more) -> IndexSettings:
    given = {"name": "n", "table": "note", "key": "id", "text": "body", "payload": ["one", "two"], **more}
    return IndexSettings(**given)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("digests")


KEYS = {
    "numbers": ("id INTEGER PRIMARY KEY", st.integers(-50, 400)),
    "far apart": ("id INTEGER PRIMARY KEY", st.integers(-(2**63), 2**63 - 1)),
    "texts": ("id TEXT PRIMARY KEY NOT NULL", st.text(min_size=1, max_size=3)),
    "any type": ("id PRIMARY KEY NOT NULL", st.one_of(st.integers(0, 99), st.text(max_size=2), st.floats(0, 9))),
}


@pytest.mark.parametrize("keys", KEYS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_edit_of_sqlite_is_found(folder, keys, data):
    column, key = KEYS[keys]
    with closing(SqliteCorpus(folder, column).db) as _:
        pass
    corpus = SqliteCorpus(folder, column)
    columns = {"body": TEXTS, "one": VALUES, "two": VALUES}
    edits(corpus, data, key, columns, rounds=3)
    corpus.db.close()


@pytest.fixture
def corpus(tmp_path):
    corpus = SqliteCorpus(tmp_path)
    corpus.db.executemany("INSERT INTO note VALUES (?, ?, 1, NULL)", [(n, f"text {n}") for n in range(1, 5001)])
    corpus.db.commit()
    yield corpus
    corpus.db.close()


def rescan(corpus, state) -> int:
    with closing(corpus.source()) as source:
        scan(source, state)
    return state.rows_read


def test_only_the_ranges_of_keys_with_changes_are_read(corpus):
    state = State()
    assert rescan(corpus, state) == 5000
    assert rescan(corpus, state) == 0
    corpus.execute("UPDATE note SET two = '' WHERE id = 2500")
    assert rescan(corpus, state) < 200
    for number in range(5001, 5101):
        corpus.execute("INSERT INTO note VALUES (%s, 'new', 1, NULL)", (number,))
    assert 100 <= rescan(corpus, state) < 300
    corpus.execute("UPDATE note SET one = 2")
    assert rescan(corpus, state) == 5100, "everything changed"
    assert rescan(corpus, state) == 0


def test_bytes_that_are_no_text_are_seen_as_they_are_read(corpus):
    state = State()
    corpus.execute("UPDATE note SET body = CAST(x'ff41' AS TEXT) WHERE id = 7")
    rescan(corpus, state)
    assert rescan(corpus, state) == 0
    corpus.execute("UPDATE note SET body = CAST(x'ff42' AS TEXT) WHERE id = 7")
    assert 0 < rescan(corpus, state) < 200
    assert rescan(corpus, state) == 0


def test_what_changes_between_the_digests_and_the_rows_is_read_now_or_by_the_next_scan(corpus):
    state = State()
    rescan(corpus, state)

    def meanwhile():
        corpus.execute("UPDATE note SET body = 'in a bucket that is read' WHERE id = 2501")
        corpus.execute("UPDATE note SET body = 'in a bucket that stays unread' WHERE id = 7")

    corpus.execute("UPDATE note SET body = 'before' WHERE id = 2500")
    with closing(corpus.source()) as source:
        scan(source, state, between=meanwhile)
    assert 0 < rescan(corpus, state) < 200, "the bucket that was read is known as it was read"
    assert {key: row[1:] for key, row in state.documents.items()} == everything(corpus)
    assert rescan(corpus, state) == 0


def test_values_that_look_alike_differ(corpus):
    alike(corpus, "two", [None, "", 0, "0", 0.0, b"0", "None", "NULL", 1, "1", 1.0, b"1"])


def test_values_that_change_places_are_found(corpus):
    change_places(corpus)


@pytest.mark.parametrize("keys", ["numbers", "texts"])
def test_more_buckets_than_a_query_can_list(tmp_path, monkeypatch, keys):
    monkeypatch.setattr("rag_index.sources.digest.MAX_LISTED", 3)
    corpus = SqliteCorpus(tmp_path, KEYS[keys][0])
    many_buckets(corpus, str if keys == "texts" else int)
    corpus.db.close()


def grow(corpus) -> None:
    corpus.db.executemany("INSERT INTO note VALUES (?, 'new', 1, NULL)", [(n,) for n in range(131, 5001)])
    corpus.db.commit()


def test_a_source_that_has_grown_gets_larger_buckets(corpus, monkeypatch):
    state = State()
    corpus.execute("DELETE FROM note WHERE id > 130")
    rescan(corpus, state)
    grow(corpus)
    assert rescan(corpus, state) == 5000
    assert len(state.known) > 1000, "the buckets of 130 documents"
    monkeypatch.setattr("rag_index.sources.digest.MAX_BUCKETS", 1000)
    assert rescan(corpus, state) == 5000
    assert len(state.known) < 100
    corpus.execute("UPDATE note SET two = 5 WHERE id = 2500")
    assert 0 < rescan(corpus, state) < 200


def test_a_source_whose_keys_are_far_apart_now_gets_buckets_by_their_hashes(corpus, monkeypatch):
    state = State()
    rescan(corpus, state)
    corpus.db.executemany("INSERT INTO note VALUES (?, 'far', 1, NULL)", [(n * 10**6,) for n in range(1, 2001)])
    corpus.db.commit()
    rescan(corpus, state)
    assert len(state.known) > 2000, "a bucket for each of them"
    monkeypatch.setattr("rag_index.sources.digest.MAX_BUCKETS", 1000)
    assert rescan(corpus, state) == 7000
    assert len(state.known) < 100
    assert rescan(corpus, state) == 0


def test_a_source_that_has_grown_gets_larger_buckets_when_everything_is_read(corpus):
    state = State()
    corpus.execute("DELETE FROM note WHERE id > 130")
    rescan(corpus, state)
    grow(corpus)
    state.read_everything = True
    assert rescan(corpus, state) == 5000
    assert len(state.known) < 100
    state.read_everything = False
    assert rescan(corpus, state) == 0


def test_with_digests_of_another_version_everything_is_read(corpus):
    state = State()
    rescan(corpus, state)
    layout = state.last_watermark
    state.last_watermark = layout.replace("[1,", "[0,")
    assert rescan(corpus, state) == 5000
    assert state.last_watermark == layout


def test_a_database_without_digests_is_refused_in_one_line(tmp_path):
    url = database_url("mssql+pyodbc://h/d", tmp_path)
    with pytest.raises(SettingsError, match=r"digest = true.*mssql|mssql"):
        DigestSource(url, index())
