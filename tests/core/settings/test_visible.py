"""Settings of the values of a column that are shown: what they mean, and what is said of a
mistake."""

import pytest

from rag_index.core.settings import load_settings
from rag_index.core.settings.visible import name_parts, tokens_of
from rag_index.errors import SettingsError

TICKETS = """
[source]
url = "sqlite:///s.db"

[[indexes]]
name = "tickets"
table = "ticket"
key = "id"
text = "description"
where = "customer_id IN (SELECT id FROM customer WHERE $visible(customer.kind))"

[indexes.visible.state]
show = ["open", 3, true]
hide = ["draft", false]

[indexes.visible.deleted_at]
kind = "time"
show = ["empty"]

[indexes.visible."customer.kind"]
show = ["usual"]

[[indexes.parts]]
table = "remark"
on = "ticket_id"
text = "body"
where = "$visible(state)"
"""
MISTAKES = {
    'show = ["usual"]': (
        "show = []",
        "visible.customer.kind: show is empty, so that no row would be shown; name the",
    ),
    'show = ["usual"]\n': (
        'hide = ["secret"]\n',
        "index tickets: visible.customer.kind.show is missing",
    ),
    'hide = ["draft", false]': (
        'hide = ["open"]',
        "value 'open' is in show and in hide; remove it from one of them",
    ),
    "hide = [": ('hide = ["1", ', "value '1' is in show and in hide"),
    'show = ["empty"]': (
        'show = ["never"]',
        "value 'never' is no state of a time; with kind = 'time' use empty, past",
    ),
    'kind = "time"': (
        'kind = "date"',
        "visible.deleted_at.kind should be 'value' or 'time', not 'date'",
    ),
    'show = ["open", 3': (
        "show = [2026-11-30, 3",
        "holds 2026-11-30; write the value as a text, as the database shows",
    ),
    'hide = ["draft"': (
        'hides = ["draft"',
        "unknown key 'hides' in index tickets: visible.state, did you mean 'hide'?",
    ),
    "$visible(customer.kind)": (
        "$visible(customer.sort)",
        "where refers to $visible(customer.sort), which no table",
    ),
    "$visible(state)": (
        "$visible(stat)",
        "parts[0].where refers to $visible(stat), which no table [indexes.visible] d",
    ),
    "[indexes.visible.state]": (
        '[indexes.visible."state."]',
        "visible 'state.' is no name of a column; write column",
    ),
    'table = "ticket"\nkey = "id"\ntext = "description"\nwhere': (
        'kind = "code"\nroot = "."\n#',
        "belongs to kind 'sql'",
    ),
}


@pytest.fixture
def load(tmp_path):
    def load(text):
        (tmp_path / "rag-index.toml").write_text(text, encoding="utf-8")
        return load_settings(tmp_path / "rag-index.toml").indexes[0]

    return load


def test_values_are_texts_and_a_yes_is_that_of_any_database(load):
    visible = load(TICKETS).visible
    assert visible["state"].shown == ("open", "3", "true", "1")
    assert visible["state"].hidden == ("draft", "false", "0")
    assert (visible["deleted_at"].shown, visible["deleted_at"].hidden) == (("empty",), ())


@pytest.mark.parametrize("given", MISTAKES)
def test_a_mistake_is_named(load, given):
    assert given in TICKETS
    wrong, message = MISTAKES[given]
    with pytest.raises(SettingsError) as caught:
        load(TICKETS.replace(given, wrong, 1))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_part_of_a_name_may_have_dots_and_quotes():
    assert name_parts("state") == ["state"]
    assert name_parts('extra."a.b"."say ""no"""') == ["extra", "a.b", 'say "no"']


def test_sql_refers_to_a_name_with_and_without_an_alias():
    sql = (
        'a = 1 AND $visible( state ) AND NOT c."x".$visible(extra."a)b") AND $visible() AND'
        " $visible AND visible(b)"
    )
    assert list(tokens_of(sql)) == [("state", ""), ('extra."a)b"', '"x"')]
