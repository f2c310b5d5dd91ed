"""The quarantine of shards whose process dies: each is run alone, and split until the cause is found."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import ProcessDied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Result = TypeVar("Result")


def quarantine(
    suspects: Iterable[Item],
    run_alone: Callable[[Item], Result],
    *,
    split: Callable[[Item], list[Item]],
    poison: Callable[[Item], Result],
) -> Iterator[Result]:
    """Run each suspect alone, split one that kills its process again, and yield all results.

    Args:
        suspects: Items whose process died, perhaps because of another item.
        run_alone: Runs an item with nothing beside it; raises ProcessDied if its process dies.
        split: Returns the parts of an item, or the item itself if it cannot be split.
        poison: Returns the result of an item that kills its process and cannot be split.
    """
    waiting = deque(suspects)
    while waiting:
        suspect = waiting.popleft()
        try:
            result = run_alone(suspect)
        except ProcessDied:
            parts = split(suspect)
            if len(parts) > 1:
                waiting.extendleft(reversed(parts))
                continue
            result = poison(suspect)
        yield result
