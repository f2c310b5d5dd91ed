"""Rows of several tables, and the documents that show them; on SQLite and PostgreSQL."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing

import pytest

from rag_index.changes.queues import open_queue
from rag_index.changes.rows import ReceivedRows, RowChange
from rag_index.changes.setup import setup_for
from rag_index.changes.watched_tables import plan_tables
from rag_index.errors import SettingsError
from rag_index.settings import load_settings

TICKETS = """\
[[indexes]]
name = "tickets"
query = "SELECT t.id, t.body, t.customer_id, c.name FROM ticket t JOIN customer c ON c.id = t.customer_id"
key = "id"
text = "{name}: {body}"
payload = ["customer_id"]
depends_on = [{table = "ticket", key = "id", column = "id"},
              {table = "customer", key = "id", column = "customer_id"}]
"""
LINES = """\
[[indexes]]
name = "lines"
table = "line"
key = ["ticket_id", "number"]
text = "body"
"""


class Desk:
    """A service desk with three customers and 40 tickets."""

    def __init__(self, folder, server=None) -> None:
        self.folder = folder
        if server is None:
            self.url = f"sqlite:///{folder}/s.db"
            self._db = sqlite3.connect(folder / "s.db", isolation_level=None)
        else:
            self._context = server.database()
            name = self._context.__enter__()
            self.url = server.url(name).render_as_string(hide_password=False)
            self._db = server.connect(name)
        self._server = server
        self.run("CREATE TABLE customer (id integer PRIMARY KEY, name text)")
        self.run("CREATE TABLE ticket (id integer PRIMARY KEY, body text, customer_id integer, at timestamp)")
        self.run("CREATE TABLE line (ticket_id integer, number integer, body text, PRIMARY KEY (ticket_id, number))")
        for number in (1, 2, 3):
            self.run(f"INSERT INTO customer VALUES ({number}, 'customer {number}')")
        for number in range(40):
            self.run(f"INSERT INTO ticket VALUES ({number}, 'the printer is broken', {number % 3 + 1}, NULL)")

    def run(self, statement: str) -> None:
        self._db.execute(statement)

    def close(self) -> None:
        self._db.close()
        if self._server is not None:
            self._context.__exit__(None, None, None)

    def settings(self, indexes: str, sections: str = ""):
        path = self.folder / "rag-index.toml"
        path.write_text(f'project = "desk"\n[source]\nurl = "{self.url}"\nchanges = "queue"\n{sections}\n{indexes}')
        return load_settings(path)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_desk(request, tmp_path):
    made = Desk(tmp_path, request.getfixturevalue("logical_postgres") if request.param == "postgresql" else None)
    with closing(made):
        yield made


@pytest.fixture
def desk(tmp_path):
    with closing(Desk(tmp_path)) as made:
        yield made


def route(settings, table: str, *values: dict):
    """Return what such rows mean: the ids of documents by index; look-ups by index and column; what is overflowed."""
    plan = plan_tables(settings, settings.indexes)
    (watched,) = [one for one in plan.tables if one.name == table]
    rows = [RowChange(watched, tuple(row[name] for name in watched.columns), 1.0) for row in values]
    with closing(open_queue(settings.source_url, plan.tables, "desk", plan.routes)) as feed:
        routed = feed.route(ReceivedRows(rows))
    found: dict[str, set[str]] = {}
    sought: dict[tuple[str, str], set[str]] = {}
    for one in routed.changes:
        if one.column is None:
            found.setdefault(one.index, set()).add(one.id)
        else:
            sought.setdefault((one.index, one.column), set()).add(one.id)
    return found, sought, routed.overflow


def test_a_row_of_the_own_table_is_the_document_of_its_key(desk):
    settings = desk.settings(LINES)
    rows = [{"ticket_id": 3, "number": 1}, {"ticket_id": 3, "number": 2}, {"ticket_id": None, "number": 2}]
    assert route(settings, "line", *rows) == ({"lines": {"[3,1]", "[3,2]"}}, {}, [])


def test_a_row_of_a_joined_table_is_a_look_up_of_the_documents_that_show_it(desk):
    rows = [{"id": 2}, {"id": 99}, {"id": None}, {"id": 2}]
    assert route(desk.settings(TICKETS), "customer", *rows) == ({}, {("tickets", "customer_id"): {"2", "99"}}, [])


def test_a_value_that_cannot_be_looked_up_asks_for_a_full_scan(desk):
    assert route(desk.settings(TICKETS), "customer", {"id": dt.time(10)}) == ({}, {}, ["tickets"])


def test_where_the_column_is_the_key_the_value_is_the_id_even_of_a_deleted_row(desk):
    assert route(desk.settings(TICKETS), "ticket", {"id": 12345}) == ({"tickets": {"12345"}}, {}, [])


def test_a_table_is_watched_once_with_all_that_the_indexes_need(desk):
    own = TICKETS.replace("tickets", "own").split("query")[0] + 'table = "ticket"\nkey = "id"\ntext = "body"\n'
    plan = plan_tables(settings := desk.settings(TICKETS + own), settings.indexes)
    assert [(str(table), table.columns, table.used) for table in plan.tables] == [
        ("customer", ("id",), None),
        ("ticket", ("id",), None),
    ]
    assert route(settings, "ticket", {"id": 5})[0] == {"tickets": {"5"}, "own": {"5"}}
    plan = plan_tables(settings := desk.settings(own), settings.indexes)
    assert [table.used for table in plan.tables] == [frozenset({"id", "body"})]


def test_a_query_without_depends_on_is_not_watched_and_the_reason_says_what_to_do(desk):
    plan = plan_tables(settings := desk.settings(TICKETS.split("depends_on", maxsplit=1)[0]), settings.indexes)
    assert not plan.routes
    assert "list the tables that its query reads in depends_on" in plan.unwatched["tickets"]


def test_a_view_is_watched_by_the_tables_below_it_and_one_that_depends_on_forgets_is_named(any_desk):
    desk = any_desk
    desk.run("CREATE VIEW shown AS SELECT t.id, t.body, t.customer_id FROM ticket t JOIN customer c ON c.id = t.id")
    view = TICKETS.replace("query", "# query").replace('key = "id"\n', 'table = "shown"\nkey = "id"\n', 1)
    view = view.replace("{name}: {body}", "body")
    plan = plan_tables(settings := desk.settings(view), settings.indexes)
    assert ([str(table) for table in plan.tables], plan.notes) == (["customer", "ticket"], [])
    without = desk.settings(view.split("depends_on")[0])
    assert "view shown" in plan_tables(without, without.indexes).unwatched["tickets"]
    only = view.replace(',\n              {table = "customer", key = "id", column = "customer_id"}', "")
    plan = plan_tables(settings := desk.settings(only), settings.indexes)
    assert plan.notes == [
        "index tickets: depends_on does not list customer, which the documents show too: the next run finds that"
    ]


def test_a_partitioned_table_is_all_of_its_partitions(tmp_path, logical_postgres):
    """A plan of PostgreSQL names partitions, and depends_on cannot."""
    with closing(Desk(tmp_path, logical_postgres)) as desk:
        desk.run(
            "CREATE TABLE parted (id integer PRIMARY KEY, body text, customer_id integer) PARTITION BY RANGE (id);"
            "CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id);"
            "CREATE TABLE part_of_part PARTITION OF part FOR VALUES FROM (0) TO (5)"
        )
        own = TICKETS.split("query", maxsplit=1)[0] + 'table = "parted"\nkey = "id"\ntext = "body"\n'
        plan = plan_tables(settings := desk.settings(own), settings.indexes)
        assert ([str(table) for table in plan.tables], plan.notes, plan.blind) == (["parted"], [], {})


@pytest.mark.parametrize(
    ("access", "watched", "unseen"),
    [
        ("SELECT ticket_id, name FROM Acl", {"acl"}, ""),
        ("select distinct a.ticket_id as id, g.name from acl as a join grp g on g.id = a.grp", {"acl"}, "grp"),
        ("SELECT ticket_id, (SELECT g.name FROM grp g WHERE g.id = acl.grp) FROM acl WHERE grp > 1", set(), "acl, grp"),
        ("SELECT ticket_id, name FROM acl UNION SELECT id, name FROM grp", set(), "acl, grp"),
        ("SELECT abs(ticket_id) AS ticket_id, name FROM acl", set(), "acl"),
        ("SELECT ticket_id, acl.name FROM acl, grp WHERE grp.id = grp", set(), "acl, grp"),
        ("SELECT g.id, acl.name FROM acl JOIN grp g ON g.id = acl.grp", set(), "acl, grp"),
        ("WITH p AS (SELECT ticket_id, name FROM acl) SELECT * FROM p", set(), "acl"),
        ("SELECT ticket_id, name FROM shown", set(), "acl"),
        ("SELECT id, (SELECT name FROM grp WHERE id = 1) FROM acl", set(), "acl, grp"),
        ("SELECT ticket_id, name FROM missing", set(), "tables that the database does not name"),
    ],
)
def test_the_table_of_pairs_is_watched_if_the_query_says_which_it_is(desk, access, watched, unseen):
    """A row of it is of the document that it names. A wrong table would look as if nothing changed."""
    desk.run("CREATE TABLE acl (id integer PRIMARY KEY, ticket_id integer, grp integer, name text)")
    desk.run("CREATE TABLE grp (id integer, name text)")
    desk.run("CREATE VIEW shown AS SELECT ticket_id, name FROM acl")
    own = TICKETS.split("query", maxsplit=1)[0] + 'table = "ticket"\nkey = "id"\ntext = "body"\n'
    settings = desk.settings(own + f'access = "{access}"\n')
    plan = plan_tables(settings, settings.indexes)
    assert {str(table) for table in plan.tables} == {"ticket", *watched}
    assert len(plan.notes) == len(plan.blind.get("tickets", [])) == bool(unseen)
    assert f"its query of access reads {unseen}" in "".join(plan.notes) or not unseen
    if watched:
        assert route(settings, "acl", {"ticket_id": 7})[0] == {"tickets": {"7"}}


def test_a_join_column_that_is_not_in_the_payload_is_said(desk):
    settings = desk.settings(TICKETS.replace('payload = ["customer_id"]', ""))
    plan = plan_tables(settings, settings.indexes)
    (note,) = plan.notes
    assert "column 'customer_id' of depends_on is not in payload" in note
    assert plan.blind.keys() == {"tickets"}


@pytest.mark.parametrize(
    ("table", "message"),
    [("custmer", "table 'custmer'"), ("shown", "'shown' is a view"), ("line", "'line' has no column 'id'")],
)
def test_what_depends_on_names_must_exist(desk, table, message):
    desk.run("CREATE VIEW shown AS SELECT id FROM ticket")
    settings = desk.settings(TICKETS.replace('table = "customer"', f'table = "{table}"'))
    with pytest.raises(SettingsError, match=message):
        setup_for(settings.source_url, "queue", plan_tables(settings, settings.indexes).tables, "desk")
