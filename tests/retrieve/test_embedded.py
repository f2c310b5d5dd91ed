"""The embedded store among processes: an error names the holder, and an idle retriever closes the store."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from rag_index.errors import StoreBusy, StoreError
from rag_index.retrieve import Retriever
from rag_index.retrieve.store_holder import StoreHolder
from rag_index.stores import open_store
from tests.retrieve.desk import found
from tests.waiting import eventually

HOLD = """
import sys
from pathlib import Path
from rag_index.stores.edge.store import EdgeStore
store = EdgeStore(Path(sys.argv[1]))
print("ready", flush=True)
input()
"""


class OtherProcess:
    """Another process that holds the store."""

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
        if self.popen.poll() is None:
            self.release()

    def release(self) -> None:
        self.popen.communicate("\n")


def test_while_another_process_holds_it_a_search_names_that_and_works_afterwards(embedded):
    with embedded.retriever() as retriever:
        with (
            OtherProcess(embedded) as holder,
            pytest.raises(StoreBusy, match=rf"is open in process {holder.popen.pid} \(.*\) since 2.*--wait SECONDS"),
        ):
            retriever.search_sync("printer")
        assert len(retriever.search_sync("printer").hits) == 7


def test_waiting_gets_it_once_it_is_free(embedded):
    with OtherProcess(embedded) as holder, Retriever.from_settings(embedded.config, wait=120) as retriever:
        results = []
        search = threading.Thread(target=lambda: results.append(retriever.search_sync("printer", timeout=120)))
        search.start()
        search.join(0.5)
        assert search.is_alive(), "it does not wait for the store"
        holder.release()
        search.join()
        assert len(results[0].hits) == 7


def test_waiting_adds_to_the_time_limit_and_ends(embedded):
    with OtherProcess(embedded), Retriever.from_settings(embedded.config, wait=0.6) as retriever:
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            retriever.search_sync("printer", timeout=0.2)
        assert time.monotonic() - began >= 0.6


def test_closing_ends_the_waiting(embedded):
    with OtherProcess(embedded):
        retriever = Retriever.from_settings(embedded.config, wait=60)
        threading.Timer(0.3, retriever.close).start()
        with pytest.raises(StoreError, match="closed"):
            retriever.search_sync("printer")


def test_an_idle_retriever_closes_the_store_and_opens_it_again(embedded):
    with embedded.retriever(retrieve={"idle_seconds": 1.0}) as retriever:
        for _ in range(2):
            assert len(retriever.search_sync("printer").hits) == 7
            with pytest.raises(StoreBusy, match=f"process {os.getpid()}"):
                open_store(embedded.settings.store)
            with closing(open_store(embedded.settings.store, wait=100)) as store:
                assert store.count("desk_titles") == 2
                with pytest.raises(StoreBusy):
                    retriever.search_sync("printer")


def test_a_retriever_in_use_keeps_the_store(embedded):
    with embedded.retriever(retrieve={"idle_seconds": 1.5}) as retriever:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            retriever.search_sync("printer")
            with pytest.raises(StoreBusy):
                open_store(embedded.settings.store)
            time.sleep(0.1)


def test_closing_a_retriever_closes_the_store_at_once(embedded):
    with embedded.retriever() as retriever:
        retriever.search_sync("printer")
    open_store(embedded.settings.store).close()


def test_nothing_is_opened_before_it_is_needed(embedded):
    with embedded.retriever(), closing(open_store(embedded.settings.store)):
        pass


def test_a_damaged_collection_is_named_and_the_others_answer(embedded):
    shutil.rmtree(embedded.settings.store.path / "collections" / "desk_titles__1")
    with embedded.retriever() as retriever:
        result = retriever.search_sync("printer")
        assert {index for index, _ in found(result)} == {"comments", "solutions"}
        assert "the folder of collection desk_titles__1" in result.errors["titles"]
        assert "rag-index rebuild" in result.errors["titles"]


# StoreHolder alone


class FakeStore:
    embedded = True

    def __init__(self, log: list[str]) -> None:
        self.log = log
        log.append("open")

    def close(self) -> None:
        self.log.append("close")


def test_a_holder_opens_once_for_all_who_borrow():
    log: list[str] = []
    holder = StoreHolder(lambda: FakeStore(log), idle=0.1)
    with holder.borrow() as one, holder.borrow() as two:
        assert one is two
        time.sleep(0.3)
        assert log == ["open"], "it is not idle while it is lent"
    eventually(lambda: log == ["open", "close"])
    assert log == ["open", "close"]
    with holder.borrow():
        pass
    holder.close()
    assert log == ["open", "close", "open", "close"]
    with pytest.raises(StoreError, match="closed"), holder.borrow():
        pass


def test_an_error_while_opening_is_raised_to_each_caller():
    tries = []

    def broken():
        tries.append(1)
        raise StoreError("no such folder")

    holder = StoreHolder(broken, wait=5)
    for _ in range(2):
        with pytest.raises(StoreError, match="no such folder"), holder.borrow():
            pass
    assert len(tries) == 2
