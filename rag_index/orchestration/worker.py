"""What a Dask worker does with a shard. A flow that has no workers imports this, too, and no Dask."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.etl.embed import embed

if TYPE_CHECKING:
    from rag_index.core.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.core.settings import StoreSettings
    from rag_index.etl.embed import EmbedJob

PLUGIN_NAME = "rag-index"
"""The name of what each worker of a run has (`liveness.RunPlugin`)."""


@dataclass(frozen=True, slots=True)
class WorkerDestination:
    """The collection of a server that workers write to, as `etl.commit.Destination` is for the run's process."""

    settings: StoreSettings
    collection: str
    epoch: int

    def write(self, shard: EmbeddedShard) -> WrittenShard:
        """Upsert a shard. Raises as `write_shard`: IndexLocked, if the collection belongs to a later run."""
        written: WrittenShard = _current_worker().plugins[PLUGIN_NAME].write(self, shard)
        return written


def embed_in_worker(job: EmbedJob) -> EmbeddedShard:
    """Chunk and embed a shard on a worker, or in any other process."""
    worker = _current_worker()
    name = getattr(worker, "name", None)  # it differs between the workers, so that they spread over hosts
    home = name if isinstance(name, int) else sum(map(ord, str(name or "")))
    return embed(job, home=home, limited=worker is not None)


def _current_worker() -> Any:
    try:
        return sys.modules["distributed.worker"].get_worker()
    except (KeyError, ValueError):
        return None
