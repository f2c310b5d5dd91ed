"""An event loop in the background."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rag_index.errors import StoreError
from rag_index.retrieve.concurrency import BackgroundLoop


def test_it_serves_threads_and_running_loops():
    background = BackgroundLoop()
    together = asyncio.Barrier(20)

    async def work(n):
        if n < 20:
            await together.wait()
        return n, threading.get_ident()

    async def inside():
        return background.run(work(99))

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda n: background.run(work(n)), range(20)))
    assert [n for n, _ in answers] == list(range(20))
    assert len({thread for _, thread in [*answers, asyncio.run(inside())]}) == 1
    background.close()
    background.close()


def test_closing_it_ends_the_coroutines_under_way():
    background = BackgroundLoop()
    threading.Timer(0.05, background.close).start()
    with pytest.raises(StoreError, match="closed"):
        background.run(asyncio.sleep(30))
