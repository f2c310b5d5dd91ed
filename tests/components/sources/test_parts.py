"""Documents of several tables, on SQLite, PostgreSQL and MariaDB, and who may see them."""

import re

import pytest
import sqlalchemy as sa

from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.sources.pages import LinkComposer
from rag_index.core.documents.batches import TextLayout
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.documents.groups import groups_in
from rag_index.core.documents.keys import document_id
from rag_index.core.settings.parts import check_link
from rag_index.errors import SettingsError, SourceError
from tests.components.sources.conftest import State, pages, rescan

TABLES = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name VARCHAR(50), region VARCHAR(5));
CREATE TABLE region (code VARCHAR(5) PRIMARY KEY, title VARCHAR(50));
CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject VARCHAR(100), description TEXT, customer_id INTEGER,
    confidential INTEGER, state VARCHAR(10));
CREATE TABLE person (id INTEGER PRIMARY KEY, name VARCHAR(50));
CREATE TABLE remark (id INTEGER PRIMARY KEY, about_type VARCHAR(20), about_id INTEGER, author_id INTEGER, body TEXT,
    internal INTEGER, created_at VARCHAR(20));
CREATE TABLE tag (id INTEGER PRIMARY KEY, name VARCHAR(30));
CREATE TABLE ticket_tag (ticket_id INTEGER, tag_id INTEGER, PRIMARY KEY (ticket_id, tag_id));
INSERT INTO customer VALUES (1, 'Acme', 'n'), (2, 'Bolt', NULL);
INSERT INTO region VALUES ('n', 'North');
INSERT INTO person VALUES (1, 'Kim'), (2, 'Lee');
INSERT INTO ticket VALUES (1, 'Printer', 'It is offline.', 1, 0, 'open'), (2, 'Screen', '', 2, 0, 'open'),
    (3, 'Salaries', 'Nobody may read this.', 1, 1, 'open'), (4, 'Lamp', NULL, NULL, 0, 'closed');
INSERT INTO remark VALUES (10, 'Ticket', 1, 1, 'Second remark', 0, '2026-01-02'),
    (11, 'Ticket', 1, 2, 'First remark', 0, '2026-01-01'), (12, 'Ticket', 1, 2, 'Internal note', 1, '2026-01-03'),
    (13, 'Order', 1, 1, 'About an order', 0, '2026-01-01'), (14, 'Ticket', 2, NULL, 'It is black', 0, NULL),
    (15, 'Ticket', 2, 1, '  ', 0, '2026-01-04'), (16, 'Ticket', 3, 1, 'Hidden too', 0, '2026-01-05');
INSERT INTO tag VALUES (1, 'office'), (2, 'paper'), (3, 'dark');
INSERT INTO ticket_tag VALUES (1, 2), (1, 1), (2, 3)
"""
TICKETS = {
    "name": "tickets",
    "table": "ticket",
    "key": "id",
    "title": "subject",
    "where": "confidential = 0",
    "text": ["subject", "description"],
    "payload": ["state", "customer.name", "region.title"],
    "link": "https://desk.example.org/t/{id}?s={subject}",
    "joins": {
        "customer": {"table": "customer", "on": "customer_id"},
        "region": {"table": "region", "on": {"code": "customer.region"}},
    },
    "parts": [
        {
            "table": "remark",
            "on": "about_id",
            "where": "about_type = 'Ticket' AND internal = 0",
            "key": "id",
            "order_by": "created_at",
            "text": "body",
            "payload": ["author.name"],
            "link": "/t/{about_id}#{id}",
            "joins": {"author": {"table": "person", "on": "author_id"}},
        },
        {
            "name": "tags",
            "table": "ticket_tag",
            "on": "ticket_id",
            "text": "tag.name",
            "payload": ["tag.name"],
            "inline": True,
            "order_by": "tag.name",
            "joins": {"tag": {"table": "tag", "on": "tag_id"}},
        },
    ],
}
PAIRS = "SELECT note_id, name FROM acl"
CHANGES = [
    ("UPDATE remark SET body = 'Other' WHERE id = 10", True, False),
    ("UPDATE remark SET created_at = '2025-01-01' WHERE id = 10", True, False),
    ("UPDATE person SET name = 'Ann' WHERE id = 1", True, False),
    ("UPDATE customer SET name = 'Acme Ltd' WHERE id = 1", False, True),
    ("UPDATE region SET title = 'South'", False, True),
    ("UPDATE tag SET name = 'ink' WHERE id = 2", True, True),
    ("UPDATE ticket SET subject = 'Plotter' WHERE id = 1", True, True),
    ("UPDATE remark SET body = 'Other' WHERE id IN (12, 13)", False, False),
    ("DELETE FROM ticket_tag WHERE tag_id = 2", True, True),
    ("UPDATE remark SET internal = 1 WHERE id = 10", True, False),
    ("DELETE FROM remark WHERE id = 11", True, False),
]
"""Changes of a document, one after the other: whether each changes the hash of its text, and of its
payload."""
VERSIONS = {
    "name": "notes",
    "table": "note",
    "key": ["patient", "number"],
    "newest": "version",
    "text": "body",
    "where": "state <> 'withdrawn'",
    "parts": [
        {"table": "finding", "on": ["patient_id", "note_no"], "text": "body", "order_by": "line"}
    ],
}
REMARK = {"table": "remark", "on": "about_id", "text": "body"}
MISTAKES = [
    ({"where": "confidental = 0"}, "the query of its documents"),
    ({"where": "1 = 1; DROP TABLE ticket"}, "the query of its documents"),
    ({"joins": {"c": {"table": "custmer", "on": "customer_id"}}}, "table 'custmer' (join c)"),
    ({"joins": {"c": {"table": "customer", "on": "customer"}}}, "table 'ticket'"),
    ({"joins": {"c": {"table": "customer", "on": {"number": "id"}}}}, "table 'customer' (join c)"),
    ({"parts": [{**REMARK, "on": "ticket_id"}]}, "table 'remark' (part remark)"),
    ({"parts": [{**REMARK, "where": "intern = 0"}]}, "the query of part 'remark'"),
]


@pytest.fixture
def desk(database):
    database.run(*filter(str.strip, TABLES.split(";\n")))
    return database


def read(source, rows=1000):
    """Return what each document consists of by its id: title, own text, parts and payload."""
    source.check()
    found = {}
    for page in pages(source, rows):
        assert not page.unreadable, page.unreadable
        assert len(page.documents) <= rows
        found |= documents(page)
    return found


def documents(page):
    found, batch = {}, page.documents
    for number, key in enumerate(batch.keys):
        text, layout = batch.texts[number], batch.layouts[number] if batch.layouts else b""
        divided = TextLayout.decode(layout) if layout else TextLayout("", len(text), [])
        parts = [(part.name, part.id, text[part.start : part.end]) for part in divided.parts]
        found[document_id(key)] = (
            divided.title,
            text[: divided.end],
            parts,
            decode_payload(batch.payloads[number]),
        )
    return found


def hashes(source):
    page = source.page(None, 1000)
    pairs = zip(page.documents.text_hashes, page.documents.payload_hashes, strict=True)
    return dict(zip(map(document_id, page.documents.keys), pairs, strict=True))


def test_a_document_has_columns_of_joined_rows_and_parts_of_other_tables(desk):
    found, batch = read(desk.source(**TICKETS)), desk.source(**TICKETS).page(None, 1).documents
    assert found.keys() == {"1", "2", "4"}  # where
    assert [part.link for part in TextLayout.decode(batch.layouts[0]).parts] == [
        "/t/1#11",
        "/t/1#10",
    ]
    assert TextChunker(100, 10).chunk(batch)[0].contexts == ["Printer"] * 3
    title, own, parts, payload = found["1"]
    assert (title, own) == ("Printer", "It is offline.\n\ntags: office, paper")
    assert parts == [("remark", "11", "First remark"), ("remark", "10", "Second remark")]
    assert payload.pop("_rag") == {
        "title": "Printer",
        "link": "https://desk.example.org/t/1?s=Printer",
    }
    assert payload == {
        "state": "open",
        "customer": {"name": "Acme"},
        "region": {"title": "North"},
        "tags": {"tag": {"name": ["office", "paper"]}},
    }
    assert found["2"][:3] == ("Screen", "tags: dark", [("remark", "14", "It is black")])
    assert found["4"][:3] == ("Lamp", "Lamp", [])  # a title is text enough
    assert found["4"][3]["customer"] == {"name": None}


@pytest.mark.long
def test_hashes_and_digests_cover_parts_and_joins(desk):
    source, state = desk.source(**TICKETS), State()
    before, _ = hashes(source), rescan(desk, state, rows=2, **TICKETS)
    for change, text, payload in CHANGES:
        desk.run(change)
        after = hashes(source)
        assert (before["1"][0] != after["1"][0], before["1"][1] != after["1"][1]) == (
            text,
            payload,
        ), change
        assert before["4"] == after["4"]
        assert ("1" in rescan(desk, state, rows=2, **TICKETS)) == (text or payload), change
        assert rescan(desk, state, rows=2, **TICKETS) == set()
        before = after


def test_one_query_for_each_table_of_parts_and_page(desk):
    source = desk.source(**TICKETS)
    source.check()
    statements = []
    sa.event.listen(
        source._engine, "before_cursor_execute", lambda *args: statements.append(args[2])
    )
    source.page(None, 1000)
    selects = [
        one for one in statements if one.lstrip().startswith("SELECT") and "set_config" not in one
    ]
    counts = sum("count(*)" in one for one in selects)
    assert (len(selects) - counts, counts) == (
        3,
        0 if desk.kind == "sqlite" else 3,
    ), "a server may cut results off"
    assert not re.search(r"group_concat|string_agg|json_agg", " ".join(selects))


def test_a_page_has_fewer_documents_if_their_parts_are_long(desk, monkeypatch):
    monkeypatch.setattr("rag_index.components.sources.pages.PAGE_CHARS", 30)
    rows = [
        (100 + number, "Ticket", 1 + number % 2, 1, f"remark {number}", 0, "2026")
        for number in range(60)
    ]
    desk.run("INSERT INTO remark VALUES (?, ?, ?, ?, ?, ?, ?)", rows=rows)
    source = desk.source(**TICKETS)
    source.check()
    assert list(documents(source.page(None, 1000))) == ["1"]
    found = read(source)
    assert [len(found[one][2]) for one in ("1", "2", "4")] == [32, 31, 0]
    query = {
        **TICKETS,
        "table": None,
        "where": None,
        "query": "SELECT * FROM ticket WHERE confidential = 0",
    }
    assert read(desk.source(**query)) == found


def test_parts_without_an_order_have_the_same_order_each_time(desk):
    plain = {"table": "remark", "on": "about_id", "text": "body"}
    index = {**TICKETS, "parts": [plain]}
    desk.run("UPDATE remark SET about_id = 1")
    before = hashes(desk.source(**index))
    desk.run("UPDATE remark SET id = 100 - id")
    assert hashes(desk.source(**index)) == before
    last_first = {**plain, "order_by": ["created_at desc", "id"], "key": "id"}
    parts = read(desk.source(**{**TICKETS, "parts": [last_first]}))["1"][2]
    assert [one for _, one, _ in parts] == ["84", "88", "90", "87", "89", "86"]


@pytest.mark.parametrize(
    ("order", "expected"), [("rank", ["a", "b", "none"]), ("rank desc", ["b", "a", "none"])]
)
def test_rows_of_a_part_without_a_value_to_order_by_are_last(database, order, expected):
    database.notes(1).run("CREATE TABLE line (note_id INTEGER, rank INTEGER, body VARCHAR(9))")
    database.run("INSERT INTO line VALUES (1, 1, 'a'), (1, NULL, 'none'), (1, 2, 'b')")
    [page] = pages(
        database.source(
            parts=[{"table": "line", "on": "note_id", "text": "body", "order_by": [order]}]
        )
    )
    assert page.documents.texts == ["\n\n".join(expected)]


def test_of_versions_the_newest_is_the_document_and_keys_may_have_several_columns(database):
    database.run(
        "CREATE TABLE note (patient VARCHAR(5), number INTEGER, version INTEGER, state VARCHAR(20),"
        " body TEXT)",
        "INSERT INTO note VALUES ('a', 1, 1, 'final', 'old'), ('a', 1, 2, 'final', 'new'), ('b', 1,"
        " 1, 'final', 'one'), ('b', 1, 2, 'withdrawn', 'gone'), ('b', 2, NULL, 'final', 'none'),"
        " ('b', 4, 7, 'final', 'four')",
        "CREATE TABLE finding (patient_id VARCHAR(5), note_no INTEGER, line INTEGER, body TEXT)",
        "INSERT INTO finding VALUES ('a', 1, 2, 'y'), ('a', 1, 1, 'x'), ('b', 1, 1, 'z'), ('b',"
        " NULL, 1, 'n')",
    )
    found = read(database.source(**VERSIONS))
    assert {one: own for one, (_, own, _, _) in found.items()} == {
        '["a",1]': "new",
        '["b",4]': "four",
    }
    assert [text for _, _, text in found['["a",1]'][2]] == ["x", "y"]
    assert read(database.source(**VERSIONS), 1) == found


def test_a_document_without_a_title_is_called_by_its_first_text(database):
    database.run(
        "CREATE TABLE conversation (id INTEGER PRIMARY KEY, about VARCHAR(90))",
        """INSERT INTO conversation VALUES (1, '{"browser": "Firefox"}'), (2, NULL)""",
        "CREATE TABLE message (id INTEGER, conversation_id INTEGER, body TEXT)",
        "INSERT INTO message VALUES (1, 1, 'The wheel creaks\n at night'), (2, 1, 'Oil it')",
        f"INSERT INTO message VALUES (3, 3, '{'long ' * 40}')",
        "INSERT INTO conversation VALUES (3, NULL)",
    )
    part = {"table": "message", "on": "conversation_id", "order_by": "id", "text": "body"}
    for own, title in (
        ({}, "The wheel creaks at night"),
        ({"text": ["about"], "format": {"about": "json"}}, "The wheel creaks at night"),
        ({"text": ["about"]}, '{"browser": "Firefox"}'),
        ({"title": "conversation {id}"}, "conversation 1"),
    ):
        index = {"table": "conversation", "parts": [part], **own}
        found = read(database.source(**index))
        assert (found["1"][0], found["1"][3]["_rag"]["title"]) == (title, title)
        assert read(database.source(**index), 1) == found, own
        if "title" not in own:
            assert (found["3"][0], found.get("2", ("",))[0]) == (" ".join(["long"] * 20), ""), own


def test_a_document_for_each_language_shares_parts_and_may_need_a_joined_row(database):
    database.run(
        "CREATE TABLE product (id INTEGER PRIMARY KEY, sku VARCHAR(9), hidden INTEGER)",
        "INSERT INTO product VALUES (1, 'A-1', 0), (2, 'B-2', 1)",
        "CREATE TABLE wording (product_id INTEGER, locale VARCHAR(5), name VARCHAR(30))",
        "INSERT INTO wording VALUES (1, 'de', 'Lampe'), (1, 'en', 'Lamp'), (2, 'de', 'Geheim'), (3,"
        " 'de', 'Waise')",
        "CREATE TABLE review (id INTEGER, product_id INTEGER, stars INTEGER, price DECIMAL(6,2),"
        " body TEXT)",
        "INSERT INTO review VALUES (1, 1, 5, 9.50, 'bright'), (2, 2, 1, 1, 'hidden')",
    )
    index = {
        "name": "products",
        "table": "wording",
        "key": ["product_id", "locale"],
        "title": "{name} ({product.sku})",
        "joins": {
            "product": {
                "table": "product",
                "on": "product_id",
                "where": "hidden = 0",
                "required": True,
            }
        },
        "parts": [
            {
                "table": "review",
                "on": {"product_id": "product_id"},
                "text": "{stars} stars, {price}: {body}",
            }
        ],
    }
    found = read(database.source(**index), 1)
    assert {one: title for one, (title, *_) in found.items()} == {
        '[1,"de"]': "Lampe (A-1)",
        '[1,"en"]': "Lamp (A-1)",
    }
    said = {text for *_, parts, _ in found.values() for _, _, text in parts}
    assert said == {"5 stars, 9.50: bright"} or database.kind == "sqlite"


def test_odd_names_are_quoted_and_text_keys_are_compared_as_the_database_does(database):
    q = "`" if database.kind == "mariadb" else '"'
    name, odd = (lambda text: f"{q}{text}{q}"), "a text, 'quoted' 100% :now"
    database.run(
        f"CREATE TABLE {name('order')} ({name('select')} VARCHAR(9) PRIMARY KEY, {name(odd)} TEXT)",
        f"INSERT INTO {name('order')} VALUES ('x''1', 'first'), ('ä%', 'second')",
        f"CREATE TABLE {name('order line')} ({name('group')} VARCHAR(9), {name('a.b')} TEXT)",
        f"INSERT INTO {name('order line')} VALUES ('x''1', 'part: 50%'), ('ä%', 'other')",
    )
    part = {
        "name": "line",
        "table": "order line",
        "on": "group",
        "text": "a.b",
        "where": f"{name('a.b')} <> ':x'",
    }
    where = f"{name(odd)} LIKE '%s%'"
    source = database.source(
        name="orders", table="order", key="select", text=odd, where=where, parts=[part]
    )
    found = read(source, 1)
    assert documents(source.documents(["ä%", "X'1", "1"])) == {"ä%": found["ä%"]}
    assert found["x'1"][1:3] == ("first", [("line", "", "part: 50%")])
    assert found["ä%"][1:3] == ("second", [("line", "", "other")])


def test_a_part_that_is_no_text_is_named_and_costs_its_document_nothing_else(database):
    kind = "BYTEA" if database.kind == "postgresql" else "BLOB"
    database.run(
        "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)",
        "INSERT INTO note VALUES (1, 'a'), (2, 'b')",
        f"CREATE TABLE file (id INTEGER PRIMARY KEY, note_id INTEGER, content {kind})",
    )
    database.run(
        "INSERT INTO file VALUES (?, ?, ?)",
        rows=[(7, 1, b"\x89PNG\r\n\x1a\n\x00\x01"), (8, 1, b"read me")],
    )
    part = {"table": "file", "on": "note_id", "key": "id", "text": "content"}
    source = database.source(name="notes", table="note", key="id", text="body", parts=[part])
    assert read(source)["1"][2] == [("file", "8", "read me")]
    first, second = TextChunker(100, 10).chunk(source.page(None, 10).documents)
    assert "part file 7: column 'content'" in first.incomplete
    assert (first.chunks, second.chunks, second.incomplete) == (["a", "read me"], ["b"], "")


def test_a_mistake_is_named_before_anything_is_read(desk):
    for wrong, place in MISTAKES:
        given = {"name": "tickets", "table": "ticket", "key": "id", "text": "subject", **wrong}
        with pytest.raises((SettingsError, SourceError)) as caught:
            desk.source(**given).check()
        assert f"{place} cannot be read: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_column_may_hold_the_address_if_it_is_one_of_the_web():
    for link, values, address in (
        ("{url}", ["https://a.example/b?c=d#e"], "https://a.example/b?c=d#e"),
        ("{url}#{id}", ["http://a.example/", 7], "http://a.example/#7"),
        ("{url}", ["/t/1"], "/t/1"),
        *(
            ("{url}", [url], "")
            for url in ("javascript:x", "//host/a", "/\\host", "/\t/host", "https://", "a b", "")
        ),
        ("/t/{id}", ["/../x"], "/t/%2F..%2Fx"),
    ):
        check_link(link)
        assert LinkComposer(link).compose(values) == address, values
    for leaving in ("javascript:{id}", "//{host}/a", "/\\host/{id}", "/\t/{id}", "https:{id}"):
        with pytest.raises(ValueError, match="should begin with https://, http://, / or a column"):
            check_link(leaving)


@pytest.fixture
def db(sqlite):
    sqlite.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, at TEXT, acl TEXT)")
    return sqlite.run("CREATE TABLE acl (note_id INTEGER, name TEXT)")


def groups(page):
    documents = page.documents
    return {
        key: groups_in(payload)
        for key, payload in zip(documents.keys, documents.payloads, strict=True)
    }


def everything(source, rows=3):
    """Return the groups of all documents, page by page."""
    source.check()
    return {key: found for page in pages(source, rows) for key, found in groups(page).items()}


def test_a_column_gives_groups_and_is_no_payload(db):
    values = ["staff", '["staff", "board"]', None, "", "a;b", "[broken"]
    db.run("INSERT INTO note (id, body, acl) VALUES (?, 'text', ?)", rows=list(enumerate(values)))
    source = db.source(access="acl", access_separator=";", payload=["at"])
    assert everything(source) == {
        "0": ["staff"],
        "1": ["board", "staff"],
        "2": [],
        "3": [],
        "4": ["a", "b"],
        "5": [],
    }
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
    db.run(
        "INSERT INTO acl VALUES (?, ?)", rows=[*[(n, f"g{n % 7}") for n in range(0, 450, 2)], *odd]
    )
    source = db.source(access=pairs)
    found = everything(source, 401)
    assert found["0"] == ["a,b", "g0", "g1"], "a group of a pair is taken as it is"
    assert (found["1"], found["448"]) == ([], ["g0"])
    assert (len(found), groups(source.documents(["448", "1"]))) == (450, {"448": ["g0"], "1": []})


def test_keys_of_several_columns_have_pairs_of_as_many_columns_and_the_group(database):
    database.run(
        "CREATE TABLE part (site VARCHAR(9), number INTEGER, body VARCHAR(9))",
        "CREATE TABLE seen (a VARCHAR(9), b INTEGER, c VARCHAR(9))",
        "INSERT INTO part VALUES ('north', 1, 'x'), ('north', 2, 'y'), ('1', 1, 'z')",
        "INSERT INTO seen VALUES ('north', 1, 'staff'), ('1', 1, 'board')",
    )
    for where in ({"table": "part"}, {"query": "SELECT * FROM part"}):
        source = database.source(key=["site", "number"], access="SELECT a, b, c FROM seen", **where)
        assert everything(source, 2) == {
            '["1",1]': ["board"],
            '["north",1]': ["staff"],
            '["north",2]': [],
        }


def test_what_cannot_be_right_is_refused_before_anything_is_read(db):
    db.run("INSERT INTO note (id, body) VALUES (1, 'text')", "INSERT INTO acl VALUES (1, 'staff')")
    for access, message in (
        ("owner", "table 'note' cannot be read: .*owner"),
        (
            "SELECT note_id FROM acl",
            r"the query of access gives 1 columns \(note_id\); it should give id, group",
        ),
        ("SELECT note_id, name, name AS more FROM acl", "gives 3 columns"),
        (
            "SELECT note_id, name FROM absent",
            "the query of access cannot be read: no such table: absent",
        ),
        (
            "SELECT CAST(note_id AS TEXT), name FROM acl",
            "access gives keys of type str .*but id is int",
        ),
        ("SELECT 1; DELETE FROM note", "the query of access cannot be read"),
    ):
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
    assert ([failure.key for failure in page.unreadable], page.groups) == (["2"], {"2": ["board"]})
    assert groups(page) == {"1": ["staff"]}


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_arrays_and_pairs_of_postgresql(database):
    database.run(
        "CREATE TYPE team AS ENUM ('staff', 'board')",
        "CREATE TABLE note (id uuid PRIMARY KEY, body text, acl text[], teams team[], more jsonb,"
        " at timestamptz)",
        "CREATE TABLE seen (id uuid, name text)",
        "INSERT INTO note VALUES "
        "(gen_random_uuid(), 'a', '{staff,\"a, b\"}', '{staff,board}', '[\"x\", 7]', '2024-01-01')",
        "INSERT INTO note VALUES (gen_random_uuid(), 'b', NULL, NULL, NULL, '2024-01-09')",
        "INSERT INTO seen SELECT id, 'pair' FROM note WHERE body = 'a'",
    )
    expected = {"acl": ["a, b", "staff"], "teams": ["board", "staff"], "more": ["7", "x"]}
    for access, wanted in (expected | {"SELECT id, name FROM seen": ["pair"]}).items():
        for where in ({}, {"query": "SELECT * FROM note ORDER BY body"}):
            found = everything(database.source(access=access, **where), 1)
            assert sorted(found.values()) == [[], wanted], (access, where)
    with pytest.raises((SettingsError, SourceError)):
        database.source(access="SELECT id::text, name FROM seen").check()
