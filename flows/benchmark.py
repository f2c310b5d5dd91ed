"""Benchmark: embed a sample of an index serially and in parallel, into temporary stores."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

from prefect import flow
from prefect.client.schemas.objects import State
from pydantic import Field

from rag_index.care.benchmark import BenchmarkReport, current_bench, open_bench
from rag_index.core.settings import run_settings
from rag_index.orchestration.cluster import run_workers, task_runner
from rag_index.orchestration.reporting import OWN_END, benchmark_state, flow_run_id
from rag_index.orchestration.stopping import failing, stoppable
from rag_index.orchestration.task_steps import TaskSteps
from tasks.policies import only_our_errors


@flow(name="benchmark", flow_run_name="benchmark {sample_size} documents", **OWN_END)
def benchmark(
    config: str | None = None,
    index: str | None = None,
    sample_size: Annotated[int, Field(ge=1)] = 1000,
    workers: list[Annotated[int, Field(ge=1)]] | None = None,
) -> State[BenchmarkReport]:
    """Compare a serial script with each number of workers on a sample of an index.

        prefect deployment run benchmark/benchmark -p index=comments -p sample_size=5000

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's
            folder or above it.
        index: The index to sample; by default the first.
        sample_size: How many documents to embed each time.
        workers: The numbers of Dask workers to try; by default 1, 2, 4, … up to what the settings
            say.
    """
    with stoppable() as stop, failing(stop), only_our_errors("the benchmark"):
        settings = run_settings(config)
        with open_bench(settings, index, sample_size) as bench:
            bench.run_serially(flow_run_id())
            counts = bench.worker_counts(workers)
            for count in counts:
                benchmark_workers(count)
    return stop.state or benchmark_state(bench.report, project=settings.project)


@flow(
    name="benchmark-workers",
    flow_run_name="benchmark {workers} workers",
    task_runner=task_runner(),
    **OWN_END,
)
def benchmark_workers(workers: int) -> None:
    """Embed and write the sample as a run does. The workers are ready before the clock starts."""
    bench = current_bench()
    settings = bench.with_workers(workers)
    with (
        run_workers(settings) as dask_workers,
        bench.begun(settings, flow_run_id(), workers) as begun,
        closing(TaskSteps(settings, begun.record, dask_workers)) as steps,
    ):
        bench.measure(workers, begun, steps)
