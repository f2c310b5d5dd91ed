"""The queries of an embedder that calls servers: they come from any thread, and leave as requests."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from rag_index.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.embedders.queries import Query
    from rag_index.embedders.query_dispatch import QueryDispatch
    from rag_index.hosts.pool import Pool

CLOSING_POLL = 0.05


class QueryStream:
    """The queue of queries, and the call that embeds them. All methods must be called on one event loop.

    If no host can be used, the next query tries all of them afresh: the pauses between tries suit runs, which can wait.
    Only a pause that the hosts asked for is kept.
    """

    def __init__(self, new_pool: Callable[[], Pool], dispatch: Callable[[Pool, deque[Query]], QueryDispatch]) -> None:
        self._new_pool, self._dispatch = new_pool, dispatch
        self._pool = new_pool()
        self._queue: deque[Query] = deque()
        self._task: asyncio.Task[None] | None = None
        self._call: QueryDispatch | None = None

    def add(self, queries: Sequence[Query]) -> None:
        """Add queries, and start embedding if no call is under way."""
        self._queue.extend(queries)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._embed())
        elif self._call is not None:
            self._call.notice_queries()

    async def close(self) -> None:
        """Wait until nobody waits for a query any more, and end the call under way."""
        if self._task is None:
            return
        while not self._task.done() and self._is_wanted():
            await asyncio.wait([self._task], timeout=CLOSING_POLL)
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _embed(self) -> None:
        while self._queue:
            self._call = self._dispatch(self._pool, self._queue)
            try:
                await self._call.embed_queue()
            except RateLimited:
                pass
            except Exception:  # noqa: BLE001 - every query has it
                self._pool = self._new_pool()

    def _is_wanted(self) -> bool:
        return any(query.wanted for query in self._queue) or (self._call is not None and self._call.wanted())
