"""The command `search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    POSITIVE,
    Context,
    UnicodeText,
    command,
    one_line,
    print_json,
    print_table,
    printable,
    repeated,
    search_options,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.retrieve import MetricsSnapshot, SearchHit, SearchResult
    from rag_index.settings import Settings

PARTIAL = 3
SHARE = click.FloatRange(0, 1)
SNIPPET = 110
TEXT = UnicodeText()


@command()
@click.argument("text", type=TEXT)
@click.option(
    "--limit", type=click.IntRange(min=1, max=1000), default=10, show_default=True, help="Maximum number of documents."
)
@click.option(
    "--filter", "filters", multiple=True, metavar="FIELD=VALUE", type=TEXT,
    help="Only documents whose payload matches: =, !=, >=, <=, >, <; a,b means either; FIELD exists, !FIELD does not.",
)  # fmt: skip
@repeated(
    "--group", "groups", "Search as a member of this group: without one, indexes with access find nothing", type=TEXT
)
@click.option("--all-groups", is_flag=True, help="See all documents, whatever groups they are for.")
@click.option("--fusion", type=click.Choice(["auto", "rank", "score"]), help="How to merge results of several indexes.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Limit of the search.")
@click.option("--dense-weight", type=SHARE, metavar="A", help="Weight of meaning against words: 1 for meaning alone.")
@click.option("--min-score", type=SHARE, metavar="R", help="Leave out documents of a lower relevance, from 0 to 1.")
@click.option(
    "--collapse", metavar="FIELD", type=TEXT, help="Fold documents with an equal value of this field, or text."
)
@click.option(
    "--after", metavar="POSITION", type=TEXT, help="Wait until each index has all up to this position or time."
)
@click.option("--max-age", metavar="AGE", type=TEXT, help='Wait until no index is older than this, such as "10 s".')
@click.option("--no-rerank", is_flag=True, help="Leave out the reranker that the settings name.")
@click.option("--explain", is_flag=True, help="Show timings, ranks and the scores of each stage.")
@click.option("--repeat", type=POSITIVE, metavar="N", help="Search N times, embedding each time, and show the timings.")
@search_options("Search")
def search(
    context: Context,
    text: str,
    indexes: tuple[str, ...],
    limit: int,
    filters: tuple[str, ...],
    groups: tuple[str, ...],
    all_groups: bool,
    repeat: int | None,
    wait: float | None,
    explain: bool,
    as_json: bool,
    no_rerank: bool,
    **options: Any,
) -> int:
    """Find the documents that fit TEXT best, by meaning and by words, in all indexes at once."""
    from rag_index.retrieve import ALL_GROUPS, Retriever
    from rag_index.retrieve.filters import conditions_of

    if not text.strip():
        raise click.UsageError("the text to search for is empty")
    if groups and all_groups:
        raise click.UsageError("--group and --all-groups cannot be combined; leave one of them out")
    conditions = conditions_of(filters)
    settings = context.settings(wait=wait)
    if not (groups or all_groups):
        _warn_of_access(settings, indexes)
    options["groups"] = ALL_GROUPS if all_groups else groups
    options |= {"indexes": indexes or None, "limit": limit, "filter": conditions}
    changed: dict[str, Any] = {"reranker": None} if no_rerank else {}
    if repeat:
        changed["cache_size"] = 0  # the cache of query vectors would spare the model all searches but the first
    settings = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update=changed)})
    with Retriever.from_settings(settings) as retriever:
        result = retriever.search_sync(text, **options)
        retriever.reset_metrics()  # the first search opened the store and loaded the model
        for _ in range(repeat or 0):
            result = retriever.search_sync(text, **options)
        metrics = retriever.metrics() if repeat else None
    if as_json:
        print_json({**result.to_json(explain=explain), **({"metrics": metrics.to_json()} if metrics else {})})
    else:
        _print_result(result, explain, metrics)
    return PARTIAL if result.errors else 0


def _warn_of_access(settings: Settings, names: Sequence[str]) -> None:
    closed = [index.name for index in settings.named(names) if index.access is not None]
    if closed:
        click.echo(
            f"rag-index: nothing is searched in {', '.join(closed)}, which {'has' if len(closed) == 1 else 'have'} "
            "`access`: give --group GROUP, or --all-groups to see everything",
            err=True,
        )


def _print_result(result: SearchResult, explain: bool, metrics: MetricsSnapshot | None) -> None:
    if result.corrected:
        click.echo(f"{result.correction}.")
    if result.nothing_fits and result.hits:
        click.echo("Nothing fits. The nearest documents are:")
    for hit in result.hits:
        click.echo(f"{hit.score:.3f}  {click.style(printable(f'{hit.index}: {_place(hit)}'), bold=True)}")
        if explain:
            click.echo(f"       {_explanation(hit, result.fusion)}")
        if link := hit.part.get("link") or hit.link:
            click.echo(f"       {link}")
        click.echo(f"       {one_line((_is_code(hit) and hit.payload.get('signature')) or hit.text, SNIPPET)}")
    if not result.hits:
        click.echo("Nothing fits." if result.nothing_fits else "Nothing found.")
    for index, reason in result.errors.items():
        click.echo(f"rag-index: {index} did not answer: {reason}", err=True)
    if result.rerank_error:
        click.echo(f"rag-index: the hits are not reranked: {result.rerank_error}", err=True)
    if explain:
        times = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in result.timings_ms.items())
        searched = ", ".join(f"{index} in {name}" for index, name in result.collections.items())
        weight = f" Meaning weighs {result.dense_weight:g}." if result.dense_weight < 1 else ""
        order = ", best hits reranked" if result.reranked else ""
        click.echo(f"\nFused by {result.fusion}{order}. {times}.{weight}\nSearched: {searched}.")
    if metrics:
        click.echo("\nEach search embedded the query. The first one, which opened store and model, is not counted.")
        _print_metrics(metrics)


def _is_code(hit: SearchHit) -> bool:
    """Return whether the hit is from a file of source code: only those have lines."""
    return "path" in hit.payload and isinstance(hit.payload.get("lines"), list)


def _place(hit: SearchHit) -> str:
    """Return the document's id, for source code as file:line, which editors and terminals understand.

    A document with a title has its id after that, and after this the part that was found.
    """
    if _is_code(hit):
        return f"{hit.document_id}:{hit.payload['lines'][0]}"
    part = " ".join(filter(None, [hit.part.get("name"), hit.part.get("id")]))
    place = f"{one_line(hit.title, SNIPPET)} ({hit.document_id})" if hit.title else hit.document_id
    return f"{place}, {part}" if part else place


def _explanation(hit: SearchHit, fusion: str) -> str:
    chunks = ", ".join(f"chunk {chunk.chunk} {chunk.score:.4f}" for chunk in hit.chunks)
    words = f", BM25 {hit.bm25:.3f} ({', '.join(hit.matched)})" if hit.bm25 else ""
    words += f", soft match {hit.soft:.3f}" if hit.soft else ""
    reranked = f", rerank score {hit.rerank_score:.4f}" if hit.rerank_score is not None else ""
    scores = f"relevance {hit.relevance:.2f}, cosine {hit.cosine:.4f}{words}{reranked}"
    return f"{scores}; rank {hit.rank} in {hit.index}, fused by {fusion} {hit.fused:.4f}; {chunks}"


def _print_metrics(metrics: MetricsSnapshot) -> None:
    rows: list[tuple[str, ...]] = [("ms", "count", "mean", "p50", "p95", "p99")]
    stages = {**metrics.stages, **{f"index {name}": stage for name, stage in metrics.indexes.items()}}
    for name, stage in stages.items():
        values = (stage.mean_ms, stage.p50_ms, stage.p95_ms, stage.p99_ms)
        rows.append((name, str(stage.count), *(f"{value:.2f}" for value in values)))
    print_table(rows)
