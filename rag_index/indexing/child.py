"""A child process that embeds documents which may kill the process that embeds them.

Suspects are documents that were pending when a run died, or that are listed as failed. The flow's own process never
embeds them, whatever the settings: the child may die in its place, and then the quarantine finds the document.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.embedders import open_embedder
from rag_index.errors import ProcessDied
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.quarantine import quarantine
from rag_index.indexing.sharding import parts_of, poison

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import EmbeddedShard, Shard
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.indexing.scan import Scan
    from rag_index.reports.metrics import Stopwatch
    from rag_index.settings import EmbedderSettings

__all__ = ["ChildEmbedder", "ChildJob", "embed_in_child"]


@dataclass(frozen=True, slots=True)
class ChildJob:
    """A shard, and how the child embeds it."""

    shard: Shard
    chunker: Chunker
    embedder: EmbedderSettings
    identity: EmbedderIdentity
    """What the model has to be."""
    known: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Vectors that need not be made, by text as it is embedded."""
    timeout: float | None = None
    """Seconds after which a child that is still at this shard is ended."""


def embed_in_child(scan: Scan, shard: Shard, child: ChildEmbedder) -> Iterator[EmbeddedShard]:
    """Embed a shard of suspects in the child; a document that kills it is found and listed as failed.

    Yields the shard, or its parts if the child died.
    """
    settings = scan.run.settings

    def embed(part: Shard) -> EmbeddedShard:
        known = scan.known_vectors(part)
        timeout = settings.parallel.process_timeout
        return child.embed(ChildJob(part, scan.chunker, settings.embedder, scan.identity, known, timeout))

    yield from quarantine([shard], embed, split=parts_of, poison=poison)


class ChildEmbedder:
    """A process that embeds one shard at a time, and is started again after a death. A context manager."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ChildEmbedder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def embed(self, job: ChildJob) -> EmbeddedShard:
        """Embed a shard in the child.

        Raises:
            ProcessDied: the child died.
            RagIndexError: as `embed_shard` raises it.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        try:
            with self._stopwatch.stage("embed"):
                return self._pool.submit(_embed, job).result()
        except BrokenProcessPool as error:
            self._end()
            raise ProcessDied("the process that embeds died") from error

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


class _Child:
    """The one global of the child: its embedder, because a model takes seconds to load."""

    embedder: Embedder | None = None
    made_for: Any = None


def _embed(job: ChildJob) -> EmbeddedShard:
    """Embed a shard in this process, which is the child."""
    wanted = (job.embedder, job.identity)
    if _Child.embedder is None or _Child.made_for != wanted:
        if _Child.embedder is not None:
            with suppress(Exception):
                _Child.embedder.close()
        _Child.embedder, _Child.made_for = open_embedder(job.embedder, expected=job.identity), wanted
    if job.timeout is not None:
        faulthandler.dump_traceback_later(job.timeout, exit=True)
    try:
        return embed_shard(job.shard, job.chunker, _Child.embedder, known=job.known)
    finally:
        faulthandler.cancel_dump_traceback_later()
