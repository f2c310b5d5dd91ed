"""Documents of several tables are followed by their declaration: a change of any of them gives the right documents."""

from contextlib import closing

import pytest

from rag_index.components.sources.sql import SqlSource
from rag_index.core.documents.keys import decode_key, document_id
from rag_index.core.settings import load_settings
from rag_index.watch.changes.rows import plan_tables

TABLES = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name VARCHAR(50), region VARCHAR(5), note VARCHAR(50));
CREATE TABLE region (code VARCHAR(5) PRIMARY KEY, title VARCHAR(50));
CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject VARCHAR(100), customer_id INTEGER, confidential INTEGER,
    seen INTEGER);
CREATE TABLE person (id INTEGER PRIMARY KEY, name VARCHAR(50));
CREATE TABLE remark (id INTEGER PRIMARY KEY, about_type VARCHAR(20), about_id INTEGER, author_id INTEGER,
    body VARCHAR(50), internal INTEGER, votes INTEGER);
CREATE TABLE file (id INTEGER PRIMARY KEY, remark_id INTEGER, name VARCHAR(50));
INSERT INTO region VALUES ('n', 'North'), ('s', 'South');
INSERT INTO customer VALUES (1, 'Acme', 'n', ''), (2, 'Bolt', 's', '');
INSERT INTO person VALUES (1, 'Kim'), (2, 'Lee');
INSERT INTO ticket VALUES (1, 'Printer', 1, 0, 0), (2, 'Screen', 2, 0, 0), (3, 'Salaries', 2, 1, 0);
INSERT INTO remark VALUES (10, 'Ticket', 1, 1, 'one', 0, 0), (11, 'Ticket', 2, 2, 'two', 0, 0),
    (12, 'Order', 1, 2, 'x', 0, 0);
INSERT INTO file VALUES (20, 10, 'a.txt'), (21, 11, 'b.txt')
"""
SETTINGS = """
project = "desk"
[source]
url = {url!r}
changes = "{changes}"
[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
title = "subject"
where = "confidential = 0"
payload = ["customer.name", "region.title"]
[indexes.joins.customer]
table = "customer"
on = "customer_id"
required = true
[indexes.joins.region]
table = "region"
on = {{code = "customer.region"}}
[[indexes.parts]]
table = "remark"
on = "about_id"
where = "about_type = 'Ticket' AND internal = 0"
text = "{{author.name}}: {{body}}"
[indexes.parts.joins.author]
table = "person"
on = "author_id"
[[indexes.parts]]
table = "file"
on = {{"remark.about_id" = "id"}}
text = "name"
[indexes.parts.joins.remark]
table = "remark"
on = "remark_id"
where = "about_type = 'Ticket'"
required = true
"""
CHANGES = {
    "UPDATE ticket SET subject = 'Plotter' WHERE id = 1": {"1"},
    "UPDATE ticket SET confidential = 0 WHERE id = 3": {"3"},
    "UPDATE ticket SET seen = 1": set(),
    "UPDATE customer SET name = 'Other' WHERE id = 2": {"2", "3"},  # 3 is not shown, and then not there
    "UPDATE customer SET note = 'x'": set(),
    "UPDATE region SET title = 'Other' WHERE code = 's'": {"2", "3"},
    "DELETE FROM customer WHERE id = 1": {"1"},
    "UPDATE remark SET body = 'x' WHERE id = 11": {"2"},
    "UPDATE remark SET votes = 9": set(),
    "UPDATE remark SET internal = 1 WHERE id = 10": {"1"},
    "UPDATE remark SET about_id = 2 WHERE id = 10": {"1", "2"},
    "INSERT INTO remark VALUES (13, 'Ticket', 2, 1, 'new', 0, 0)": {"2"},
    "UPDATE file SET name = 'c.txt' WHERE id = 21": {"2"},
    "UPDATE person SET name = 'Ann' WHERE id = 1": {"2"},
    "DELETE FROM file WHERE id = 20": {"2"},
    "DELETE FROM remark WHERE id = 10": {"2"},
    "UPDATE ticket SET id = 9 WHERE id = 1": {"1", "9"},
}
WIKI = """
CREATE TABLE page (id INTEGER PRIMARY KEY, title VARCHAR(50), latest INTEGER);
CREATE TABLE slots (revision INTEGER, content INTEGER, PRIMARY KEY (revision, content));
CREATE TABLE content (id INTEGER PRIMARY KEY, text_id INTEGER);
CREATE TABLE text (id INTEGER PRIMARY KEY, body VARCHAR(50));
CREATE TABLE category (id INTEGER PRIMARY KEY, page_id INTEGER, content_ref VARCHAR(50));
INSERT INTO page VALUES (1, 'Bells', 10), (2, 'Wells', 20);
INSERT INTO slots VALUES (10, 11), (20, 21);
INSERT INTO content VALUES (11, 100), (21, 102);
INSERT INTO text VALUES (100, 'cast'), (102, 'dug');
INSERT INTO category VALUES (5, 1, 'x'), (6, 2, 'x')
"""
WIKI_SETTINGS = """
project = "wiki"
[source]
url = {url!r}
changes = "{changes}"
[[indexes]]
name = "pages"
table = "page"
key = "id"
title = "title"
[[indexes.parts]]
table = "slots"
on = {{revision = "latest"}}
text = "text.body"
[indexes.parts.joins.content]
table = "content"
on = "content"
[indexes.parts.joins.text]
table = "text"
on = "content.text_id"
[[indexes.parts]]
table = "category"
on = {{"page.id" = "id"}}
text = "content_ref"
[indexes.parts.joins.page]
table = "page"
on = "page_id"
"""
WIKI_CHANGES = {
    "INSERT INTO text VALUES (104, 'new')": set(),
    "UPDATE text SET body = 'molten' WHERE id = 100": {"1"},
    "UPDATE content SET text_id = 104 WHERE id = 11": {"1"},
    "UPDATE text SET body = 'other' WHERE id = 100": set(),
    "UPDATE page SET latest = 10 WHERE id = 2": {"2"},
    "DELETE FROM text WHERE id = 104": {"1", "2"},
    "UPDATE category SET content_ref = 'y' WHERE id = 6": {"2"},
    "DELETE FROM category WHERE id = 6": {"2"},
}


@pytest.mark.parametrize(
    ("tables", "settings", "changes"), [(TABLES, SETTINGS, CHANGES), (WIKI, WIKI_SETTINGS, WIKI_CHANGES)],
    ids=["rows that have keys", "rows that are reached over others"],
)  # fmt: skip
def test_each_change_of_any_table_gives_the_documents_that_show_it(followed, tmp_path, tables, settings, changes):
    followed.run(*filter(str.strip, tables.split(";\n")))
    url, path = followed.url.render_as_string(hide_password=False), tmp_path / "rag-index.toml"
    path.write_text(settings.format(url=url, changes=followed.changes))
    loaded = load_settings(path)
    plan = plan_tables(loaded, loaded.indexes)
    assert (plan.notes, plan.unwatched) == ([], {})
    followed.set_up(*plan.tables)
    feed = followed.feed(routes=plan.routes)
    with closing(SqlSource(loaded.source_url, loaded.indexes[0], timeout=60)) as source:
        source.check()
        for change, expected in changes.items():
            followed.run(change)
            received = feed.receive(1000)
            assert not received.overflow
            found = {one.id for one in received.changes if one.column is None}
            for one in received.changes:
                if one.column is not None:
                    found |= set(map(document_id, source.keys_with(one.column, [decode_key(one.id)])))
            feed.acknowledge(received)
            if followed.changes == "queue" or expected:  # the log has all updates
                assert found == expected, change
