"""Candidates: one way to set the levers, what it costs, and those a step away."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.settings import EmbedderSettings

__all__ = ["Candidate", "Space"]

THREADS = (None, 1, 2, 4, 8, 16)
MAX_IN_FLIGHT = 16
MAX_TEXTS = 512
ROOM = 1.5
"""Characters a request, over those of so many texts of mean length: chance then seldom cuts a request short."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Values of the levers. `num_thread` None: the server's own choice, which is all of its cores."""

    workers: int = 1
    hosts: int = 1
    requests_in_flight: int = 1
    batch_texts: int = 1
    batch_chars: int = 1000
    num_thread: int | None = None

    @property
    def cost(self) -> tuple[float, ...]:
        """Cheaper is less: servers first (each holds the model), then processes, requests under way at once, threads,
        and characters a request."""
        threads = math.inf if self.num_thread is None else self.num_thread
        at_once = self.workers * self.requests_in_flight
        return self.hosts, self.workers, at_once, threads, self.batch_chars

    def embedder(self, settings: EmbedderSettings) -> EmbedderSettings:
        """The settings with these values."""
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
    """Which candidates there are. `kind` is the embedder's; `mean_chars` the mean length of a text."""

    kind: str
    processors: int
    workers: int
    """The most."""
    hosts: int
    mean_chars: float

    def serial(self) -> Candidate:
        """What the usual script does: one process, one server, one text a request, the server's choice of threads."""
        return self.of(workers=1, hosts=1, requests_in_flight=1, batch_texts=1, num_thread=None)

    def first(self) -> list[Candidate]:
        """What to begin with: a text a request takes the least time, whatever the machine does beside it. With one
        thread too, since the server's own choice can be many times slower where other programs are busy."""
        serial = self.serial()
        return [serial, replace(serial, num_thread=1)] if self.kind == "ollama" else [serial]

    def of(
        self, *, workers: int, hosts: int = 1, requests_in_flight: int = 1, batch_texts: int, num_thread: int | None
    ) -> Candidate:
        """A candidate whose characters a request follow from its texts a request."""
        chars = 1000 * math.ceil(batch_texts * self.mean_chars * ROOM / 1000)
        return Candidate(workers, hosts, requests_in_flight, batch_texts, chars, num_thread)

    def coarse(self) -> list[Candidate]:
        """Few candidates over all of the space, in the order of their promise."""
        if self.kind == "local":
            return [self.of(workers=n, batch_texts=1, num_thread=None) for n in _doubling(self.workers)]
        if self.kind != "ollama":
            return [
                self.of(workers=n, batch_texts=texts, num_thread=None)
                for texts in (32, 8, 128)
                for n in _doubling(self.workers)
            ]
        return list(dict.fromkeys(self._coarse_ollama()))

    def _coarse_ollama(self) -> Iterator[Candidate]:
        threads = dict.fromkeys((None, max(1, self.processors // self.hosts), 1))
        several = max(1, min(self.workers, max(2, self.hosts)))
        for batch_texts in (16, 64, 4):
            for hosts in dict.fromkeys((self.hosts, 1)):
                for num_thread in threads:
                    for workers, in_flight in ((several, 1), (1, 2), (several, 4)):
                        yield self.of(
                            workers=workers,
                            hosts=hosts,
                            requests_in_flight=in_flight,
                            batch_texts=batch_texts,
                            num_thread=num_thread,
                        )

    def neighbours(self, one: Candidate) -> list[Candidate]:
        """Candidates that differ by a step of one lever."""
        found: list[Candidate] = []
        found += [replace(one, workers=n) for n in _around(one.workers, self.workers)]
        if self.kind == "local":
            return found
        for texts in (one.batch_texts * 2, one.batch_texts // 2):
            if 1 <= texts <= MAX_TEXTS:
                chars = 1000 * math.ceil(texts * self.mean_chars * ROOM / 1000)
                found.append(replace(one, batch_texts=texts, batch_chars=chars))
        if self.kind != "ollama":
            return found
        found += [replace(one, requests_in_flight=n) for n in _around(one.requests_in_flight, MAX_IN_FLIGHT)]
        found += [replace(one, hosts=n) for n in (one.hosts + 1, one.hosts - 1) if 1 <= n <= self.hosts]
        number = THREADS.index(one.num_thread) if one.num_thread in THREADS else 0
        found += [replace(one, num_thread=t) for t in THREADS[max(0, number - 1) : number + 2] if t != one.num_thread]
        return found


def _doubling(most: int) -> list[int]:
    """1, 2, 4, … and the most, largest first."""
    return sorted({most, *(2**power for power in range(most.bit_length()) if 2**power <= most)}, reverse=True)


def _around(value: int, most: int) -> list[int]:
    """A step up and a step down: one where numbers are small, else double and half."""
    up, down = (value + 1, value - 1) if value <= 4 else (value * 2, value // 2)
    return [n for n in dict.fromkeys((min(up, most), down)) if 1 <= n <= most and n != value]
