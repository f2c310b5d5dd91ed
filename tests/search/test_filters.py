"""Filters as people write them."""

from datetime import UTC, date, datetime

import pytest

from rag_index.components.stores.protocol import Condition
from rag_index.core.settings import IndexSettings
from rag_index.errors import SettingsError
from rag_index.search.filters import check_fields, conditions_of

DAY = date(2024, 1, 1)
NOW = datetime(2024, 1, 2, tzinfo=UTC)


def index(name="comments", payload=("priority", "created_at"), **more) -> IndexSettings:
    return IndexSettings(name=name, table="t", key="id", text="body", payload=list(payload), **more)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, []),
        ({"a": "x"}, [("a", "eq", "x")]),
        ({"a": None}, [("a", "eq", None)]),
        ({"a": ["x", 1]}, [("a", "any", ["x", 1])]),
        ({"a": {"gte": 1, "lt": 2}}, [("a", "range", {"gte": 1, "lt": 2})]),
        ({"a": {"gt": "2024-01-01", "lte": DAY}}, [("a", "range", {"gt": "2024-01-01", "lte": DAY})]),
        ({"a": {"exists": True}}, [("a", "exists", None)]),
        ({"a": {"exists": False}}, [("a", "eq", None)]),
        ({"a": {"not": ["x", "y"]}}, [("a", "not", ["x", "y"])]),
        ({"a": {"gte": 1, "not": 5, "any": [1]}}, [("a", "range", {"gte": 1}), ("a", "any", [1]), ("a", "not", 5)]),
        ({"a": {"eq": 5}, "b.c": 1}, [("a", "eq", 5), ("b.c", "eq", 1)]),
        ([Condition("a", "eq", 1)], [("a", "eq", 1)]),
        ("a=x", [("a", "any", ["x"])]),
        (["a>=1", Condition("b", "eq", 2), "!c"], [("a", "range", {"gte": 1}), ("b", "eq", 2), ("c", "eq", None)]),
    ],
)  # fmt: skip
def test_filters_of_python_and_settings(given, expected):
    assert [(c.field, c.op, c.value) for c in conditions_of(given)] == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": {}}, "an empty table. is not known; use gte, gt, lte, lt, eq, any, not, exists"),
        ({"a": {"like": "x"}}, "filter on a: 'like' is not known; use gte"),
        ({"a": {"exists": 1}}, "exists is true or false, not 1"),
        ({"a": {"gte": "yesterday"}}, "neither a number nor an ISO time"),
        ({"a": {"gte": 1, "lt": "2024-01-01"}}, "all numbers or all ISO times"),
        ({"a": {"any": "x"}}, "needs a list"),
        ({"a": {"eq": {"b": 1}}}, "cannot search for {'b': 1}, a dict"),
        ({"a": float("nan")}, "not a number to compare with"),
        ({"": 1}, "no condition can be put on"),
        ({"a": 2**70}, "has more than 64 bits"),
        ([Condition("a", "like", 1)], "op 'like'"),
        ([Condition("a", "range", {})], "a range is a dict with some of gte"),
        ("=x", "filter '=x' is not known; write it as field=value"),
        (5, "a filter cannot be 5: give a table such as"),
    ],
)
def test_filters_that_are_not_valid(given, message):
    with pytest.raises(SettingsError, match=message):
        conditions_of(given)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=x", [("any", ["x"])]),
        ("a=x,y, z", [("any", ["x", "y", "z"])]),
        ("a=", [("any", [""])]),
        ("a=-1.5", [("any", ["-1.5", -1.5])]),
        ("a=007", [("any", ["007", 7])]),
        ("a=false,1", [("any", ["false", False, "1", 1])]),
        ("a=" + "9" * 30, [("any", ["9" * 30, float("9" * 30)])]),
        (f"a={-(2**63)}", [("any", [str(-(2**63)), -(2**63)])]),
        ("a!=x,1", [("not", ["x", "1", 1])]),
        ("a>=3", [("range", {"gte": 3})]),
        ("a<=2024-01-01", [("range", {"lte": "2024-01-01"})]),
        ("a", [("exists", None)]),
        ("!a", [("eq", None)]),
    ],
)
def test_filters_of_the_command_line(text, expected):
    assert [(c.field, c.op, c.value) for c in conditions_of([text])] == [("a", *rest) for rest in expected]


@pytest.mark.parametrize(
    "given",
    [{"a": list(range(1001))}, {"a": {"not": ["x"] * 1001}}, ["a!=" + "x," * 1001], [f"f{n}=x" for n in range(31)]],
)
def test_a_filter_has_a_size(given):
    with pytest.raises(SettingsError, match="at most 30 conditions with 1,000 values in all, and this one has"):
        conditions_of(given)
    assert len(conditions_of({"a": list(range(1000))})) == 1


def test_a_field_that_no_index_has_names_those_there_are():
    indexes = [index(), index("titles", ["author"])]
    check_fields(conditions_of({"author": 1, "priority": 2, "priority.level": 3}), indexes)
    with pytest.raises(
        SettingsError, match="no field 'prio' to filter by; the indexes have: author, created_at, priority"
    ):
        check_fields(conditions_of({"prio": 1}), indexes)
    with pytest.raises(SettingsError, match=r"'author' .* index comments has: created_at, priority"):
        check_fields(conditions_of({"author": 1}), [indexes[0]])
    with pytest.raises(SettingsError, match="index titles has none; `payload` in the settings"):
        check_fields(conditions_of({"author": 1}), [index("titles", [])])


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("datetime", ["2024-01-02", {"gte": "2024-01-01"}, NOW, {"exists": True}], [5, [5, "x"], {"gt": 5}]),
        ("integer", [5, "x", True, {"gte": 5}, [1, "x"]], [{"gte": "2024-01-01"}, NOW, {"not": DAY}]),
        ("float", [5, {"lt": 2.5}], [{"gte": "2024-01-01"}]),
        ("keyword", ["x", 5, NOW, {"gte": 5}, {"lt": "2024-01-01"}], []),
    ],
)  # fmt: skip
def test_a_comparison_that_a_payload_index_would_answer_wrongly_is_refused(kind, good, bad):
    indexed = index(payload_indexes={"priority": kind})
    for value in good:
        check_fields(conditions_of({"priority": value}), [indexed])
    for value in bad:
        with pytest.raises(SettingsError, match=f"payload index of kind {kind}: compare it with"):
            check_fields(conditions_of({"priority": value}), [indexed])


def test_required_fields_have_payload_indexes():
    required = {"priority": "a", "created_at": {"gte": "2024-01-01"}}
    one = index(required_filter=required, payload_indexes={"created_at": "datetime"})
    assert one.indexed_fields == {"priority": "keyword", "created_at": "datetime"}
    for value, indexed in (([1, 2], {"priority": "float"}), (True, {"priority": "bool"}), ([1, "a"], {})):
        assert index(required_filter={"priority": value}).indexed_fields == indexed


def test_source_code_has_the_fields_of_its_definitions_and_an_installed_source_any():
    """Neither has a `payload` in the settings."""
    code, own = IndexSettings(name="files", kind="code", root="."), IndexSettings(name="files", kind="mails")
    check_fields(conditions_of(["language=python", "lines"]), [code])
    check_fields(conditions_of({"author": "ann", "tags.level": {"gte": 1}}), [own])
    with pytest.raises(SettingsError, match="index files has: docstring, kind, language"):
        check_fields(conditions_of({"author": "ann"}), [code])


def test_our_own_part_of_a_payload_is_no_field_even_if_nobody_knows_the_fields():
    own = IndexSettings(name="own", kind="own")
    for field in ("_rag", "_rag.groups", "_rag.text_hash"):
        assert own.has_field(field), "a source of your own may have any field"
        with pytest.raises(SettingsError, match="there is no field"):
            check_fields(conditions_of({field: "staff"}), [own])
