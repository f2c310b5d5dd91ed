"""A wrapper that neither Prefect nor Dask looks into.

Both walk the lists, tuples, dicts and dataclasses that a task is given, element by element, in search of futures: with
thousands of documents that costs more than embedding them. Prefect's own `opaque` is a tuple, which Dask unwraps.
"""

from __future__ import annotations

import uuid
from typing import Generic, TypeVar

T = TypeVar("T")


class Opaque(Generic[T]):
    """A holder of `value`, which is a leaf to whoever walks over arguments."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __dask_tokenize__(self) -> str:
        """Return a new token each time: Dask names a task by its arguments, and would pickle all of them for that."""
        return uuid.uuid4().hex
