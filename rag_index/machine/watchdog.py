"""A watchdog that ends a process which hangs."""

from __future__ import annotations

import faulthandler
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def end_process_after(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer, whatever it hangs in. None is no limit."""
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True)  # its thread needs no interpreter, which may be what hangs
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
