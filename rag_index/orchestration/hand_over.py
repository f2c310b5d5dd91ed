"""Runs that are handed over: this process began one by the plain driver, and the flow continues it.

Lease, scan and numbers are those of the same run, so nothing is read, written or counted twice.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.indexing import run as indexing_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    from rag_index.indexing.run import IndexRun, RunOptions
    from rag_index.settings import Settings


@dataclass(slots=True)
class HandedOver:
    """A run for the flow to continue, and the stack that closes what it holds open."""

    run: IndexRun
    stack: ExitStack
    taken: bool = False
    """Whether the flow has taken the run, and ends and closes it."""


_HANDED_OVER: ContextVar[HandedOver | None] = ContextVar("a run to continue", default=None)


@contextmanager
def handed_over(run: IndexRun, stack: ExitStack) -> Iterator[None]:
    """Let the flow of this index, called within the block, continue the run. `stack` closes what the run holds open.

    If the flow does not come to it, the run ends with the error that ends the block.
    """
    waiting = HandedOver(run, stack)
    token = _HANDED_OVER.set(waiting)
    try:
        yield
    except BaseException as error:
        if not waiting.taken:
            run.fail(error)
        raise
    finally:
        _HANDED_OVER.reset(token)
        stack.close()


@contextmanager
def open_run(settings: Settings, name: str, options: RunOptions, *, run_id: str) -> Iterator[IndexRun]:
    """Continue the run that was handed over, if it is of this index; otherwise open one as `indexing.run.open_run`."""
    waiting = _HANDED_OVER.get()
    if waiting is not None and not waiting.taken and waiting.run.index.name == name:
        waiting.taken = True
        with waiting.stack:
            yield waiting.run
        return
    with indexing_run.open_run(settings, name, options, run_id=run_id) as run:
        yield run
