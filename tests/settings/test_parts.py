"""Settings of documents that consist of several tables: what they mean, and what is said of a mistake."""

from __future__ import annotations

import pytest

from rag_index.errors import SettingsError
from rag_index.settings import load_settings
from rag_index.settings.parts import split_name

TICKETS = """
[source]
url = "sqlite:///s.db"

[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
title = "subject"
link = "https://desk.example.org/t/{id}"
text = ["subject", "description"]
format = {description = "html"}
payload = ["state", "customer.name"]
payload_indexes = {"customer.name" = "keyword", "remark.author.name" = "keyword"}
where = "confidential = 0"

[indexes.joins.customer]
table = "customer"
on = "customer_id"

[indexes.joins.region]
table = "region"
on = {code = "customer.region"}

[[indexes.parts]]
table = "remark"
on = "about_id"
where = "about_type = 'Ticket' AND internal = 0"
order_by = "created_at desc"
text = ["body"]
payload = ["author.name", "api_token"]

[indexes.parts.joins.author]
table = "person"
on = "author_id"
"""
MISTAKES = {
    'on = "customer_id"\n': ("", "[indexes.joins.customer]: on is missing"),
    'on = "about_id"': ('on = ["a", "b"]', "on names 2 columns, but the key has 1 (id); name one for each"),
    'on = "about_id"\n': (
        "on = 3\n",
        'parts, entry 1: on should be the name of a column, or a table such as {user_id = "',
    ),
    'table = "person"': (
        'tabel = "person"',
        "unknown key 'tabel' in index tickets, parts, entry 1, join author, did you",
    ),
    'order_by = "created_at desc"': (
        "order_by = 4",
        "order_by should be the name of a column, or a list of names, not 4",
    ),
    'format = {description = "html"}': (
        'format = {descr = "html"}',
        "which is no column of the text (subject, descript",
    ),
    '{description = "html"}': (
        '{description = "htm"}',
        "should be 'plain', 'html', 'markdown', 'bbcode', 'json' or 'auto'",
    ),
    "https://desk.example.org/t/{id}": ("https://desk.example.org", 'names no column; write it as "https://…/{id}"'),
    'title = "subject"': ('title = "{subject"', "title '{subject' is not a template"),
    'where = "confidential = 0"': ('newest_among = "a"', "set newest, or use where"),
    "[indexes.joins.customer]": (
        '[indexes.joins."my customer"]',
        "'my customer' should contain only letters, digits and _",
    ),
    '{code = "customer.region"}\n': (
        '{code = "other.region"}\n[indexes.joins.other]\ntable = "o"\non = "o"\n',
        "'other' does n",
    ),
    "[indexes.joins.region]": ("[indexes.joins.remark]", "two parts, joins or payload columns are named 'remark'"),
    'table = "ticket"': (
        'query = "SELECT 1"',
        "where belongs to table; with a query, write the condition inside the query",
    ),
    'text = ["body"]': ("", "text is missing: a part has table, on"),
    '"remark.author.name" =': ('"remark.authors" =', "payload has no such column"),
}


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "rag-index.toml").write_text(text, encoding="utf-8")
        return load_settings(tmp_path / "rag-index.toml").indexes[0]

    return load


def test_a_document_of_several_tables(load):
    index = load(TICKETS)
    assert index.shown_columns == ["id", "subject", "description", "state", "customer.name"]
    assert split_name("customer.name", index.joins) == ("customer", "name")
    assert split_name("odd.name", index.joins) == (None, "odd.name")
    assert index.joins["region"].pairs == [("code", "customer.region")]
    part = index.parts[0]
    assert (part.label, part.pairs(["id"]), part.order) == ("remark", [("about_id", "id")], [("created_at", True)])
    assert index.fields == ("state", "customer.name", "remark.author.name", "remark.api_token")
    assert index.secret_columns == ["remark.api_token"]


def test_a_title_may_be_all_the_text_of_a_document(load):
    index = load(TICKETS.replace('text = ["subject", "description"]\nformat = {description = "html"}\n', ""))
    assert (index.text_columns, index.title_columns) == ([], ["subject"])


@pytest.mark.parametrize("given", MISTAKES)
def test_a_mistake_is_named(load, given):
    assert given in TICKETS
    wrong, message = MISTAKES[given]
    with pytest.raises(SettingsError) as caught:
        load(TICKETS.replace(given, wrong, 1))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
