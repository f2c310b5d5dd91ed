"""Calls wait for threads: callers take turns, and what nobody waits for is not begun."""

import asyncio
import threading
from concurrent.futures import wait
from contextlib import ExitStack, nullcontext, suppress
from types import SimpleNamespace

import pytest

from rag_index.errors import SearchBusy, SearchTimedOut, StoreError
from rag_index.search.concurrency import Deadline, Places, StoreThreads, only_waiting


@pytest.fixture
def busy():
    """One thread, which works until the event is set."""
    threads, done = StoreThreads(StopIteration, {"lane": 1}), threading.Event()
    threads.submit("lane", done.wait, 30)
    yield threads, done
    done.set()
    threads.close()


def test_a_call_whose_turn_has_not_come_is_given_up(busy):
    threads, done = busy
    begun = []

    async def main():
        waiting = asyncio.ensure_future(Deadline.after(30).result_of(threads.submit("lane", begun.append, "cancelled")))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        for seconds, patience in ((30, 0.01), (0.01, 30)):
            with pytest.raises(SearchBusy, match="for its turn"):
                await Deadline.after(seconds).result_of(threads.submit("lane", begun.append, "late"), patience=patience)
        with pytest.raises(SearchTimedOut, match=r"after 0\.01 s"):
            await Deadline.after(0.01).result_of(threads.submit("another lane", done.wait, 30), patience=30)
        last = threads.submit("lane", begun.append, "closed")
        threads.close()
        with pytest.raises(StoreError, match="closed"):
            await Deadline.after(30).result_of(last)

    asyncio.run(main())
    assert begun == []


def test_opening_the_store_holds_up_no_other_call():
    """It may take long, and an event loop makes the other calls."""
    begun, free = threading.Event(), threading.Event()

    def open_slowly():
        begun.set()
        assert free.wait(30), "the other call was not made"
        return nullcontext()

    threads = StoreThreads(open_slowly, {"lane": 1, "another lane": 1})
    asked = threads.submit("lane", threads.ask, lambda store: "opened")
    assert begun.wait(30)
    threads.submit("another lane", free.set)
    assert asked.result(60) == "opened"


def test_a_store_that_a_call_uses_is_not_idle_however_long_the_call_takes():
    closed = threading.Event()
    store = SimpleNamespace(close=closed.set, wanted=lambda: False)
    threads = StoreThreads(lambda: store, {"lane": 1}, idle=0.01)
    assert not threads.submit("lane", threads.ask, lambda _: closed.wait(0.5)).result(30)
    assert closed.wait(30)


def test_callers_take_turns(busy):
    threads, done = busy
    places, order = Places(100), []
    calls = []
    for caller in ["ann"] * 5 + ["bo"] * 2 + ["kim"]:
        with places.take(caller):
            calls.append(threads.submit("lane", order.append, caller))
    done.set()
    wait(calls)
    assert order == ["ann", "bo", "kim", "ann", "bo", "ann", "ann", "ann"]


@pytest.mark.parametrize("waiting", [False, True])
def test_one_caller_has_a_share_of_the_places_and_whoever_waits_takes_none(waiting):
    places, fitting = Places(8), ""
    with ExitStack() as held:
        for caller in "aaabcdefghi":
            with suppress(SearchBusy), ExitStack() as holding:
                holding.enter_context(places.take(caller))
                holding.enter_context(only_waiting() if waiting else nullcontext())
                held.push(holding.pop_all())
                fitting += caller
        assert fitting == "aabcdefg", "two of one caller, eight of all"
        with nullcontext() if waiting else pytest.raises(SearchBusy), places.take("z"):
            pass
    with ExitStack() as again:  # each has given back what it had
        for number in range(8):
            again.enter_context(places.take(str(number)))
