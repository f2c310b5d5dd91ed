"""Vectors of queries that were asked before."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["QueryCache", "query_key"]


def query_key(fingerprint: str, query: str) -> tuple[str, bytes]:
    """What a query's vector depends on: the model's fingerprint (prefix included) and a hash of the text."""
    return fingerprint, hashlib.blake2b(query.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class QueryCache:
    """The `size` vectors used last (LRU), each at most `seconds` old. Safe from several threads; 0 keeps none."""

    def __init__(self, size: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._seconds, self._clock = size, seconds, clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, bytes], tuple[float, NDArray[np.float32]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: tuple[str, bytes]) -> NDArray[np.float32] | None:
        """The vector, None where there is none that is young enough."""
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            made, vector = found
            if self._clock() - made > self._seconds:
                del self._kept[key]
                return None
            self._kept.move_to_end(key)
            return vector

    def put(self, key: tuple[str, bytes], vector: NDArray[np.float32]) -> None:
        """Keep a vector, which must not be changed any more."""
        with self._lock:
            self._kept[key] = (self._clock(), vector)
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
