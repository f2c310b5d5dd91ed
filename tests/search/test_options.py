"""What a search may be asked: the same options everywhere, filters as people write them, and page
after page."""

import random
from datetime import UTC, date, datetime

import pytest
from click.testing import CliRunner

from rag_index import Retriever
from rag_index.cli import program
from rag_index.cli import search as commands
from rag_index.components.stores.protocol import PayloadCondition
from rag_index.core.documents.groups import access_part
from rag_index.core.settings import IndexSettings
from rag_index.errors import SettingsError
from rag_index.search.filters import check_fields, conditions_of, required_conditions
from rag_index.search.options import SearchOptions
from rag_index.search.pages import FURTHER
from rag_index.search.service.mcp_tools import TOOLS
from rag_index.search.service.models import SearchBody, SearchQuery
from tests.project import WORDS
from tests.search.desk import Desk, found

OPTIONS = SearchOptions.__annotations__.keys()
OF_PYTHON = {"groups"}
"""Over HTTP and for agents the caller's token says them."""
NUMBERS = [
    ("limit", "0", "1001"),
    ("offset", "-1", "1000"),
    ("timeout", "0", "nan"),
    ("dense_weight", "-0.1", "1.1"),
    ("min_relevance", "-1", "2"),
]
DAY = date(2024, 1, 1)
NOW = datetime(2024, 1, 2, tzinfo=UTC)
QUERY = "backup of the mail server"


def test_every_place_has_every_option_with_its_text():
    models = (SearchBody, SearchQuery, TOOLS["search"])
    body, query, tool = (model.model_json_schema()["properties"] for model in models)
    assert body.keys() == query.keys() == {"query", "explain"} | OPTIONS - OF_PYTHON
    assert tool.keys() == body.keys() - {"explain", "timeout", "dense_weight"}
    named = {one.name for one in commands.search.params}
    assert named >= OPTIONS - {
        "groups",
        "filter",
        "rerank",
        "like",
    }, "whose options have other names there"
    shown = " ".join(
        CliRunner().invoke(program, ["search", "--help"], terminal_width=80).output.split()
    )
    for name in OPTIONS - OF_PYTHON - {"filter"}:
        assert body[name]["description"] == query[name]["description"]
        if name in tool.keys() - {"limit"}:
            assert tool[name]["description"] == body[name]["description"]
        if name in named and name != "indexes":
            assert " ".join(body[name]["description"].split()) in shown


@pytest.mark.parametrize(("name", "below", "above"), NUMBERS)
def test_every_place_has_the_same_bounds(name, below, above):
    for value in (below, above):
        for model in (SearchBody, SearchQuery):
            with pytest.raises(ValueError, match=name):
                model.model_validate({"query": "printer", name: value})
        refused = CliRunner().invoke(
            program, ["search", "printer", f"--{name.replace('_', '-')}={value}"]
        )
        assert refused.exit_code == 2
        assert f"--{name.replace('_', '-')}" in refused.output


def index(name="comments", payload=("priority", "created_at"), **more) -> IndexSettings:
    return IndexSettings(name=name, table="t", key="id", text="body", payload=list(payload), **more)


def test_filters_of_python_and_settings():
    for given, expected in (
        (None, []),
        ({"a": "x"}, [("a", "eq", "x")]),
        ({"a": None}, [("a", "eq", None)]),
        ({"a": ["x", 1]}, [("a", "any", ["x", 1])]),
        ({"a": {"gte": 1, "lt": 2}}, [("a", "range", {"gte": 1, "lt": 2})]),
        (
            {"a": {"gt": "2024-01-01", "lte": DAY}},
            [("a", "range", {"gt": "2024-01-01", "lte": DAY})],
        ),
        ({"a": {"exists": True}}, [("a", "exists", None)]),
        ({"a": {"exists": False}}, [("a", "eq", None)]),
        ({"a": {"not": ["x", "y"]}}, [("a", "not", ["x", "y"])]),
        (
            {"a": {"gte": 1, "not": 5, "any": [1]}},
            [("a", "range", {"gte": 1}), ("a", "any", [1]), ("a", "not", 5)],
        ),
        ({"a": {"eq": 5}, "b.c": 1}, [("a", "eq", 5), ("b.c", "eq", 1)]),
        ([PayloadCondition("a", "eq", 1)], [("a", "eq", 1)]),
        ("a=x", [("a", "any", ["x"])]),
        (
            ["a>=1", PayloadCondition("b", "eq", 2), "!c"],
            [("a", "range", {"gte": 1}), ("b", "eq", 2), ("c", "eq", None)],
        ),
    ):
        assert [(c.field, c.op, c.value) for c in conditions_of(given)] == expected


def test_filters_that_are_not_valid():
    for given, message in (
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
        ([PayloadCondition("a", "like", 1)], "op 'like'"),
        ([PayloadCondition("a", "range", {})], "a range is a dict with some of gte"),
        ("=x", "filter '=x' is not known; write it as field=value"),
        (5, "a filter cannot be 5: give a table such as"),
    ):
        with pytest.raises(SettingsError, match=message):
            conditions_of(given)


def test_filters_of_the_command_line():
    for text, expected in (
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
    ):
        assert [(c.field, c.op, c.value) for c in conditions_of([text])] == [
            ("a", *rest) for rest in expected
        ]


@pytest.mark.parametrize(
    "given",
    [
        {"a": list(range(1001))},
        {"a": {"not": ["x"] * 1001}},
        ["a!=" + "x," * 1001],
        [f"f{n}=x" for n in range(31)],
    ],
)
def test_a_filter_has_a_size(given):
    with pytest.raises(
        SettingsError, match="at most 30 conditions with 1,000 values in all, and this one has"
    ):
        conditions_of(given)
    assert len(conditions_of({"a": list(range(1000))})) == 1


def test_a_field_that_no_index_has_names_those_there_are():
    indexes = [index(), index("titles", ["author"])]
    check_fields(conditions_of({"author": 1, "priority": 2, "priority.level": 3}), indexes)
    with pytest.raises(
        SettingsError,
        match="no field 'prio' to filter by; the indexes have: author, created_at, prio",
    ):
        check_fields(conditions_of({"prio": 1}), indexes)
    with pytest.raises(
        SettingsError, match=r"'author' .* index comments has: created_at, priority"
    ):
        check_fields(conditions_of({"author": 1}), [indexes[0]])
    with pytest.raises(SettingsError, match="index titles has none; `payload` in the settings"):
        check_fields(conditions_of({"author": 1}), [index("titles", [])])


def test_a_comparison_that_a_payload_index_would_answer_wrongly_is_refused():
    for kind, good, bad in (
        (
            "datetime",
            ["2024-01-02", {"gte": "2024-01-01"}, NOW, {"exists": True}],
            [5, [5, "x"], {"gt": 5}],
        ),
        (
            "integer",
            [5, "x", True, {"gte": 5}, [1, "x"]],
            [{"gte": "2024-01-01"}, NOW, {"not": DAY}],
        ),
        ("float", [5, {"lt": 2.5}], [{"gte": "2024-01-01"}]),
        ("keyword", ["x", 5, NOW, {"gte": 5}, {"lt": "2024-01-01"}], []),
    ):
        indexed = index(payload_indexes={"priority": kind})
        for value in good:
            check_fields(conditions_of({"priority": value}), [indexed])
        for value in bad:
            with pytest.raises(
                SettingsError, match=f"payload index of kind {kind}: compare it with"
            ):
                check_fields(conditions_of({"priority": value}), [indexed])


def number_index(name="comments", kind="integer"):
    return index(name, ["number"], payload_indexes={"number": kind})


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("20", 20),
        (" 20\n", 20),
        ("+20", 20),
        ("-0", 0),
        ("01234", 1234),
        ("20.0", 20.0),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("\u0662\u0660", 20),
        (str(2**63 - 1), 2**63 - 1),
        (str(-(2**63)), -(2**63)),
        (str(2**63), 2.0**63),
    ],
)
def test_text_for_a_field_of_numbers_is_the_number_that_it_says(text, number):
    for kind in ("integer", "float"):
        indexes = [number_index(kind=kind)]
        for given, expected in (
            (text, number),
            ([text, 7], [number, 7]),
            ({"eq": text}, number),
            ({"any": (text,)}, [number]),
            ({"not": text}, number),
            ({"not": [text, None, True]}, [number, None, True]),
            ({"gte": text, "lt": 5000}, {"gte": number, "lt": 5000}),
        ):
            [condition] = conditions_of({"number": given}, indexes)
            assert condition.value == expected
            assert repr(condition.value) == repr(expected), "1 is not True, and 20 is not 20.0"
        [condition] = conditions_of([PayloadCondition("number", "eq", text)])
        assert condition.value == text, "without an index nobody knows"


@pytest.mark.parametrize(
    "text", ["", " ", "soon", "nan", "inf", "-Infinity", "1e400", "0x14", "1_000", "20,5", "true"]
)
@pytest.mark.parametrize("kind", ["integer", "float"])
def test_text_that_is_no_number_is_refused_with_the_kind_of_the_field(text, kind):
    for given in (text, [1, text], {"not": text}, {"not": [text]}, {"gt": text}, {"eq": text}):
        with pytest.raises(
            SettingsError, match=f"filter on number: .* is not a number, .* has the kind {kind}"
        ):
            conditions_of({"number": given}, [number_index(kind=kind)])
    required = {"required_filter": {"number": text}, "payload_indexes": {"number": kind}}
    with pytest.raises(
        SettingsError, match=f"required_filter of index comments: filter on number: .* kind {kind}"
    ):
        required_conditions(index(payload=["number"], **required))
    with pytest.raises(SettingsError, match=r"'x{60}…' is not a number"):
        conditions_of({"number": "x" * 10_000}, [number_index(kind=kind)])


def test_text_stays_text_unless_all_indexes_that_have_the_field_hold_numbers_there():
    whole, real, words = (
        number_index(),
        number_index("real", "float"),
        number_index("words", "keyword"),
    )
    unknown, lacking, own = (
        index("unknown", ["number"]),
        index("lacking", ["author"]),
        IndexSettings(name="o", kind="o"),
    )
    for indexes, expected in (
        ([whole], 1234),
        ([whole, real], 1234),
        ([whole, lacking], 1234),
        ([words], "01234"),
        ([unknown], "01234"),
        ([whole, words], "01234"),
        ([real, unknown], "01234"),
        ([whole, own], "01234"),
        ([lacking], "01234"),
        ([number_index(kind="datetime")], "01234"),
        ([], "01234"),
    ):
        [condition] = conditions_of({"number": "01234"}, indexes)
        assert condition.value == expected, [one.name for one in indexes]
    with pytest.raises(SettingsError, match="has the kind float or integer"):
        conditions_of({"number": "soon"}, [real, whole])


def test_text_of_the_command_line_and_of_required_filters_is_a_number_too():
    indexes = [number_index()]
    for text, expected in (
        ("number=20,21", [20, 20, 21, 21]),
        ("number!=20", [20, 20]),
        ("number>=20", {"gte": 20}),
        ("number", None),
    ):
        [condition] = conditions_of(text, indexes)
        assert condition.value == expected
    for text in ("number=20,soon", "number=true", "number!=", "number<soon"):
        with pytest.raises(
            SettingsError, match="is not a number, and the field has the kind integer"
        ):
            conditions_of(text, indexes)
    for given, expected in (("20", 20), (["20", "21"], [20, 21]), ({"gte": "20"}, {"gte": 20})):
        made = index(
            payload=["number"],
            required_filter={"number": given},
            payload_indexes={"number": "integer"},
        )
        [condition] = required_conditions(made)
        assert condition.value == expected
    [condition] = required_conditions(
        index(payload=["number"], required_filter={"number": "01234"})
    )
    assert condition.value == "01234"


def test_text_for_a_field_of_booleans_is_true_or_false():
    indexes = [index(payload=["open"], payload_indexes={"open": "bool"})]
    for given, expected in (
        ("true", True),
        ("False", False),
        (["true", False], [True, False]),
        ({"not": "true"}, True),
    ):
        [condition] = conditions_of({"open": given}, indexes)
        assert condition.value == expected
    for text in ("yes", "1", ""):
        with pytest.raises(
            SettingsError, match="is not true or false, and the field has the kind bool"
        ):
            conditions_of({"open": text}, indexes)


def test_the_lines_of_source_code_are_numbers():
    code = IndexSettings(name="files", kind="code", root=".")
    [condition] = conditions_of({"lines": {"gte": "20"}}, [code])
    assert condition.value == {"gte": 20}
    [condition] = conditions_of({"name": "20"}, [code])
    assert condition.value == "20"


def test_required_fields_have_payload_indexes():
    required = {"priority": "a", "created_at": {"gte": "2024-01-01"}}
    one = index(required_filter=required, payload_indexes={"created_at": "datetime"})
    assert one.indexed_fields == {"priority": "keyword", "created_at": "datetime"}
    for value, indexed in (
        ([1, 2], {"priority": "float"}),
        (True, {"priority": "bool"}),
        ([1, "a"], {}),
    ):
        assert index(required_filter={"priority": value}).indexed_fields == indexed


def test_source_code_has_the_fields_of_its_definitions_an_installed_source_any_and_no_source_our_own_part():
    """Neither has a `payload` in the settings."""
    code, own = (
        IndexSettings(name="files", kind="code", root="."),
        IndexSettings(name="files", kind="mails"),
    )
    check_fields(conditions_of(["language=python", "lines"]), [code])
    check_fields(conditions_of({"author": "ann", "tags.level": {"gte": 1}}), [own])
    with pytest.raises(SettingsError, match="index files has: docstring, kind, language"):
        check_fields(conditions_of({"author": "ann"}), [code])
    own = IndexSettings(name="own", kind="own")
    for field in ("_rag", "_rag.groups", "_rag.text_hash"):
        assert own.has_field(field), "a source of your own may have any field"
        with pytest.raises(SettingsError, match="there is no field"):
            check_fields(conditions_of({field: "staff"}), [own])


def text(seed: int) -> str:
    """Return a text of few words, some of several chunks, so that no search sees all chunks."""
    return " ".join(random.Random(seed).choices(WORDS, k=90 if seed % 7 == 0 else 8))


def values(n: int) -> dict:
    return {"priority": f"p{abs(n) % 25}", "number": n}


MANY = {
    "comments": [
        (n, text(n), values(n) | {"_rag": access_part(("ab"[n % 2],))}) for n in range(1, 141)
    ],
    "titles": [(f"t{n}", text(-n), values(-n)) for n in range(1, 61)],
}


@pytest.fixture(scope="module")
def retriever(tmp_path_factory):
    names, more = tuple(MANY), {"comments": 'access = "tenant"'}
    with (
        Desk(tmp_path_factory.mktemp("pages"), names=names, more=more)
        .fill(MANY)
        .retriever() as retriever
    ):
        yield retriever


def walk(
    retriever: Retriever, limit: int, query: str = QUERY, **options: object
) -> list[tuple[str, str]]:
    """Return what the pages of a search have. Each but the last has `limit` documents, and says
    where the next is."""
    every, offset = list[tuple[str, str]](), 0
    while True:
        page = retriever.search_sync(query, limit=limit, offset=offset, **options)
        every += found(page)
        if page.next_offset is None:
            assert len(every) == len(set(every)), "a document comes once"
            return every
        offset = page.next_offset
        assert offset == len(every), "whoever adds the limit goes on at the same place"


@pytest.mark.parametrize(
    ("options", "documents"),
    [
        ({"groups": ["a", "b"]}, 200),
        ({"groups": ["a", "b"], "dense_weight": 1.0}, 200),
        ({"groups": ["a"]}, 130),
        ({"groups": [], "filter": "number<-30"}, 30),
        ({"groups": ["b"], "collapse": "priority"}, 25),
        ({"groups": ["a"], "like": "titles/t9", "query": ""}, 129),
    ],
)
def test_pages_have_each_document_once_and_begin_with_what_a_search_returns(
    retriever, options, documents
):
    asked = {"query": QUERY, **options}
    every = walk(retriever, 40, **asked)
    assert len(every) == documents, "down to the last"
    assert every[:40] == found(retriever.search_sync(limit=40, **asked))


def test_a_page_says_that_it_is_the_last_and_where_no_search_goes(retriever):
    first = retriever.search_sync(QUERY, groups=["a"])
    assert (first.to_json()["next_offset"], "offset" in first.to_json()) == (10, False)
    last = retriever.search_sync(QUERY, offset=120, groups=["a"])
    assert (len(last.hits), last.next_offset, last.missing) == (10, None, "")
    beyond = retriever.search_sync(QUERY, offset=130, groups=["a"])
    assert (beyond.hits, beyond.next_offset, beyond.verdict) == ((), None, "No further documents.")
    with pytest.raises(
        SettingsError, match=r"offset is from 0 to 990, not 991: a search goes 1,000 documents deep"
    ):
        retriever.search_sync(QUERY, offset=991)
    with pytest.raises(SettingsError, match="offset: Input should be greater than or equal to 0"):
        retriever.search_sync(QUERY, offset=-1)


def test_what_fits_is_put_in_order_once_and_the_end_of_it_is_said(retriever):
    numbers, offset = list[int](), 0
    while offset is not None:
        page = retriever.search_sync(
            "mail", limit=10, order="number", groups=["a", "b"], offset=offset
        )
        numbers += [hit.payload["number"] for hit in page.hits]
        offset = page.next_offset
    assert numbers == sorted(numbers)
    assert len(numbers) == 30
    assert page.missing == FURTHER


def test_documents_that_are_less_relevant_end_the_pages(retriever):
    every = retriever.search_sync(QUERY, limit=40).hits
    least = sorted(hit.relevance for hit in every)[20]
    some = walk(retriever, 10, min_relevance=least)
    assert (
        some
        == [(hit.index, hit.document_id) for hit in every if hit.relevance >= least][: len(some)]
    )
