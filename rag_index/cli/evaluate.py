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
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.evaluation.evaluation import Evaluation, EvaluationOptions, PoorQuery, WeightChoice
    from rag_index.evaluation.golden import GoldenQuery
    from rag_index.evaluation.significance import Estimate
    from rag_index.settings import Settings

METRICS = ("recall@10", "MRR@10", "nDCG@10")
TUNE_METRIC = "nDCG@10"
"""The metric that the weight is chosen for, if none is named: it counts every rank."""
WEIGHT = ("retrieve", "dense_weight")
SHORT = 70


@dataclass(frozen=True, slots=True)
class _Given:
    """The origin of the queries, as the command line says it."""

    golden: Path | None
    query_column: str | None
    generate: bool
    model: str | None
    count: int
    documents: int
    out: Path | None


@command(example="evaluate golden.jsonl --worst 5")
@click.argument("golden", required=False, type=FILE, metavar="[GOLDEN]")
@click.option("--query-column", type=UnicodeText(), metavar="NAME", help="Make queries of this column of the source.")
@click.option("--generate", is_flag=True, help="Have a model write questions about the documents; needs --out.")
@click.option("--model", type=UnicodeText(), metavar="NAME", help="The model that writes [that of indexes.context].")
@click.option("--count", type=POSITIVE, default=200, show_default=True, help="Queries to make for each index.")
@click.option(
    "--documents", type=POSITIVE, default=5000, show_default=True,
    help="Documents of each index that are indexed again, if its text contains --query-column.",
)  # fmt: skip
@click.option("--out", type=FILE, help="Write the queries that were made to this file, to be edited.")
@repeated("--metric", "metrics", "What to measure", metavar="NAME@K", default=METRICS, show_default=True)
@click.option("--worst", type=click.IntRange(min=0), default=5, show_default=True, help="Poor queries to show.")
@click.option("--tune-fusion", is_flag=True, help="Choose the weight of meaning against words with held-out queries.")
@click.option("--write", is_flag=True, help="Write the weight to the settings file, if it is really better.")
@search_options("Evaluate")
def evaluate(
    context: Context,
    indexes: tuple[str, ...],
    metrics: tuple[str, ...],
    worst: int,
    tune_fusion: bool,
    write: bool,
    wait: float | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Measure how well searches find what they should.

    It compares meaning, words and both, side by side.
    """
    from rag_index.evaluation.evaluation import EvaluationOptions
    from rag_index.evaluation.measures import parse_metric
    from rag_index.orchestration.signals import terminable

    asked = _check(_Given(**given), tune_fusion=tune_fusion, write=write)
    tuned = click.get_current_context().get_parameter_source("metrics") is click.core.ParameterSource.DEFAULT
    tune_metric = (TUNE_METRIC if tuned else metrics[0]) if tune_fusion else None
    parsed = tuple(dict.fromkeys(map(parse_metric, metrics)))
    options = EvaluationOptions(parsed, worst, parse_metric(tune_metric) if tune_metric else None)
    settings = context.settings(wait=wait)
    names = [index.name for index in settings.named(indexes)]
    with terminable():
        evaluation = _evaluate(settings, names, asked, options)
    written = _write(settings, evaluation.weight) if write and evaluation.weight else None
    result = evaluation.to_json()
    if write:
        result |= {"written": written is not None, "overridden": written or []}
    if as_json:
        print_json(result)
        return evaluation.exit_code
    _print(evaluation)
    if evaluation.weight:
        _print_weight(evaluation.weight, written)
    return evaluation.exit_code


def _check(given: _Given, *, tune_fusion: bool, write: bool) -> _Given:
    out, made = given.out, given.query_column is not None or given.generate
    ways = [given.golden is not None, given.query_column is not None, given.generate]
    wrong = {
        "name one of these: a golden file, --query-column NAME, or --generate": sum(ways) != 1,
        "--model needs --generate": given.model is not None and not given.generate,
        "--generate needs --out FILE, for questions that you can read and edit": given.generate and out is None,
        "--out needs --query-column or --generate: a golden file exists already": out is not None and not made,
        "--write needs --tune-fusion": write and not tune_fusion,
        f"{out} exists already: name another file, or evaluate it: rag-index evaluate": out and out.exists(),
        f"{out} cannot be written: there is no folder {out and out.parent}": out and not out.resolve().parent.is_dir(),
    }
    if messages := [message for message, true in wrong.items() if true]:
        raise click.UsageError(messages[0])
    return given


def _evaluate(settings: Settings, names: list[str], given: _Given, options: EvaluationOptions) -> Evaluation:
    from rag_index.evaluation.evaluation import evaluate
    from rag_index.evaluation.golden import read_golden, write_golden
    from rag_index.tuning.column_evaluation import evaluate_items, read_items

    if (column := given.query_column) is None:
        golden = given.golden
        queries = _generate(settings, names, given) if golden is None else read_golden(golden)
        return evaluate(settings, queries, names, options, _counter(len(queries)))
    items = read_items(settings, names, column, queries=given.count, documents=given.documents)
    if given.out:
        write_golden(given.out, items.queries)
    if items.samples:
        sizes = ", ".join(f"{len(sample.documents):,} of {name}" for name, sample in items.samples.items())
        _say(f"The text contains {column}. Indexing documents without it, in a temporary store: {sizes} …")
    return evaluate_items(items, options, _counter(len(items.queries)))


def _generate(settings: Settings, names: list[str], given: _Given) -> list[GoldenQuery]:
    """Return questions about documents of each index, after writing them to the file."""
    from rag_index.evaluation.golden import write_golden
    from rag_index.evaluation.known_items import model_of, write_questions
    from rag_index.settings.sections import ContextSettings
    from rag_index.sources.sample import read_sample

    found, missing = [], []
    for name in names:
        index = settings.index(name)
        model = ContextSettings(model=given.model) if given.model else model_of(settings, index)
        sample = read_sample(settings, index, given.count)
        _say(f"{model.model} writes questions about {len(sample.documents):,} documents of {name} …")
        questions = write_questions(settings, index, sample.documents, model)
        found += questions.queries
        missing += questions.reasons
    if missing:
        _say(f"{len(missing):,} documents have no question: {missing[0]}")
    if not found:
        raise SettingsError(
            f"the model wrote no question that can be used ({missing[0] if missing else 'there is no text'}): name "
            f"another with --model"
        )
    write_golden(given.out or Path("golden.jsonl"), found)
    _say(f"{len(found):,} questions are in {given.out}: read them, and remove those that nobody would ask.")
    return found


def _say(message: str) -> None:
    say(message, err=True)


def _counter(total: int) -> Callable[[int], None]:
    def print_count(done: int) -> None:
        if done % max(100, total // 10) == 0 and done < total:
            _say(f"{done:,} of {total:,} queries")

    return print_count


def _write(settings: Settings, weight: WeightChoice) -> list[str] | None:
    """Write the weight if it is better. Return the environment variables that override it, or None if not written."""
    from rag_index.cli.settings import overriding_variables, write_keys

    if not weight.worthwhile:
        return None
    write_keys(settings.path, {WEIGHT: weight.best_weight})
    return overriding_variables(settings.path, [WEIGHT])


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
        _say(f"rag-index: {index} did not answer {reason}")


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


def _print_weight(weight: WeightChoice, written: list[str] | None) -> None:
    say(
        f"\nWeight of meaning by {weight.metric}, {weight.queries:,} queries in {weight.folds} held-out folds: "
        f"{weight.present_weight:g} (now) {weight.present.mean:.3f}, {weight.best_weight:g} {weight.best.mean:.3f}, "
        f"gain {_interval(weight.gain, '+')}."
    )
    if weight.best_weight == weight.present_weight:
        say("No other weight is better.")
    elif not weight.worthwhile:
        say("The gain may be chance: the weight stays as it is.")
    elif written is None:
        say(f"[retrieve] dense_weight = {weight.best_weight:g} is better: --write writes it.")
    else:
        say(f"Written: [retrieve] dense_weight = {weight.best_weight:g}")
        for variable in written:
            say(f"The environment variable {variable} overrides it: unset it.")
