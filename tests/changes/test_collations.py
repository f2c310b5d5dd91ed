"""Keys of collations for which other bytes are the same key: case, accents, spaces at the end."""

from contextlib import closing

import pytest

from rag_index.components.sources.sql import SqlSource
from rag_index.core.settings import load_settings
from rag_index.watch.changes.rows import WatchedTable, plan_tables
from tests.changes.databases import ids

SAME = [("case", "Name"), ("accents", "náme"), ("space", "name  ")]
"""What differs from "name" in its bytes alone, and in what."""
COLLATIONS = {
    "wal": {"case": "ignoring", "accents": "ignoring", "space": "ignoring"},
    "postgresql": {"case": "ignoring", "accents": "ignoring", "space": "ignoring"},
    "mariadb": dict.fromkeys(["case", "accents", "space"], "utf8mb4_general_ci"),
    "sqlite": {"case": "NOCASE", "space": "RTRIM"},
}
SETTINGS = """
project = "desk"
[source]
url = {url!r}
changes = "{changes}"
[[indexes]]
name = "tickets"
table = "ticket"
key = {key}
title = "body"
[[indexes.parts]]
table = "remark"
on = {on}
text = "body"
"""


@pytest.fixture
def same(followed, request):
    """A function that returns the type of a column for which these are the same; a test is done where none is."""
    names = COLLATIONS[request.node.callspec.params["followed"]]
    if followed.dialect == "postgresql":
        options = "provider = icu, locale = 'und-u-ks-level1-ka-shifted', deterministic = false"
        followed.run(f"CREATE COLLATION ignoring ({options})")
    return lambda what: what in names and f"varchar(20) COLLATE {names[what]}"


def changed(followed, feed, *statements):
    followed.run(*statements)
    return ids(feed)


@pytest.mark.parametrize(("what", "other"), SAME)
def test_a_key_that_changes_in_its_bytes_alone_is_two_documents(followed, same, what, other):
    if not (kind := same(what)):
        return  # no collation of this database does so
    plain = "varchar(20)" if followed.dialect != "postgresql" else 'varchar(20) COLLATE "C"'
    followed.run(
        f"CREATE TABLE ticket (id {kind} PRIMARY KEY, body text)",
        f"CREATE TABLE pair (one {plain}, two {kind}, body text, PRIMARY KEY (one, two))",
        "INSERT INTO ticket VALUES ('name', 'x')", "INSERT INTO pair VALUES ('a', 'name', 'x')",
    )  # fmt: skip
    feed = followed.set_up(WatchedTable("pair", None, ("one", "two")), WatchedTable("ticket", None, ("id",)))
    assert changed(followed, feed, f"UPDATE ticket SET id = '{other}' WHERE id = 'name'") == {"name", other}
    assert changed(followed, feed, f"UPDATE ticket SET id = '{other}', body = 'y'") == {other}
    followed.run(f"UPDATE pair SET two = '{other}', body = 'y'")
    received = feed.rows(10)
    assert {change.values for change in received.changes} == {("a", "name"), ("a", other)}


@pytest.mark.parametrize(("what", "other"), SAME)
@pytest.mark.parametrize("keys", [["id"], ["tenant", "id"]])
def test_a_part_whose_key_differs_in_its_bytes_alone_changes_its_document(followed, same, tmp_path, keys, what, other):
    if not (kind := same(what)):
        return  # no collation of this database does so
    own = "tenant integer, " if len(keys) > 1 else ""
    value = "7, " if own else ""
    followed.run(
        f"CREATE TABLE ticket ({own}id {kind}, body varchar(20), PRIMARY KEY ({', '.join(keys)}))",
        f"CREATE TABLE remark ({own}number integer PRIMARY KEY, of_ticket {kind}, body varchar(20))",
        f"INSERT INTO ticket VALUES ({value}'name', 'x')", f"INSERT INTO remark VALUES ({value}1, '{other}', 'first')",
    )  # fmt: skip
    url, path = followed.url.render_as_string(hide_password=False), tmp_path / "rag-index.toml"
    on = '{of_ticket = "id"}' if not own else '{tenant = "tenant", of_ticket = "id"}'
    path.write_text(SETTINGS.format(url=url, changes=followed.changes, key=keys, on=on))
    loaded = load_settings(path)
    plan = plan_tables(loaded, loaded.indexes)
    followed.set_up(*plan.tables)
    feed = followed.feed(routes=plan.routes)
    with closing(SqlSource(loaded.source_url, loaded.indexes[0], timeout=60)) as source:
        source.check()
        assert "first" in source.page(None, 10).documents.texts[0]  # a run takes it for a part of that document
        followed.run("UPDATE remark SET body = 'second'")
        named = [change.id for change in feed.receive(100).changes]
        assert list(source.same_ids(named)) == ["name" if not own else '[7,"name"]']
