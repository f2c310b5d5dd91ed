"""The cost of a run: chunks, characters, requests, and the time at the rate that the last run measured."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rag_index.chunking import open_chunker
from rag_index.errors import RagIndexError
from rag_index.machine.resources import choose_worker_count, estimate_worker_memory
from rag_index.reports.outcome import count_of

if TYPE_CHECKING:
    from rag_index.chunking import Chunker
    from rag_index.documents.batches import DocumentBatch
    from rag_index.settings import IndexSettings, Settings

SAMPLE = 500
"""Documents of each page of the source that are chunked. The chunks of the others follow from their characters."""


@dataclass(frozen=True, slots=True)
class RunCost:
    """What a run would have to do at most: vectors that it has already, or contexts, cost it nothing."""

    characters: int
    """Characters of the documents to embed."""
    chunks: int
    chunks_estimated: bool
    """Whether only a sample was chunked."""
    requests: int | None
    """About how many requests an embedder on servers gets; None if the embedder needs none."""
    context_requests: int | None
    """How many requests the model that writes contexts gets; None if none does."""
    workers: int
    chars_per_second: float | None
    """Characters that a worker embedded in a second in the last run that had enough to measure it; None before one."""
    seconds: float | None
    """How long embedding takes at that rate; None if no run has measured it."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        rounded = {name: None if value is None else round(value, 1) for name, value in self._measured()}
        return {**asdict(self), **rounded}

    def sentence(self) -> str:
        """Return the cost in one line for a person."""
        about = "about " if self.chunks_estimated else ""
        parts = [f"{about}{count_of(self.chunks, 'chunk')} of {count_of(self.characters, 'character')} to embed"]
        if self.requests is not None:
            parts.append(f"in about {count_of(self.requests, 'request')}")
        if self.context_requests is not None:
            parts.append(f"and at most {count_of(self.context_requests, 'request')} for contexts")
        return f"{' '.join(parts)}; {self._time()}"

    def _time(self) -> str:
        if self.seconds is None or self.chars_per_second is None:
            return "how long that takes is unknown until a run has measured it"
        rate = f"{self.chars_per_second:,.0f} characters/s per worker"
        return f"{_duration(self.seconds)} with {count_of(self.workers, 'worker')} at {rate}, as the last run measured"

    def _measured(self) -> list[tuple[str, float | None]]:
        return [("chars_per_second", self.chars_per_second), ("seconds", self.seconds)]


class CostCounter:
    """Counts what has to be embedded, page by page. Nothing of the source's size is held."""

    def __init__(self, settings: Settings, index: IndexSettings, chars_per_second: float | None) -> None:
        self._settings = settings
        self._index = index
        self._rate = chars_per_second
        self._chunker: Chunker = open_chunker(settings, index, contexts=False)
        self._characters = self._sampled = self._chunks = 0

    def add(self, documents: DocumentBatch) -> None:
        """Count the documents of a page that a run would embed."""
        if not len(documents):
            return
        self._characters += sum(map(len, documents.texts))
        step = -(-len(documents) // SAMPLE)
        sample = documents.take(list(range(0, len(documents), step)))
        self._sampled += sum(map(len, sample.texts))
        chunked = self._chunker.chunk(sample)
        self._chunks += sum(len(one.chunks) for one in chunked if not isinstance(one, RagIndexError))

    def cost(self) -> RunCost:
        """Return the cost of all documents that were counted."""
        estimated = self._sampled < self._characters
        chunks = round(self._chunks * self._characters / self._sampled) if estimated else self._chunks
        parallel, embedder = self._settings.parallel, self._settings.embedder
        found = choose_worker_count(parallel, estimate_worker_memory(embedder))
        workers = 1 if parallel.serial else max(1, found)
        on_servers = embedder.kind == "ollama"
        by_size = max(math.ceil(chunks / embedder.batch_texts), math.ceil(self._characters / embedder.batch_chars))
        return RunCost(
            characters=self._characters,
            chunks=chunks,
            chunks_estimated=estimated,
            requests=by_size if on_servers else None,
            context_requests=chunks if self._index.context is not None else None,
            workers=workers,
            chars_per_second=self._rate,
            seconds=None if self._rate is None else self._characters / self._rate / workers,
        )


def _duration(seconds: float) -> str:
    return f"about {seconds / 60:,.0f} minutes" if seconds >= 90 else f"about {max(1, math.ceil(seconds))} s"
