"""Vectors that are remembered, and work that is done once for all who ask."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from rag_index.errors import StoreError
from rag_index.retrieve.query_cache import QueryCache, query_key
from rag_index.retrieve.single_flight import BackgroundLoop, SingleFlight, outcome

VECTOR = np.ones(3, np.float32)


def key(n: object):
    return query_key("model", str(n))


def test_a_key_is_model_and_text():
    assert query_key("a", "text") == query_key("a", "text")
    assert len({query_key("a", "text"), query_key("b", "text"), query_key("a", "text "), query_key("a", "\ud800")}) == 4


def test_those_used_last_are_kept():
    cache = QueryCache(2, 60)
    cache.put(key(1), VECTOR)
    cache.put(key(2), VECTOR)
    assert cache.get(key(1)) is VECTOR
    cache.put(key(3), VECTOR)
    assert [cache.get(key(n)) is not None for n in (1, 2, 3)] == [True, False, True]
    assert len(cache) == 2


def test_they_grow_old():
    now = [0.0]
    cache = QueryCache(2, 60, clock=lambda: now[0])
    cache.put(key(1), VECTOR)
    now[0] = 60
    assert cache.get(key(1)) is VECTOR
    now[0] = 61
    assert cache.get(key(1)) is None
    assert len(cache) == 0


def test_none_are_kept_where_the_size_is_zero():
    cache = QueryCache(0, 60)
    cache.put(key(1), VECTOR)
    assert cache.get(key(1)) is None


def test_threads_do_not_break_it():
    cache = QueryCache(50, 60)

    def work(seed):
        for n in np.random.default_rng(seed).integers(100, size=2000):
            if cache.get(key(n)) is None:
                cache.put(key(n), VECTOR)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert len(cache) <= 50


# Flights


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_work_under_way_is_joined(pool):
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
    assert not single_flight._single_flight


def test_all_have_the_error_and_the_next_try_is_a_new_one(pool):
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


def test_one_that_stops_waiting_takes_nothing_from_the_others(pool):
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
    assert calls == [1], "what nobody waits for is not begun"
    assert single_flight.join(2, lambda: pool.submit(lambda: "anew")).result(5) == "anew"


def test_what_a_closed_pool_drops_is_an_error(pool):
    single_flight, begin = SingleFlight(), threading.Event()
    pool.submit(begin.wait, 5)
    future = single_flight.join(1, lambda: pool.submit(lambda: 1))
    pool.shutdown(wait=False, cancel_futures=True)
    begin.set()
    with pytest.raises(StoreError, match="closed"):
        future.result(5)


def test_a_future_is_waited_for_in_any_loop_and_outlives_it(pool, caplog):
    begin = threading.Event()
    future = pool.submit(begin.wait, 5)

    async def impatient():
        async with asyncio.timeout(0.01):
            await outcome(future)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    begin.set()
    future.result(5)
    assert asyncio.run(outcome(future)) is True
    assert not caplog.records


def test_cancelling_the_wait_cancels_what_has_not_begun():
    async def main():
        future: Future[None] = Future()
        task = asyncio.ensure_future(outcome(future))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.cancelled()

    asyncio.run(main())


# A loop in the background


def test_a_background_loop_serves_threads_and_running_loops():
    background = BackgroundLoop()

    async def work(n):
        await asyncio.sleep(0.05)
        return n, threading.get_ident()

    async def inside():
        return background.run(work(99))

    began = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda n: background.run(work(n)), range(20)))
    assert time.monotonic() - began < 0.8
    assert [n for n, _ in answers] == list(range(20))
    assert len({thread for _, thread in [*answers, asyncio.run(inside())]}) == 1
    background.close()
    background.close()


def test_closing_it_ends_what_is_under_way():
    background = BackgroundLoop()
    threading.Timer(0.05, background.close).start()
    with pytest.raises(StoreError, match="closed"):
        background.run(asyncio.sleep(30))
