"""The quarantine of shards whose workers die: each is run alone, and split until the cause is found."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from distributed.scheduler import KilledWorker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["quarantine"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def quarantine(
    suspects: Iterable[Item],
    run_alone: Callable[[Item], Result],
    *,
    split: Callable[[Item], list[Item]],
    poison: Callable[[Item], Result],
) -> Iterator[Result]:
    """Run each suspect alone, and split one that kills its workers again, until only killers are left.

    Args:
        suspects: Items whose workers died while others were in flight as well.
        run_alone: Runs an item with nothing beside it; raises KilledWorker if its workers die.
        split: Returns the parts of an item, or the item itself if it cannot be split.
        poison: Returns the result of an item that kills its workers and cannot be split.
    """
    waiting = deque(suspects)
    while waiting:
        suspect = waiting.popleft()
        try:
            result = run_alone(suspect)
        except KilledWorker:
            parts = split(suspect)
            if len(parts) > 1:
                waiting.extendleft(reversed(parts))
                continue
            result = poison(suspect)
        yield result
