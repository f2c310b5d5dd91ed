"""Who may see a row: a column, a query of pairs, and changes of either that no time tells of."""

import pytest

from rag_index.core.documents.groups import groups_in
from rag_index.errors import SettingsError, SourceError
from tests.components.sources.databases import pages

PAIRS = "SELECT note_id, name FROM acl"


@pytest.fixture
def db(sqlite):
    sqlite.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, at TEXT, acl TEXT)")
    return sqlite.run("CREATE TABLE acl (note_id INTEGER, name TEXT)")


def groups(page):
    documents = page.documents
    return {key: groups_in(payload) for key, payload in zip(documents.keys, documents.payloads, strict=True)}


def everything(source, rows=3):
    """Return the groups of all documents, page by page."""
    source.check()
    return {key: found for page in pages(source, rows) for key, found in groups(page).items()}


def test_a_column_gives_groups_and_is_no_payload(db):
    values = ["staff", '["staff", "board"]', None, "", "a;b", "[broken"]
    db.run("INSERT INTO note (id, body, acl) VALUES (?, 'text', ?)", rows=list(enumerate(values)))
    source = db.source(access="acl", access_separator=";", payload=["at"])
    assert everything(source) == {"0": ["staff"], "1": ["board", "staff"], "2": [], "3": [], "4": ["a", "b"], "5": []}
    page = source.page(None, 10)
    assert page.documents.payloads[0] == b'{"_rag":{"groups":["staff"]},"at":null}'
    assert page.documents.texts == ["text"] * 6
    shown = db.source(access="acl", payload=["acl"]).page(None, 1)
    assert shown.documents.payloads[0] == b'{"_rag":{"groups":["staff"]},"acl":"staff"}'
    assert db.source(payload=["acl"]).page(None, 1).documents.payloads == [b'{"acl":"staff"}']


@pytest.mark.parametrize("pairs", [PAIRS, f"  with p as ({PAIRS}) select * from p -- all of them"])
def test_a_query_gives_pairs_of_key_and_group(db, pairs):
    db.run("INSERT INTO note (id, body) VALUES (?, 'text')", rows=[(n,) for n in range(450)])
    odd = [(0, "g1"), (0, "g1"), (0, "a,b"), (0, None), (9999, "g1"), (None, "g1")]
    db.run("INSERT INTO acl VALUES (?, ?)", rows=[*[(n, f"g{n % 7}") for n in range(0, 450, 2)], *odd])
    source = db.source(access=pairs)
    found = everything(source, 401)
    assert found["0"] == ["a,b", "g0", "g1"], "a group of a pair is taken as it is"
    assert found["1"] == []
    assert found["448"] == ["g0"]
    assert len(found) == 450
    assert groups(source.documents(["448", "1"])) == {"448": ["g0"], "1": []}


def test_keys_of_several_columns_have_pairs_of_as_many_columns_and_the_group(database):
    database.run(
        "CREATE TABLE part (site VARCHAR(9), number INTEGER, body VARCHAR(9))",
        "CREATE TABLE seen (a VARCHAR(9), b INTEGER, c VARCHAR(9))",
        "INSERT INTO part VALUES ('north', 1, 'x'), ('north', 2, 'y'), ('1', 1, 'z')",
        "INSERT INTO seen VALUES ('north', 1, 'staff'), ('1', 1, 'board')",
    )
    for where in ({"table": "part"}, {"query": "SELECT * FROM part"}):
        source = database.source(key=["site", "number"], access="SELECT a, b, c FROM seen", **where)
        assert everything(source, 2) == {'["1",1]': ["board"], '["north",1]': ["staff"], '["north",2]': []}


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ("owner", "table 'note' cannot be read: .*owner"),
        ("SELECT note_id FROM acl", r"the query of access gives 1 columns \(note_id\); it should give id, group"),
        ("SELECT note_id, name, name AS more FROM acl", "gives 3 columns"),
        ("SELECT note_id, name FROM absent", "the query of access cannot be read: no such table: absent"),
        ("SELECT CAST(note_id AS TEXT), name FROM acl", "access gives keys of type str .*but id is int"),
        ("SELECT 1; DELETE FROM note", "the query of access cannot be read"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_read(db, access, message):
    db.run("INSERT INTO note (id, body) VALUES (1, 'text')", "INSERT INTO acl VALUES (1, 'staff')")
    with pytest.raises(SettingsError, match=message):
        db.source(access=access).check()


def test_a_number_is_no_text_so_a_document_has_no_groups_of_another(sqlite):
    sqlite.run(
        "CREATE TABLE note (id, body)",
        "CREATE TABLE pairs (id, name)",
        "INSERT INTO note VALUES (7, 'number'), ('7', 'text'), (X'37', 'bytes')",
        "INSERT INTO pairs VALUES (7, 'numbers'), (7.0, 'floats'), ('7', 'texts'), (X'37', 'raw')",
    )
    for rows in (1, 10):  # by one query for each, and by one for all of them
        found = everything(sqlite.source(access="SELECT id, name FROM pairs"), rows)
        assert found == {"7": ["floats", "numbers"], '"7"': ["texts"], '{"bytes":"37"}': ["raw"]}


def test_a_document_that_cannot_be_read_tells_its_groups(db):
    db.run("INSERT INTO note (id, body, acl) VALUES (1, 'text', 'staff'), (2, X'01', 'board')")
    page = db.source(access="acl").page(None, 10)
    assert [failure.key for failure in page.unreadable] == ["2"]
    assert page.groups == {"2": ["board"]}
    assert groups(page) == {"1": ["staff"]}


# PostgreSQL


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_arrays_and_pairs_of_postgresql(database):
    database.run(
        "CREATE TYPE team AS ENUM ('staff', 'board')",
        "CREATE TABLE note (id uuid PRIMARY KEY, body text, acl text[], teams team[], more jsonb, at timestamptz)",
        "CREATE TABLE seen (id uuid, name text)",
        "INSERT INTO note VALUES "
        "(gen_random_uuid(), 'a', '{staff,\"a, b\"}', '{staff,board}', '[\"x\", 7]', '2024-01-01')",
        "INSERT INTO note VALUES (gen_random_uuid(), 'b', NULL, NULL, NULL, '2024-01-09')",
        "INSERT INTO seen SELECT id, 'pair' FROM note WHERE body = 'a'",
    )
    expected = {"acl": ["a, b", "staff"], "teams": ["board", "staff"], "more": ["7", "x"]}
    expected["SELECT id, name FROM seen"] = ["pair"]
    for access, wanted in expected.items():
        for where in ({}, {"query": "SELECT * FROM note ORDER BY body"}):
            found = everything(database.source(access=access, **where), 1)
            assert sorted(found.values()) == [[], wanted], (access, where)
    with pytest.raises((SettingsError, SourceError)):
        database.source(access="SELECT id::text, name FROM seen").check()
