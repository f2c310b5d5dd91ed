"""The two halves of a hybrid search: what happens to the best candidates before their payloads are read."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from rag_index.components.stores import lend, open_store
from rag_index.components.stores.protocol import Store
from rag_index.core.documents.batches import StoredPoint
from rag_index.core.documents.groups import access_part
from rag_index.search import Retriever
from tests.search.desk import Desk, found

ROWS = {
    name: [(n, f"The printer of {name} number {n} is offline", {"number": n}) for n in range(80)]
    for name in ("comments", "solutions", "titles")
}


class Halved:
    """A store in which something happens before payloads are read."""

    def __init__(self, store: Store, happen: Callable[[Store, str], object]) -> None:
        self._store, self._happen = store, happen
        self.read: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def retrieve(self, name: str, ids: list[str], **options: Any) -> list[StoredPoint]:
        self.read += ids
        self._happen(self._store, name)
        return self._store.retrieve(name, ids, **options)


@pytest.fixture
def desk(blank: Desk) -> Desk:
    return blank.fill(ROWS)


@pytest.fixture
def opened(desk: Desk) -> Iterator[Store]:
    with closing(open_store(desk.settings.store, wait=30)) as store:
        yield store


def retriever_of(desk: Desk, halved: Halved) -> Retriever:
    return Retriever(desk.settings, open_store=lambda: lend(halved))


def test_the_payloads_of_the_best_are_read_and_of_the_next_for_those_that_are_deleted_meanwhile(
    desk: Desk, opened: Store
) -> None:
    halved = Halved(opened, lambda *_: None)
    with retriever_of(desk, halved) as retriever:
        result = retriever.search_sync("the printer of titles number 7")
        assert (found(result)[0], result.hits[0].payload) == (("titles", "7"), {"number": 7})
        assert 10 <= len(halved.read) < 100
    points = opened.scroll(desk.collection("titles"))
    gone = [point.id for point in points if point.payload["number"] % 2 == 0]
    with retriever_of(desk, Halved(opened, lambda store, name: store.delete_points(name, gone))) as retriever:
        after = found(retriever.search_sync("printer offline", indexes=["titles"], limit=20))
    assert len(after) == 20
    assert all(int(document) % 2 for _, document in after)


def test_a_document_that_is_taken_from_the_caller_or_the_filter_meanwhile_is_not_shown(blank: Desk) -> None:
    blank.more = {"titles": 'access = "acl"'}
    blank.write()
    access = access_part(("staff",))
    blank.fill({"titles": [(n, f"Printer {n} is offline", {"number": n, "_rag": access}) for n in range(60)]})

    board, name = access_part(("board",)), blank.settings.alias("titles")
    with closing(open_store(blank.settings.store, wait=30)) as store:
        payloads = {point.id: point.payload for point in store.scroll(name)}
        odd = {one: payload for one, payload in payloads.items() if payload["number"] % 2}
        taken = {one: {**payload, "_rag": {**payload["_rag"], **board}} for one, payload in odd.items()}
        renumbered = {one: {**payload, "number": 101} for one, payload in odd.items()}
        for changed in ({}, renumbered, taken):
            store.update_payloads(name, list(payloads.items()))
            halved = Halved(store, lambda store, name, changed=changed: store.update_payloads(name, [*changed.items()]))
            with retriever_of(blank, halved) as retriever:
                hits = retriever.search_sync("offline", groups=["staff"], filter={"number": {"lt": 60}}).hits
                assert any(hit.payload["number"] % 2 for hit in hits) is not bool(changed)
                assert len(hits) == 10


def test_a_collection_that_is_replaced_meanwhile_is_searched_anew(desk: Desk, opened: Store) -> None:
    desk.fill_in(opened, {"titles": ROWS["titles"][:5]}, number=2, go_live=False)

    def replace(store: Store, _: str) -> None:
        store.point_alias(desk.settings.alias("titles"), desk.collection("titles", 2))
        store.drop(desk.collection("titles"))

    with retriever_of(desk, Halved(opened, replace)) as retriever:
        result = retriever.search_sync("printer of titles number 3", indexes=["titles"])
        assert result.errors == {}
        assert result.collections == {"titles": desk.collection("titles", 2)}
        assert sorted(found(result)) == [("titles", str(n)) for n in range(5)]
