"""Less frequent collection of reference cycles, for code through which rows pass by the hundred thousand.

A module of its own: every command imports it, and little else.
"""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


ALLOCATIONS = 100_000


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Look for reference cycles after 100,000 new containers, instead of after about 700, Python's default.

    Rows and payloads are containers without cycles, and a collection soon visits every object that Prefect has
    imported. Objects whose last reference goes away are freed at once, as always.
    """
    young, *older = gc.get_threshold()
    if not gc.isenabled() or young >= ALLOCATIONS:  # the user's choice, or that of an enclosing block
        yield
        return
    gc.set_threshold(ALLOCATIONS, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)
