"""Batches: the texts of one embedding request."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.hosts.pool import Host

__all__ = ["Batch", "Trial", "make_batches"]

FAULT_TRIES = 3
"""Failures of a batch of several texts through faults of the server, before its texts are suspected."""
ROAMING_TRIES = 2
"""Failures of a text that is sent alone, before it is tried on one host only (see `Trial`)."""
TRIAL_FAILURES = 3
"""Failures in a row on one host that prove a text at fault, if the host embeds a plain text after each."""
ALONE_LIMIT = 10
"""Failures of a text that is sent alone, after which it is at fault even if no host embedded a plain text after each.
Otherwise, a text that kills the whole server would be sent for ever."""
MIN_TEXTS = 8
"""Minimum size of the batches that are made smaller to give every host one."""


@dataclass(slots=True)
class Trial:
    """A host on which a text failed alone, and the failures there since.

    The text is sent to that host again as soon as the host has embedded a plain text. If the host fails on the plain
    text, the host was the reason itself, and the trial ends without a result.
    """

    host: Host
    plain_failures: int
    """The value of `Host.plain_failures` when the trial began."""
    failures: int = 1

    @property
    def host_failed(self) -> bool:
        """Whether the host has failed on a plain text since the trial began."""
        return self.host.plain_failures > self.plain_failures

    @property
    def proven(self) -> bool:
        """Whether the text is at fault if the host embeds one more plain text."""
        return self.failures >= TRIAL_FAILURES


@dataclass(slots=True)
class Batch:
    """The texts of one request, as row numbers, and their failures so far."""

    rows: list[int]
    chars: int
    sends: int = 0
    is_part: bool = False
    """Whether the batch is a half of one that was refused."""
    tries: int = 0
    error: Exception | None = None
    failed_at: float = 0.0
    trial: Trial | None = None

    @property
    def suspect(self) -> bool:
        """Whether the batch failed so often that its texts are at fault if any host embeds a plain text now."""
        return self.tries >= (FAULT_TRIES if len(self.rows) > 1 else ALONE_LIMIT)

    def record_failure(self, error: Exception, now: float) -> None:
        """Count a request for this batch that ended with an error."""
        self.tries += 1
        self.error, self.failed_at = error, now

    def put_on_trial(self, host: Host) -> bool:
        """Count a failure on `host`, and return whether to try the batch on that host only.

        This is never the case for a batch of several texts.
        """
        if len(self.rows) > 1:
            return False
        if self.trial is None or self.trial.host is not host or self.trial.host_failed:
            self.trial = Trial(host, host.plain_failures)
        else:
            self.trial.failures += 1
        return self.tries >= ROAMING_TRIES

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
                sends=0 if refused else self.sends,
                is_part=refused,
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
