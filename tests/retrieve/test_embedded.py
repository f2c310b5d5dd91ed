"""The embedded store among processes: who has it is said, and it is given back when nobody searches."""

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

HOLD = """
import sys
from pathlib import Path
from rag_index.stores.edge.store import EdgeStore
store = EdgeStore(Path(sys.argv[1]))
print("ready", flush=True)
input()
"""


class Holder:
    """Another process that has the store."""

    def __init__(self, desk) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", HOLD, desk.settings.store.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.popen.stdout.readline() == "ready\n"

    def __enter__(self) -> Holder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.popen.poll() is None:
            self.let_go()

    def let_go(self) -> None:
        self.popen.communicate("\n")


def test_while_another_process_has_it_a_search_says_which_and_works_afterwards(embedded):
    with embedded.retriever() as retriever:
        with Holder(embedded) as holder:
            began = time.monotonic()
            with pytest.raises(
                StoreBusy, match=rf"is open in process {holder.popen.pid} \(.*\) since 2.*--wait SECONDS"
            ):
                retriever.search_sync("printer")
            assert time.monotonic() - began < 1
        assert len(retriever.search_sync("printer").hits) == 7


def test_waiting_gets_it_once_it_is_free(embedded):
    with Holder(embedded) as holder, Retriever.from_settings(embedded.config, wait=30) as retriever:
        threading.Timer(0.5, holder.let_go).start()
        result = retriever.search_sync("printer", timeout=20)
        assert len(result.hits) == 7
        assert result.timings_ms["total"] > 400


def test_waiting_is_beside_the_time_limit_and_ends(embedded):
    with Holder(embedded), Retriever.from_settings(embedded.config, wait=0.6) as retriever:
        began = time.monotonic()
        with pytest.raises(StoreBusy):
            retriever.search_sync("printer", timeout=0.2)
        assert 0.6 <= time.monotonic() - began < 2


def test_closing_ends_the_waiting(embedded):
    with Holder(embedded):
        retriever = Retriever.from_settings(embedded.config, wait=60)
        threading.Timer(0.3, retriever.close).start()
        began = time.monotonic()
        with pytest.raises(StoreError, match="closed"):
            retriever.search_sync("printer")
        assert time.monotonic() - began < 5


def test_an_idle_retriever_gives_the_store_back_and_takes_it_again(embedded):
    with embedded.retriever(retrieve={"idle_seconds": 0.3}) as retriever:
        for _ in range(2):
            assert len(retriever.search_sync("printer").hits) == 7
            with pytest.raises(StoreBusy, match=f"process {os.getpid()}"):
                open_store(embedded.settings.store)
            with closing(open_store(embedded.settings.store, wait=5)) as store:
                assert store.count("desk_titles") == 2
                with pytest.raises(StoreBusy):
                    retriever.search_sync("printer")


def test_a_retriever_in_use_keeps_the_store(embedded):
    with embedded.retriever(retrieve={"idle_seconds": 0.5}) as retriever:
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            retriever.search_sync("printer")
            with pytest.raises(StoreBusy):
                open_store(embedded.settings.store)
            time.sleep(0.1)


def test_closing_gives_it_back_at_once(embedded):
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


# The holder by itself


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
    with holder.store() as one, holder.store() as two:
        assert one is two
        time.sleep(0.3)
        assert log == ["open"], "it is not idle while it is lent"
    deadline = time.monotonic() + 5
    while holder.held and time.monotonic() < deadline:
        time.sleep(0.01)
    assert log == ["open", "close"]
    with holder.store():
        pass
    holder.close()
    assert log == ["open", "close", "open", "close"]
    with pytest.raises(StoreError, match="closed"), holder.store():
        pass


def test_an_error_of_opening_is_everybodys_own():
    tries = []

    def broken():
        tries.append(1)
        raise StoreError("no such folder")

    holder = StoreHolder(broken, wait=5)
    for _ in range(2):
        with pytest.raises(StoreError, match="no such folder"), holder.store():
            pass
    assert len(tries) == 2
