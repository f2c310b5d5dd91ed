"""Searching several indexes at once, on each store."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_index import Retriever
from rag_index.components.stores.protocol import Condition
from rag_index.errors import RagIndexError, SettingsError, StoreError, UnknownIndex
from rag_index.search import SearchFailed
from tests.search.desk import Desk, documents, found, sample


@pytest.fixture(scope="module")
def retriever(full):
    with full.retriever() as retriever:
        yield retriever


def test_a_result_holds_all_that_the_documentation_names(full):
    async def main():
        async with Retriever.from_settings(full.config) as retriever:
            return await retriever.search("Printer offline after update", indexes=["comments", "titles"], limit=3)

    result = asyncio.run(main())
    assert found(result) == [("titles", "t-1"), ("comments", "1"), ("comments", "2")]
    best = result.hits[0]
    assert best.cosine == pytest.approx(1.0, abs=1e-4)
    assert best.score == best.fused == max(hit.score for hit in result.hits)
    assert best.matched == ("Printer", "offline", "update")
    assert (best.rank, best.text) == (1, "Printer offline after update")
    assert best.payload == {"priority": "urgent", "number": 10, "author": "ann"}
    assert [hit.rank for hit in result.hits] == [1, 1, 2]
    assert result.errors == {}
    assert result.fusion == "score"
    timings = dict(result.timings_ms)
    assert {"words", "embed", "comments", "titles", "read", "compare", "fuse"} < set(timings)
    fastest = min(timings["comments"], timings["titles"])  # both at once
    assert sum(timings.values()) == pytest.approx(2 * timings["total"] + fastest, abs=0.01), "they add up to the total"
    assert set(result.collections.values()) == {full.settings.alias(n) + "__1" for n in ("comments", "titles")}


def test_a_wrong_argument_is_refused_before_anything_is_searched(retriever):
    for arguments, message in [
        ({"query": "  "}, "the query is empty"),
        ({"indexes": []}, "`indexes` names no index"),
        ({"indexes": ["coments"]}, "no index 'coments', did you mean 'comments'"),
        ({"limit": 0}, "limit is from 1 to 1,000, not 0"),
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
        ({"timeout": float("nan")}, "timeout is a number"),
        ({"filter": {"prio": 1}}, "no field 'prio' .* author, created_at, number, priority, tenant"),
        ({"filter": {"priority": {"gte": "soon"}}}, "neither a number nor an ISO time"),
        ({"filter": {"_rag.key": "1"}}, "no field '_rag.key'"),
    ]:
        with pytest.raises(SettingsError, match=message):
            retriever.search_sync(**{"query": "printer", **arguments})
    with pytest.raises(UnknownIndex):
        retriever.search_sync("printer", indexes=["nothing"])


@pytest.mark.parametrize("weight", [None, 1.0])
def test_long_documents_do_not_crowd_others_out(tmp_path, weight):
    """Of 250 chunks of five documents, more than are asked for at first are nearer than any other document."""
    long = "".join(
        f"The printer on floor {n} is offline again since the last update of its driver. " for n in range(50)
    )
    rows = [*((f"long-{n}", long) for n in range(5)), *((f"short-{n}", f"A printer, number {n}") for n in range(9))]
    with Desk(tmp_path, names=("comments",)).fill({"comments": rows}).retriever() as retriever:
        result = retriever.search_sync("The printer on floor 7 is offline again", limit=10, dense_weight=weight)
        assert len(result.hits) == 10
        assert {hit.document_id for hit in result.hits[:5]} == {f"long-{n}" for n in range(5)}
        best = result.hits[0]
        assert len(best.chunks) == 3 or sum(len(chunk.text) for chunk in best.chunks) <= 2000
        assert best.chunks[0].text == best.text
        assert [c.score for c in best.chunks] == sorted((c.score for c in best.chunks), reverse=True)


# Indexes that give no answer


def test_nothing_is_indexed(blank):
    with blank.retriever() as retriever:
        with pytest.raises(StoreError, match="nothing is indexed yet: `rag-index index-all` fills the indexes"):
            retriever.search_sync("printer")
        with pytest.raises(StoreError, match="index comments is empty: `rag-index index comments` fills it"):
            retriever.search_sync("printer", indexes=["comments"])
        with pytest.raises(
            SearchFailed, match=r"comments: index comments is empty.*; titles: index titles is empty"
        ) as e:
            retriever.search_sync("printer", indexes=["comments", "titles"])
        assert set(e.value.errors) == {"comments", "titles"}


def test_a_closed_retriever_stays_closed_and_warming_up_is_not_counted(full, tmp_path):
    retriever = full.retriever()
    asyncio.run(retriever.warm_up())
    assert sample(retriever, "search_seconds_count", stage="total") == 0
    assert retriever.search_sync("printer").hits
    retriever.close()
    retriever.close()
    for call in (lambda: retriever.search_sync("printer"), lambda: asyncio.run(retriever.search("mailbox"))):
        with pytest.raises(RagIndexError, match="the retriever is closed"):
            call()
    with Desk(tmp_path).retriever() as retriever:
        asyncio.run(retriever.warm_up())


@pytest.mark.long
def test_searches_in_a_running_event_loop_and_in_several_at_once(retriever):
    async def handler():
        return found(retriever.search_sync("printer")), found(await retriever.search("printer"))

    before = threading.enumerate()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: asyncio.run(handler()), range(8)))
        searches = threads.map(lambda _: found(retriever.search_sync("printer")), range(8))
        assert {tuple(one) for pair in answers for one in pair} == set(map(tuple, searches))
    started = [one for one in threading.enumerate() if one.name == "rag-index-search" and one not in before]
    assert len(started) <= 1


# required_filter


TENANTS = {
    "comments": [(1, "printer offline", {"tenant": "a", "priority": "high"}), (2, "printer offline", {"tenant": "b"})],
    "titles": [(3, "printer offline", {"tenant": "a"}), (4, "printer offline", {"tenant": "b", "priority": "high"})],
}


@pytest.fixture
def tenants(blank):
    blank.write(comments='required_filter = { tenant = "a" }')
    return blank.fill(TENANTS)


def test_no_filter_removes_the_required_filter(tenants):
    attempts = [
        None,
        {"tenant": ["a", "b"]},
        {"tenant": {"not": "a"}},
        {"tenant": None},
        {"tenant": {"any": ["b"], "eq": "b"}},
        "tenant=b",
        [Condition("tenant", "any", ["a", "b"]), Condition("tenant", "eq", "b")],
    ]
    with tenants.retriever() as retriever:
        for given in attempts:
            assert ("comments", "2") not in documents(retriever.search_sync("printer", filter=given, limit=50)), given
        assert documents(retriever.search_sync("printer", filter={"priority": "high"}, indexes=["comments"])) == {
            ("comments", "1")
        }
        assert documents(retriever.search_sync("printer")) == {("comments", "1"), ("titles", "3"), ("titles", "4")}
    settings = tenants.settings
    with Retriever.from_settings(settings) as retriever:
        settings.index("comments").required_filter.clear()
        assert documents(retriever.search_sync("printer", indexes=["comments"])) == {("comments", "1")}


def test_a_required_filter_that_is_not_valid_opens_nothing(tmp_path):
    desk = Desk(tmp_path / "desk", more={"comments": 'required_filter = { tenant = { like = "a" } }'})
    with pytest.raises(SettingsError, match="required_filter of index comments: filter on tenant: 'like' is not known"):
        desk.retriever()
