"""Texts that are not valid in the charset of their database, as old applications wrote them. One
costs no more than its document, in whatever column it is, and no message repeats a byte of it."""

import logging
import sqlite3
from contextlib import closing, contextmanager

import pytest

from rag_index.components.sources import digest
from rag_index.components.sources.engine import errors_as_ours, open_read_only
from rag_index.components.sources.undecoded import Undecoded, readable
from rag_index.core.documents.batches import TextLayout
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.documents.keys import document_id
from rag_index.errors import InvalidText, SourceError
from rag_index.first_run.schema.catalog import read_catalog
from tests.components.sources.conftest import SourceDatabase, State, is_current, pages, rescan

NO_TEXT = b"\x81\xff\x02\x03\x04\x05\x06\x07"
"""Bytes that are no text in any charset."""
INVALID = "holds a text that is not valid in the charset of its database: correct it there"
ENCODINGS = {"SQL_ASCII": b"\xf6", "WIN1252": b"\x81"}
"""Charsets of databases, with a byte that is not valid in UTF-8, or in them."""
BY_QUERY = [{}, {"query": "SELECT * FROM note", "table": None}]


class BytesDesk(SourceDatabase):
    """A database of PostgreSQL in some encoding, into which tests write bytes."""

    def __init__(self, url, server, encoding):
        super().__init__(url)
        self._server, self.encoding = server, encoding

    def write(self, *statements):
        """Run statements of bytes, or of ASCII, without a conversion."""
        return self._run_in(self.encoding, statements)

    def run(self, *statements):
        """Run statements in UTF-8."""
        return self._run_in("UTF8", statements)

    def _run_in(self, encoding, statements):
        with self._server.connect(self.url.database) as connection:
            connection.execute("SELECT set_config('client_encoding', %s, false)", [encoding])
            for statement in statements:
                connection.execute(
                    statement
                    if isinstance(statement, bytes)
                    else statement.encode(connection.info.encoding)
                )
        return self


@contextmanager
def bytes_desk(server, encoding):
    name = f"bytes_{encoding.lower()}"
    with server.connect() as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        )
    try:
        with closing(BytesDesk(server.url(name), server, encoding)) as desk:
            yield desk
    finally:
        with server.connect() as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ascii_desk(postgres):
    """A database in SQL_ASCII."""
    with bytes_desk(postgres, "SQL_ASCII") as desk:
        yield desk


@pytest.fixture(params=ENCODINGS)
def odd_desk(request, postgres):
    """A database whose texts may not be valid in UTF-8; `odd_byte` never is."""
    with bytes_desk(postgres, request.param) as desk:
        desk.odd_byte = ENCODINGS[request.param]
        yield desk


def pages_of(source, rows=100):
    source.check()
    return list(pages(source, rows))


def texts(source, rows=100):
    """Return the texts by id."""
    return {
        document_id(key): text
        for page in pages_of(source, rows)
        for key, text in zip(page.documents.keys, page.documents.texts, strict=True)
    }


def failures(source, rows=100):
    """Return why documents are not indexed, by id."""
    return {
        document_id(one.key): one.reason
        for page in pages_of(source, rows)
        for one in page.unreadable
    }


def payloads_by_id(source):
    found = [page.documents for page in pages_of(source)]
    return {
        document_id(key): decode_payload(payload)
        for documents in found
        for key, payload in zip(documents.keys, documents.payloads, strict=True)
    }


@pytest.mark.parametrize("given", BY_QUERY, ids=["table", "query"])
@pytest.mark.parametrize("rows", [1, 2, 100])
def test_one_text_costs_no_more_than_its_document(odd_desk, given, rows):
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text)",
        "INSERT INTO note SELECT i, 'note ' || i FROM generate_series(1, 5) i",
        b"UPDATE note SET body = 'number " + odd_desk.odd_byte + b"' WHERE id = 2",
        b"UPDATE note SET body = '" + NO_TEXT + b"' WHERE id = 4",
    )
    found = texts(odd_desk.source(**given), rows)
    assert found.keys() == {"1", "2", "3", "5"}
    assert found["2"].startswith("number ")
    assert failures(odd_desk.source(**given), rows) == {"4": f"column 'body' {INVALID}"}


def test_valid_texts_on_the_same_page_are_read_as_ever(odd_desk):
    """A document whose text were another one would be embedded again."""
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text, tags text[], about jsonb, mood text,"
        " price numeric)",
        "INSERT INTO note VALUES (1, 'x', '{}', '{}', '', 1)",
    )
    odd_desk.run(
        "INSERT INTO note VALUES (2, 'Übergröße für 5 €', '{é,\"a,b\",NULL}', '{\"ö\": [1, 2.50]}',"
        " 'ß', 1.50)"
    )
    columns = ["tags", "about", "mood", "price"]
    before = [page.documents for page in pages_of(odd_desk.source(payload=columns))]
    odd_desk.write(b"UPDATE note SET body = '" + odd_desk.odd_byte + b"' WHERE id = 1")
    after = [page.documents for page in pages_of(odd_desk.source(payload=columns))]
    of_two = [
        [(batch.texts[-1], batch.payloads[-1], batch.text_hashes[-1]) for batch in some]
        for some in (before, after)
    ]
    assert of_two[0] == of_two[1]
    assert of_two[0][0][0] == "Übergröße für 5 €"


def test_a_text_with_one_invalid_byte_keeps_the_letters_of_its_database(postgres):
    with bytes_desk(postgres, "WIN1252") as desk:
        desk.write(
            "CREATE TABLE note (id integer PRIMARY KEY, body text)",
            b"INSERT INTO note VALUES (1, 'M\xfcller kaufte \x81 f\xfcnf \xc4pfel')",
        )
        assert texts(desk.source()) == {"1": "Müller kaufte � fünf Äpfel"}


def test_each_kind_of_column_is_decoded_or_named(ascii_desk):
    ascii_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text, title varchar, tags text[], about"
        " jsonb, link text, at text, lang char(9))",
        "INSERT INTO note SELECT i, 'note ' || i, 'title ' || i, '{a,b}', '{\"a\": 1}',"
        " 'https://x.org/' || i, '2026-01-01', 'english' FROM generate_series(1, 13) i",
        b"UPDATE note SET title = 'K\xf6ln' WHERE id = 1",
        b"UPDATE note SET tags = '{b,K\xf6ln}' WHERE id = 2",
        b'UPDATE note SET about = \'{"K\xf6ln": ["\xfcber"]}\' WHERE id = 3',
        b"UPDATE note SET at = '2026-\xf6' WHERE id = 4",
        *[
            f"UPDATE note SET {name} = ".encode() + value + f" WHERE id = {number}".encode()
            for number, name, value in (
                (5, "title", b"'" + NO_TEXT + b"'"),
                (6, "tags", b"ARRAY['a', '" + NO_TEXT + b"']"),
                (8, "link", b"'https://x.org/" + NO_TEXT + b"'"),
                (9, "at", b"'" + NO_TEXT + b"'"),
                (10, "lang", b"'" + NO_TEXT + b"'"),
            )
        ],
    )
    given = {"title": "title", "text": "body", "payload": ["tags", "about", "at"], "link": "{link}"}
    source = ascii_desk.source(
        **given,
        language_column="lang",
        language="english, german",
        payload_indexes={"at": "datetime"},
    )
    payloads, failed = payloads_by_id(source), failures(source)
    assert payloads["1"]["_rag"]["title"] == "Köln"
    assert payloads["2"]["tags"] == ["b", "Köln"]
    assert payloads["3"]["about"] == {"Köln": ["über"]}
    assert payloads["4"]["at"] == "2026-ö"
    columns = {"5": "title", "6": "tags", "8": "link", "9": "at", "10": "lang"}
    assert failed == {number: f"column {name!r} {INVALID}" for number, name in columns.items()}
    assert payloads.keys() == {"1", "2", "3", "4", "7", "11", "12", "13"}


def test_a_key_shows_its_bytes_in_hexadecimal_and_pages_go_on_behind_it(odd_desk):
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id text PRIMARY KEY, body text)",
        "INSERT INTO note VALUES ('a', 'first'), ('z', 'last')",
        b"INSERT INTO note VALUES ('k" + odd + b"', 'middle'), ('k" + odd + odd + b"', 'middle')",
    )
    named = [(b"k" + odd).hex(), (b"k" + 2 * odd).hex()]
    reason = f"key column 'id' {INVALID}; the key shows its bytes in hexadecimal"
    for rows in (1, 2, 3, 100):
        assert texts(odd_desk.source(), rows) == {"a": "first", "z": "last"}
        assert failures(odd_desk.source(), rows) == dict.fromkeys(named, reason)
    source = odd_desk.source()
    page = source.documents([named[0], "z"])
    assert [document_id(one.key) for one in page.unreadable] == [named[0]]
    assert page.documents.texts == ["last"]
    assert (source.has(named[1]), source.has("a"), source.has("ab" + named[0])) == (
        True,
        True,
        False,
    )
    shown = [document_id(key) for keys in _all_keys(odd_desk) for key in keys]
    assert sorted(shown) == sorted(["a", "z", *named])


def test_an_id_that_looks_like_bytes_is_looked_up_as_a_text_first(database):
    """Keys that are hashes are frequent, and a database in UTF-8 takes no bytes for a text."""
    database.run("CREATE TABLE note (id VARCHAR(40) PRIMARY KEY, body VARCHAR(20))")
    hashes = ["e9", "d41d8cd98f00b204e9800998ecf8427e"]
    database.run("INSERT INTO note VALUES (?, 'x')", rows=[(one,) for one in hashes])
    source = database.source()
    page = source.documents([*hashes, "ff", "c3a4"])
    assert {document_id(key) for key in page.documents.keys} == {*hashes}
    assert [source.has(one) for one in (*hashes, "ff")] == [True, True, False]


def test_rows_of_a_query_with_an_invalid_key_are_looked_up_among_groups_and_parts(odd_desk):
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id text PRIMARY KEY, body text)",
        b"INSERT INTO note VALUES ('a', 'x'), ('k" + odd + b"', 'y'), ('z', 'z')",
        "CREATE TABLE seen (note_id text, grp text)",
        "INSERT INTO seen SELECT id, 'staff' FROM note",
        "CREATE TABLE remark (note_id text, body text)",
        "INSERT INTO remark SELECT id, 'remark' FROM note",
    )
    given = {
        "query": "SELECT * FROM note",
        "table": None,
        "access": "SELECT note_id, grp FROM seen",
        "text": "body",
        "parts": [{"table": "remark", "on": "note_id", "text": "body"}],
    }
    for rows in (1, 100):
        assert texts(odd_desk.source(**given), rows) == {"a": "x\n\nremark", "z": "z\n\nremark"}
        assert failures(odd_desk.source(**given), rows).keys() == {(b"k" + odd).hex()}


def _all_keys(database):
    """Return the pages of keys that are looked at before anything is deleted."""
    source = database.source()
    pages_of(source, 2)
    source._scanned = source._scanned._replace(rows=-1)  # as if rows had come or gone meanwhile
    return source.keys_now()


def test_a_key_of_several_columns_shows_the_bytes_of_one(ascii_desk):
    ascii_desk.write(
        "CREATE TABLE note (kind text, number integer, body text, PRIMARY KEY (kind, number))",
        b"INSERT INTO note VALUES ('a', 1, 'x'), ('\xf6', 1, 'y'), ('\xf6', 2, 'z'), ('\xfe', 1,"
        b" 'w')",
    )
    for rows in (1, 2, 100):
        source = ascii_desk.source(key=["kind", "number"])
        assert texts(source, rows) == {'["a",1]': "x"}
        assert failures(source, rows).keys() == {'["f6",1]', '["f6",2]', '["fe",1]'}
    assert len(source.documents(['["f6",2]', '["a",1]']).unreadable) == 1


def test_keys_and_texts_of_sqlite_are_read_likewise(sqlite):
    sqlite.run(
        "CREATE TABLE note (id TEXT, body TEXT)",
        "INSERT INTO note VALUES ('a', 'first'), (CAST(x'6bf6' AS TEXT), 'middle'), ('z', 'last')",
        "INSERT INTO note VALUES ('b', CAST(x'81ff020304050607' AS TEXT)), (4, CAST(x'4bf66c6e' AS"
        " TEXT))",
    )
    for rows in (1, 2, 100):
        assert texts(sqlite.source(), rows) == {"a": "first", "z": "last", "4": "Köln"}
        assert failures(sqlite.source(), rows).keys() == {"6bf6", "b"}
    assert sqlite.source().has("6bf6")


@pytest.mark.parametrize("by", ["column", "list", "query"])
def test_nobody_sees_what_an_unreadable_group_may_see(odd_desk, by):
    """What a group looks like may be the name of another group: no group is guessed."""
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text, grp text, grps text[])",
        b"INSERT INTO note VALUES (1, 'x', 'staff', '{staff}'), (2, 'y', 'st"
        + odd
        + b"', '{st"
        + odd
        + b"}'), (3, '"
        + NO_TEXT
        + b"', 'staff', '{staff}'), (4, '"
        + NO_TEXT
        + b"', '"
        + odd
        + b"', '{"
        + odd
        + b"}')",
        "CREATE TABLE seen (note_id integer, grp text)",
        "INSERT INTO seen SELECT id, grp FROM note",
    )
    access = {"column": "grp", "list": "grps", "query": "SELECT note_id, grp FROM seen"}[by]
    [page] = pages_of(odd_desk.source(access=access))
    groups = [decode_payload(one)["_rag"]["groups"] for one in page.documents.payloads]
    assert dict(zip(map(document_id, page.documents.keys), groups, strict=True)) == {
        "1": ["staff"],
        "2": [],
    }
    unreadable = {document_id(key): list(some) for key, some in page.groups.items()}
    assert unreadable == {
        "3": ["staff"],
        "4": [],
    }, "an earlier state of a document gets the groups that are read"


def test_a_document_lacks_a_part_that_cannot_be_read(odd_desk):
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text, code text)",
        b"INSERT INTO note VALUES (1, 'one', 'c1'), (2, 'two', 'c2'), (3, 'three', '"
        + odd
        + b"'), (4, 'four', NULL)",
        "CREATE TABLE remark (id integer PRIMARY KEY, code text, body text, author text)",
        "INSERT INTO remark VALUES (1, 'c1', 'good', 'ann'), (2, 'c2', 'fine', 'bob'), (5, 'c2',"
        " 'late', 'ann')",
        b"INSERT INTO remark VALUES (3, 'c1', '"
        + NO_TEXT
        + b"', 'ann'), (4, '"
        + odd
        + b"', 'lost', 'ann')",
        b"UPDATE remark SET author = '" + NO_TEXT + b"' WHERE id = 5",
    )
    part = {
        "table": "remark",
        "on": {"code": "code"},
        "key": "id",
        "text": "body",
        "payload": ["author"],
    }
    [page] = pages_of(odd_desk.source(parts=[part], text="body"))
    documents = page.documents
    lacks = [TextLayout.decode(one).lacks if one else "" for one in documents.layouts]
    assert documents.texts == ["one\n\ngood", "two\n\nfine", "three", "four"]
    assert lacks == [
        f"part remark 3: column 'body' {INVALID}",
        f"part remark 5: column 'author' {INVALID}",
        f"part remark: column 'code' {INVALID}",
        "",
    ]


def test_a_part_is_decoded_as_a_document_is(ascii_desk):
    ascii_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text)",
        "INSERT INTO note VALUES (1, 'one')",
        "CREATE TABLE remark (note_id integer, body text)",
        b"INSERT INTO remark VALUES (1, 'K\xf6ln')",
    )
    for inline in (True, False):
        part = {"table": "remark", "on": "note_id", "text": "body", "inline": inline}
        assert "Köln" in texts(ascii_desk.source(parts=[part], text="body"))["1"]


@pytest.mark.parametrize("given", BY_QUERY, ids=["table", "query"])
def test_digests_leave_the_other_rows_unread(odd_desk, given):
    """A text of each kind is hashed by its bytes, whatever the connection makes of them."""
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id text PRIMARY KEY, body text, tags text[])",
        "INSERT INTO note SELECT 'k' || i, 'note ' || i, ARRAY['a', 'b'] FROM generate_series(1,"
        " 300) i",
    )
    odd_desk.run("UPDATE note SET body = 'größer', tags = '{ä}' WHERE id IN ('k1', 'k5')")
    odd_desk.write(b"UPDATE note SET body = 'x" + odd + b"' WHERE id = 'k7'")
    state = State()
    rescan(odd_desk, state, payload=["tags"], **given)
    assert not rescan(odd_desk, state, payload=["tags"], **given), "nothing changed"
    odd_desk.write(b"UPDATE note SET tags = '{" + odd + b"}' WHERE id = 'k8'")
    assert "k8" in rescan(odd_desk, state, payload=["tags"], **given)
    odd_desk.write(
        b"INSERT INTO note VALUES ('n" + odd + b"', 'x', '{}')",
        b"UPDATE note SET body = 'y' WHERE id = 'k7'",
    )
    changed = rescan(odd_desk, state, payload=["tags"], **given)
    assert {"k7", (b"n" + odd).hex()} <= changed
    assert len(changed) < 100
    assert is_current(state, odd_desk, payload=["tags"], **given)
    assert not rescan(odd_desk, state, payload=["tags"], **given)


def test_digests_leave_rows_unread_that_are_all_invalid(odd_desk):
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text)",
        b"INSERT INTO note SELECT i, 'K" + odd + b"ln' FROM generate_series(1, 300) i",
        "CREATE TABLE remark (note_id integer, body text)",
        b"INSERT INTO remark SELECT i, 'K" + odd + b"ln' FROM generate_series(1, 300) i",
    )
    given = {"text": "body", "parts": [{"table": "remark", "on": "note_id", "text": "body"}]}
    state = State()
    rescan(odd_desk, state, **given)
    assert not rescan(odd_desk, state, **given)


def test_digests_of_parts_and_groups_find_a_change_of_an_invalid_text(odd_desk):
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text)",
        "INSERT INTO note SELECT i, 'note ' || i FROM generate_series(1, 300) i",
        "CREATE TABLE remark (note_id integer, body text)",
        "INSERT INTO remark SELECT i, 'remark ' || i FROM generate_series(1, 300) i",
        "CREATE TABLE seen (note_id integer, grp text)",
        "INSERT INTO seen SELECT i, 'staff' FROM generate_series(1, 300) i",
        b"UPDATE remark SET body = 'x" + odd + b"' WHERE note_id = 7",
        b"UPDATE seen SET grp = 'x" + odd + b"' WHERE note_id = 9",
    )
    given = {
        "parts": [{"table": "remark", "on": "note_id", "text": "body"}],
        "text": "body",
        "access": "SELECT note_id, grp FROM seen",
    }
    state = State()
    rescan(odd_desk, state, **given)
    assert not rescan(odd_desk, state, **given)
    odd_desk.write("UPDATE remark SET body = 'mended' WHERE note_id = 7")
    assert "7" in rescan(odd_desk, state, **given)
    odd_desk.write("UPDATE seen SET grp = 'staff' WHERE note_id = 9")
    assert "9" in rescan(odd_desk, state, **given)
    assert is_current(state, odd_desk, **given)


def test_digests_of_sqlite_find_rows_beside_invalid_keys(sqlite):
    sqlite.run("CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT)")
    sqlite.run("INSERT INTO note VALUES (?, ?)", rows=[(f"k{i}", f"note {i}") for i in range(300)])
    state = State()
    rescan(sqlite, state)
    sqlite.run("INSERT INTO note VALUES (CAST(x'6bf6' AS TEXT), 'x')")
    assert "6bf6" in rescan(sqlite, state)
    assert not rescan(sqlite, state)
    sqlite.run("UPDATE note SET body = CAST(x'4bf66c6e' AS TEXT) WHERE id = 'k5'")
    read = rescan(sqlite, state)
    assert "k5" in read
    assert len(read) < 100
    assert is_current(state, sqlite)


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_digests_of_sqlite_know_keys_in_each_encoding(sqlite, encoding):
    with closing(sqlite3.connect(sqlite.url.database)) as connection:
        connection.execute(f"PRAGMA encoding = '{encoding}'")
        connection.execute("CREATE TABLE note (id TEXT PRIMARY KEY, body TEXT)")
        connection.executemany(
            "INSERT INTO note VALUES (?, 'x')", [(f"ключ {i}",) for i in range(300)]
        )
        connection.commit()
    state = State()
    rescan(sqlite, state)
    sqlite.run("UPDATE note SET body = 'y' WHERE id = 'ключ 5'")
    read = rescan(sqlite, state)
    assert "ключ 5" in read
    assert len(read) < 100
    assert is_current(state, sqlite)


def test_a_database_in_utf_8_that_holds_other_bytes_is_read_too(postgres):
    """A cast without a function lets bytes in that nobody checked, as a fault of the disk or an old
    version did."""
    with bytes_desk(postgres, "UTF8") as desk:
        desk.write(
            "CREATE CAST (bytea AS text) WITHOUT FUNCTION",
            "CREATE TABLE note (id text PRIMARY KEY, body text, about json)",
            r"INSERT INTO note VALUES ('a', 'über', '{}'), ('b', CAST('\x4bf66c6e'::bytea AS text),"
            r" '{}')",
            r"INSERT INTO note VALUES (CAST('\x4bf6'::bytea AS text), 'x', '{}')",
            r"INSERT INTO note VALUES ('d', CAST('\x81ff0203'::bytea AS text), '{}')",
        )
        found = texts(desk.source(payload=["about"]))
        assert found == {"a": "über", "b": "Köln"}
        assert failures(desk.source()).keys() == {"4bf6", "d"}


def test_a_client_encoding_that_lacks_letters_hides_none(postgres):
    with bytes_desk(postgres, "UTF8") as desk:
        desk.write("CREATE TABLE note (id integer PRIMARY KEY, body text, about json)")
        desk.run(
            "INSERT INTO note VALUES (1, 'Über 東京', '{\"a\": \"東\"}'), (2, 'naïve', '{\"a\":"
            ' "ï"}\')'
        )
        source = desk.source(
            url=desk.url.update_query_dict({"client_encoding": "latin1"}), payload=["about"]
        )
        assert texts(source) == {"1": "Über 東京", "2": "naïve"}
        assert payloads_by_id(source) == {"1": {"about": {"a": "東"}}, "2": {"about": {"a": "ï"}}}


def test_a_condition_with_letters_beyond_ascii_holds_for_such_pages_too(odd_desk):
    odd_desk.write("CREATE TABLE note (id integer PRIMARY KEY, body text, place text)")
    odd_desk.run("INSERT INTO note VALUES (1, 'x', 'Köln'), (2, 'y', 'Bonn'), (3, 'z', 'Köln')")
    odd_desk.write(b"UPDATE note SET body = 'x" + odd_desk.odd_byte + b"' WHERE id = 1")
    for given in (
        {"where": "place = 'Köln'"},
        {"query": "SELECT id, body FROM note WHERE place = 'Köln'"},
    ):
        assert texts(odd_desk.source(**given)).keys() | failures(
            odd_desk.source(**given)
        ).keys() == {"1", "3"}
    with pytest.raises(SourceError):
        texts(odd_desk.source(where="place = 'Köln' AND body <> E'\\x00'"))


def test_behind_a_pooler_each_transaction_asks_for_no_conversion(odd_desk, pooled):
    """PgBouncer gives each transaction another session, and a session that another program may use
    next."""
    odd_desk.write("CREATE TABLE note (id text PRIMARY KEY, body text)")
    odd_desk.run("INSERT INTO note SELECT 'ä' || i, 'größer' FROM generate_series(1, 9) i")
    odd_desk.write(b"UPDATE note SET body = '" + NO_TEXT + b"' WHERE id LIKE '%5'")
    url = pooled(odd_desk.url.database)
    for rows in (2, 100):
        source = odd_desk.source(url=url)
        assert texts(source, rows) == {
            f"ä{number}": "größer" for number in range(1, 10) if number != 5
        }
        assert failures(source, rows).keys() == {"ä5"}


def test_mariadb_is_read_in_the_charset_of_the_url(mariadb_desk):
    """Python's cp1252 lacks bytes that MariaDB's latin1 has."""
    mariadb_desk.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50) CHARACTER SET latin1, grp"
        " VARCHAR(20) CHARACTER SET latin1, raw VARBINARY(50), code VARCHAR(10) CHARACTER SET"
        " latin1)",
        "INSERT INTO note VALUES (1, _latin1 x'4bf66c6e', 'staff', x'4bf66c6e', 'a')",
        "INSERT INTO note VALUES (2, _latin1 x'4bf66c6e2081', _latin1 x'7381', x'81ff0203', 'b')",
        "INSERT INTO note VALUES (3, 'plain', 'staff', 'raw', 'c')",
    )
    for charset in ("utf8mb4", "latin1"):
        url = mariadb_desk.url.update_query_dict({"charset": charset})
        found = texts(mariadb_desk.source(url=url))
        assert (found["1"], found["3"]) == ("Köln", "plain")
        assert found["2"].startswith("Köln ")
        raw = mariadb_desk.source(url=url, text="raw", format={"raw": "plain"})
        assert texts(raw) == {"1": "Köln", "3": "raw"}
        assert "raw" in failures(raw)["2"]
    groups = mariadb_desk.source(url=url, access="grp")
    assert payloads_by_id(groups)["2"]["_rag"]["groups"] == []


def test_keys_of_mariadb_show_their_bytes(mariadb_desk):
    mariadb_desk.run(
        "CREATE TABLE note (id VARCHAR(10) CHARACTER SET latin1 COLLATE latin1_bin PRIMARY KEY,"
        " body TEXT)",
        "INSERT INTO note VALUES ('a', 'x'), (_latin1 x'6b81', 'y'), (_latin1 x'6b8d', 'y'), ('z',"
        " 'z')",
    )
    url = mariadb_desk.url.update_query_dict({"charset": "latin1"})
    for rows in (1, 2, 100):
        assert texts(mariadb_desk.source(url=url), rows) == {"a": "x", "z": "z"}
        assert failures(mariadb_desk.source(url=url), rows).keys() == {"6b81", "6b8d"}
    assert mariadb_desk.source(url=url).has("6b81")


def test_digests_of_mariadb_need_no_conversion(mariadb_desk):
    mariadb_desk.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body VARCHAR(50) CHARACTER SET latin1)",
        "INSERT INTO note SELECT seq, CONCAT('note ', seq) FROM seq_1_to_300",
        "UPDATE note SET body = _latin1 x'7881' WHERE id = 7",
    )
    mariadb_desk.url = mariadb_desk.url.update_query_dict({"charset": "latin1"})
    state = State()
    rescan(mariadb_desk, state)
    assert not rescan(mariadb_desk, state)
    mariadb_desk.run("UPDATE note SET body = 'mended' WHERE id = 7")
    assert "7" in rescan(mariadb_desk, state)
    assert is_current(state, mariadb_desk)


def test_init_reads_the_tables_of_such_a_database(odd_desk):
    odd = odd_desk.odd_byte
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text, state text)",
        "INSERT INTO note SELECT i, 'A long story about note ' || i, 'open' FROM generate_series(1,"
        " 20) i",
        b"UPDATE note SET body = 'A long story about K"
        + odd
        + b"ln', state = 'o"
        + odd
        + b"' WHERE id = 2",
    )
    with read_catalog(odd_desk.url) as catalog:
        [table] = catalog.tables
        assert (table.problem, table.rows, table.key) == ("", 20, ["id"])
        assert len(table.columns["body"].given) == 20
        assert catalog.counts(table, table.columns["state"])["open"] == 19


def test_nothing_of_an_invalid_text_is_said(odd_desk, caplog, monkeypatch):
    monkeypatch.setattr(digest, "MIN_ROWS", 0)
    caplog.set_level(logging.DEBUG)
    secret = b"zebra" + odd_desk.odd_byte + b"giraffe"
    odd_desk.write(
        "CREATE TABLE note (id integer PRIMARY KEY, body text, title text)",
        b"INSERT INTO note VALUES (1, '"
        + secret
        + NO_TEXT
        + b"', 'x'), (2, 'x', '"
        + secret
        + b"')",
    )
    said = " ".join(failures(odd_desk.digests(title="title", text="body")).values())
    engine = open_read_only(odd_desk.url)
    with (
        closing(engine.connect()) as connection,
        pytest.raises(InvalidText) as raised,
        errors_as_ours(odd_desk.url, "x"),
    ):
        connection.exec_driver_sql("SELECT body FROM note").fetchall()
    engine.dispose()
    assert raised.value.__cause__ is None
    told = f"{said} {raised.value} {caplog.text} {Undecoded(secret)!r} {Undecoded(secret)}"
    for part in ("zebra", "giraffe", "0xf6", "0x81", "\\xf6", "\\x81", secret.hex()):
        assert part not in told


def test_what_is_no_text_stays_bytes_and_what_is_one_is_decoded():
    assert readable(Undecoded(b"K\xf6ln")) == "Köln"
    assert readable([Undecoded(b"\xf6"), 1, None]) == ["ö", 1, None]
    assert readable(({Undecoded(b"a\xf6"): "b"},)) == ({"aö": "b"},)
    assert isinstance(readable(["a", Undecoded(NO_TEXT)]), Undecoded)
    assert readable("plain") == "plain"
