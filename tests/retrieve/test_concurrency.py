"""Event loops wait for threads."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

import pytest

from rag_index.errors import StoreError
from rag_index.retrieve.concurrency import result_of


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
