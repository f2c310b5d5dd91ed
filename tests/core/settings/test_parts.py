"""Settings of documents that consist of several tables: what they mean, and what is said of a
mistake."""

import pytest

from rag_index.core.settings import load_settings
from rag_index.core.settings.parts import split_name
from rag_index.errors import SettingsError

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
    'on = "customer_id"\n': ("", "index tickets: joins.customer.on is missing"),
    'on = "about_id"': (
        'on = ["a", "b"]',
        "on names 2 columns, but the key has 1 (id); name one for each",
    ),
    'on = "about_id"\n': (
        "on = 3\n",
        "index tickets: parts[0].on should be a valid string, or should be a valid li",
    ),
    'table = "person"': (
        'tabel = "person"',
        "'tabel' in index tickets: parts[0].joins.author, did you mean 'table'",
    ),
    'format = {description = "html"}': (
        'format = {descr = "html"}',
        "which is no column of the text (subject, descr",
    ),
    "https://desk.example.org/t/{id}": (
        "https://desk.example.org",
        'names no column; write it as "https://…/{id}"',
    ),
    "https://desk.example.org/t/": ("javascript:", "should begin with https://, http://, /"),
    'title = "subject"': ('title = "{subject"', "title '{subject' is not a template"),
    "[indexes.joins.customer]": (
        '[indexes.joins."my customer"]',
        "joins.my customer should match pattern",
    ),
    '{code = "customer.region"}': (
        '{code = "x.a"}\n[indexes.joins.x]\ntable = "o"\non = "o"',
        "'x' does not come bef",
    ),
    "[indexes.joins.region]": (
        "[indexes.joins.remark]",
        "two parts, joins or payload columns are named 'remark'",
    ),
    "[indexes.joins.region]\n": (
        "[indexes.joins.state]\n",
        "payload column 'state' has the name of a join",
    ),
    'table = "ticket"': (
        'query = "SELECT 1"',
        "where belongs to table; with a query, write it inside the query",
    ),
    'text = ["body"]': ("", "index tickets: parts[0].text is missing"),
    'on = "about_id"\nwhere': (
        'on = "about_id"\ninline = true\nlink = "/r/{id}"\nwhere',
        "cannot be used with inline",
    ),
    '"remark.author.name" =': ('"remark.authors" =', "payload has no such column"),
}


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "rag-index.toml").write_text(text, encoding="utf-8")
        return load_settings(tmp_path / "rag-index.toml").indexes[0]

    return load


def test_a_document_of_several_tables_whose_title_may_be_all_its_text(load):
    index = load(TICKETS)
    assert index.shown_columns == ["id", "subject", "description", "state", "customer.name"]
    assert split_name("customer.name", index.joins) == ("customer", "name")
    assert split_name("odd.name", index.joins) == (None, "odd.name")
    assert index.joins["region"].pairs == [("code", "customer.region")]
    part = index.parts[0]
    assert (part.label, part.pairs(["id"]), part.order) == (
        "remark",
        [("about_id", "id")],
        [("created_at", True)],
    )
    assert index.fields == ("state", "customer.name", "remark.author.name", "remark.api_token")
    assert index.secret_columns == ["remark.api_token"]
    index = load(
        TICKETS.replace('text = ["subject", "description"]\nformat = {description = "html"}\n', "")
    )
    assert (index.text_columns, index.title_columns) == ([], ["subject"])


@pytest.mark.parametrize("given", MISTAKES)
def test_a_mistake_is_named(load, given):
    assert given in TICKETS
    wrong, message = MISTAKES[given]
    with pytest.raises(SettingsError) as caught:
        load(TICKETS.replace(given, wrong, 1))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
