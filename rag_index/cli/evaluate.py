"""The command `evaluate`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    FILE,
    POSITIVE,
    Context,
    UnicodeText,
    command,
    one_line,
    print_json,
    print_table,
    repeated,
    say,
    search_options,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.evaluation.evaluation import Evaluation, PoorQuery
    from rag_index.evaluation.measures import Estimate, Metric
    from rag_index.settings import Settings

METRICS = ("recall@10", "MRR@10", "nDCG@10")
SHORT = 70


@dataclass(frozen=True, slots=True)
class _Given:
    """The origin of the queries, as the command line says it."""

    golden: Path | None
    query_column: str | None
    count: int
    documents: int
    out: Path | None


@command(example="evaluate golden.jsonl --worst 5")
@click.argument("golden", required=False, type=FILE, metavar="[GOLDEN]")
@click.option("--query-column", type=UnicodeText(), metavar="NAME", help="Make queries of this column of the source.")
@click.option("--count", type=POSITIVE, default=200, show_default=True, help="Queries to make for each index.")
@click.option(
    "--documents", type=POSITIVE, default=5000, show_default=True,
    help="Documents of each index that are indexed again, if its text contains --query-column.",
)  # fmt: skip
@click.option("--out", type=FILE, help="Write the queries that were made to this file, to be edited.")
@repeated("--metric", "metrics", "What to measure", metavar="NAME@K", default=METRICS, show_default=True)
@click.option("--worst", type=click.IntRange(min=0), default=5, show_default=True, help="Poor queries to show.")
@search_options("Evaluate")
def evaluate(
    context: Context,
    indexes: tuple[str, ...],
    metrics: tuple[str, ...],
    worst: int,
    wait: float | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure how well searches find what they should.

    It compares meaning, words and both, side by side.
    """
    from rag_index.evaluation.measures import parse_metric
    from rag_index.orchestration.signals import terminable

    asked = _check(_Given(**given))
    parsed = tuple(dict.fromkeys(map(parse_metric, metrics)))
    settings = context.settings(wait=wait)
    names = [index.name for index in settings.named(indexes)]
    with terminable():
        evaluation = _evaluate(settings, names, asked, parsed, worst)
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print(evaluation)
    return evaluation.exit_code


def _check(given: _Given) -> _Given:
    out, ways = given.out, [given.golden is not None, given.query_column is not None]
    wrong = {
        "name one of these: a golden file, or --query-column NAME": sum(ways) != 1,
        "--out needs --query-column: a golden file exists already": out is not None and not ways[1],
        f"{out} exists already: name another file, or evaluate it: rag-index evaluate": out and out.exists(),
        f"{out} cannot be written: there is no folder {out and out.parent}": out and not out.resolve().parent.is_dir(),
    }
    if messages := [message for message, true in wrong.items() if true]:
        raise click.UsageError(messages[0])
    return given


def _evaluate(settings: Settings, names: list[str], given: _Given, metrics: Sequence[Metric], worst: int) -> Evaluation:
    from rag_index.evaluation.evaluation import evaluate
    from rag_index.evaluation.golden import read_golden, write_golden
    from rag_index.tuning.column_evaluation import evaluate_items, read_items

    if (column := given.query_column) is None:
        queries = read_golden(given.golden or Path())
        return evaluate(settings, queries, names, metrics, _counter(len(queries)), worst=worst)
    items = read_items(settings, names, column, queries=given.count, documents=given.documents)
    if given.out:
        write_golden(given.out, items.queries)
    if items.samples:
        sizes = ", ".join(f"{len(sample.documents):,} of {name}" for name, sample in items.samples.items())
        say(f"The text contains {column}. Indexing documents without it, in a temporary store: {sizes} …", err=True)
    return evaluate_items(items, metrics, _counter(len(items.queries)), worst=worst)


def _counter(total: int) -> Callable[[int], None]:
    def print_count(done: int) -> None:
        if done % max(100, total // 10) == 0 and done < total:
            say(f"{done:,} of {total:,} queries", err=True)

    return print_count


def _interval(one: Estimate, sign: str = "") -> str:
    return f"{one.mean:{sign}.3f} ({one.low:{sign}.3f} to {one.high:{sign}.3f})"


def _print(evaluation: Evaluation) -> None:
    rows = [("index", "queries", "searched", *evaluation.scopes[0].ways[0].metrics)] if evaluation.scopes else []
    for scope in evaluation.scopes:
        for number, way in enumerate(scope.ways):
            head = (scope.name, f"{scope.queries:,}") if number == 0 else ("", "")
            name = f"{way.name} {way.dense_weight:g}" if way.name == "hybrid" else way.name
            rows.append((*head, name, *map(_interval, way.metrics.values())))
    if rows:
        print_table(rows)
    for scope in evaluation.scopes[-1:]:  # --json has those of each index
        gains = [(way.name, way.hybrid_gain) for way in scope.ways if way.hybrid_gain]
        if gains:
            say(f"\nHybrid in {scope.name}, query by query, is better by")
            differences = [(name, *(_interval(one, "+") for one in gain.values())) for name, gain in gains]
            print_table([("than", *gains[0][1]), *differences])
        if scope.worst:
            say(f"\nQueries that do worst in {scope.name}, {scope.ways[-1].name}:")
            for query in scope.worst:
                _print_poor(query, several=scope.fused)
    if evaluation.missing:
        named = ", ".join(f"{document_id} of {index}" for index, document_id in evaluation.missing[:5])
        more = ", …" if len(evaluation.missing) > 5 else ""
        say(f"\nRelevant documents that are not indexed, so nothing finds them: {named}{more}")
    for index, reason in evaluation.errors.items():
        say(f"rag-index: {index} did not answer {reason}", err=True)


def _print_poor(query: PoorQuery, *, several: bool) -> None:
    def name(document: tuple[str, str]) -> str:
        return f"{document[0]}: {document[1]}" if several else document[1]

    ranks = ", ".join(
        f"{name(document)} at {rank}" if rank else f"{name(document)} not found"
        for document, rank in query.ranks.items()
    )
    values = ", ".join(f"{metric} {value:.2f}" for metric, value in query.metrics.items())
    say(f"  {one_line(query.query, SHORT)}")
    say(f"      {values}; {ranks}; first: {', '.join(map(name, query.found)) or 'nothing'}")
