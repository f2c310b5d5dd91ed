"""Nobody finds what is not for them: random searches, filters and reads by random callers, over
every channel."""

import asyncio
import json
import random
from dataclasses import asdict
from typing import Any

import pytest
from prometheus_client import generate_latest

from rag_index.core.documents.groups import access_part
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import DocumentNotFound, RagIndexError, SettingsError, StoreError
from rag_index.search import ALL_GROUPS, Retriever
from rag_index.search.access import Caller, caller_of
from rag_index.search.json_answers import FacetsAnswer
from tests.project import WORDS
from tests.search.conftest import KINDS
from tests.search.conftest import _desk as make_desks
from tests.search.desk import Desk, found, sample
from tests.search.secret_documents import (
    ACCESS,
    GROUPS,
    SECRETS,
    check_told,
    guard,
    random_filter,
    random_groups,
)
from tests.waiting import eventually

CLOSED = ["comments", "solutions"]
HIDDEN = ["zebra", "printer", "kubernetes"]
QUERIES = [
    "zebra printer",
    "a zebra at the printer of room 7",
    '"zebra" room',
    "kubernetis",
    "scanner -zebra",
]


@pytest.fixture(scope="module", params=KINDS)
def guarded(request, tmp_path_factory, template):
    """A desk with documents for groups, that tests only read."""
    for desk in make_desks(request.param, tmp_path_factory.mktemp("desk"), template):
        yield guard(desk)


@pytest.fixture
def retriever(guarded):
    with guarded.retriever() as retriever:
        yield retriever


async def ask(retriever: Retriever, chance: random.Random, groups: Any) -> str:
    """Do something as a caller of these groups; return all that the caller is told."""
    secret, kind = chance.choice(SECRETS), chance.random()
    indexes, chosen = chance.choice([None, [secret.index], CLOSED]), random_filter(chance, secret)
    try:
        if kind < 0.1:
            facets = await retriever.facets(
                ["author"], indexes=indexes, limit=1000, filter=chosen, groups=groups
            )
            return json.dumps(FacetsAnswer.model_validate(facets).to_json())
        if kind < 0.3:
            document = await retriever.document(secret.index, str(secret.number), groups=groups)
            assert [chunk.chunk for chunk in document.chunks] == list(range(len(document.chunks)))
            return json.dumps(asdict(document), ensure_ascii=False)
        result = await retriever.search(
            chance.choice(
                [secret.mark, " ".join(chance.choices(WORDS, k=3)), f"{secret.mark} printer"]
            ),
            indexes=indexes,
            limit=chance.choice([1, 5, 100, 1000]),
            filter=chosen,
            groups=groups,
            dense_weight=chance.choice([None, 0.0, 0.5, 1.0]),
        )
        return json.dumps(
            {**result.to_json(explain=True), "all": asdict(result)}, ensure_ascii=False, default=str
        )
    except RagIndexError as error:
        return repr(error)


def ask_often(retriever: Retriever, number: int, seed: int) -> int:
    """Ask `number` times, some at the same time, and return how many documents callers were told
    of."""
    chance = random.Random(seed)

    async def ask_some() -> int:
        told = 0
        for _ in range(0, number, 5):
            callers = [random_groups(chance) for _ in range(5)]
            same = chance.getrandbits(64)
            seeds = [same if chance.random() < 0.5 else chance.getrandbits(64) for _ in callers]
            asked = (
                ask(retriever, random.Random(one), groups)
                for one, groups in zip(seeds, callers, strict=True)
            )
            answers = await asyncio.gather(*asked)
            told += sum(
                check_told(answer, groups) for answer, groups in zip(answers, callers, strict=True)
            )
        return told

    return asyncio.run(ask_some())


@pytest.mark.long
def test_random_callers_see_what_is_for_them_and_nothing_else(retriever):
    assert ask_often(retriever, 50, seed=1) > 100
    metrics = generate_latest(retriever.metrics()).decode()
    assert not any(one.mark in metrics for one in SECRETS)


@pytest.mark.long
def test_settings_that_do_not_know_of_groups_open_nothing(guarded):
    """What was indexed with groups is not answered without them, whatever the settings of the
    reader say."""
    settings = guarded.settings
    unaware = [index.model_copy(update={"access": None}) for index in settings.indexes]
    with Retriever(settings.model_copy(update={"indexes": unaware})) as retriever:
        assert ask_often(retriever, 50, seed=1) > 60
        refused = (
            "index comments says who may see its documents, and these settings do not: set its"
            " `access`"
        )
        with pytest.raises(StoreError, match=refused):
            retriever.search_sync("printer", indexes=["comments"])
        with pytest.raises(StoreError, match=refused):
            asyncio.run(retriever.document("comments", "1"))
        assert refused in asyncio.run(retriever.facets(["author"])).errors["comments"]
        result = retriever.search_sync("printer network mail", limit=1000)
        assert ({index for index, _ in found(result)}, set(result.errors)) == (
            {"titles"},
            {"comments", "solutions"},
        )


def test_documents_without_groups_yet_are_seen_by_nobody_once_the_settings_name_access(embedded):
    embedded.write(comments=ACCESS)
    with embedded.retriever() as retriever:
        asked = {"query": "printer", "indexes": ["comments"]}
        assert retriever.search_sync(**asked, groups=GROUPS).hits == ()
        assert len(retriever.search_sync(**asked, groups=ALL_GROUPS).hits) == 3


def test_an_open_retriever_notices_that_documents_get_groups(blank):
    def error(index):
        try:
            return str(retriever.search_sync("printer", indexes=[index]).errors)
        except StoreError as refused:
            return str(refused)

    with blank.fill().retriever() as retriever:
        assert error("comments") == "{}"
        with blank.opened() as store:
            store.points(blank.collection("comments")).set_metadata(
                {"payload_indexes": {GROUPS_FIELD: "keyword"}}
            )
        eventually(lambda: "says who may see its documents" in error("comments"))
        assert error("solutions") == "{}"


def test_everything_that_is_for_a_caller_is_found_by_meaning_and_by_words(retriever):
    for groups in (None, ["staff"], "Grüße", ["board", "a,b"], ALL_GROUPS):
        expected = {(one.index, str(one.number)) for one in SECRETS if one.is_for(groups)}
        for weight in (0.0, 1.0):
            result = retriever.search_sync(
                "printer network mail", limit=1000, groups=groups, dense_weight=weight
            )
            assert set(found(result)) == expected
        assert all("_rag" not in hit.payload and "acl" not in hit.payload for hit in result.hits)


def test_without_groups_a_closed_index_is_as_if_it_were_not_there(blank):
    guarded = guard(blank)
    with guarded.retriever() as retriever:
        result = retriever.search_sync("printer", indexes=CLOSED)
        assert (result.hits, result.errors, result.collections) == ((), {}, {})
        assert retriever.search_sync("printer", indexes=CLOSED, groups=["", ""]).collections == {}
        assert sample(retriever, "search_index_seconds_count", index="comments") is None
        both = retriever.search_sync("printer", indexes=["titles", "comments"])
        assert (set(both.collections), "comments" in both.timings_ms) == ({"titles"}, False)
        counted = asyncio.run(retriever.facets(["author"], limit=1000))
        assert (len(counted.fields["author"]), counted.errors) == (40, {})
        with pytest.raises(DocumentNotFound) as there:
            asyncio.run(retriever.document("comments", "1"))
        with pytest.raises(DocumentNotFound) as missing:
            asyncio.run(retriever.document("comments", "1000"))
        assert str(there.value).replace("'1'", "'1000'") == str(missing.value)
    guarded.drop("titles", 1)
    with (
        guarded.retriever() as retriever,
        pytest.raises(StoreError, match="nothing is indexed yet"),
    ):
        retriever.search_sync("printer")


def test_groups_that_cannot_be_right_are_refused(retriever):
    for groups in ([7], 7, [None], [["staff"]], b"staff"):
        with pytest.raises(SettingsError, match="groups are texts"):
            retriever.search_sync("printer", groups=groups)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match=r"there is no field '_rag\.groups' to filter by"):
        retriever.search_sync("printer", filter={"_rag.groups": "staff"}, groups=["staff"])


def test_a_change_of_rights_in_the_store_is_in_force_at_once(blank):
    guarded, name = guard(blank), blank.settings.alias("comments")
    for change, seen in ((["board"], 40), ([], 0)):
        with guarded.opened() as store:
            points = [(point.id, point.payload) for point in store.points(name).scroll()]
            store.points(name).update_payloads(
                [(i, {**p, "_rag": {**p["_rag"], "groups": change}}) for i, p in points]
            )
        with guarded.retriever() as retriever:
            asked = {"query": "printer", "indexes": ["comments"], "limit": 1000}
            assert retriever.search_sync(**asked, groups=["staff"]).hits == ()
            assert len(retriever.search_sync(**asked, groups=["board"]).hits) == seen


def notes() -> tuple[list[Any], list[Any]]:
    """Return documents for staff, and others for the board, which have the same words and some that
    are rare there."""
    staff, board = ({"_rag": access_part([one])} for one in ("staff", "board"))
    words = ["printer", "scanner", "zebra", *WORDS]
    mine = [
        (n, f"Room {n} has a {words[n % 17 % len(words)]}, {words[n % 11]}, note {n}", staff)
        for n in range(60)
    ]
    return mine, [
        (n, f"The {HIDDEN[n % 3]} is {HIDDEN[n % 2]} of the board {n}", board)
        for n in range(100, 300)
    ]


def answers(desk: Desk, groups: list[str]) -> list[dict[str, Any]]:
    """Return all that a caller is told, but for how long it took and which collection it was."""
    with desk.retriever() as retriever:
        found = [
            retriever.search_sync(
                query, indexes=["comments"], groups=groups, limit=60, dense_weight=weight
            )
            for query in QUERIES
            for weight in (None, 0.0)
        ]
    return [{**one.to_json(explain=True), "timings_ms": 0, "collections": 0} for one in found]


@pytest.mark.parametrize("kind", ["edge", pytest.param("http", marks=pytest.mark.long)])
def test_no_number_of_an_answer_depends_on_documents_that_are_hidden(kind, tmp_path, template):
    mine, others = notes()
    for desk in make_desks(kind, tmp_path / "desk", template):
        desk.write(comments=ACCESS)
        desk.fill({"comments": mine})
        alone = answers(desk, ["staff"])
        desk.fill({"comments": [*mine, *others]}, number=2)
        assert answers(desk, ["staff"]) == alone
        assert answers(desk, ["staff", "board"]) != alone


@pytest.mark.long
def test_an_older_server_is_asked_what_it_understands(qdrant, tmp_path):
    """It counts words among all documents, as docs/access.md says."""
    qdrant.version = "1.18.3"
    desk = Desk(tmp_path / "desk", f'[store]\nurl = "{qdrant.url}"', more={"comments": ACCESS})
    mine, others = notes()
    found = answers(desk.fill({"comments": [*mine, *others]}), ["staff"])
    assert all(one["hits"] and not one.get("errors") for one in found)


@pytest.mark.parametrize(
    "given", [["a", "b", "a", ""], ("b", "a"), {"a", "b"}, iter(["b", "", "a"]), frozenset("ab")]
)
def test_a_caller_is_known_by_his_groups_in_whatever_order_and_how_often_they_are_given(given):
    caller = caller_of(given)
    assert caller == Caller(groups=frozenset({"a", "b"}))
    assert {caller: "an answer"}[Caller(groups=frozenset({"b", "a"}))] == "an answer"


def test_groups_that_are_given_are_those_of_the_caller_whatever_becomes_of_the_list():
    given = ["staff"]
    caller = caller_of(given)
    given.append("board")
    with pytest.raises(AttributeError):
        caller.groups.add("board")
    assert caller == caller_of("staff")


def test_a_search_that_has_begun_keeps_the_rights_of_its_caller(guarded, retriever):
    """A program that adds to its list while a search runs gives that search no more rights."""
    given: list[str] = []

    async def search_and_add():
        search = asyncio.ensure_future(retriever.search("zebra", groups=given, limit=100))
        await asyncio.sleep(0)
        given.extend(GROUPS)
        return await search

    hits = retriever.run(search_and_add()).hits
    assert not any(hit.index in CLOSED for hit in hits)
