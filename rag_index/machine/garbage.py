"""Python's collector of reference cycles, told to look less often where rows pass by the hundred thousand."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["collect_seldom"]

ALLOCATIONS = 100_000


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Look for reference cycles after 100,000 new containers, where Python's default is 700 or so.

    Rows and payloads are containers without cycles, and each look is soon one at all that Prefect has imported. What is
    freed by its last reference is freed as ever.
    """
    young, *older = gc.get_threshold()
    if not gc.isenabled() or young >= ALLOCATIONS:  # as the user wants it, or a block around this one has done it
        yield
        return
    gc.set_threshold(ALLOCATIONS, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)
