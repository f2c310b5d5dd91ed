"""The search for the fastest settings for this machine and this embedder, with the user's own documents.

A grid of candidates is measured once, and those that are nearly as fast as the best again and again; medians decide.
"""

from __future__ import annotations

import random
import time
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from rag_index.chunking import open_chunker
from rag_index.documents.batches import ChunkedDocument
from rag_index.embedders import identify
from rag_index.errors import EmbedderError, SourceError
from rag_index.machine.resources import detect_machine, estimate_worker_memory, worker_count
from rag_index.sources.sample import read_sample
from rag_index.tuning.probe import Candidate, Probes, Space

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.settings import EmbedderSettings, Settings

REPEATS = 3
AS_FAST = 0.95
"""Share of the best rate. A candidate that reaches it counts as equally fast; the cheapest of these is the knee."""
CLOSE = 0.8
"""Share of the best rate in the grid from which a candidate is measured again: the best of many is lucky too."""
MIN_SECONDS, MAX_SECONDS = 0.25, 5.0
GRID_SHARE = 0.5
"""Share of the budget that the grid may take; the rest is for measuring the best again."""

SAMPLE_DOCUMENTS = 2000
MIN_INDEX_DOCUMENTS = 50


@dataclass(slots=True)
class Trial:
    """A candidate and its measured rates in texts of mean length per second, oldest first."""

    candidate: Candidate
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """The median rate of the last part, or the rate in the grid if the candidate did not reach the last part."""
        return median(self.rates[1:] or self.rates) if self.rates else 0.0


class Search:
    """The search. `probe(candidate, seconds)` returns a rate, 0 if the candidate does not work; `clock` is seconds."""

    def __init__(
        self, probe: Callable[[Candidate, float], float], *, budget: float, clock: Callable[[], float]
    ) -> None:
        self._probe, self._budget, self._clock = probe, budget, clock
        self._started = clock()
        self.trials: dict[Candidate, Trial] = {}

    def run(self, grid: Sequence[Candidate], always: Sequence[Candidate]) -> Trial:
        """Search and return the knee. `always` are measured first, and to the end whatever their rate."""
        for candidate in always:
            self._probe(candidate, MIN_SECONDS)
        self._started = self._clock()  # starting processes and loading models for the first time is not in the budget
        candidates = list(dict.fromkeys([*always, *grid]))
        self._measure(candidates, GRID_SHARE * self._budget, until=GRID_SHARE * self._budget)
        limit = CLOSE * self.best.rate
        close = [one.candidate for one in self.trials.values() if one.rate >= limit or one.candidate in always]
        for number in range(REPEATS):
            left = (self._budget - self.spent) / (REPEATS - number)
            self._measure(close if number % 2 == 0 else close[::-1], left, until=self._budget if number else None)
        return self.knee

    def _measure(self, candidates: Sequence[Candidate], seconds: float, *, until: float | None) -> None:
        """Measure candidates for about `seconds` in all. Stop once `until` seconds of the budget are spent."""
        each = min(MAX_SECONDS, max(MIN_SECONDS, seconds / len(candidates)))
        for candidate in candidates:
            if until is None or self.spent < until:
                self.trials.setdefault(candidate, Trial(candidate)).rates.append(self._probe(candidate, each))

    @property
    def best(self) -> Trial:
        """The fastest trial, among those of the last part if there are any."""
        return max(self._finalists, key=lambda one: one.rate)

    @property
    def knee(self) -> Trial:
        """The cheapest trial within 5% of the best, among those of the last part if there are any."""
        fast = [one for one in self._finalists if one.rate >= AS_FAST * self.best.rate]
        return min(fast, key=lambda one: (one.candidate.cost, -one.rate))

    @property
    def spent(self) -> float:
        """Seconds of the budget that are spent."""
        return self._clock() - self._started

    @property
    def _finalists(self) -> list[Trial]:
        return [one for one in self.trials.values() if len(one.rates) > 1] or list(self.trials.values())


@dataclass(frozen=True, slots=True)
class Outcome:
    """The trials of a search and its result."""

    trials: list[Trial]
    knee: Trial
    best: Trial
    current: Trial
    serial: Trial
    seconds: float
    changes: dict[tuple[str, str], Any]
    """Keys that differ between the current settings and the knee: (table, key) to the new value, None to remove it."""

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        named = {"knee": self.knee, "best": self.best, "now": self.current, "serial": self.serial}
        return {
            **{name: _trial_json(one) for name, one in named.items()},
            "changes": {f"{table}.{key}": value for (table, key), value in self.changes.items()},
            "tried": [_trial_json(one) for one in self.trials],
            "seconds": round(self.seconds, 1),
        }


def _trial_json(trial: Trial) -> dict[str, Any]:
    return asdict(trial.candidate) | {"texts_per_second": round(trial.rate, 2), "probes": len(trial.rates)}


def tune(
    settings: Settings,
    *,
    budget: float,
    on_probe: Callable[[Candidate, float, str], None] = lambda candidate, texts_per_second, error: None,
) -> Outcome:
    """Search for about `budget` seconds.

    `on_probe` is called after each probe with the candidate, texts per second, and the error if it did not work.

    Raises:
        SourceError: there are no texts to embed.
        EmbedderUnavailable, EmbedderError: the embedder does not work with any candidate.
    """
    texts, embedder = sample_texts(settings), settings.embedder
    identity = identify(embedder)
    space = _space(embedder, sum(map(len, texts)) / len(texts))
    current, serial, grid = _current_candidate(settings, embedder, space), space.serial(), space.grid()
    most = max(one.workers for one in (*grid, current))
    with Probes(embedder, texts, identity, most=most, max_round=budget / 25) as probes:

        def probe(candidate: Candidate, seconds: float) -> float:
            rate = probes.measure(candidate, seconds)
            on_probe(candidate, rate, str(probes.error) if not rate else "")
            return rate

        search = Search(probe, budget=budget, clock=time.monotonic)
        knee = search.run(grid, [serial, current])
        if not knee.rate:
            raise probes.error or EmbedderError("the embedder works with no setting")
    return Outcome(
        sorted(search.trials.values(), key=lambda one: -one.rate),
        knee,
        search.best,
        search.trials[current],
        search.trials[serial],
        search.spent,
        _changes(settings, knee.candidate, current),
    )


def sample_texts(settings: Settings) -> list[str]:
    """Return chunks of all indexes, mixed, in the same order each time.

    Raises SourceUnavailable or SourceError, the latter also if there are no texts.
    """
    size = max(MIN_INDEX_DOCUMENTS, SAMPLE_DOCUMENTS // len(settings.indexes))
    texts: list[str] = []
    error = SourceError("there are no documents with text to tune with")
    for index in settings.indexes:
        chunker = open_chunker(settings, index, contexts=False)
        try:
            documents = read_sample(settings, index, size).documents
        except SourceError as exc:
            error = exc
            continue
        chunked = chunker.chunk(documents)
        texts += [text for one in chunked if isinstance(one, ChunkedDocument) for text in one.texts_to_embed()]
    if not texts:
        raise error
    random.Random(1).shuffle(texts)  # noqa: S311 - this only mixes the texts
    return texts


def _space(embedder: EmbedderSettings, mean_chars: float) -> Space:
    machine = detect_machine()
    room = machine.workers_that_fit(estimate_worker_memory(embedder))
    max_workers = min(max(machine.processors, len(embedder.hosts)), max(1, room))
    return Space(embedder.kind, machine.processors, max_workers, len(embedder.hosts), mean_chars)


def _current_candidate(settings: Settings, embedder: EmbedderSettings, space: Space) -> Candidate:
    """Return the candidate of the current settings, without the levers that this kind of embedder does not have.

    If there are fewer servers to measure than the settings have, it is a candidate with those.
    """
    workers = 1 if settings.parallel.serial else max(1, worker_count(settings))
    if space.kind == "local":
        return space.candidate(workers, 1)
    given: dict[str, Any] = {"batch_texts": embedder.batch_texts, "batch_chars": embedder.batch_chars}
    if embedder.on_servers:
        given["hosts"] = min(len(settings.embedder.hosts), space.max_hosts)
        given["requests_in_flight"] = embedder.requests_in_flight
    if space.kind == "ollama":
        given["num_thread"] = embedder.num_thread
    return Candidate(workers, **given)


def _changes(settings: Settings, knee: Candidate, current: Candidate) -> dict[tuple[str, str], Any]:
    """Return the keys to change, so that the settings are what was measured: the servers belong to it."""
    changes: dict[tuple[str, str], Any] = {}
    if knee.workers != current.workers:
        changes["parallel", "workers"] = knee.workers
    if settings.parallel.serial and knee.workers > 1:
        changes["parallel", "serial"] = False
    for key in ("batch_texts", "batch_chars", "requests_in_flight", "num_thread"):
        if settings.embedder.kind != "local" and getattr(knee, key) != getattr(current, key):
            changes["embedder", key] = getattr(knee, key)
    hosts = settings.embedder.hosts
    if settings.embedder.on_servers and hosts[: knee.hosts] != hosts:
        changes["embedder", "hosts"] = hosts[: knee.hosts]
        if settings.embedder.url is not None:
            changes["embedder", "url"] = None
    return changes
