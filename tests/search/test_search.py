"""Searching several indexes at once, on each store: what is found, read and counted, beside writers
too."""

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from rag_index import Retriever
from rag_index.components.stores import lend
from rag_index.components.stores.edge import reader as edge_reader
from rag_index.components.stores.protocol import PayloadCondition, Store, VectorQuery
from rag_index.core.documents.batches import StoredPoint
from rag_index.core.documents.groups import access_part
from rag_index.errors import (
    RagIndexError,
    SearchFailed,
    SettingsError,
    StoreBusy,
    StoreError,
    UnknownIndex,
)
from rag_index.search import fan_out
from tests.components.stores.edge_process import writer
from tests.docs.pages import blocks, page
from tests.search.desk import Desk, documents, found, sample
from tests.waiting import eventually

TENANTS = {
    "comments": [
        (1, "printer offline", {"tenant": "a", "priority": "high"}),
        (2, "printer offline", {"tenant": "b"}),
    ],
    "titles": [
        (3, "printer offline", {"tenant": "a"}),
        (4, "printer offline", {"tenant": "b", "priority": "high"}),
    ],
}
PRINTERS = {
    name: [(n, f"The printer of {name} number {n} is offline", {"number": n}) for n in range(80)]
    for name in ("comments", "solutions", "titles")
}
HOLD = """
for name in store.collections():
    store.points(name).delete_points(["00000000-0000-0000-0000-000000000000"])
print("ready", flush=True)
input()
for name in store.collections():
    store.points(name).flush()
input()
"""
"""Another process writes each collection of the store in place, and flushes when it is told to."""
PAGE = page("retrieval")


@pytest.fixture(scope="module")
def retriever(full):
    with full.retriever() as retriever:
        yield retriever


def test_a_result_holds_all_that_the_documentation_names(full):
    async def main():
        async with Retriever.from_settings(full.config) as retriever:
            return await retriever.search(
                "Printer offline after update", indexes=["comments", "titles"], limit=3
            )

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
    assert {"words", "embed", "comments", "titles", "compare", "fuse"} < set(timings)
    fastest = min(timings["comments"], timings["titles"])  # both at once
    assert sum(timings.values()) == pytest.approx(2 * timings["total"] + fastest, abs=0.01), (
        "they add up to the total"
    )
    assert set(result.collections.values()) == {
        full.settings.alias(n) + "__1" for n in ("comments", "titles")
    }


def test_a_wrong_argument_is_refused_before_anything_is_searched(retriever):
    for arguments, message in [
        ({"query": "  "}, "the query is empty"),
        ({"indexes": []}, "`indexes` names no index"),
        ({"indexes": ["coments"]}, "no index 'coments', did you mean 'comments'"),
        ({"limit": 0}, "limit: Input should be greater than or equal to 1"),
        ({"limt": 3}, "limt: Extra inputs are not permitted"),
        ({"timeout": 0}, "timeout: Input should be greater than 0"),
        ({"timeout": float("nan")}, "timeout: Input should be a finite number"),
        (
            {"filter": {"prio": 1}},
            "no field 'prio' .* author, created_at, number, priority, tenant",
        ),
        ({"filter": {"priority": {"gte": "soon"}}}, "neither a number nor an ISO time"),
        ({"filter": {"_rag.key": "1"}}, "no field '_rag.key'"),
    ]:
        with pytest.raises(SettingsError, match=message):
            retriever.search_sync(**{"query": "printer", **arguments})
    with pytest.raises(UnknownIndex):
        retriever.search_sync("printer", indexes=["nothing"])


@pytest.mark.parametrize("weight", [None, 1.0])
def test_long_documents_do_not_crowd_others_out(tmp_path, weight):
    """Of 250 chunks of five documents, more than are asked for at first are nearer than any other
    document."""
    long = "".join(
        f"The printer on floor {n} is offline again since its driver had an update. "
        for n in range(50)
    )
    rows = [
        *((f"long-{n}", long) for n in range(5)),
        *((f"short-{n}", f"A printer, number {n}") for n in range(9)),
    ]
    with Desk(tmp_path, names=("comments",)).fill({"comments": rows}).retriever() as retriever:
        result = retriever.search_sync(
            "The printer on floor 7 is offline again", limit=10, dense_weight=weight
        )
        assert len(result.hits) == 10
        assert {hit.document_id for hit in result.hits[:5]} == {f"long-{n}" for n in range(5)}
        best = result.hits[0]
        assert len(best.chunks) == 3 or sum(len(chunk.text) for chunk in best.chunks) <= 2000
        assert best.chunks[0].text == best.text
        assert [c.score for c in best.chunks] == sorted(
            (c.score for c in best.chunks), reverse=True
        )


def test_nothing_is_indexed(blank):
    with blank.retriever() as retriever:
        with pytest.raises(
            StoreError, match="nothing is indexed yet: `rag-index index-all` fills the indexes"
        ):
            retriever.search_sync("printer")
        with pytest.raises(
            StoreError, match="index comments is empty: `rag-index index comments` fills it"
        ):
            retriever.search_sync("printer", indexes=["comments"])
        with pytest.raises(
            SearchFailed, match=r"comments: index comments is empty.*; titles: index titles is"
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
    for call in (
        lambda: retriever.search_sync("printer"),
        lambda: asyncio.run(retriever.search("mailbox")),
    ):
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
    assert (
        len(
            [
                one
                for one in threading.enumerate()
                if one.name == "rag-index-search" and one not in before
            ]
        )
        <= 1
    )


def test_no_filter_removes_the_required_filter_and_one_that_is_not_valid_opens_nothing(blank):
    blank.write(comments='required_filter = { tenant = "a" }')
    attempts = [
        None,
        {"tenant": ["a", "b"]},
        {"tenant": {"not": "a"}},
        {"tenant": None},
        {"tenant": {"any": ["b"], "eq": "b"}},
        "tenant=b",
        [PayloadCondition("tenant", "any", ["a", "b"]), PayloadCondition("tenant", "eq", "b")],
    ]
    with blank.fill(TENANTS).retriever() as retriever:
        for given in attempts:
            assert ("comments", "2") not in documents(
                retriever.search_sync("printer", filter=given, limit=50)
            ), given
        high = retriever.search_sync("printer", filter={"priority": "high"}, indexes=["comments"])
        assert found(high) == [("comments", "1")]
        assert documents(retriever.search_sync("printer")) == {
            ("comments", "1"),
            ("titles", "3"),
            ("titles", "4"),
        }
    settings = blank.settings
    with Retriever.from_settings(settings) as retriever:
        settings.index("comments").required_filter.clear()
        assert documents(retriever.search_sync("printer", indexes=["comments"])) == {
            ("comments", "1")
        }
    blank.write(comments='required_filter = { tenant = { like = "a" } }')
    with pytest.raises(
        SettingsError,
        match="required_filter of index comments: filter on tenant: 'like' is not known",
    ):
        blank.retriever()


class Halved:
    """A store in which something happens once words are counted, and before candidates are searched
    for."""

    def __init__(self, store: Store, happen: Callable[[Store, str], object]) -> None:
        self._store, self._happen = store, happen
        self.searched = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def points(self, name: str) -> Any:
        points = self._store.points(name)
        search = points.search

        def search_then(query: VectorQuery) -> list[StoredPoint]:
            self.searched += 1
            self._happen(self._store, name)
            return search(query)

        points.search = search_then
        return points


@pytest.fixture
def printers(blank):
    return blank.fill(PRINTERS)


@pytest.fixture
def opened(printers):
    with printers.opened() as store:
        yield store


def retriever_of(printers: Desk, halved: Halved) -> Retriever:
    return Retriever(printers.settings, open_store=lambda: lend(halved))


def test_the_next_are_found_in_place_of_those_that_are_deleted_meanwhile(printers, opened):
    halved = Halved(opened, lambda *_: None)
    with retriever_of(printers, halved) as retriever:
        result = retriever.search_sync("the printer of titles number 7", indexes=["titles"])
        assert (found(result)[0], result.hits[0].payload) == (("titles", "7"), {"number": 7})
        assert halved.searched == 1, "one request brings candidates, scores and payloads"
    gone = [
        point.id
        for point in opened.points(printers.collection("titles")).scroll()
        if point.payload["number"] % 2 == 0
    ]
    with retriever_of(
        printers, Halved(opened, lambda store, name: store.points(name).delete_points(gone))
    ) as retriever:
        after = found(retriever.search_sync("printer offline", indexes=["titles"], limit=20))
    assert len(after) == 20
    assert all(int(document) % 2 for _, document in after)


def test_a_document_that_is_taken_from_the_caller_or_the_filter_meanwhile_is_not_shown(blank):
    blank.more = {"titles": 'access = "acl"'}
    blank.write()
    access, board, name = (
        access_part(("staff",)),
        access_part(("board",)),
        blank.settings.alias("titles"),
    )
    blank.fill(
        {
            "titles": [
                (n, f"Printer {n} is offline", {"number": n, "_rag": access}) for n in range(60)
            ]
        }
    )
    with blank.opened() as store:
        payloads = {point.id: point.payload for point in store.points(name).scroll()}
        odd = {one: payload for one, payload in payloads.items() if payload["number"] % 2}
        taken = {
            one: {**payload, "_rag": {**payload["_rag"], **board}} for one, payload in odd.items()
        }
        renumbered = {one: {**payload, "number": 101} for one, payload in odd.items()}
        for changed in ({}, renumbered, taken):
            store.points(name).update_payloads(list(payloads.items()))
            halved = Halved(
                store,
                lambda store, name, changed=changed: store.points(name).update_payloads(
                    [*changed.items()]
                ),
            )
            with retriever_of(blank, halved) as retriever:
                hits = retriever.search_sync(
                    "offline", groups=["staff"], filter={"number": {"lt": 60}}
                ).hits
                assert any(hit.payload["number"] % 2 for hit in hits) is not bool(changed)
                assert len(hits) == 10


def test_a_collection_that_is_replaced_meanwhile_is_searched_anew(printers, opened):
    printers.fill_in(opened, {"titles": PRINTERS["titles"][:5]}, number=2, go_live=False)

    def replace(store, _):
        store.point_alias(printers.settings.alias("titles"), printers.collection("titles", 2))
        store.drop(printers.collection("titles"))

    with retriever_of(printers, Halved(opened, replace)) as retriever:
        result = retriever.search_sync("printer of titles number 3", indexes=["titles"])
        assert result.errors == {}
        assert result.collections == {"titles": printers.collection("titles", 2)}
        assert sorted(found(result)) == [("titles", str(n)) for n in range(5)]


def documents_found(retriever: Retriever) -> int:
    """Return how many documents a search finds; 0 if the store is busy."""
    try:
        result = retriever.search_sync("printer")
    except (StoreBusy, SearchFailed):
        return 0
    return len(result.hits)


def test_indexes_that_are_all_busy_are_named_in_one_line_with_the_remedy(embedded, monkeypatch):
    monkeypatch.setattr(edge_reader, "WRITE_SECONDS", 0.1)
    with writer(embedded.settings.store.path, HOLD) as holder:
        assert holder.says() == "ready"
        with (
            embedded.retriever(run={"wait": 0}) as retriever,
            pytest.raises(StoreBusy) as busy,
        ):
            retriever.search_sync("printer", indexes=["comments", "titles"])
        message = str(busy.value)
        assert message.startswith("indexes comments, titles are busy: collection desk_comments__1 ")
        assert message.count(f"is being written by process {holder.pid} ") == 1
        assert "wait for it (--wait SECONDS)" in message


def test_waiting_for_a_writer_does_not_count_for_a_time_limit_and_closing_ends_it(
    embedded, monkeypatch
):
    monkeypatch.setattr(edge_reader, "WRITE_SECONDS", 0.1)
    with writer(embedded.settings.store.path, HOLD) as holder:
        assert holder.says() == "ready"
        closed = Retriever.from_settings(embedded.config, wait=60)
        threading.Timer(0.3, closed.close).start()
        with pytest.raises(StoreError, match="closed"):
            closed.search_sync("printer")
        with embedded.retriever(retrieve={"timeout": 30}, run={"wait": 100}) as retriever:
            threading.Timer(3.0, holder.goes_on).start()
            assert eventually(lambda: documents_found(retriever) == 7)


def test_an_idle_retriever_closes_the_store_and_opens_it_again_and_a_closed_one_does_so_at_once(
    embedded, monkeypatch
):
    readers = embedded.settings.store.path / "readers"
    monkeypatch.setattr(fan_out, "IDLE_SECONDS", 1.0)
    with embedded.retriever() as retriever:
        for _ in range(2):
            assert len(retriever.search_sync("printer").hits) == 7
            assert list(readers.iterdir())
            assert eventually(lambda: not list(readers.iterdir()))
        assert len(retriever.search_sync("printer").hits) == 7
    assert list(readers.iterdir()) == []


def test_the_examples_at_the_top_of_the_page_run_as_files(embedded, capsys):
    [printing], [limited] = (
        [one for one in blocks(PAGE, "python") if has in one] for has in ("print(", "timeout=0.5")
    )
    code = f"{printing}\n{limited.replace('timeout=0.5', 'timeout=20')}"
    # the indexes and fields of this collection, in place of those of the sample
    code = code.replace('["repair"]', '["comments", "solutions"]').replace(
        '{"state": "done"}', '{"priority": "high"}'
    )
    scope: dict[str, object] = {}
    exec(code.replace("rag-index.toml", str(embedded.config)), scope)
    result = scope["result"]
    assert "comments/" in capsys.readouterr().out
    assert {hit.index for hit in result.hits} == {"comments", "solutions"}
    for name in re.findall(r"^\| `result\.(\w+)`", PAGE, re.MULTILINE):
        assert hasattr(result, name)
    for name in ("index", "document_id", "score", "rank", "text", "payload", "chunks", "fused"):
        assert hasattr(result.hits[0], name)


def test_prometheus_text_is_that_of_the_documentation(embedded):
    with embedded.retriever() as retriever:
        for _ in range(2):
            retriever.search_sync("printer")
        text = generate_latest(retriever.metrics()).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (s.name, *sorted(s.labels.items())): s.value
        for family in families.values()
        for s in family.samples
    }
    assert samples["rag_index_search_seconds_bucket", ("le", "+Inf"), ("stage", "total")] == 2
    assert samples["rag_index_search_seconds_bucket", ("le", "0.0001"), ("stage", "total")] == 0
    assert samples["rag_index_search_index_seconds_count", ("index", "titles")] == 2
    assert samples["rag_index_query_vectors_total",] == 2
    assert samples["rag_index_query_embeds_total",] == 1
    assert "rag_index_search" not in generate_latest().decode(), (
        "nothing is in the registry of the process"
    )
    assert {*re.findall(r"`(rag_index_\w+)`", PAGE)} == set(
        re.findall(r"^# TYPE (\w+(?<!_created)) ", text, re.MULTILINE)
    )
