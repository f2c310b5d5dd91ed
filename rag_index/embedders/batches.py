"""Batches: which texts travel in one embedding request."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.errors import EmbedderUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Batch", "make_batches"]

FAULT_TRIES = 3
"""Requests that end in a fault of the server, before the texts in them are suspected."""
ALONE_TRIES = 2
"""Requests in which one text alone is refused, or comes back broken, before it is believed."""
FEWEST_TEXTS = 8
"""Smaller arrays are not cut only to give every host one."""


@dataclass(slots=True)
class Batch:
    """Texts of one request, by their number, and what went wrong with them so far."""

    rows: list[int]
    chars: int
    sends: int = 0
    tries: int = 0
    error: Exception | None = None
    failed_at: float = 0.0

    @property
    def suspect(self) -> bool:
        """Whether the texts rather than the server are the reason, should the server prove to be well."""
        return self.tries >= (FAULT_TRIES if isinstance(self.error, EmbedderUnavailable) else ALONE_TRIES)

    def failed(self, error: Exception, now: float) -> None:
        """Count a request that ended in this error."""
        self.tries += 1
        self.error, self.failed_at = error, now

    def halves(self, tries: int = 0) -> tuple[Batch, Batch]:
        """Two batches of the same texts, which have been tried as often as said; a text that is alone by now has
        not, since hosts that fail in turn may hit one batch thrice by chance.
        """
        middle, chars = len(self.rows) // 2, self.chars // 2
        first, second = (
            Batch(rows, length, self.sends, tries if len(rows) > 1 else 0, self.error, self.failed_at)
            for rows, length in ((self.rows[:middle], chars), (self.rows[middle:], self.chars - chars))
        )
        return first, second


def make_batches(texts: Sequence[str], *, max_texts: int, max_chars: int, hosts: int = 1) -> deque[Batch]:
    """The texts, longest first, in batches of at most `most_texts` texts and `most_chars` characters.

    Neighbours are of like length, so that none waits long for another; a text longer than `most_chars` travels alone.
    With several hosts, few texts are cut small enough for each of them to get some.
    """
    share = -(-len(texts) // hosts)
    max_texts = min(max_texts, max(FEWEST_TEXTS, share))
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
