"""Event loops wait for threads."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rag_index.errors import StoreError
from rag_index.retrieve.concurrency import result_of


@pytest.fixture
def gate():
    gate = threading.Event()
    yield gate
    gate.set()


def test_a_future_can_be_awaited_in_any_loop_and_outlives_it(gate, caplog):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(gate.wait, 60)

        async def impatient():
            async with asyncio.timeout(0.01):
                await result_of(future)

        with pytest.raises(TimeoutError):
            asyncio.run(impatient())
        gate.set()
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
        with pytest.raises(StoreError, match="closed"):
            await result_of(future)

    asyncio.run(main())
