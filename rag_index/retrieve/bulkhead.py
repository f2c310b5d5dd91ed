"""Threads for the calls of a Retriever, divided so that an index that hangs delays no other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

__all__ = ["Bulkhead"]

P = ParamSpec("P")
T = TypeVar("T")


class Bulkhead:
    """Thread pools of at most `width` threads in total, divided evenly among the names.

    If there are more names than threads, several names share one thread.
    """

    def __init__(self, names: Sequence[str], width: int) -> None:
        count = max(1, min(len(names), width))
        self._pools = [ThreadPoolExecutor(max(1, width // count), "rag-index-search") for _ in range(count)]
        self._pool_numbers = {name: number % count for number, name in enumerate(names)}

    def submit(self, name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in one of this name's threads. Raises StoreError once closed."""
        try:
            return self._pools[self._pool_numbers[name]].submit(call, *args, **kwargs)
        except RuntimeError as exc:
            raise StoreError("the retriever is closed") from exc

    def close(self) -> None:
        """Start no more calls; those already running finish."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
