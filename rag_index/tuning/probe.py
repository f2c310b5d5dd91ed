"""Probes: each candidate, one way to set the levers, embeds a user's own texts for some seconds, as workers would."""

from __future__ import annotations

import math
import multiprocessing
import time
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from rag_index.errors import EmbedderError, EmbedderUnavailable, RagIndexError
from rag_index.machine import end_with_parent
from rag_index.settings.sections import ON_SERVERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.settings import EmbedderSettings

Call = tuple[int, float, float]
"""One call to embed: its characters, and its start and end by the machine's monotonic clock."""
START_SECONDS = 60.0
GIVE_UP_FACTOR = 4
ROUNDS_PER_CALL = 8
"""Rounds in one call to the embedder. In a round, each request that may be in flight is sent once."""
MIN_CALLS = 3
"""Calls by each process if there are several: see `_rate`."""
LOCAL_TEXTS = 500
MAX_ROUND_SECONDS = 5.0
"""A candidate is skipped if its round would take longer at the best rate so far: a shard takes about as long."""
SKIPPED = "skipped"
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
        return self.hosts, self.workers, self.workers * self.requests_in_flight, threads, self.batch_chars

    def embedder(self, settings: EmbedderSettings) -> EmbedderSettings:
        """Return the settings with these values."""
        names = ("requests_in_flight", "batch_texts", "batch_chars", "num_thread")
        changed = {"hosts": settings.hosts[: self.hosts], **{name: getattr(self, name) for name in names}}
        return settings.model_copy(update=changed)


@dataclass(frozen=True, slots=True)
class Space:
    """The candidates to choose from. `kind` is the embedder's kind, `mean_chars` the mean length of a text."""

    kind: str
    processors: int
    max_workers: int
    max_hosts: int
    mean_chars: float

    def candidate(self, workers: int, batch_texts: int, **levers: Any) -> Candidate:
        """Return a candidate whose characters per request follow from its texts per request."""
        chars = 1000 * math.ceil(batch_texts * self.mean_chars * CHARS_MARGIN / 1000)
        return Candidate(workers, batch_texts=batch_texts, batch_chars=chars, **levers)

    def serial(self) -> Candidate:
        """Return what the usual script does: one process, one server, one text per request, default threads."""
        return self.candidate(1, 1)

    def grid(self) -> list[Candidate]:
        """Return candidates spread over the whole space.

        Those of Ollama that take the least time come first, however busy the machine is: one text per request, and one
        thread, since the server's own choice can be many times slower if other programs are busy.
        """
        if self.kind not in ON_SERVERS:
            sizes = (1,) if self.kind == "local" else (32, 8, 128)
            return [self.candidate(workers, texts) for texts, workers in product(sizes, _counts(self.max_workers))]
        several = max(1, min(self.max_workers, max(2, self.max_hosts)))
        share = max(1, self.processors // self.max_hosts)
        threads = (1, share, None) if self.kind == "ollama" else (None,)
        levers = product((16, 4, 64), threads, (self.max_hosts, 1), ((several, 1), (1, 1), (several, 4), (1, 4)))
        found = [
            self.candidate(workers, texts, hosts=hosts, requests_in_flight=in_flight, num_thread=num_thread)
            for texts, num_thread, hosts, (workers, in_flight) in levers
        ]
        return list(dict.fromkeys([replace(self.serial(), num_thread=threads[0]), *found]))


def _counts(maximum: int) -> list[int]:
    counts = {n for power in range(maximum.bit_length()) for n in (2**power, 3 * 2**power // 2) if n < maximum}
    return sorted({maximum, *counts}, reverse=True)


class Probes:
    """The probing processes, for the time of a `with` block. They start when they are needed.

    There are `most` of them at most. Rates are texts of mean length per second: `best` is the highest so far. `error`
    says why the last candidate that failed did.
    """

    def __init__(
        self,
        settings: EmbedderSettings,
        texts: Sequence[str],
        identity: EmbedderIdentity,
        *,
        most: int = 8,
        max_round: float = MAX_ROUND_SECONDS,
    ) -> None:
        self._settings = settings.model_copy(update={"wait_for_recovery": 0.0})
        self._texts, self._identity = list(texts), identity
        self._mean_chars = sum(map(len, texts)) / len(texts)
        self._most, self._max_round = most, min(MAX_ROUND_SECONDS, max_round)
        self._pool: ProcessPoolExecutor | None = None
        self._proven: set[Candidate] = set()
        self.best = 0.0
        self.error: RagIndexError | None = None

    def __enter__(self) -> Probes:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        if self._pool is not None:
            processes = list(self._pool._processes.values())
            self._pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.kill()
                process.join()
            self._pool = None

    def measure(self, candidate: Candidate, seconds: float) -> float:
        """Return the rate of all processes together, 0 if the candidate does not work (see `error`).

        Processes are started, and models loaded, before the clock starts.
        """
        workers = candidate.workers
        once = LOCAL_TEXTS  # texts that a worker needs to send each request that may be in flight once
        if self._settings.kind != "local":
            once = max(1, -(-candidate.hosts // workers)) * candidate.requests_in_flight * candidate.batch_texts
        if candidate not in self._proven and once * workers > self.best * max(seconds, self._max_round) > 0:
            self.error = EmbedderError(f"{SKIPPED}: a round of requests would take {once * workers / self.best:.1f} s")
            return 0.0
        count = min(ROUNDS_PER_CALL * once, max(once, int(self.best * seconds / workers) // 2))
        calls = 1 if workers == 1 else MIN_CALLS
        least = calls * count * workers / (self.best or math.inf)
        limit = START_SECONDS + GIVE_UP_FACTOR * max(seconds, least, self._max_round)
        job = (candidate.embedder(self._settings), self._identity, workers, count, seconds, calls)
        try:
            rate = _rate(self._ask(job, limit)) / self._mean_chars
        except BrokenProcessPool:
            self.error = EmbedderUnavailable("a probing process died; check that there is memory for this many")
        except RagIndexError as error:
            self.error = error
        else:
            self.best = max(self.best, rate)
            self._proven.add(candidate)
            return rate
        self._end()  # a request may still be in flight there
        return 0.0

    def _ask(self, job: tuple[Any, ...], limit: float) -> list[list[Call]]:
        """Have as many processes as the candidate has workers do a job. Raises what one of them raises."""
        workers = job[2]
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._most = max(self._most, workers)
            gates = [context.Barrier(number) for number in range(1, self._most + 1)]
            self._pool = ProcessPoolExecutor(self._most, context, _begin, (self._texts, gates))
        futures = [self._pool.submit(_probe, home, *job) for home in range(workers)]
        done, late = wait(futures, limit, FIRST_EXCEPTION)
        for future in done:
            future.result()
        if late:
            raise EmbedderUnavailable(f"no answer within {limit:.0f} s")
        return [future.result() for future in futures]


def _rate(calls: Sequence[Sequence[Call]]) -> float:
    """Return characters per second while all processes were at work.

    If several processes wait for one server, the first call of each ends early or late by chance, and the last process
    is alone at the end. So the time from the last end of a first call to the first end of a last call counts, and a
    call that is partly in it counts in part.
    """
    several = len(calls) > 1
    since = max(first[2] if several else first[1] for first, *_ in calls)
    until = max(since + 1e-9, min(own[-1][2] for own in calls))
    chars = 0.0
    for size, start, end in (call for own in calls for call in own):
        chars += size * max(0.0, min(end, until) - max(start, since)) / max(1e-9, end - start)
    return chars / (until - since)


# In the probing processes


class _Process:
    texts: list[str]
    gates: list[Any]
    opened: tuple[Any, Embedder] | None = None
    position = 0


def _begin(texts: list[str], gates: list[Any]) -> None:
    end_with_parent()
    _Process.texts, _Process.gates = texts, gates
    import rag_index.embedders.servers  # noqa: F401 - the import must not count as time


def _probe(
    home: int,
    settings: EmbedderSettings,
    identity: EmbedderIdentity,
    workers: int,
    count: int,
    seconds: float,
    least: int,
) -> list[Call]:
    """Embed `count` texts per call, one call after another, for `seconds` and at least `least` times.

    The clock starts when all processes have opened their embedders, whose hosts have loaded the model.
    """
    from rag_index.embedders import open_embedder

    own, wanted = _Process, (home, settings, workers)
    if own.opened is None or own.opened[0] != wanted:
        if own.opened is not None:
            own.opened[1].close()
        embedder = open_embedder(settings, home=home, workers=workers, expected=identity)
        own.opened = wanted, embedder
        embedder.identity()  # asks each host, so that each loads the model
        own.position = home * len(own.texts) // workers
        embedder.embed_documents(own.texts[:8])  # of usual length: a host's pace is learnt from its first ones
    embedder = own.opened[1]
    own.gates[workers - 1].wait()
    calls: list[Call] = []
    while len(calls) < least or calls[-1][2] - calls[0][1] < seconds:
        texts = [own.texts[(own.position + i) % len(own.texts)] for i in range(count)]
        own.position += count
        started = time.monotonic()
        embedder.embed_documents(texts)
        calls.append((sum(map(len, texts)), started, time.monotonic()))
    return calls
