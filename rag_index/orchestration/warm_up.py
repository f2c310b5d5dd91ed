"""Workers made ready before a benchmark's clock starts."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import DocumentBatch, Shard
from rag_index.indexing.embed import EmbedJob
from rag_index.orchestration.dask_client import flow_client
from rag_index.orchestration.worker import process_embedder

if TYPE_CHECKING:
    from rag_index.indexing.scan import Scan

START_SECONDS = 120


def warm_up(scan: Scan) -> dict[int, str]:
    """Start the cluster and load the embedder on each worker; return the workers' names by process id."""
    client: Any = flow_client()
    workers = scan.run.metrics.workers
    client.wait_for_workers(workers, timeout=START_SECONDS)
    nothing = Shard(scan.run.index.name, 0, DocumentBatch.empty(), 0)
    job = EmbedJob(nothing, scan.chunker, scan.run.settings.embedder, scan.identity, workers=workers)
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    futures = [client.submit(_load, job, workers=[address], pure=False) for address in addresses]
    return {pid: f"worker {number}" for number, pid in enumerate(client.gather(futures), 1)}


def _load(job: EmbedJob) -> int:
    process_embedder(job).embed_documents(["start up"])
    return os.getpid()
