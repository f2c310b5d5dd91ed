"""Who may see a row: a column, a query of pairs, and changes of either that no time tells of."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field

import pytest

from rag_index.database.urls import database_url
from rag_index.documents.access import groups_in
from rag_index.errors import SettingsError, SourceError
from rag_index.settings import IndexSettings
from rag_index.sources.changed import ChangedSource
from rag_index.sources.sql import SqlSource
from tests.live.postgres import postgres

__all__ = ["postgres"]

PAIRS = "SELECT note_id, name FROM acl"


@pytest.fixture
def db(tmp_path):
    with closing(sqlite3.connect(tmp_path / "s.db", isolation_level=None)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, at TEXT, acl TEXT)")
        db.execute("CREATE TABLE acl (note_id INTEGER, name TEXT)")
        yield db


@pytest.fixture
def make(tmp_path):
    made = []

    def make(kind=SqlSource, **more):
        values = {"name": "notes", "table": "note", "key": "id", "text": "body", **more}
        made.append(kind(database_url(f"sqlite:///{tmp_path}/s.db", tmp_path), IndexSettings(**values)))
        return made[-1]

    yield make
    for source in made:
        source.close()


def groups(page):
    documents = page.documents
    return {key: groups_in(payload) for key, payload in zip(documents.keys, documents.payloads, strict=True)}


def everything(source, rows=3):
    """Return the groups of all documents, page by page."""
    found, cursor = {}, None
    while True:
        page = source.page(cursor, rows)
        found |= groups(page)
        cursor = page.cursor
        if cursor is None:
            return found


def test_a_column_gives_groups_and_is_no_payload(db, make):
    values = ["staff", '["staff", "board"]', None, "", "a;b", "[broken"]
    db.executemany("INSERT INTO note (id, body, acl) VALUES (?, 'text', ?)", list(enumerate(values)))
    source = make(access="acl", access_separator=";", payload=["at"])
    source.check()
    assert everything(source) == {"0": ["staff"], "1": ["board", "staff"], "2": [], "3": [], "4": ["a", "b"], "5": []}
    page = source.page(None, 10)
    assert page.documents.payloads[0] == b'{"_rag":{"groups":["staff"]},"at":null}'
    assert page.documents.texts == ["text"] * 6
    shown = make(access="acl", payload=["acl"]).page(None, 1)
    assert shown.documents.payloads[0] == b'{"_rag":{"groups":["staff"]},"acl":"staff"}'


def test_an_index_without_access_has_the_payload_that_it_always_had(db, make):
    db.execute("INSERT INTO note (id, body, acl) VALUES (1, 'text', 'staff')")
    assert make(payload=["acl"]).page(None, 1).documents.payloads == [b'{"acl":"staff"}']


@pytest.mark.parametrize("pairs", [PAIRS, f"  with p as ({PAIRS}) select * from p -- all of them"])
def test_a_query_gives_pairs_of_key_and_group(db, make, pairs):
    db.executemany("INSERT INTO note (id, body) VALUES (?, 'text')", [(n,) for n in range(450)])
    db.executemany("INSERT INTO acl VALUES (?, ?)", [(n, f"g{n % 7}") for n in range(0, 450, 2)])
    odd = [(0, "g1"), (0, "g1"), (0, "a,b"), (0, None), (9999, "g1"), (None, "g1")]
    db.executemany("INSERT INTO acl VALUES (?, ?)", odd)
    source = make(access=pairs)
    source.check()
    found = everything(source, 401)
    assert found["0"] == ["a,b", "g0", "g1"], "a group of a pair is taken as it is"
    assert found["1"] == []
    assert found["448"] == ["g0"]
    assert len(found) == 450
    assert groups(source.documents(["448", "1"])) == {"448": ["g0"], "1": []}


def test_keys_of_several_columns_have_pairs_of_as_many_columns_and_the_group(db, make):
    db.execute("CREATE TABLE part (site TEXT, number INTEGER, body TEXT)")
    db.execute("CREATE TABLE seen (a TEXT, b INTEGER, c TEXT)")
    db.execute("INSERT INTO part VALUES ('north', 1, 'x'), ('north', 2, 'y'), ('1', 1, 'z')")
    db.execute("INSERT INTO seen VALUES ('north', 1, 'staff'), ('1', 1, 'board')")
    source = make(table="part", key=["site", "number"], access="SELECT a, b, c FROM seen")
    source.check()
    assert everything(source, 2) == {'["1",1]': ["board"], '["north",1]': ["staff"], '["north",2]': []}


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ("owner", "there is no column 'owner' in table 'note'"),
        ("SELECT note_id FROM acl", r"the query of access gives 1 columns \(note_id\); it should give id, group"),
        ("SELECT note_id, name, name AS more FROM acl", "gives 3 columns"),
        ("SELECT note_id, name FROM absent", "the query of access fails: no such table: absent"),
        ("SELECT CAST(note_id AS TEXT), name FROM acl", "access gives keys of type str .*but id is int"),
        ("SELECT 1; DELETE FROM note", "several statements"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_read(db, make, access, message):
    db.execute("INSERT INTO note (id, body) VALUES (1, 'text')")
    db.execute("INSERT INTO acl VALUES (1, 'staff')")
    with pytest.raises(SettingsError, match=message):
        make(access=access).check()


def test_a_number_is_no_text_so_a_document_has_no_groups_of_another(db, make):
    db.execute("CREATE TABLE odd (id, body)")
    db.execute("CREATE TABLE pairs (id, name)")
    db.execute("INSERT INTO odd VALUES (7, 'number'), ('7', 'text')")
    db.execute("INSERT INTO pairs VALUES (7, 'numbers'), (7.0, 'floats'), ('7', 'texts')")
    source = make(table="odd", access="SELECT id, name FROM pairs")
    assert everything(source, 1) == {"7": ["floats", "numbers"], '"7"': ["texts"]}


def test_a_document_that_cannot_be_read_tells_its_groups(db, make):
    db.execute("INSERT INTO note (id, body, acl) VALUES (1, 'text', 'staff'), (2, X'01', 'board')")
    page = make(access="acl").page(None, 10)
    assert [failure.key for failure in page.unreadable] == ["2"]
    assert page.groups == {"2": ["board"]}
    assert groups(page) == {"1": ["staff"]}


def test_settings_that_contradict_themselves_are_refused():
    sql = {"name": "n", "table": "t", "key": "id", "text": "body"}
    with pytest.raises(ValueError, match="at least 1 character"):
        IndexSettings(**sql, access="")
    with pytest.raises(ValueError, match="access belongs to kind 'sql'"):
        IndexSettings(name="n", kind="code", root=".", access="acl")
    with pytest.raises(ValueError, match="access belongs to kind 'sql'"):
        IndexSettings(name="n", kind="own", access="acl")
    index = IndexSettings(**sql, access="acl", payload_indexes={})
    assert index.indexed_fields == {"_rag.groups": "keyword"}
    assert IndexSettings(**sql).indexed_fields == {}
    with pytest.raises(ValueError, match="payload has no such column"):
        IndexSettings(**sql, access="acl", required_filter={"_rag.groups": "staff"})


# With changed_since


@dataclass
class State:
    """A scan state: what the ledger would say."""

    watermark: str | None = None
    stamps: dict[str, str] = field(default_factory=dict)
    following: str = ""

    def set_watermark(self, watermark):
        self.following = watermark

    def must_read(self, keys):
        return any(key not in self.stamps for key in keys)

    def unchanged(self, stamps):
        return {key for key, stamp in stamps.items() if self.stamps.get(key) == stamp}

    def keys_under(self, prefix):
        return []


def night(source, state):
    """Scan as a run does; return the keys that were read and the state of the next scan."""
    source.use_scan_state(state)
    read, stamps, cursor = {}, dict(state.stamps), None
    while True:
        page = source.page(cursor, 40)
        read |= groups(page)
        stamps |= page.stamps
        assert set(page.stamps) == set(groups(page))
        cursor = page.cursor
        if cursor is None:
            return read, State(state.following, stamps)


@pytest.mark.parametrize("access", ["acl", PAIRS])
def test_a_change_of_rights_alone_is_found_whatever_the_time_of_change_says(db, make, access):
    rows = [(n, "text", "2024-01-01 00:00:00", "staff") for n in range(100)]
    db.executemany("INSERT INTO note VALUES (?, ?, ?, ?)", rows)
    db.executemany("INSERT INTO acl VALUES (?, 'staff')", [(n,) for n in range(100)])
    db.execute("UPDATE note SET at = date('now', '-3 days') WHERE id = 99")

    def scan(state):
        return night(make(ChangedSource, access=access, changed_since="at", changed_overlap=0), state)

    def grant(number, *names):
        db.execute("UPDATE note SET acl = ? WHERE id = ?", (",".join(names), number))
        db.execute("DELETE FROM acl WHERE note_id = ?", (number,))
        db.executemany("INSERT INTO acl VALUES (?, ?)", [(number, name) for name in names])

    read, state = scan(State())
    assert len(read) == 100
    for _ in range(2):
        read, state = scan(state)
        assert read.keys() <= {"99"}, "only what is as late as the watermark is read again"
    grant(5, "board")
    grant(6)
    grant(7, "staff", "board")
    read, state = scan(state)
    assert {key: read[key] for key in read if key != "99"} == {"5": ["board"], "6": [], "7": ["board", "staff"]}
    read, state = scan(state)
    assert read.keys() <= {"99"}


def test_many_changes_of_rights_in_a_page_read_it_whole(db, make):
    db.executemany("INSERT INTO note VALUES (?, 'text', '2024-01-01', 'staff')", [(n,) for n in range(700)])
    values = {"access": "acl", "changed_since": "at"}
    source = make(ChangedSource, **values)
    source.use_scan_state(State())
    stamps = source.page(None, 700).stamps
    db.execute("UPDATE note SET acl = 'board' WHERE id < 300")
    again = make(ChangedSource, **values)
    again.use_scan_state(State(State().following or '{"text": "2024-01-01"}', stamps))
    again.read_since('{"text": "2025-01-01"}', lambda keys: False, State(None, stamps).unchanged)
    page = again.page(None, 700)
    assert (len(page.documents), page.unread) == (700, [])
    db.execute("UPDATE note SET acl = 'staff' WHERE id > 4")
    page = again.page(None, 700)
    assert (sorted(page.documents.keys), len(page.unread)) == (["0", "1", "2", "3", "4"], 695)


# PostgreSQL


def test_arrays_and_pairs_of_postgresql(postgres, tmp_path):
    with postgres.database() as name, closing(postgres.connect(name)) as db:
        db.execute("CREATE TYPE team AS ENUM ('staff', 'board')")
        db.execute("CREATE TABLE note (id uuid PRIMARY KEY, body text, acl text[], teams team[], more jsonb)")
        db.execute("CREATE TABLE seen (id uuid, name text)")
        db.execute(
            "INSERT INTO note VALUES (gen_random_uuid(), 'a', '{staff,\"a, b\"}', '{staff,board}', '[\"x\", 7]')"
        )
        db.execute("INSERT INTO note VALUES (gen_random_uuid(), 'b', NULL, NULL, NULL)")
        db.execute("INSERT INTO seen SELECT id, 'pair' FROM note WHERE body = 'a'")
        expected = {"acl": ["a, b", "staff"], "teams": ["board", "staff"], "more": ["7", "x"]}
        expected["SELECT id, name FROM seen"] = ["pair"]
        tables = [{"table": "note"}, {"query": "SELECT * FROM note ORDER BY body"}]
        for access, wanted in expected.items():
            for where in tables:
                index = IndexSettings(name="n", key="id", text="body", access=access, **where)
                with closing(SqlSource(postgres.url(name), index)) as source:
                    source.check()
                    found, texts, cursor = [], [], None
                    while True:
                        page = source.page(cursor, 1)
                        found += groups(page).values()
                        texts += page.documents.texts
                        cursor = page.cursor
                        if cursor is None:
                            break
                    assert dict(zip(texts, found, strict=True)) == {"a": wanted, "b": []}, (access, where)
        index = IndexSettings(name="n", table="note", key="id", text="body", access="SELECT id::text, name FROM seen")
        with closing(SqlSource(postgres.url(name), index)) as source, pytest.raises((SettingsError, SourceError)):
            source.check()


def test_a_change_of_an_array_of_postgresql_is_found_with_changed_since(postgres):
    with postgres.database() as name, closing(postgres.connect(name)) as db:
        db.execute("CREATE TABLE note (id integer PRIMARY KEY, body text, at timestamptz, acl text[])")
        db.execute("INSERT INTO note SELECT n, 'text', '2024-01-01', '{staff}' FROM generate_series(1, 100) n")
        values = {"name": "n", "table": "note", "key": "id", "text": "body", "access": "acl", "changed_since": "at"}

        def scan(state):
            with closing(ChangedSource(postgres.url(name), IndexSettings(**values))) as source:
                return night(source, state)

        _, state = scan(State())
        db.execute("UPDATE note SET at = '2024-01-09' WHERE id = 100")
        _, state = scan(state)
        db.execute("UPDATE note SET acl = '{board,staff}' WHERE id = 7")
        read, _ = scan(state)
        assert {key: read[key] for key in read if key != "100"} == {"7": ["board", "staff"]}
