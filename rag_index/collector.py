"""Python's collector of reference cycles, told to look less often where rows pass by the hundred thousand."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["seldom_collected"]

ALLOCATIONS = 100_000


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for reference cycles after 100,000 new containers, and not among the objects that are there now.

    Rows and payloads are containers without cycles; the collector's default is to look at them after every 700 new
    ones, and every now and then at all that Prefect has imported as well, which was a third of the time of a run in
    which nothing changed (`gc.freeze`, `gc.set_threshold`). What is freed by its last reference is freed as ever.
    """
    young, *older = gc.get_threshold()
    if not gc.isenabled() or young >= ALLOCATIONS:  # as the user wants it, or a block around this one has done it
        yield
        return
    gc.freeze()
    gc.set_threshold(ALLOCATIONS, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)
        gc.unfreeze()
