"""Rows of several tables, and the documents that show them; on SQLite and PostgreSQL."""

import datetime as dt
from contextlib import closing

import pytest

from rag_index.core.settings import load_settings
from rag_index.errors import SettingsError
from rag_index.watch.changes.opening import setup_for
from rag_index.watch.changes.queues import open_queue
from rag_index.watch.changes.rows import ReceivedRows, RowChange, plan_tables

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
OWN = TICKETS.split("query", maxsplit=1)[0] + 'table = "ticket"\nkey = "id"\ntext = "body"\n'


@pytest.fixture
def plan(tmp_path):
    """A function that returns the plan for these indexes of a database."""

    def plan(database, indexes):
        path, url = tmp_path / "rag-index.toml", database.url.render_as_string(hide_password=False)
        path.write_text(f'project = "desk"\n[source]\nurl = "{url}"\nchanges = "queue"\n{indexes}')
        settings = load_settings(path)
        return plan_tables(settings, settings.indexes)

    return plan


@pytest.fixture
def desk(sqlite):
    return with_tables(sqlite)


def with_tables(database):
    return database.run(
        "CREATE TABLE customer (id integer PRIMARY KEY, name text)",
        "CREATE TABLE ticket (id integer PRIMARY KEY, body text, customer_id integer)",
        "CREATE TABLE line (ticket_id integer, number integer, body text, PRIMARY KEY (ticket_id, number))",
    )


def route(desk, plan, table: str, *rows: tuple):
    """Return what such rows mean: index, column and id of each change; indexes that are overflowed."""
    (watched,) = [one for one in plan.tables if one.name == table]
    with closing(open_queue(desk.url, plan.tables, "desk", plan.routes)) as feed:
        routed = feed.route(ReceivedRows([RowChange(watched, row, 1.0) for row in rows]))
    return {(one.index, one.column, one.id) for one in routed.changes}, routed.overflow


@pytest.mark.parametrize(
    ("indexes", "table", "rows", "expected"),
    [
        (LINES, "line", [(1, 3), (2, 3), (2, None)], ({("lines", None, "[3,1]"), ("lines", None, "[3,2]")}, [])),
        (TICKETS, "customer", [(2,), (99,), (None,), (2,)],
         ({("tickets", "customer_id", "2"), ("tickets", "customer_id", "99")}, [])),
        (TICKETS, "customer", [(dt.time(10),)], (set(), ["tickets"])),
        (TICKETS, "ticket", [(12345,)], ({("tickets", None, "12345")}, [])),
        (TICKETS + OWN.replace("tickets", "own"), "ticket", [(5,)],
         ({("tickets", None, "5"), ("own", None, "5")}, [])),
    ],
    ids=["its own document", "those that show it", "no key", "the key of a deleted one", "of two indexes"],
)  # fmt: skip
def test_what_a_row_means(desk, plan, indexes, table, rows, expected):
    assert route(desk, plan(desk, indexes), table, *rows) == expected


def test_a_table_is_watched_once_with_all_that_the_indexes_need(desk, plan):
    both = plan(desk, TICKETS + OWN.replace("tickets", "own"))
    assert [(str(table), table.columns, table.used) for table in both.tables] == [
        ("customer", ("id",), None),
        ("ticket", ("id",), None),
    ]
    assert [table.used for table in plan(desk, OWN).tables] == [frozenset({"id", "body"})]


@pytest.mark.parametrize("followed", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_a_view_is_watched_by_the_tables_below_it_and_one_that_depends_on_forgets_is_named(followed, plan):
    desk = with_tables(followed)
    desk.run("CREATE VIEW shown AS SELECT t.id, t.body, t.customer_id FROM ticket t JOIN customer c ON c.id = t.id")
    view = OWN.replace('"ticket"', '"shown"') + 'payload = ["customer_id"]\n'
    ticket, customer = TICKETS[TICKETS.index("depends_on") :].splitlines()
    found = plan(desk, f"{view}{ticket}\n{customer}\n")
    assert ([str(table) for table in found.tables], found.notes) == (["customer", "ticket"], [])
    assert "view shown" in plan(desk, view).unwatched["tickets"]
    assert "".join(plan(desk, f"{view}{ticket}]").notes) == (
        "index tickets: depends_on does not list customer, from which documents or their groups are read: the next run "
        "finds that"
    )
    found = plan(desk, TICKETS.split("depends_on", maxsplit=1)[0])
    assert not found.routes
    assert "list the tables that its query reads in depends_on" in found.unwatched["tickets"]


def test_a_table_is_watched_whatever_signs_a_condition_has(followed, plan):
    desk = with_tables(followed)
    listed = 'depends_on = [{table = "ticket", key = "id", column = "id"}]\n'
    found = plan(desk, f"{OWN}where = \"body LIKE '%wheel%'\"\n{listed}")
    assert ([str(table) for table in found.tables], found.notes, found.blind) == (["ticket"], [], {})
    desk.run("CREATE VIEW shown AS SELECT ticket.* FROM ticket JOIN customer ON customer.id = ticket.id")
    found = plan(desk, OWN.replace('"ticket"', '"shown"') + f"where = \"body LIKE '%wheel%'\"\n{listed}")
    assert [note for note in found.notes if "depends_on does not list customer" in note]


def test_a_partitioned_table_is_all_of_its_partitions(queue, plan):
    """A plan of PostgreSQL names partitions, and depends_on cannot."""
    queue.run(
        "CREATE TABLE parted (id integer PRIMARY KEY, body text) PARTITION BY RANGE (id)",
        "CREATE TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9) PARTITION BY RANGE (id)",
        "CREATE TABLE part_of_part PARTITION OF part FOR VALUES FROM (0) TO (5)",
    )
    found = plan(queue, OWN.replace('"ticket"', '"parted"'))
    assert ([str(table) for table in found.tables], found.notes, found.blind) == (["parted"], [], {})


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
        ("SELECT t.id, g.name FROM ticket t, (SELECT * FROM acl) a, (grp g) WHERE a.grp = g.id", set(), "acl, grp"),
        ("SELECT grp.ticket_id, 'from grp' FROM acl AS grp -- from grp", {"acl"}, ""),
    ],
)
def test_the_table_of_pairs_is_watched_if_the_query_says_which_it_is(desk, plan, access, watched, unseen):
    """A row of it is of the document that it names. A wrong table would look as if nothing changed."""
    desk.run(
        "CREATE TABLE acl (id integer PRIMARY KEY, ticket_id integer, grp integer, name text)",
        "CREATE TABLE grp (id integer, name text)",
        "CREATE VIEW shown AS SELECT ticket_id, name FROM acl",
    )
    found = plan(desk, OWN + f'access = "{access}"\n')
    assert {str(table) for table in found.tables} == {"ticket", *watched}
    assert len(found.notes) == len(found.blind.get("tickets", [])) == bool(unseen)
    assert f"depends_on does not list {unseen}, " in "".join(found.notes) or not unseen
    assert not watched or route(desk, found, "acl", (7,)) == ({("tickets", None, "7")}, [])


def test_a_join_column_that_is_not_in_the_payload_is_said(desk, plan):
    found = plan(desk, TICKETS.replace('payload = ["customer_id"]', ""))
    (note,) = found.notes
    assert "column 'customer_id' of depends_on is not in payload" in note
    assert found.blind.keys() == {"tickets"}


@pytest.mark.parametrize(
    ("table", "message"),
    [("custmer", "table 'custmer'"), ("shown", "'shown' is a view"), ("line", "'line' has no column 'id'")],
)
def test_what_depends_on_names_must_exist(desk, plan, table, message):
    desk.run("CREATE VIEW shown AS SELECT id FROM ticket")
    tables = plan(desk, TICKETS.replace('table = "customer"', f'table = "{table}"')).tables
    with pytest.raises(SettingsError, match=message):
        setup_for(desk.url, "queue", tables, "desk")
