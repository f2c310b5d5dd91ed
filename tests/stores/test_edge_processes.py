"""Searches of an embedded store in processes of their own: what one of them does holds up nothing else."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from rag_index.components.stores.edge.reader import EdgeReader
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import Condition, VectorQuery
from rag_index.errors import SearchTimedOut, StoreError
from tests.stores.edge_process import WIDE, fill, points
from tests.waiting import eventually

ENDLESS = [Condition("n", "not", -number) for number in range(1, 30_000)]
"""The engine reads the payload of each of a thousand points for each of these."""


def search(reader, *conditions) -> list[int]:
    query = points(range(1), WIDE).vectors[0]
    return [hit.payload["n"] for hit in reader.search("live", VectorQuery(query, 3, conditions=conditions))]


def children() -> list[psutil.Process]:
    found = (one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE)
    return [one for one in found if "edge.collection_reader" in " ".join(one.cmdline())]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store")
    fill(path)
    return path


def test_a_search_that_takes_long_holds_up_nothing(store):
    with closing(EdgeReader(store, timeout=300)) as reader, ThreadPoolExecutor() as threads:
        expected = search(reader)
        slow = threads.submit(search, reader, *ENDLESS)
        eventually(lambda: search(reader) == expected and len(children()) == 2)  # once it has taken the first process
        assert search(reader) == expected
        assert not slow.done()
        reader.close()
        with pytest.raises(StoreError, match="closed"):
            slow.result()
    assert not children()


def test_all_processes_may_be_busy(store):
    with closing(EdgeReader(store, timeout=0.5)) as reader, ThreadPoolExecutor() as threads:
        slow = [threads.submit(search, reader, *ENDLESS) for _ in range(6)]
        for one in slow:
            with pytest.raises(SearchTimedOut, match=r"timed out after 0\.5 s"):
                one.result()
        assert search(reader)


def test_a_process_that_is_killed_is_replaced(store):
    with closing(EdgeReader(store, timeout=300)) as reader, ThreadPoolExecutor() as threads:
        expected = search(reader)
        (idle,) = children()
        idle.kill()
        idle.wait()
        assert search(reader) == expected
        slow = threads.submit(search, reader, *ENDLESS)
        (busy,) = children()
        eventually(lambda: busy.cpu_times().user > 1, "the engine searches")
        busy.kill()
        with pytest.raises(StoreError, match=r"the process that searches c ended \(exit code -9\)"):
            slow.result()
        assert search(reader) == expected


def test_a_process_lets_go_of_a_collection_that_was_replaced(tmp_path):
    fill(tmp_path)
    with closing(EdgeReader(tmp_path, timeout=300)) as reader:
        search(reader)
        (child,) = children()
        with closing(EdgeStore(tmp_path)) as store:
            store.delete_points("live", points(range(500)).ids)
        eventually(lambda: reader.count("live") == 500 and not held_without_a_name(child))


def held_without_a_name(process: psutil.Process) -> list[str]:
    """Return the files of views that a process has in memory, and that are deleted."""
    held = (one.path for one in process.memory_maps() if "/readers/" in one.path)
    return [path for path in held if not Path(path).exists()]


def test_a_process_that_searches_loads_no_settings():
    """It is started while a search waits, and pydantic alone would take it as long again."""
    loaded = "import sys, rag_index.components.stores.edge.collection_reader; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True).stdout.split()
    assert "rag_index.components.stores.edge.collection_reader" in found
    assert not {"pydantic", "rag_index.core.settings"} & set(found)
