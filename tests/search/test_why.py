"""Why is this document not found? Planted cases of each kind, in three databases, and each is named
right."""

import json
import os
from contextlib import closing

import pytest
import sqlalchemy as sa

from rag_index.components.ledger import Ledger
from rag_index.components.sources.hidden import and_parts
from rag_index.components.stores import open_store
from rag_index.core.documents.keys import point_id
from rag_index.core.settings import load_settings
from rag_index.search import Retriever
from tests.forked_program import run_program
from tests.live.sessions import new_database

TABLES = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name VARCHAR(50), active INTEGER, kind VARCHAR(9));
CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject VARCHAR(50), body VARCHAR(200), remark VARCHAR(200),
  is_public INTEGER, state VARCHAR(9), age INTEGER, customer_id INTEGER, who VARCHAR(9), priority VARCHAR(9));
INSERT INTO customer VALUES (1, 'acme', 1, 'a and b'), (2, 'gone', 0, 'a and b'), (3, 'other', 1, 'c')
"""
SETTINGS = """
project = "why"
[source]
url = "{url}"
[retrieve]
timeout = 60
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
title = "subject"
text = ["body", "customer.name"]
where = "(is_public = 1 AND age BETWEEN 1 AND 99 AND (state = 'open' OR state = 'done'))"
payload = ["priority"]
payload_indexes = {{priority = "keyword"}}
required_filter = {{priority = {{not = "secret"}}}}
access = "who"
[indexes.joins.customer]
table = "customer"
on = "customer_id"
where = "active = 1 AND kind = 'a and b'"
required = true
[[indexes]]
name = "open"
query = "SELECT id, body FROM ticket WHERE state = 'open' AND id < 400"
key = "id"
text = "body"
"""
MANY = 40
ROW = {
    "subject": "",
    "body": "",
    "remark": "",
    "is_public": 1,
    "state": "open",
    "age": 5,
    "customer_id": 1,
    "who": "staff",
    "priority": "low",
}
PLANTED = {
    **{
        n: {"body": f"The printer of room {n} is offline " + "and again " * (n % 7)}
        for n in range(1, MANY)
    },
    100: {"body": "A toner", "is_public": 0},
    101: {"body": "A toner", "state": "spam"},
    102: {"body": "A toner", "age": 100},
    103: {"body": "A toner", "customer_id": 2},
    104: {"body": "A toner", "customer_id": 3},
    105: {"body": "A toner", "customer_id": 77},
    110: {"body": "A thing on my desk is broken", "remark": "it is the cartridge"},
    111: {"body": "Another thing on my desk", "remark": "a zebra"},
    112: {"body": "Salaries of everybody", "who": "boss"},
    113: {"body": "A rocket", "priority": "high"},
    114: {"body": "A rocket of the board", "priority": "secret"},
    115: {"body": "The rocket is on fire", "subject": "one"},
    116: {"body": "The rocket is on fire", "subject": "two"},
    117: {"body": "My automobile fell apart", "subject": "Wreck"},
    119: {"body": "A rocket that the store lost"},
    120: {"body": "A lamp"},
}
FAILED = """INSERT INTO rag_index_failed_documents
(collection_id, key, text_hash, reason, tries, first_at, last_at, kind)
VALUES (:collection, '201', x'00', 'the embedder refuses it', 3, 1.0, 1.0, 'failed')"""
CASES = [
    ("printer offline", "tickets/1", {"limit": 100}, "found", ""),
    ("toner", "tickets/999", {}, "not_in_table", "ticket has no 999"),
    ("toner", "tickets/abc", {}, "not_in_table", "ticket has no abc"),
    ("toner", "open/999", {}, "where", "hidden by query"),
    ("toner", "open/101", {}, "where", "hidden by query"),
    ("toner", "tickets/100", {}, "where", "where: is_public = 1."),
    ("toner", "tickets/101", {}, "where", "where: (state = 'open' OR state = 'done')."),
    ("toner", "tickets/102", {}, "where", "where: age BETWEEN 1 AND 99."),
    ("toner", "tickets/103", {}, "join", "joins.customer: active = 1."),
    ("toner", "tickets/104", {}, "join", "joins.customer: kind = 'a and b'."),
    ("toner", "tickets/105", {}, "join", "customer has no row for it"),
    ("failure", "tickets/201", {}, "failed", "the embedder refuses it"),
    ("zebra crossing", "tickets/200", {}, "not_indexed", "not indexed yet"),
    (
        "unicorn on fire",
        "tickets/120",
        {"limit": 1},
        "not_indexed",
        "has changed since it was indexed",
    ),
    ("rocket", "tickets/119", {}, "not_in_store", "the store does not"),
    ("rocket", "tickets/113", {"filter": {"priority": "low"}}, "filter", "its priority is 'high'"),
    (
        "rocket",
        "tickets/114",
        {},
        "filter",
        "required_filter leaves it out: its priority is 'secret'",
    ),
    ("rocket", "tickets/113", {"indexes": ["open"]}, "filter", "does not ask index tickets"),
    ("salaries", "tickets/112", {"groups": ["staff"]}, "access", "its groups are boss"),
    ("salaries", "tickets/112", {"groups": []}, "access", "its groups are boss"),
    ('"blue rocket"', "tickets/113", {}, "query", "“blue rocket”"),
    ("printer -offline", "tickets/3", {}, "query", "-offline"),
    ("rocket fire", "tickets/116", {"collapse": "text"}, "collapsed", "collapsed into tickets/115"),
    ("broken cartridge", "tickets/111", {"limit": 1}, "rank", "rank "),
    ("cartridge", "tickets/110", {"limit": 1}, "column", "cartridge: this stands in remark"),
    ("zebra on my screen", "tickets/111", {"limit": 1}, "column", "zebra: this stands in remark"),
    ("printer offline", f"tickets/{MANY - 1}", {}, "rank", "with a score of"),
    ("printer is offline again", "tickets/7", {"limit": 3}, "rank", "the last of the first 3 has"),
    ("a rocket that is on fire", "tickets/117", {"limit": 1}, "rank", "at rank"),
]
LONG = [pytest.param(kind, marks=pytest.mark.long) for kind in ("postgresql", "mariadb")]


class Planted:
    """A project over one database, in which documents are not found for a reason each."""

    def __init__(self, url, folder):
        self.config = folder / "rag-index.toml"
        self.config.write_text(
            SETTINGS.format(url=url.render_as_string(hide_password=False)), encoding="utf-8"
        )
        self.engine = sa.create_engine(url)
        self.execute(*TABLES.split(";"))
        self.insert(PLANTED)
        self.run("index-all")
        settings = self.settings
        with closing(open_store(settings.store, wait=30)) as store:
            live = store.aliases()[settings.alias("tickets")]
            store.points(live).delete_points([point_id("tickets", "119", 0)])
        with closing(Ledger(settings.ledger_url)) as ledger:
            ledger._write(sa.text(FAILED).bindparams(collection=ledger.collection(live).id))
        self.execute("UPDATE ticket SET body = 'A unicorn' WHERE id = 120")
        self.insert({200: {"body": "A zebra crossing"}, 201: {"body": "A failure"}})

    @property
    def settings(self):
        return load_settings(self.config)

    def execute(self, *statements, **values):
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement), values)

    def insert(self, rows):
        for number, row in rows.items():
            values = {"id": number, **ROW, **row}
            self.execute(
                f"INSERT INTO ticket VALUES ({', '.join(f':{name}' for name in values)})", **values
            )

    def run(self, *arguments):
        done = run_program(["--config", str(self.config), *arguments], os.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module", params=["sqlite", *LONG])
def planted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    with new_database(request.param, request, folder, "why") as url:
        made = Planted(url, folder)
        with Retriever.from_settings(made.settings) as retriever:
            made.retriever = retriever
            yield made
        made.engine.dispose()


def test_each_reason_is_named_with_its_remedy_and_a_rank_with_the_threshold_and_the_words(planted):
    """The issue asks for 38 of 40; all of these are named."""
    wrong = []
    for query, document, options, reason, said in CASES:
        found = planted.retriever.why_sync(query, document, all_groups=True, **options)
        if found.reason != reason or said not in found.message:
            wrong.append((query, document, options, found))
        assert found.remedy or found.reason == "found"
    assert not wrong
    found = planted.retriever.why_sync(
        "the car of the printer", "tickets/117", all_groups=True, limit=1
    )
    assert found.rank > 1
    assert found.score < found.threshold
    assert (found.matched, found.missing) == ((), ("car", "printer"))
    assert found.alike["car"] == "automobile"
    assert "automobile stands there for car" in found.remedy
    typed = planted.retriever.why_sync(
        "automobille printer", "tickets/117", all_groups=True, limit=1
    )
    assert typed.reason == "found" or typed.alike["automobille"] == "automobile"


def test_nobody_learns_of_a_document_that_he_may_not_see(planted):
    """Whatever the reason is, the answer is the same as for one that never was."""
    said = set()
    for document in (
        "tickets/112",
        "tickets/100",
        "tickets/119",
        "tickets/200",
        "tickets/114",
        "tickets/4444",
    ):
        found = planted.retriever.why_sync("salaries", document, groups=["staff"])
        said.add(
            (found.reason, found.message, found.remedy, found.rank, found.matched, found.missing)
        )
    assert [one[0] for one in said] == ["unknown"]
    own = planted.retriever.why_sync("zebra", "tickets/111", groups=["staff"], limit=1)
    assert (own.reason, own.missing) == (
        "rank",
        ("zebra",),
    ), "what he may see, without the columns of its row"


def test_the_command_says_it(planted):
    lines = planted.run("search", "toner", "--why", "tickets/102", "--all-groups").splitlines()
    assert lines[0] == "The row is there, but hidden by where: age BETWEEN 1 AND 99."
    for rights, reason in (("--all-groups", "access"), ("--group=other", "unknown")):
        said = planted.run(
            "search", "salaries", "--why", "tickets/112", rights, "--group", "staff", "--json"
        )
        assert json.loads(said)["reason"] == reason


def test_a_condition_is_taken_apart_where_and_joins_it():
    for condition, parts in (
        ("a = 1", ["a = 1"]),
        ("a = 1 AND b = 2", ["a = 1", "b = 2"]),
        ("a BETWEEN 1 AND 2 and b", ["a BETWEEN 1 AND 2", "b"]),
        ("((a AND b))", ["a", "b"]),
        ("(a) + (b) = 3", ["(a) + (b) = 3"]),
        ("a OR b AND c", ["a OR b AND c"]),
        ("(a OR b) AND c", ["(a OR b)", "c"]),
        ("t = 'x AND ''y' AND \"b AND c\" = 1", ["t = 'x AND ''y'", '"b AND c" = 1']),
        (
            "CASE WHEN a AND b THEN 1 ELSE 0 END = 1 AND c",
            ["CASE WHEN a AND b THEN 1 ELSE 0 END = 1", "c"],
        ),
        (
            "a IN (1, 2) AND NOT EXISTS (SELECT 1 FROM x WHERE y AND z)",
            ["a IN (1, 2)", "NOT EXISTS (SELECT 1 FROM x WHERE y AND z)"],
        ),
        ("a /* and */ AND b -- and c", ["a /* and */", "b -- and c"]),
    ):
        assert and_parts(condition) == parts
