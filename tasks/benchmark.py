"""Benchmark: the serial way as a task, workers made ready before the clock starts, and what a person sees of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from rag_index.documents.batches import DocumentBatch, Shard
from rag_index.embedders import open_embedder
from rag_index.orchestration.artifacts import artifact_key
from tasks.embed import EmbedJob, process_embedder

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from rag_index.embedders import EmbedderIdentity
    from rag_index.orchestration.opaque import Opaque
    from rag_index.tuning.benchmark import Bench, BenchmarkReport, BenchRun

__all__ = ["benchmark_state", "embed_serially", "take_sample", "warm_up", "who_embeds"]

START_SECONDS = 120
_ONCE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}


@task(name="sample", **_ONCE)
def take_sample(bench: Opaque[Bench]) -> int:
    """Read the sample from the source."""
    return bench.value.take_sample()


@task(name="check embedder", **_ONCE)
def who_embeds(bench: Opaque[Bench]) -> EmbedderIdentity:
    """What the embedder is, by a real embed."""
    embedder = open_embedder(bench.value.settings.embedder.model_copy(update={"wait_for_recovery": 0.0}))
    try:
        return embedder.identity()
    finally:
        embedder.close()


@task(name="embed serially", **_ONCE)
def embed_serially(bench: Opaque[Bench], identity: EmbedderIdentity) -> None:
    """What the usual script does. Not repeated: what it took would be wrong."""
    bench.value.run_serially(identity)


def warm_up(run: BenchRun) -> dict[int, str]:
    """Start the cluster and load the embedder on each worker; the workers' names by their process ids."""
    context = FlowRunContext.get()
    client: Any = context.task_runner.client if context else None  # type: ignore[attr-defined]
    client.wait_for_workers(run.workers, timeout=START_SECONDS)
    nothing = Shard(run.index.name, 0, DocumentBatch([], [], [], [], []), 0)
    job = EmbedJob(nothing, run.chunker, run.settings.embedder, run.identity, run.workers)
    addresses = list(client.scheduler_info(n_workers=-1)["workers"])
    futures = [client.submit(_load, job, workers=[address], pure=False) for address in addresses]
    return {pid: f"worker {number}" for number, pid in enumerate(client.gather(futures), 1)}


def _load(job: EmbedJob) -> int:
    process_embedder(job).embed_documents(["start up"])
    return os.getpid()


def benchmark_state(report: BenchmarkReport, *, project: str) -> State[BenchmarkReport]:
    """The final state and a table: one row a way of doing it. Ways that disagree make it Failed."""
    rows = []
    for one in report.measured:
        row = one.to_json()
        stages, memory = row.pop("stages"), row.pop("memory_mb")
        rows.append(row | {name: f"{share:.0%}" for name, share in stages.items()} | {"memory MB": str(memory)})
    key = artifact_key(project, report.index, "benchmark")
    create_table_artifact(rows, key=key, description=report.sentence())
    if not report.agrees:
        return Failed(name="Disagrees", message=report.sentence(), data=report)
    return Completed(message=report.sentence(), data=report)
