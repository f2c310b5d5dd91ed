"""One call to embed: it sends batches to the hosts of a pool, and decides what each failure means."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.documents.vectors import broken_reason
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    RequestTooLong,
    TextRefused,
    TextTooLong,
)
from rag_index.hosts.calls import ALONE_LIMIT, HostCalls, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.endpoint import KnownModel
    from rag_index.hosts.pool import Clock, Host, Pool, RequestStats

FAULT_TRIES = 3
"""Failures of a batch of several texts through faults of the server, before its texts are suspected."""

MIN_TEXTS = 8
"""Minimum size of the batches that are made smaller to give every host one."""


@dataclass(slots=True)
class Batch(Request):
    """The texts of one request, as row numbers."""

    rows: list[int]
    is_part: bool = False
    """Whether the batch is a half of one that was refused."""

    @property
    def single(self) -> bool:
        """Whether there is only one text."""
        return len(self.rows) == 1

    @property
    def suspect(self) -> bool:
        """Whether the texts themselves may be at fault; several are suspected sooner, and then sent in halves."""
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
                chars=length,
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
    current = Batch([], chars=0)
    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row])):
        length = len(texts[row])
        if current.rows and (len(current.rows) >= max_texts or current.chars + length > max_chars):
            batches.append(current)
            current = Batch([], chars=0)
        current.rows.append(row)
        current.chars += length
    if current.rows:
        batches.append(current)
    return batches


class Dispatch(HostCalls[Batch]):
    """One call to embed `texts`. `await Dispatch(…).run()` returns an entry for each.

    These rules decide whether a host or a text is at fault:

    - A host that refuses connections or asks for a pause is at fault. The batch is sent again, and no text suffers.
    - A batch of several texts is halved if a host refuses it, or if it ends in a fault of the server three times and
      some host has embedded a plain text since. A text whose vector is broken is sent again, alone.
    - A text that fails alone is tried as `hosts.calls.Request` says.
    - A text that is too long gets its error at once.
    """

    def __init__(
        self,
        pool: Pool,
        model: KnownModel,
        stats: RequestStats,
        clock: Clock,
        *,
        texts: Sequence[str],
        batches: deque[Batch],
        patience: float,
    ) -> None:
        super().__init__(pool, model, stats, clock, requests=batches, patience=patience)
        self._model, self._texts = model, texts
        self._entries: list[NDArray[np.float32] | Exception | None] = [None] * len(texts)

    async def run(self) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order: its vector or its error.

        Raises EmbedderUnavailable or RateLimited if no host recovers within `patience` seconds, and ModelMissing,
        ModelChanged, BadVectors or EmbedderError if a host answers but cannot be used.
        """
        await self._run_to_end()
        return [entry for entry in self._entries if entry is not None]

    def _send_to(self, batch: Batch, host: Host, now: float) -> None:
        if len(batch.rows) > host.max_texts:
            self._requeue_halves(batch, refused=False)
        else:
            super()._send_to(batch, host, now)

    async def _ask(self, batch: Batch, host: Host) -> list[NDArray[np.float32]]:
        self._stats.splits += batch.is_part and batch.sends == 1
        return await host.endpoint.embed([self._texts[row] for row in batch.rows])

    def _requeue_halves(self, batch: Batch, tries: int = 0, *, refused: bool = True) -> None:
        for half in reversed(batch.halves(tries, refused=refused)):
            self._requeue(half)

    def _refused(self, batch: Batch, host: Host, error: Exception) -> None:
        """Find the text that the host refuses: halve the batch, or count a failure of its only text."""
        if len(batch.rows) > 1:
            if isinstance(error, RequestTooLong):
                host.max_texts = min(host.max_texts, len(batch.rows) // 2)
            self._requeue_halves(batch, refused=not isinstance(error, BadVectors))
        elif isinstance(error, TextTooLong):
            self._entries[batch.rows[0]] = error
        else:
            host.revoke_admission()
            self._record_failure(batch, host, error)

    def _accept(self, batch: Batch, host: Host, vectors: list[NDArray[np.float32]], started: float) -> None:
        """Keep the vectors that can be right, and try the texts of the others again, each alone."""
        broken: list[tuple[Batch, BadVectors]] = []
        for row, vector in zip(batch.rows, vectors, strict=True):
            why = broken_reason(vector, self._model.dimension)
            if why is None:
                self._entries[row] = vector
                continue
            error = BadVectors(f"{host.url} returned a vector of {why} for the text {self._texts[row][:60]!r}")
            alone = Batch([row], chars=len(self._texts[row]), is_part=batch.is_part, sends=batch.sends)
            retry = batch if batch.single else alone
            broken.append((retry, error))
        if broken:
            host.revoke_admission()
            for retry, error in reversed(broken):
                self._record_failure(retry, host, error)
        else:
            host.record_success(batch.chars, self._clock.now() - started)
        if len(broken) < len(batch.rows):
            self._host_answered(host, started)

    def _blame(self, batch: Batch, host: Host) -> None:
        """Halve a batch that is at fault, since the host is well, or give its only text its error."""
        if not batch.single:
            self._requeue_halves(batch, tries=FAULT_TRIES - 1)
            return
        error = batch.error
        if isinstance(error, EmbedderUnavailable):
            error = TextRefused(f"{error} (each time this text is sent; {host.url} embeds other texts)")
        if error is not None:
            self._entries[batch.rows[0]] = error
