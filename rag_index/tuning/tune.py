"""Finding the setting that this machine and this embedder can do, with the user's own documents.

candidate       one way to set the levers, its cost, its neighbours
search          which candidates are measured for how long
probe           the measuring: processes that embed
local_servers   Ollama servers for the time of a search
settings_file   writing what was found, comments kept
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.chunking import open_chunker
from rag_index.documents.batches import ChunkedDocument
from rag_index.embedders import open_embedder
from rag_index.errors import EmbedderError, SourceError
from rag_index.machine.resources import survey, worker_memory, workers_for
from rag_index.sources.part import read_part
from rag_index.tuning.candidate import Candidate, Space
from rag_index.tuning.probe import LONGEST_ROUND, Probes
from rag_index.tuning.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.settings import EmbedderSettings, Settings
    from rag_index.tuning.search import Tried

__all__ = ["Outcome", "tune"]

SAMPLE_DOCUMENTS = 2000
MIN_OF_AN_INDEX = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was tried and what came of it. Rates are characters a second."""

    tried: list[Tried]
    """Fastest first."""
    knee: Tried
    best: Tried
    now: Tried
    """As the settings are."""
    serial: Tried
    mean_chars: float
    seconds: float
    changes: dict[tuple[str, str], Any]
    """Keys that the knee sets otherwise than the settings do: (table, key) to value, None to take it away."""

    def texts(self, rate: float) -> float:
        """Texts of mean length a second."""
        return rate / self.mean_chars

    def servers(self) -> dict[int, float]:
        """The best rate by number of hosts, of those measured to the end where there are such."""
        found: dict[int, float] = {}
        for one in self.tried:
            found[one.candidate.hosts] = max(found.get(one.candidate.hosts, 0.0), one.rate)
        return dict(sorted(found.items()))

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "knee": self._one(self.knee),
            "best": self._one(self.best),
            "now": self._one(self.now),
            "serial": self._one(self.serial),
            "servers": {str(n): round(self.texts(rate), 2) for n, rate in self.servers().items()},
            "changes": {f"{table}.{key}": value for (table, key), value in self.changes.items()},
            "tried": [self._one(one) for one in self.tried],
            "seconds": round(self.seconds, 1),
        }

    def _one(self, one: Tried) -> dict[str, Any]:
        candidate = one.candidate
        return {
            "workers": candidate.workers,
            "hosts": candidate.hosts,
            "requests_in_flight": candidate.requests_in_flight,
            "batch_texts": candidate.batch_texts,
            "batch_chars": candidate.batch_chars,
            "num_thread": candidate.num_thread,
            "texts_per_second": round(self.texts(one.rate), 2),
            "probes": len(one.rates),
        }


def tune(
    settings: Settings,
    *,
    budget: float,
    hosts: Sequence[str] | None = None,
    tell: Callable[[Candidate, float, str], None] = lambda candidate, texts_per_second, why: None,
) -> Outcome:
    """Search for at most about `budget` seconds, on these hosts in place of the settings' where given.

    `tell` is called after each probe, with why it did not work where it did not.

    Raises:
        SourceError: there are no texts to try with.
        EmbedderUnavailable, EmbedderError: the embedder cannot be used at all.
    """
    texts = sample_texts(settings)
    embedder = settings.embedder.model_copy(update={"hosts": list(hosts)} if hosts else {})
    opened = open_embedder(embedder.model_copy(update={"wait_for_recovery": 0.0}))
    try:
        identity = opened.identity()
    finally:
        opened.close()
    mean = sum(map(len, texts)) / len(texts)
    machine = survey()
    room = machine.workers_in_memory(worker_memory(embedder))
    workers = min(max(machine.processors, len(embedder.hosts)), max(1, room))
    space = Space(embedder.kind, machine.processors, workers, len(embedder.hosts), mean)
    now, serial = _configured(settings, embedder, space), space.serial()

    with Probes(embedder, texts, identity, longest=min(LONGEST_ROUND, budget / 25)) as probes:

        def probe(candidate: Candidate, seconds: float) -> float:
            rate = probes.measure(candidate, seconds)
            tell(candidate, rate / mean, str(probes.error) if not rate else "")
            return rate

        search = Search(probe, budget=budget, clock=time.monotonic, neighbours=space.neighbours)
        coarse = space.coarse()
        probes.start(max(one.workers for one in coarse))
        knee = search.run(coarse, [now, serial], space.first())
        if not knee.rate:
            raise probes.error or EmbedderError("no setting of the embedder works")
    ranked = sorted(search.tried.values(), key=lambda one: -one.rate)
    changes = _changes(settings, knee.candidate, now)
    return Outcome(ranked, knee, search.best, search.tried[now], search.tried[serial], mean, search.spent, changes)


def sample_texts(settings: Settings) -> list[str]:
    """Chunks of all indexes, in an order that is always the same and mixes them.

    Raises SourceUnavailable, SourceError; SourceError also where there are none.
    """
    size = max(MIN_OF_AN_INDEX, SAMPLE_DOCUMENTS // len(settings.indexes))
    texts: list[str] = []
    error: SourceError | None = None
    for index in settings.indexes:
        chunker = open_chunker(settings, index, contexts=False)
        try:
            part = read_part(settings, index, size)
        except SourceError as exc:
            error = exc
            continue
        texts += [
            text for cut in chunker.chunk(part.documents) if isinstance(cut, ChunkedDocument) for text in cut.sent()
        ]
    if not texts:
        raise error or SourceError("there are no documents with text to try settings with")
    random.Random(1).shuffle(texts)  # noqa: S311 - a mixture, no secret
    return texts


def _configured(settings: Settings, embedder: EmbedderSettings, space: Space) -> Candidate:
    """As the settings are, as far as this kind of embedder looks at them."""
    count = workers_for(settings.parallel, worker_memory(settings.embedder))
    workers = 1 if settings.parallel.serial else min(space.workers, count)
    if space.kind == "local":
        return space.of(workers=workers, batch_texts=1, num_thread=None)
    return Candidate(
        workers=workers,
        hosts=len(embedder.hosts) if space.kind == "ollama" else 1,
        requests_in_flight=embedder.requests_in_flight if space.kind == "ollama" else 1,
        batch_texts=embedder.batch_texts,
        batch_chars=embedder.batch_chars,
        num_thread=embedder.num_thread if space.kind == "ollama" else None,
    )


def _changes(settings: Settings, knee: Candidate, now: Candidate) -> dict[tuple[str, str], Any]:
    wanted: dict[tuple[str, str], Any] = {}
    if knee.workers != now.workers:
        wanted["parallel", "workers"] = knee.workers
    if settings.parallel.serial and knee.workers > 1:
        wanted["parallel", "serial"] = False
    for key in ("batch_texts", "batch_chars", "requests_in_flight", "num_thread"):
        if settings.embedder.kind != "local" and getattr(knee, key) != getattr(now, key):
            wanted["embedder", key] = getattr(knee, key)
    return wanted
