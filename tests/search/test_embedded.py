"""The embedded store among processes: searches go on while another one writes, and an idle retriever closes it."""

import threading

import pytest

from rag_index.components.stores.edge import reader as edge_reader
from rag_index.errors import SearchFailed, StoreBusy, StoreError
from rag_index.search import Retriever, fan_out
from tests.components.stores.edge_process import writer
from tests.waiting import eventually

HOLD = """
for name in store.collections():
    store.delete_points(name, ["00000000-0000-0000-0000-000000000000"])
print("ready", flush=True)
input()
for name in store.collections():
    store.flush(name)
input()
"""
"""Another process writes each collection of the store in place, and flushes when it is told to."""


def answers(retriever: Retriever) -> int:
    """Return how many documents a search finds; 0 if the store is busy."""
    try:
        result = retriever.search_sync("printer")
    except (StoreBusy, SearchFailed):
        return 0
    return len(result.hits)


def test_waiting_for_a_writer_does_not_count_for_a_time_limit_and_closing_ends_it(embedded, monkeypatch):
    monkeypatch.setattr(edge_reader, "WRITE_SECONDS", 0.1)
    with writer(embedded.settings.store.path, HOLD) as holder:
        assert holder.says() == "ready"
        closed = Retriever.from_settings(embedded.config, wait=60)
        threading.Timer(0.3, closed.close).start()
        with pytest.raises(StoreError, match="closed"):
            closed.search_sync("printer")
        with embedded.retriever(retrieve={"timeout": 30}, run={"wait": 100}) as retriever:
            threading.Timer(3.0, holder.goes_on).start()
            assert eventually(lambda: answers(retriever) == 7)


def test_an_idle_retriever_closes_the_store_and_opens_it_again_and_one_that_closes_does_so_at_once(
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
