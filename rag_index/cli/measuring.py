"""The commands that measure: `evaluate` how well searches find, `benchmark` how fast embedders are."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    FILE,
    POSITIVE,
    Context,
    WholeNumber,
    command,
    json_option,
    print_json,
    print_table,
    repeated,
    say,
    search_options,
)
from rag_index.cli.runs import flow_loader, launch_flow, prefect_option
from rag_index.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rag_index.care.benchmark import BenchmarkReport
    from rag_index.core.settings import Settings
    from rag_index.search.evaluation.evaluation import Evaluation, Place, PoorQuery
    from rag_index.search.evaluation.golden import GoldenQuery
    from rag_index.search.evaluation.measures import Estimate, Metric

METRICS = ("recall@10", "MRR@10", "nDCG@10")
SHORT_CHARS = 70
ALL = "all"


@command(example="evaluate golden.jsonl --worst 5")
@click.argument("golden", required=False, type=FILE, metavar="[GOLDEN]")
@click.option("--query-column", metavar="NAME", help="Make queries of this column of the source.")
@repeated("--metric", "metrics", "What to measure", metavar="NAME@K", default=METRICS, show_default=True)
@click.option("--worst", type=WholeNumber(min=0), default=5, show_default=True, help="How many poor queries to show.")
@search_options("Evaluate")
def evaluate(
    context: Context,
    golden: Path | None,
    query_column: str | None,
    indexes: tuple[str, ...],
    metrics: tuple[str, ...],
    worst: int,
    wait: float | None,
    as_json: bool,
) -> int:
    """Measure how well searches find what they should.

    It compares meaning, words and both, side by side.
    """
    from rag_index.core.machine import terminable
    from rag_index.search.evaluation.measures import parse_metric

    if (golden is None) == (query_column is None):
        raise click.UsageError("name one of these: a golden file, or --query-column NAME")
    parsed = tuple(dict.fromkeys(map(parse_metric, metrics)))
    settings = context.settings(wait=wait)
    names = [index.name for index in settings.named(indexes)]
    with terminable():
        evaluation = _evaluate(settings, names, golden or str(query_column), parsed, worst)
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print(evaluation)
    return evaluation.exit_code


def _evaluate(
    settings: Settings, names: list[str], origin: Path | str, metrics: Sequence[Metric], worst: int
) -> Evaluation:
    from rag_index.care.benchmark import known_items
    from rag_index.search.evaluation.evaluation import evaluate
    from rag_index.search.evaluation.golden import read_golden

    made: AbstractContextManager[tuple[Settings, list[GoldenQuery]]]
    if isinstance(origin, str):
        say(f"Indexing a sample of {', '.join(names)} without {origin}, in a temporary store …", err=True)
        made = known_items(settings, names, origin)
    else:
        made = nullcontext((settings, read_golden(origin)))
    with made as (searched, queries):
        return evaluate(searched, queries, names, metrics, worst=worst)


def _interval(one: Estimate) -> str:
    return f"{one.mean:.3f} ({one.low:.3f} to {one.high:.3f})"


def _print(evaluation: Evaluation) -> None:
    rows = [("index", "queries", "searched", *evaluation.scopes[0].ways[0].metrics)] if evaluation.scopes else []
    for scope in evaluation.scopes:
        for number, way in enumerate(scope.ways):
            head = (scope.index or ALL, f"{scope.queries:,}") if number == 0 else ("", "")
            name = f"{way.way} {way.dense_weight:g}" if way.way == "hybrid" else way.way
            rows.append((*head, name, *map(_interval, way.metrics.values())))
    if rows:
        print_table(rows)
    for scope in evaluation.scopes[-1:]:  # --json has those of each index
        if scope.worst:
            say(f"\nQueries that do worst in {scope.index or ALL}, {scope.ways[-1].way}:")
            for query in scope.worst:
                _print_poor(query, several=scope.index is None)
    for index, reason in evaluation.errors.items():
        say(f"rag-index: {index} did not answer {reason}", err=True)


def _print_poor(query: PoorQuery, *, several: bool) -> None:
    def name(one: Place) -> str:
        return f"{one.index}: {one.document_id}" if several else one.document_id

    ranks = ", ".join(f"{name(one)} at {one.rank}" if one.rank else f"{name(one)} not found" for one in query.relevant)
    values = ", ".join(f"{metric} {value:.2f}" for metric, value in query.metrics.items())
    say(f"  {one_line(query.query, SHORT_CHARS)}")
    say(f"      {values}; {ranks}; first: {', '.join(map(name, query.found)) or 'nothing'}")


@command(example="benchmark --sample-size 2000 --set embedder.num_thread=null,1")
@click.option("--index", "name", metavar="NAME", help="The index to sample [the first].")
@click.option(
    "--sample-size", type=POSITIVE, default=1000, show_default=True, help="How many documents to embed each time."
)
@repeated("--workers", "workers", "Try N workers [1, 2, 4, … up to the settings' number]", type=POSITIVE, metavar="N")
@click.option("--set", "change", metavar="TABLE.KEY=V1,V2", help="Try values of a setting [in one process].")
@prefect_option
@json_option
def benchmark(
    context: Context,
    name: str | None,
    sample_size: int,
    workers: tuple[int, ...],
    change: str | None,
    prefect: bool,
    as_json: bool,
) -> int:
    """Compare a serial script with parallel runs or other settings.

    Real collections are not touched.
    """
    from rag_index.orchestration.launch import benchmark_plainly, quiet_workers

    settings = context.settings()
    index = settings.index(name).name if name else settings.indexes[0].name
    given: dict[str, Any] = {"index": index, "sample_size": sample_size, "workers": list(workers), "change": change}
    report: BenchmarkReport
    if prefect:
        report = launch_flow(context, settings, flow_loader("benchmark"), **given)
    else:
        quiet_workers()
        report = benchmark_plainly(settings, **given)
    if as_json:
        print_json(report.to_json())
    else:
        _print_benchmark(report)
    return 0 if report.in_parity else 1


def _print_benchmark(report: BenchmarkReport) -> None:
    say(f"{report.documents:,} documents of {report.index}, {report.measured[0].chunks:,} chunks, {report.embedder}")
    stages = list(report.measured[0].stages)
    rows = [("", "seconds", "documents/s", "speed-up", *stages)]
    for one in report.measured:
        shares = [f"{one.shares[name]:.0%}" for name in stages]
        rows.append((one.name, f"{one.seconds:.2f}", f"{one.rate:,.1f}", f"{one.speed_up:.2f}", *shares))
    print_table(rows)
    for one in report.measured:
        if one.parity:
            same = "same ids" if one.parity.same_ids else "DIFFERENT ids"
            say(
                f"{one.name} compared with serial: {same}, "
                f"largest difference {one.parity.largest_difference:.1e}, "
                f"recall of 10 neighbours {one.parity.recall:.4f}"
            )
