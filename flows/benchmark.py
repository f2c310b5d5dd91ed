"""Measure: a sample of an index, embedded the usual way and in parallel, into stores that are thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow

from rag_index.orchestration.cluster import Workers
from rag_index.orchestration.opaque import Opaque
from rag_index.orchestration.states import flow_run_id
from rag_index.settings import run_settings
from rag_index.tuning.benchmark import Bench, open_bench
from tasks.benchmark import benchmark_state, embed_serially, take_sample, warm_up, who_embeds
from tasks.fetch import pages
from tasks.shards import embed_mapped, upsert

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from rag_index.tuning.benchmark import BenchmarkReport

__all__ = ["benchmark", "benchmark_workers"]


@flow(name="benchmark")
def benchmark(
    config: str | None = None,
    index: str | None = None,
    sample_size: int = 1000,
    workers: list[int] | None = None,
) -> State[BenchmarkReport]:
    """Compare the serial way with each number of workers. The real collections are not touched.

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above.
        index: The name of an index; the first where none is given.
        sample_size: How many documents are embedded each time.
        workers: Numbers of Dask workers to try; by default 1, 2, 4, … up to what the settings say.
    """
    settings = run_settings(config)
    with open_bench(settings, index, sample_size) as bench:
        opaque = Opaque(bench)
        take_sample(opaque)
        identity = who_embeds(opaque)
        embed_serially(opaque, identity)
        for count in bench.counts(workers):
            with Workers(bench.parallel(count)) as pool:
                benchmark_workers.with_options(task_runner=pool.task_runner())(opaque, count)
        return benchmark_state(bench.report, project=settings.project)


@flow(name="benchmark-workers", flow_run_name="benchmark {workers} workers", validate_parameters=False)
def benchmark_workers(bench: Opaque[Bench], workers: int) -> None:
    """Embed and write the sample with so many workers, as a run does; the workers are ready before the clock starts."""
    with bench.value.run(workers, flow_run_id()) as run:
        run.begin(bench.value.identity)
        with bench.value.measured(run, warm_up(run)):
            for shard in embed_mapped(run, run.shards(pages(run))):
                upsert(run, shard)
