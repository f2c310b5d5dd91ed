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
from tests.sources.digests import Corpus, State, edits, scan

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


def test_a_digest_of_another_version_and_a_corpus_that_grew_are_read_whole(corpus):
    state = State()
    rescan(corpus, state)
    layout = state.watermark
    state.watermark = layout.replace("[1,", "[0,")
    assert rescan(corpus, state) == 5000
    assert state.watermark == layout


def test_a_database_without_digests_is_refused_in_one_line(tmp_path):
    url = database_url("mssql+pyodbc://h/d", tmp_path)
    with pytest.raises(SettingsError, match=r"digest = true.*mssql|mssql"):
        DigestSource(url, index())
