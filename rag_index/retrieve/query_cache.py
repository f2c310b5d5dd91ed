"""A cache of query vectors."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from cachetools import TTLCache

from rag_index.documents.canonical import hash_text

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


def query_key(fingerprint: str, query: str) -> tuple[str, bytes]:
    """Return what a query's vector depends on: the model's fingerprint (prefix included) and a hash of the text."""
    return fingerprint, hash_text(query)


class QueryCache:
    """The `size` most recently used vectors, each younger than `seconds`. A size of 0 turns the cache off.

    Safe to use from several threads.
    """

    def __init__(self, size: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._vectors: TTLCache[tuple[str, bytes], NDArray[np.float32]] = TTLCache(size, seconds, timer=clock)

    def __len__(self) -> int:
        with self._lock:
            return len(self._vectors)

    def get(self, key: tuple[str, bytes]) -> NDArray[np.float32] | None:
        """Return the vector, or None if there is none that is young enough."""
        with self._lock:
            return self._vectors.get(key)

    def put(self, key: tuple[str, bytes], vector: NDArray[np.float32]) -> None:
        """Keep a vector. The caller must not change it afterwards."""
        if self._vectors.maxsize:
            with self._lock:
                self._vectors[key] = vector
