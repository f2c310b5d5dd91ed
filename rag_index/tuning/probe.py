"""Probes: processes that each hold an embedder, as workers do, and embed a user's own texts for some seconds."""

from __future__ import annotations

import math
import multiprocessing
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rag_index.errors import EmbedderError, EmbedderUnavailable, RagIndexError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection
    from types import TracebackType

    from rag_index.embedders import EmbedderIdentity
    from rag_index.settings import EmbedderSettings
    from rag_index.tuning.candidate import Candidate

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
