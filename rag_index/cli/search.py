"""The commands that search (`search`, `verify`), measure that (`evaluate`), or serve it (`serve`,
`mcp`)."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    FILE,
    Context,
    WholeNumber,
    caller_options,
    command,
    json_option,
    log_to_terminal,
    options,
    print_json,
    print_table,
    repeated,
    say,
    search_options,
    show,
    wait_option,
)
from rag_index.core.query_log import query_log
from rag_index.errors import SettingsError, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from rag_index.core.settings import Settings
    from rag_index.search import Caller, SearchHit, SearchResult
    from rag_index.search.evaluation.evaluation import Evaluation, Place, PoorQuery
    from rag_index.search.evaluation.measures import Metric

PARTIAL = 3
SNIPPET = 110
BOLD, PLAIN = click.style("", bold=True, reset=False), click.style("")
NOT_WITH_WHY = ("offset", "explain", "dense_weight", "max_age", "exact", "no_rerank")
"""Options of a search that do not decide whether a document is found."""
METRICS = ("recall@10", "MRR@10", "nDCG@10")
SHORT_CHARS = 70
ALL = "all"


class _Option(click.Option):
    """An option of a search, with the text and the bounds of `ProgramOptions`, which its commands
    alone import."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the line of the help."""
        from rag_index.search.options import ProgramOptions

        self.help = ProgramOptions.model_fields[str(self.name)].description
        return super().get_help_record(ctx)

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the value as the search takes it. Raises BadParameter."""
        from pydantic import ValidationError

        from rag_index.search.options import ProgramOptions

        if value is None:
            return None
        try:
            checked = ProgramOptions.model_validate({self.name: value})
        except ValidationError as exc:
            raise click.BadParameter(exc.errors()[0]["msg"], ctx, self) from None
        return getattr(checked, str(self.name))


def _option(name: str, metavar: str | None = None, **more: Any) -> Callable[[Any], Any]:
    return click.option(f"--{name.replace('_', '-')}", cls=_Option, metavar=metavar, **more)


_found_options = options(
    _option("limit", "N"),
    repeated(
        "--filter",
        "filters",
        "Only documents whose payload matches: =, !=, >=, <=, >, <; a,b means either; FIELD exists,"
        " !FIELD does not",
        metavar="FIELD=VALUE",
    ),
    caller_options(
        "Search as a member of this group: without one, indexes with access find nothing"
    ),
    click.option("--all-groups", is_flag=True, help="See the documents of all groups."),
    _option("timeout", "SECONDS"),
    _option("min_relevance", "R"),
    _option("collapse", "FIELD"),
    _option("order", "FIELD"),
    search_options("Search"),
)


@command(example='search "error ORA-01017" --index comments --limit 3')
@click.argument("query", default="")
@_option("like", "INDEX/ID")
@click.option(
    "--why",
    "sought",
    metavar="INDEX/ID",
    help="Say why QUERY does not find this document, and what helps.",
)
@_found_options
@_option("offset", "N")
@click.option("--explain", is_flag=True, help="Show timings, ranks and the scores of each stage.")
@_option("dense_weight", "A")
@_option("max_age", "AGE")
@_option("exact", is_flag=True)
@click.option("--no-rerank", is_flag=True, help="Leave out the reranker that the settings name.")
def search(
    context: Context,
    query: str,
    like: str | None,
    sought: str | None,
    no_rerank: bool,
    **chosen: Any,
) -> int:
    """Find the documents that fit QUERY best, in all indexes at once.

    A passage must have what stands in "quotes", and must not have a -word after a minus.
    """
    if like is not None:
        if query or sought is not None:
            raise click.UsageError(
                f"--like takes no {'QUERY' if query else '--why'}: ask one after the other"
            )
        return _print_found(context, "", {"reranker": None}, like=like, **chosen)
    if not query.strip():
        raise click.UsageError("the query is empty")
    if sought is None:
        return _print_found(context, query, {"reranker": None} if no_rerank else {}, **chosen)
    others = {name: chosen.pop(name, no_rerank) for name in NOT_WITH_WHY}
    if given := [f"--{name.replace('_', '-')}" for name, value in others.items() if value]:
        raise click.UsageError(f"--why does not take {', '.join(given)}: leave it out")
    return _print_why(context, query, sought, **chosen)


def _print_why(
    context: Context,
    query: str,
    document: str,
    *,
    wait: float | None,
    as_json: bool,
    all_groups: bool,
    **chosen: Any,
) -> int:
    """Say why a document is not found. With `all_groups` a person learns of every document; groups
    beside it say for whom that person asks."""
    from rag_index.search import Retriever
    from rag_index.search.json_answers import WhyAnswer

    options = _search_options(all_groups=all_groups, **chosen)
    with Retriever.from_settings(context.settings(wait=wait)) as retriever:
        found = retriever.why_sync(query, document, all_groups=all_groups, **options)
    lines = [found.message, found.remedy]
    lines += [f"It has {', '.join(found.matched)}."] if found.matched else []
    lines += [f"It does not have {', '.join(found.missing)}."] if found.missing else []
    show(WhyAnswer.model_validate(found).to_json(), *filter(None, lines), as_json=as_json)
    return 0


def _search_options(
    *,
    indexes: tuple[str, ...],
    filters: tuple[str, ...],
    caller: Caller,
    all_groups: bool,
    **chosen: Any,
) -> dict[str, Any]:
    """Return the options of a search as a Retriever takes them."""
    from rag_index.search import ALL_GROUPS

    groups = ALL_GROUPS if all_groups and not (caller.groups or caller.role) else caller
    given = {name: value for name, value in chosen.items() if value is not None}
    return given | {"indexes": indexes or None, "filter": filters, "groups": groups}


def _print_found(
    context: Context,
    query: str,
    limits: dict[str, Any],
    *,
    caller: Caller,
    all_groups: bool,
    wait: float | None,
    explain: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    from rag_index.search import Retriever

    if (caller.groups or caller.role) and all_groups:
        raise click.UsageError(
            "--all-groups cannot be combined with --group and --role; leave one of them out"
        )
    options = _search_options(caller=caller, all_groups=all_groups, **chosen)
    settings = context.settings(wait=wait)
    if timeout := options.get("timeout"):  # also of a single request to the store
        limits["timeout"] = timeout
    settings = settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update=limits)})
    with Retriever.from_settings(settings) as retriever:
        _warn_of_access(settings, options["indexes"] or (), retriever.closed(options["groups"]))
        result = retriever.search_sync(query, **options)
    if as_json:
        print_json(result.to_json(explain=explain))
    else:
        _print_result(result, explain)
    return PARTIAL if result.errors else 0


@command(quiet=True, example="verify comments/4711#0:0123456789abcdef")
@click.argument("citations", nargs=-1, required=True, metavar="CITATION…")
@caller_options("Ask as a member of this group")
@click.option("--all-groups", is_flag=True, help="See the documents of all groups.")
@json_option
def verify(
    context: Context, citations: tuple[str, ...], caller: Caller, all_groups: bool, as_json: bool
) -> int:
    """Say whether what was cited is unchanged, changed, deleted or unknown.

    The exit code is 3 unless all are unchanged.
    """
    from rag_index.core.reports.progress import counted
    from rag_index.search import ALL_GROUPS, Retriever
    from rag_index.search.json_answers import VerifyAnswer

    with Retriever.from_settings(context.settings()) as retriever:
        cited = counted(citations, "citations verified", lambda: len(citations))
        found = [
            retriever.verify_sync(one, groups=ALL_GROUPS if all_groups else caller) for one in cited
        ]
    if as_json:
        print_json(VerifyAnswer.model_validate({"citations": found}).to_json())
    for one in [] if as_json else found:
        since = f" since {one.since}" if one.since else ""
        at = one.as_of.at
        say(f"{one.citation}: {one.state}{since}{f', as of {at}' if at else ''}")
        if one.text:
            say(f"       now: {shortened(one.text, SNIPPET)}")
    return 0 if all(one.state == "unchanged" for one in found) else PARTIAL


def _warn_of_access(settings: Settings, names: Sequence[str], closed: Sequence[str]) -> None:
    closed = [index.name for index in settings.named(names) if index.name in closed]
    if closed:
        say(
            f"rag-index: nothing is searched in {', '.join(closed)}, which"
            f" {'has' if len(closed) == 1 else 'have'} `access`: give --group GROUP (--role ROLE"
            " for that of the database), or --all-groups to see everything",
            err=True,
        )


def _shown(text: str, words: Sequence[str]) -> str:
    """Return a line of a text around these words, which are bold in a terminal."""
    from rag_index.search.highlights import marked, snippet

    line = snippet(shortened(text, sys.maxsize), words, SNIPPET)
    return marked(line, words, BOLD, PLAIN)


def _print_result(result: SearchResult, explain: bool) -> None:
    from rag_index.search.highlights import is_code

    for note in result.notes:
        say(note)
    for hit in result.hits:
        click.echo(
            f"{hit.score:.3f}  {shortened(hit.index, SNIPPET)}:"
            f" {_shown(_place(hit), hit.highlights)}"
        )
        if explain:
            say(f"       {_explanation(hit, result.fusion)}")
        if link := hit.part.get("link") or hit.link:
            say(f"       {link}")
        text = (is_code(hit) and hit.payload.get("signature")) or hit.text
        click.echo(f"       {_shown(text, hit.highlights)}")
    if result.next_offset:
        say(f"rag-index: there are more documents: --offset {result.next_offset}", err=True)
    if result.rerank_error:
        say(f"rag-index: the hits are not reranked: {result.rerank_error}", err=True)
    if explain:
        times = ", ".join(
            f"{name} {milliseconds:.1f} ms" for name, milliseconds in result.timings_ms.items()
        )
        searched = ", ".join(f"{index} in {name}" for index, name in result.collections.items())
        weight = f" Meaning weighs {result.dense_weight:g}." if result.dense_weight < 1 else ""
        order = ", best hits reranked" if result.reranked else ""
        say(f"\nFused by {result.fusion}{order}. {times}.{weight}\nSearched: {searched}.")


def _place(hit: SearchHit) -> str:
    """Return the document's id, for source code as file:line, which editors and terminals
    understand.

    A document whose title is another than its id has the id after that, and after this the part
    that was found.
    """
    from rag_index.core.documents.batches import part_name
    from rag_index.search.highlights import is_code

    if is_code(hit):
        return f"{hit.document_id}:{hit.payload['lines'][0]}"
    part = part_name(hit.part)
    named = hit.title and hit.title != hit.document_id
    place = f"{shortened(hit.title, SNIPPET)} ({hit.document_id})" if named else hit.document_id
    return f"{place}, {part}" if part else place


def _explanation(hit: SearchHit, fusion: str) -> str:
    chunks = ", ".join(f"chunk {chunk.chunk} {chunk.score:.4f}" for chunk in hit.chunks)
    words = f", BM25 {hit.bm25:.3f} ({', '.join(hit.matched)})" if hit.bm25 else ""
    words += f", synonyms {', '.join(hit.synonyms)}" if hit.synonyms else ""
    words += f", soft match {hit.soft:.3f}" if hit.soft else ""
    words += f", recency {hit.recency:.2f}" if hit.recency is not None else ""
    reranked = f", rerank score {hit.rerank_score:.4f}" if hit.rerank_score is not None else ""
    scores = f"relevance {hit.relevance:.2f}, cosine {hit.cosine:.4f}{words}{reranked}"
    return f"{scores}; rank {hit.rank} in {hit.index}, fused by {fusion} {hit.fused:.4f}; {chunks}"


@command(endless_without="new_token", example="serve --port 8080")
@click.option("--host", metavar="ADDRESS", help="The address to listen on.")
@click.option(
    "--port",
    type=WholeNumber(0, 65_535),
    metavar="N",
    help="The port to listen on; 0 takes a free one.",
)
@click.option("--new-token", metavar="NAME", help="Make a token for NAME instead of serving.")
@repeated("--group", "groups", "A group of the new token", metavar="GROUP")
@click.option(
    "--all-groups", is_flag=True, help="Let the new token see the documents of all groups."
)
@click.option("--role", metavar="ROLE", help="The role of the new token in the database.")
@wait_option
def serve(
    context: Context,
    new_token: str | None,
    groups: tuple[str, ...],
    all_groups: bool,
    role: str | None,
    wait: float | None,
    **address: Any,
) -> None:
    """Answer searches over HTTP, for agents and in a browser."""
    if new_token is not None:
        from rag_index.search import ALL_GROUPS
        from rag_index.search.service import tokens

        if not new_token.strip():
            raise click.UsageError("--new-token needs a name for the owner of the token")
        token = tokens.new_token()
        line = tokens.token_line(new_token, token, ALL_GROUPS if all_groups else groups, role or "")
        say(f"The token, which is shown only now:\n\n  {token}\n")
        say(f"The line for [serve] tokens, or for the file that tokens_file names:\n\n  {line}")
        return
    if groups or role or all_groups:
        wrong = "--group" if groups else "--role" if role else "--all-groups"
        raise click.UsageError(f"{wrong} belongs to --new-token NAME")
    from rag_index.search.service.server import serve

    settings = context.settings(wait=wait, **address)
    log_to_terminal(root := logging.getLogger())
    root.setLevel(logging.INFO)
    serve(settings, lambda url: say(f"rag-index answers at {url}"))


@command(example="mcp --print skill")
@caller_options("Search as a member of this group")
@click.option(
    "--print",
    "kind",
    type=click.Choice(["skill", "agents"]),
    help="Print a skill file, or lines for an AGENTS.md.",
)
@wait_option
def mcp(context: Context, caller: Caller, kind: str | None, wait: float | None) -> None:
    """Answer an agent over MCP on standard input and output.

    With --print, write what an agent should know of these indexes, and end.
    """
    if kind:
        from rag_index.search.service.mcp_tools import skill

        click.echo(skill(context.settings(), front_matter=kind == "skill"), nl=False)
        return
    import asyncio  # every command imports this module, and asyncio takes 20 ms

    from rag_index.search.service.mcp_tools import serve_standard_streams

    settings = context.settings(wait=wait)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(
            number, signal.SIG_DFL
        )  # a thread that waits for input could not be told to stop
    asyncio.run(serve_standard_streams(settings, caller))


@command(example="evaluate golden.jsonl --worst 5")
@click.argument("golden", required=False, type=FILE, metavar="[GOLDEN]")
@click.option(
    "--from-log", is_flag=True, help="Take queries from the log of queries, with what was opened."
)
@repeated(
    "--metric", "metrics", "What to measure", metavar="NAME@K", default=METRICS, show_default=True
)
@click.option(
    "--worst",
    type=WholeNumber(min=0),
    metavar="N",
    default=5,
    show_default=True,
    help="How many poor queries to show.",
)
@search_options("Evaluate")
def evaluate(
    context: Context,
    golden: Path | None,
    from_log: bool,
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

    if golden is None and not from_log:
        raise SettingsError(
            "no queries to ask: name a golden file (docs/evaluation.md shows one), as in `rag-index"
            " evaluate golden.jsonl`, or take what people opened with --from-log"
        )
    if golden is not None and from_log:
        raise click.UsageError("a golden file cannot be combined with --from-log")
    parsed = tuple(dict.fromkeys(map(parse_metric, metrics)))
    settings = context.settings(wait=wait)
    names = [index.name for index in settings.named(indexes)]
    with terminable():
        evaluation = _evaluate(settings, names, golden, parsed, worst)
    if as_json:
        print_json(evaluation.to_json())
    else:
        _print_evaluation(evaluation)
    return evaluation.exit_code


def _evaluate(
    settings: Settings, names: list[str], golden: Path | None, metrics: Sequence[Metric], worst: int
) -> Evaluation:
    """Ask the queries of the golden file; without one, those of the log of queries."""
    from rag_index.search.evaluation.evaluation import evaluate
    from rag_index.search.evaluation.golden import golden_of_log, read_golden

    if golden is not None:
        queries = read_golden(golden)
    elif log := query_log(settings.serve):
        queries = golden_of_log(log, names)
    else:
        raise SettingsError(
            "--from-log needs [serve] query_log, which keeps what was asked and opened: set it, or"
            " name a golden file"
        )
    return evaluate(settings, queries, names, metrics, worst=worst)


def _print_evaluation(evaluation: Evaluation) -> None:
    rows = (
        [("index", "queries", "searched", *evaluation.scopes[0].ways[0].metrics)]
        if evaluation.scopes
        else []
    )
    for scope in evaluation.scopes:
        for number, way in enumerate(scope.ways):
            head = (scope.index or ALL, f"{scope.queries:,}") if number == 0 else ("", "")
            name = f"{way.way} {way.dense_weight:g}" if way.way == "hybrid" else way.way
            rows.append(
                (
                    *head,
                    name,
                    *(f"{m.mean:.3f} ({m.low:.3f} to {m.high:.3f})" for m in way.metrics.values()),
                )
            )
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

    ranks = ", ".join(
        f"{name(one)} at {one.rank}" if one.rank else f"{name(one)} not found"
        for one in query.relevant
    )
    values = ", ".join(f"{metric} {value:.2f}" for metric, value in query.metrics.items())
    say(f"  {shortened(query.query, SHORT_CHARS)}")
    say(f"      {values}; {ranks}; first: {', '.join(map(name, query.found)) or 'nothing'}")
