"""The embedded store among processes: searches go on while another one writes, and an idle retriever closes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import pytest

from rag_index.errors import SearchFailed, StoreBusy, StoreError
from rag_index.retrieve import Retriever
from rag_index.stores.edge import reader as edge_reader
from tests.retrieve.desk import found
from tests.waiting import eventually

HOLD = """
import sys
from pathlib import Path
from rag_index.stores.edge.store import EdgeStore
store = EdgeStore(Path(sys.argv[1]))
for name in store.collections():
    store.delete_points(name, ["00000000-0000-0000-0000-000000000000"])
print("ready", flush=True)
input()
for name in store.collections():
    store.flush(name)
input()
"""


class OtherProcess:
    """Another process that writes each collection of the store in place, and flushes when it is told to."""

    def __init__(self, desk) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", HOLD, desk.settings.store.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout.readline() == "ready\n"

    def __enter__(self) -> OtherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.communicate("\n\n")

    def flush(self) -> None:
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()


def answers(retriever: Retriever) -> int:
    """Return how many documents a search finds; 0 if the store is busy."""
    try:
        result = retriever.search_sync("printer")
    except (StoreBusy, SearchFailed):
        return 0
    return len(result.hits)


def test_waiting_for_a_writer_does_not_count_for_a_time_limit_and_closing_ends_it(embedded, monkeypatch):
    monkeypatch.setattr(edge_reader, "WRITE_SECONDS", 0.1)
    with OtherProcess(embedded) as holder:
        closed = Retriever.from_settings(embedded.config, wait=60)
        threading.Timer(0.3, closed.close).start()
        with pytest.raises(StoreError, match="closed"):
            closed.search_sync("printer")
        with embedded.retriever(retrieve={"index_timeout": 1.0, "timeout": 30}, run={"wait": 100}) as retriever:
            threading.Timer(3.0, holder.flush).start()
            assert eventually(lambda: answers(retriever) == 7)


def test_an_idle_retriever_closes_the_store_and_opens_it_again_and_one_that_closes_does_so_at_once(embedded):
    readers = embedded.settings.store.path / "readers"
    with embedded.retriever(retrieve={"idle_seconds": 1.0}) as retriever:
        for _ in range(2):
            assert len(retriever.search_sync("printer").hits) == 7
            assert list(readers.iterdir())
            assert eventually(lambda: not list(readers.iterdir()))
        assert len(retriever.search_sync("printer").hits) == 7
    assert list(readers.iterdir()) == []


def test_a_damaged_collection_is_named_and_the_others_answer(embedded):
    shutil.rmtree(embedded.settings.store.path / "collections" / "desk_titles__1")
    with embedded.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert {index for index, _ in found(result)} == {"comments", "solutions"}
        assert "the folder of collection desk_titles__1" in result.errors["titles"]
        assert "rag-index rebuild" in result.errors["titles"]
