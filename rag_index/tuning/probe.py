"""Probes: each candidate, one way to set the levers, embeds a user's own texts for some seconds, as workers would."""

from __future__ import annotations

import math
import multiprocessing
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

from rag_index.errors import EmbedderError, EmbedderUnavailable, RagIndexError
from rag_index.settings.sections import ON_SERVERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from types import TracebackType

    from rag_index.embedders import EmbedderIdentity
    from rag_index.settings import EmbedderSettings

Call = tuple[int, float, float]
"""One call to embed: its characters, and its start and end by the machine's monotonic clock."""
START_SECONDS = 60.0
"""Time limit for processes to start, and for a model to load."""
GIVE_UP_FACTOR = 4
"""A candidate is given up if it takes this many times as long as expected."""
ROUNDS_PER_CALL = 8
"""Rounds in one call to the embedder. In a round, each request that may be in flight is sent once."""
MIN_CALLS = 3
"""Calls by each process if there are several: see `_rate`."""
LOCAL_TEXTS = 500
"""Texts per call of the local embedder, which has no requests."""
MAX_ROUND_SECONDS = 5.0
"""A candidate is skipped if its round would take longer at the best rate so far: a shard takes about as long."""
SKIPPED = "skipped"
"""How the error of a skipped candidate begins."""

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


class Probes:
    """The probing processes. They start when they are needed, and end when the context manager exits."""

    def __init__(
        self,
        settings: EmbedderSettings,
        texts: Sequence[str],
        identity: EmbedderIdentity,
        *,
        max_round: float = MAX_ROUND_SECONDS,
    ) -> None:
        self._settings = settings.model_copy(update={"wait_for_recovery": 0.0})
        self._texts = list(texts)
        self._identity = identity
        self._mean_chars = sum(map(len, texts)) / len(texts)
        self._children: list[tuple[Any, Connection]] = []
        self._max_round = max_round
        self._proven: set[Candidate] = set()
        self.best = 0.0
        """The highest rate so far."""
        self.error: RagIndexError | None = None
        """Why the last candidate that failed did so."""

    def __enter__(self) -> Probes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, count: int) -> None:
        """Start processes until there are `count`, so that no probe has to wait for them."""
        while len(self._children) < count:
            self._children.append(self._start())
        self._ask([connection for _, connection in self._children], "close")

    def measure(self, candidate: Candidate, seconds: float) -> float:
        """Return characters per second of all processes together, 0 if the candidate does not work (see `error`).

        Processes are started, and models loaded, before the clock starts.
        """
        once = _texts_per_round(candidate, self._settings.kind)
        round_chars = once * self._mean_chars * candidate.workers
        if candidate not in self._proven and self.best and round_chars > self.best * max(seconds, self._max_round):
            self.error = EmbedderError(f"{SKIPPED}: one round of requests would take {round_chars / self.best:.1f} s")
            return 0.0
        expected = int(self.best * seconds / self._mean_chars / candidate.workers)
        try:
            children = self._open(candidate)
            texts_per_call = min(ROUNDS_PER_CALL * once, max(once, expected // 2))
            min_calls = 1 if candidate.workers == 1 else MIN_CALLS
            expected_chars = min_calls * texts_per_call * candidate.workers * self._mean_chars
            expected_seconds = max(seconds, expected_chars / (self.best or math.inf))
            limit = GIVE_UP_FACTOR * max(expected_seconds, self._max_round) if self.best else START_SECONDS
            answers = self._ask(children, "embed", texts_per_call, seconds, min_calls, within=limit)
        except RagIndexError as error:
            self.error = error
            self._end()  # a request may still be in flight there
            return 0.0
        rate = _rate(answers)
        self.best = max(self.best, rate)
        self._proven.add(candidate)
        return rate

    def _open(self, candidate: Candidate) -> list[Connection]:
        if len(self._children) < candidate.workers:
            self.start(candidate.workers)
        connections = [connection for _, connection in self._children]
        children, idle = connections[: candidate.workers], connections[candidate.workers :]
        self._ask(children, "open", candidate.embedder(self._settings), candidate.workers, self._identity)
        self._ask(idle, "close")
        return children

    def _ask(
        self, children: list[Connection], method: str, *arguments: Any, within: float = START_SECONDS
    ) -> list[Any]:
        """Call a method in each process, and return the answers.

        Raises a process's own error, or EmbedderUnavailable if one does not answer in time.
        """
        deadline, answers = time.monotonic() + within, []
        try:
            for child in children:
                child.send((method, *arguments))
            for child in children:
                if not child.poll(max(0.0, deadline - time.monotonic())):
                    raise EmbedderUnavailable(f"no answer within {within:.0f} s")
                answers.append(child.recv())
        except (EOFError, OSError) as exc:
            raise EmbedderUnavailable("a probing process died; check that there is memory for this many") from exc
        for answer in answers:
            if isinstance(answer, RagIndexError):
                raise answer
        return answers

    def _start(self) -> tuple[Any, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._texts, len(self._children))
        process = context.Process(target=_serve, args=arguments, daemon=True, name="probe")
        process.start()
        theirs.close()
        return process, ours

    def _end(self) -> None:
        for process, connection in self._children:
            connection.close()
            process.terminate()
        for process, _ in self._children:
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()
        self._children = []


def _texts_per_round(candidate: Candidate, kind: str) -> int:
    """Return how many texts one worker needs to send each request that may be in flight once."""
    if kind == "local":
        return LOCAL_TEXTS
    hosts = max(1, -(-candidate.hosts // candidate.workers))
    return hosts * candidate.requests_in_flight * candidate.batch_texts


def _rate(calls: Sequence[Sequence[Call]]) -> float:
    """Return characters per second while all processes were at work.

    If several processes wait for one server, the first call of each ends early or late by chance, and the last process
    is alone at the end. So each process counts from the end of its first call to its last call that ended while all
    others were still at work.
    """
    if len(calls) == 1:
        return sum(chars for chars, _, _ in calls[0]) / max(1e-9, calls[0][-1][2] - calls[0][0][1])
    until = min(process_calls[-1][2] for process_calls in calls)
    rate = 0.0
    for process_calls in calls:
        first, *later = process_calls
        inside = [call for call in later if call[2] <= until] or later[:1]
        rate += sum(chars for chars, _, _ in inside) / max(1e-9, inside[-1][2] - first[2])
    return rate


def _serve(connection: Connection, texts: list[str], home: int) -> None:
    """Run a probing process: answer each request until the other end closes the connection."""
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        worker = _Worker(texts, home)
        import rag_index.embedders.servers  # noqa: F401 - the import must not count as time

        while True:
            method, *arguments = connection.recv()
            try:
                connection.send(getattr(worker, method)(*arguments))
            except RagIndexError as error:
                connection.send(error)


class _Worker:
    """The embedder and the texts of a probing process."""

    def __init__(self, texts: list[str], home: int) -> None:
        self._texts, self._home = texts, home
        self._embedder: Any = None
        self._opened_with: Any = None
        self._position = 0

    def open(self, settings: EmbedderSettings, workers: int, identity: EmbedderIdentity) -> None:
        """Open the embedder and have each of its hosts load the model."""
        from rag_index.embedders import open_embedder

        wanted = (settings, workers)
        if self._opened_with != wanted:
            self.close()
            self._embedder = open_embedder(settings, home=self._home, workers=workers, expected=identity)
            self._opened_with = wanted
            self._embedder.identity()  # asks each host, so that each loads the model
        self._position = self._home * len(self._texts) // workers
        self._embedder.embed_documents(self._texts[:8])  # of usual length: a host's pace is learnt from its first ones

    def embed(self, count: int, seconds: float, min_calls: int) -> list[Call]:
        """Embed `count` texts per call, one call after another, for `seconds` and at least `min_calls` times."""
        calls: list[Call] = []
        while len(calls) < min_calls or calls[-1][2] - calls[0][1] < seconds:
            texts = [self._texts[(self._position + i) % len(self._texts)] for i in range(count)]
            self._position += count
            started = time.monotonic()
            self._embedder.embed_documents(texts)
            calls.append((sum(map(len, texts)), started, time.monotonic()))
        return calls

    def close(self) -> None:
        """Close the embedder."""
        if self._embedder is not None:
            self._embedder.close()
        self._embedder = self._opened_with = None
