"""The vectors of one question: one for each model that the indexes asked were made with."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.retrieve.live import LiveCollection


class QueryVectors:
    """The vectors of one question, made once for each fingerprint. `seconds` is how long the slowest took."""

    def __init__(self, embed: Callable[[LiveCollection, str], Awaitable[NDArray[np.float32]]], text: str) -> None:
        self._embed, self._text = embed, text
        self._tasks: dict[str, asyncio.Task[NDArray[np.float32]]] = {}
        self.seconds = 0.0

    async def get(self, live: LiveCollection) -> NDArray[np.float32]:
        """Return the vector that fits a live collection; indexes of one model wait for the same vector."""
        task = self._tasks.get(live.fingerprint)
        if task is None:
            task = self._tasks[live.fingerprint] = asyncio.ensure_future(self._embed_timed(live))
        return await asyncio.shield(task)

    def cancel(self) -> None:
        """Stop waiting for any vector that is still being made."""
        for task in self._tasks.values():
            task.cancel()

    async def _embed_timed(self, live: LiveCollection) -> NDArray[np.float32]:
        began = time.perf_counter()
        try:
            return await self._embed(live, self._text)
        finally:
            self.seconds = max(self.seconds, time.perf_counter() - began)
