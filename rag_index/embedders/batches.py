"""Batches: the texts of one embedding request."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.hosts.trials import ALONE_LIMIT, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

FAULT_TRIES = 3
"""Failures of a batch of several texts through faults of the server, before its texts are suspected."""
MIN_TEXTS = 8
"""Minimum size of the batches that are made smaller to give every host one."""


@dataclass(slots=True)
class Batch(Request):
    """The texts of one request, as row numbers."""

    rows: list[int]
    chars: int
    is_part: bool = False
    """Whether the batch is a half of one that was refused."""

    @property
    def single(self) -> bool:
        """Whether there is only one text."""
        return len(self.rows) == 1

    @property
    def suspect(self) -> bool:
        """Whether the texts may be at fault. Several texts are suspected sooner, and then sent in halves."""
        return self.tries >= (ALONE_LIMIT if self.single else FAULT_TRIES)

    def halves(self, tries: int = 0, *, refused: bool = True) -> tuple[Batch, Batch]:
        """Return the two halves of the batch, with `tries` as their number of failures.

        Sending a half of a batch that was refused because of its texts repeats nothing.

        A half of one text starts at 0, since hosts that fail in turn may hit one batch three times by chance.
        """
        middle, chars = len(self.rows) // 2, self.chars // 2
        first, second = (
            Batch(
                rows,
                length,
                is_part=refused,
                sends=0 if refused else self.sends,
                tries=tries if len(rows) > 1 else 0,
                error=self.error,
                failed_at=self.failed_at,
            )
            for rows, length in ((self.rows[:middle], chars), (self.rows[middle:], self.chars - chars))
        )
        return first, second


def make_batches(texts: Sequence[str], *, max_texts: int, max_chars: int, hosts: int = 1) -> deque[Batch]:
    """Return batches of at most `max_texts` texts and `max_chars` characters, with the longest texts first.

    Texts of a batch have similar lengths, so that none waits long for another. A text longer than `max_chars` gets a
    batch of its own. If there are few texts and several hosts, the batches are small enough for each host to get one.
    """
    share = -(-len(texts) // hosts)
    max_texts = min(max_texts, max(MIN_TEXTS, share))
    batches: deque[Batch] = deque()
    current = Batch([], 0)
    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row])):
        length = len(texts[row])
        if current.rows and (len(current.rows) >= max_texts or current.chars + length > max_chars):
            batches.append(current)
            current = Batch([], 0)
        current.rows.append(row)
        current.chars += length
    if current.rows:
        batches.append(current)
    return batches
