"""Candidates: one way to set the levers, its cost, and the candidates one step away."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.settings import EmbedderSettings

THREADS = (None, 1, 2, 4, 8, 16)
MAX_IN_FLIGHT = 16
MAX_TEXTS = 512
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

    def coarse(self) -> list[Candidate]:
        """Return a few candidates spread over the whole space, the most promising first."""
        if self.kind == "local":
            return [self.candidate(workers=n, batch_texts=1, num_thread=None) for n in _powers_of_2(self.max_workers)]
        if self.kind != "ollama":
            return [
                self.candidate(workers=n, batch_texts=texts, num_thread=None)
                for texts in (32, 8, 128)
                for n in _powers_of_2(self.max_workers)
            ]
        return list(dict.fromkeys(self._coarse_ollama()))

    def _coarse_ollama(self) -> Iterator[Candidate]:
        threads = dict.fromkeys((None, max(1, self.processors // self.max_hosts), 1))
        several = max(1, min(self.max_workers, max(2, self.max_hosts)))
        for batch_texts in (16, 64, 4):
            for hosts in dict.fromkeys((self.max_hosts, 1)):
                for num_thread in threads:
                    for workers, in_flight in ((several, 1), (1, 2), (several, 4)):
                        yield self.candidate(
                            workers=workers,
                            hosts=hosts,
                            requests_in_flight=in_flight,
                            batch_texts=batch_texts,
                            num_thread=num_thread,
                        )

    def neighbours(self, one: Candidate) -> list[Candidate]:
        """Return the candidates that differ from this one by one step of one lever."""
        found: list[Candidate] = []
        found += [replace(one, workers=n) for n in _steps(one.workers, self.max_workers)]
        if self.kind == "local":
            return found
        for texts in (one.batch_texts * 2, one.batch_texts // 2):
            if 1 <= texts <= MAX_TEXTS:
                found.append(replace(one, batch_texts=texts, batch_chars=self._batch_chars(texts)))
        if self.kind != "ollama":
            return found
        found += [replace(one, requests_in_flight=n) for n in _steps(one.requests_in_flight, MAX_IN_FLIGHT)]
        found += [replace(one, hosts=n) for n in (one.hosts + 1, one.hosts - 1) if 1 <= n <= self.max_hosts]
        number = THREADS.index(one.num_thread) if one.num_thread in THREADS else 0
        found += [replace(one, num_thread=t) for t in THREADS[max(0, number - 1) : number + 2] if t != one.num_thread]
        return found


def _powers_of_2(maximum: int) -> list[int]:
    """Return the maximum and the powers of 2 below it, largest first."""
    return sorted({maximum, *(2**power for power in range(maximum.bit_length()) if 2**power <= maximum)}, reverse=True)


def _steps(value: int, maximum: int) -> list[int]:
    """Return the next values up and down: a step of one up to 4, then double and half."""
    up, down = (value + 1, value - 1) if value <= 4 else (value * 2, value // 2)
    return [n for n in dict.fromkeys((min(up, maximum), down)) if 1 <= n <= maximum and n != value]
