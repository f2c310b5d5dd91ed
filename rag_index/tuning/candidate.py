"""Candidates: one way to set the levers, its cost, and the grid of candidates to measure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from rag_index.settings.sections import ON_SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.settings import EmbedderSettings

CHARS_MARGIN = 1.5
"""Factor on the mean characters of a request, so that the limit on characters seldom makes a request shorter."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Values of the levers. `num_thread` None is the server's own choice, which is all of its cores."""

    workers: int = 1
    hosts: int = 1
    requests_in_flight: int = 1
    batch_texts: int = 1
    batch_chars: int = 1000
    num_thread: int | None = None

    @property
    def cost(self) -> tuple[float, ...]:
        """The cost, compared in this order: servers (each holds the model), processes, requests in flight, threads,
        characters per request."""
        threads = math.inf if self.num_thread is None else self.num_thread
        in_flight = self.workers * self.requests_in_flight
        return self.hosts, self.workers, in_flight, threads, self.batch_chars

    def embedder(self, settings: EmbedderSettings) -> EmbedderSettings:
        """Return the settings with these values."""
        changed = {
            "hosts": settings.hosts[: self.hosts],
            "requests_in_flight": self.requests_in_flight,
            "batch_texts": self.batch_texts,
            "batch_chars": self.batch_chars,
            "num_thread": self.num_thread,
        }
        return settings.model_copy(update=changed)


@dataclass(frozen=True, slots=True)
class Space:
    """The candidates to choose from. `kind` is the embedder's kind, `mean_chars` the mean length of a text."""

    kind: str
    processors: int
    max_workers: int
    max_hosts: int
    mean_chars: float

    def serial(self) -> Candidate:
        """Return what the usual script does: one process, one server, one text per request, default threads."""
        return self.candidate(workers=1, hosts=1, requests_in_flight=1, batch_texts=1, num_thread=None)

    def first(self) -> list[Candidate]:
        """Return the candidates to begin with: one text per request takes the least time, however busy the machine is.

        With Ollama, also try one thread: the server's own choice can be many times slower if other programs are busy.
        """
        serial = self.serial()
        return [serial, replace(serial, num_thread=1)] if self.kind == "ollama" else [serial]

    def candidate(
        self, *, workers: int, hosts: int = 1, requests_in_flight: int = 1, batch_texts: int, num_thread: int | None
    ) -> Candidate:
        """Return a candidate whose characters per request follow from its texts per request."""
        return Candidate(workers, hosts, requests_in_flight, batch_texts, self._batch_chars(batch_texts), num_thread)

    def _batch_chars(self, batch_texts: int) -> int:
        return 1000 * math.ceil(batch_texts * self.mean_chars * CHARS_MARGIN / 1000)

    def grid(self) -> list[Candidate]:
        """Return candidates spread over the whole space, the most promising first."""
        counts = _counts(self.max_workers)
        if self.kind == "local":
            return [self.candidate(workers=n, batch_texts=1, num_thread=None) for n in counts]
        if self.kind not in ON_SERVERS:
            return [
                self.candidate(workers=n, batch_texts=texts, num_thread=None) for texts in (32, 8, 128) for n in counts
            ]
        return list(dict.fromkeys(self._server_grid()))

    def _server_grid(self) -> Iterator[Candidate]:
        several = max(1, min(self.max_workers, max(2, self.max_hosts)))
        share = self.processors // self.max_hosts
        threads = (None, max(1, share), max(1, share // 2), 1) if self.kind == "ollama" else (None,)
        requests = ((several, 1), (1, 1), (several, 4), (1, 4))
        for batch_texts, hosts in product((16, 64, 4), (self.max_hosts, 1)):
            for num_thread, (workers, in_flight) in product(threads, requests):
                yield self.candidate(
                    workers=workers,
                    hosts=hosts,
                    requests_in_flight=in_flight,
                    batch_texts=batch_texts,
                    num_thread=num_thread,
                )


def _counts(maximum: int) -> list[int]:
    """Return the maximum and 1, 2, 3, 4, 6, 8, 12, … below it, largest first."""
    counts = {n for power in range(maximum.bit_length()) for n in (2**power, 3 * 2**power // 2) if n < maximum}
    return sorted({maximum, *counts}, reverse=True)
