"""Probing: so many processes, each with an embedder as a worker has it, embed a user's own texts for some seconds."""

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

__all__ = ["Probes"]

Call = tuple[int, float, float]
"""Characters, and when a call to embed them began and ended, by the machine's monotonic clock."""
PATIENCE = 60.0
"""Seconds for processes to start, and for a model to be loaded."""
SLOWEST = 4
"""Times as long as it should take: then a candidate is given up."""
ROUNDS = 8
"""Requests one after another in each place of those under way, in one call to the embedder."""
MIN_CALLS = 3
"""Calls of each of several processes: see `_rate`."""
LOCAL_BLOCK = 500
"""Texts a call where there are no requests."""
LONGEST_ROUND = 5.0
"""Seconds for one request in each place, by the best rate so far. More is not tried: a shard takes as long."""


class Probes:
    """Processes for probing; a context manager that has them end. They are started as they are needed."""

    def __init__(
        self,
        settings: EmbedderSettings,
        texts: Sequence[str],
        identity: EmbedderIdentity,
        *,
        longest: float = LONGEST_ROUND,
    ) -> None:
        self._settings = settings.model_copy(update={"wait_for_recovery": 0.0})
        self._texts = list(texts)
        self._identity = identity
        self._mean = sum(map(len, texts)) / len(texts)
        self._children: list[tuple[Any, Connection]] = []
        self._longest = longest
        self._works: set[Candidate] = set()
        self.best = 0.0
        """The highest rate so far."""
        self.error: RagIndexError | None = None
        """Why the last candidate that did not work did not."""

    def __enter__(self) -> Probes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, count: int) -> None:
        """Start so many processes at once, so that no probe waits for them."""
        while len(self._children) < count:
            self._children.append(self._start())
        for _, connection in self._children:
            connection.send(("close",))
        self._answers([connection for _, connection in self._children], PATIENCE)

    def measure(self, candidate: Candidate, seconds: float) -> float:
        """Characters a second, of all processes together; 0 where it does not work (see `error`).

        Starting, connecting and loading the model are done before the clock starts.
        """
        once = _round(candidate, self._settings.kind)
        in_a_round = once * self._mean * candidate.workers
        if candidate not in self._works and self.best and in_a_round > self.best * max(seconds, self._longest):
            self.error = EmbedderError(f"not tried: its requests at once would take {in_a_round / self.best:.1f} s")
            return 0.0
        expected = int(self.best * seconds / self._mean / candidate.workers)
        try:
            children = self._ready(candidate)
            block = min(ROUNDS * once, max(once, expected // 2))
            least = 1 if candidate.workers == 1 else MIN_CALLS
            expected_seconds = max(seconds, least * block * candidate.workers * self._mean / (self.best or math.inf))
            limit = SLOWEST * max(expected_seconds, self._longest) if self.best else PATIENCE
            for child in children:
                child.send(("embed", block, seconds, least))
            answers = self._answers(children, limit)
        except RagIndexError as error:
            self.error = error
            self._end()  # whatever is still under way there
            return 0.0
        rate = _rate(answers)
        self.best = max(self.best, rate)
        self._works.add(candidate)
        return rate

    def _ready(self, candidate: Candidate) -> list[Connection]:
        if len(self._children) < candidate.workers:
            self.start(candidate.workers)
        children = [connection for _, connection in self._children[: candidate.workers]]
        settings = candidate.embedder(self._settings)
        for home, child in enumerate(children):
            child.send(("open", settings, home, candidate.workers, self._identity))
        self._answers(children, PATIENCE)
        for _, idle in self._children[candidate.workers :]:
            idle.send(("close",))
        self._answers([idle for _, idle in self._children[candidate.workers :]], PATIENCE)
        return children

    def _answers(self, children: list[Connection], seconds: float) -> list[Any]:
        """What each says. Raises what one of them raised, EmbedderUnavailable where one does not answer in time."""
        deadline = time.monotonic() + seconds
        answers = []
        for child in children:
            try:
                if not child.poll(max(0.0, deadline - time.monotonic())):
                    raise EmbedderUnavailable(f"given up after {seconds:.0f} s")
                answers.append(child.recv())
            except (EOFError, OSError) as exc:
                raise EmbedderUnavailable("a probing process died; is there memory for so many?") from exc
        for answer in answers:
            if isinstance(answer, RagIndexError):
                raise answer
        return answers

    def _start(self) -> tuple[Any, Connection]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, self._texts), daemon=True, name="probe")
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


def _round(candidate: Candidate, kind: str) -> int:
    """Texts of one worker, for each of its requests to be under way once."""
    if kind == "local":
        return LOCAL_BLOCK
    hosts = max(1, -(-candidate.hosts // candidate.workers))
    return hosts * candidate.requests_in_flight * candidate.batch_texts


def _rate(calls: Sequence[Sequence[Call]]) -> float:
    """Characters a second while all processes were at work.

    Of several that wait for one server, the first call of each ends early or late by chance, and the last one of all
    is alone at the end: each is taken from the end of its first call to the last that ended while all were there.
    """
    if len(calls) == 1:
        return sum(chars for chars, _, _ in calls[0]) / max(1e-9, calls[0][-1][2] - calls[0][0][1])
    until = min(of_one[-1][2] for of_one in calls)
    rate = 0.0
    for of_one in calls:
        first, *later = of_one
        inside = [call for call in later if call[2] <= until] or later[:1]
        rate += sum(chars for chars, _, _ in inside) / max(1e-9, inside[-1][2] - first[2])
    return rate


def _serve(connection: Connection, texts: list[str]) -> None:
    """A probing process: it does as it is told, until the other end is closed."""
    with suppress(EOFError, KeyboardInterrupt, BrokenPipeError):
        worker = _Worker(texts)
        import rag_index.embedders.ollama  # noqa: F401 - before the clock starts

        while True:
            question, *arguments = connection.recv()
            try:
                connection.send(getattr(worker, question)(*arguments))
            except RagIndexError as error:
                connection.send(error)


class _Worker:
    """What a probing process holds."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts
        self._embedder: Any = None
        self._made_for: Any = None
        self._at = 0

    def open(self, settings: EmbedderSettings, home: int, workers: int, identity: EmbedderIdentity) -> None:
        """Make the embedder, and have it load its model at each of its hosts."""
        from rag_index.embedders import open_embedder

        wanted = (settings, home, workers)
        if self._made_for != wanted:
            self.close()
            self._embedder = open_embedder(settings, home=home, workers=workers, expected=identity)
            self._made_for = wanted
            self._embedder.identity()  # asks each host, so that each has loaded the model
        self._at = home * len(self._texts) // workers
        self._embedder.embed_documents(self._texts[:8])  # as long as others: a host's pace is known by its first ones

    def embed(self, block: int, seconds: float, least: int) -> list[Call]:
        """Calls of so many texts, one after another, at least so many, until so many seconds are over."""
        calls: list[Call] = []
        while len(calls) < least or calls[-1][2] - calls[0][1] < seconds:
            texts = [self._texts[(self._at + i) % len(self._texts)] for i in range(block)]
            self._at += block
            started = time.monotonic()
            self._embedder.embed_documents(texts)
            calls.append((sum(map(len, texts)), started, time.monotonic()))
        return calls

    def close(self) -> None:
        """Let go of the embedder."""
        if self._embedder is not None:
            self._embedder.close()
        self._embedder = self._made_for = None
