"""Equal calls in flight are joined, and event loops wait for threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rag_index.retrieve.concurrency import SingleFlight, result_of


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_calls_in_flight_are_joined(pool):
    single_flight, begin, calls = SingleFlight(), threading.Event(), []

    def work():
        begin.wait(5)
        calls.append(1)
        return "done"

    waiting = [single_flight.join("key", lambda: pool.submit(work)) for _ in range(10)]
    other = single_flight.join("other", lambda: pool.submit(lambda: "other"))
    begin.set()
    assert [future.result(5) for future in waiting] == ["done"] * 10
    assert calls == [1]
    assert other.result(5) == "other"
    assert single_flight.join("key", lambda: pool.submit(work)).result(5) == "done"
    assert calls == [1, 1]
    assert not single_flight._calls


def test_all_waiters_get_the_error_and_the_next_call_is_a_new_one(pool):
    single_flight, begin = SingleFlight(), threading.Event()

    def work():
        begin.wait(5)
        raise ValueError("broken")

    waiting = [single_flight.join(1, lambda: pool.submit(work)) for _ in range(3)]
    begin.set()
    for future in waiting:
        with pytest.raises(ValueError, match="broken"):
            future.result(5)
    assert single_flight.join(1, lambda: pool.submit(lambda: 7)).result(5) == 7


def test_a_waiter_that_leaves_takes_nothing_from_the_others(pool):
    single_flight, begin, calls = SingleFlight(), threading.Event(), []
    pool.submit(begin.wait, 5)
    first = single_flight.join(1, lambda: pool.submit(lambda: calls.append(1)))
    second = single_flight.join(1, lambda: pool.submit(lambda: calls.append(1)))
    abandoned = single_flight.join(2, lambda: pool.submit(lambda: calls.append(2)))
    first.cancel()
    abandoned.cancel()
    begin.set()
    second.result(5)
    pool.submit(lambda: None).result(5)
    assert calls == [1], "a call that nobody waits for is not begun"
    assert single_flight.join(2, lambda: pool.submit(lambda: "again")).result(5) == "again"


def test_a_future_can_be_awaited_in_any_loop_and_outlives_it(pool, caplog):
    begin = threading.Event()
    future = pool.submit(begin.wait, 5)

    async def impatient():
        async with asyncio.timeout(0.01):
            await result_of(future)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    begin.set()
    future.result(5)
    assert asyncio.run(result_of(future)) is True
    assert not caplog.records


def test_cancelling_the_wait_cancels_a_future_that_has_not_begun():
    async def main():
        future: Future[None] = Future()
        task = asyncio.ensure_future(result_of(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()

    asyncio.run(main())
