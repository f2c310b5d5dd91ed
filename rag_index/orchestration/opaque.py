"""A wrapper that neither Prefect nor Dask looks into.

Both walk lists, tuples, dicts and dataclasses that a task is given, element by element, for futures: with thousands
of documents that costs more than embedding them. Prefect's own `opaque` is a tuple, and Dask makes it a plain one.
"""

from __future__ import annotations

import uuid
from typing import Generic, TypeVar

__all__ = ["Opaque"]

T = TypeVar("T")


class Opaque(Generic[T]):
    """Holds `value`, and is a leaf to whoever walks."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __dask_tokenize__(self) -> str:
        """Dask names a task by what it is given, for which it would pickle all of it once more; no two are the same."""
        return uuid.uuid4().hex
