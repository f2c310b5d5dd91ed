"""The commands that search (`search`, `verify`), measure searches (`evaluate`), or serve them
(`serve`, `mcp`)."""

from __future__ import annotations

import logging
import signal
import sys
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    FILE,
    Context,
    IntegerOption,
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
    from rag_index.search.results import Verified

PARTIAL = 3
"""The exit code if an index did not answer, or a citation is not unchanged."""
SNIPPET = 110
"""Characters of a text in a line. Chosen; nothing depends on it."""
BOLD, PLAIN = click.style("", bold=True, reset=False), click.style("")
NOT_WITH_WHY = ("offset", "explain", "dense_weight", "max_age", "exact", "no_rerank")
"""Options of a search that do not affect whether a document is found."""
METRICS = ("recall@10", "MRR@10", "nDCG@10")
"""The metrics of `evaluate` by default."""
SHORT_CHARS = 70
"""Characters of a query in a list of poor queries. Chosen; nothing depends on it."""
ALL = "all"
"""The name of all indexes together in a table."""


class _Option(click.Option):
    """An option of a search, with the text and the bounds of `ProgramOptions`. Only the commands
    that search import that class."""

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
    option = f"--{name.replace('_', '-')}"
    return click.option(option, cls=_Option, metavar=metavar, **more)


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
    # Documents like a given one: there is no query to rerank by.
    if like is not None:
        if query or sought is not None:
            raise click.UsageError(
                f"--like takes no {'QUERY' if query else '--why'}: ask one after the other"
            )
        return _print_found(context, "", {"reranker": None}, like=like, **chosen)
    if not query.strip():
        raise click.UsageError("the query is empty")
    if sought is None:
        changes = {"reranker": None} if no_rerank else {}
        return _print_found(context, query, changes, **chosen)
    # Why a document is not found.
    others = {name: chosen.pop(name, no_rerank) for name in NOT_WITH_WHY}
    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if given:
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
    """Print why a document is not found. With `all_groups` a person sees each document; `--group`
    beside it names those for whom that person asks."""
    from rag_index.search import Retriever
    from rag_index.search.json_answers import WhyAnswer

    options = _search_options(all_groups=all_groups, **chosen)
    with Retriever.from_settings(context.settings(wait=wait)) as retriever:
        found = retriever.why_sync(query, document, all_groups=all_groups, **options)
    lines = [line for line in (found.message, found.remedy) if line]
    if found.matched:
        lines.append(f"It has {', '.join(found.matched)}.")
    if found.missing:
        lines.append(f"It does not have {', '.join(found.missing)}.")
    answer = WhyAnswer.model_validate(found)
    show(answer.to_json(), *lines, as_json=as_json)
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

    is_named = bool(caller.groups or caller.role)
    given = {name: value for name, value in chosen.items() if value is not None}
    given["indexes"] = indexes or None
    given["filter"] = filters
    given["groups"] = ALL_GROUPS if all_groups and not is_named else caller
    return given


def _print_found(
    context: Context,
    query: str,
    changes: dict[str, Any],
    *,
    caller: Caller,
    all_groups: bool,
    wait: float | None,
    explain: bool,
    as_json: bool,
    **chosen: Any,
) -> int:
    """Search, and print the hits. `changes` replace keys of [retrieve]."""
    from rag_index.search import Retriever

    if (caller.groups or caller.role) and all_groups:
        raise click.UsageError(
            "--all-groups cannot be combined with --group and --role; leave one of them out"
        )
    options = _search_options(caller=caller, all_groups=all_groups, **chosen)
    settings = context.settings(wait=wait)
    timeout = options.get("timeout")
    if timeout:  # also the limit of a single request to the store
        changes["timeout"] = timeout
    retrieve = settings.retrieve.model_copy(update=changes)
    settings = settings.model_copy(update={"retrieve": retrieve})
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
        groups = ALL_GROUPS if all_groups else caller
        found = [retriever.verify_sync(citation, groups=groups) for citation in cited]
    if as_json:
        print_json(VerifyAnswer.model_validate({"citations": found}).to_json())
    else:
        for verified in found:
            _print_verified(verified)
    return 0 if all(verified.state == "unchanged" for verified in found) else PARTIAL


def _print_verified(verified: Verified) -> None:
    """Print "comments/4711#0:0123: changed since 2024-05-01T08:00:00Z", and the present text."""
    since = f" since {verified.since}" if verified.since else ""
    as_of = f", as of {verified.as_of.at}" if verified.as_of.at else ""
    say(f"{verified.citation}: {verified.state}{since}{as_of}")
    if verified.text:
        say(f"       now: {shortened(verified.text, SNIPPET)}")


def _warn_of_access(settings: Settings, names: Sequence[str], closed: Sequence[str]) -> None:
    """Warn of those of the searched indexes that are closed to the caller."""
    searched = [index.name for index in settings.named(names)]
    found = [name for name in searched if name in closed]
    if found:
        verb = "has" if len(found) == 1 else "have"
        say(
            f"rag-index: nothing is searched in {', '.join(found)}, which {verb} `access`: give"
            " --group GROUP (--role ROLE for that of the database), or --all-groups to see"
            " everything",
            err=True,
        )


def _shown(text: str, words: Sequence[str]) -> str:
    """Return a line of a text around these words, which a terminal shows in bold."""
    from rag_index.search.highlights import marked, snippet

    line = snippet(shortened(text, sys.maxsize), words, SNIPPET)
    return marked(line, words, BOLD, PLAIN)


def _print_result(result: SearchResult, explain: bool) -> None:
    for note in result.notes:
        say(note)
    for hit in result.hits:
        _print_hit(hit, result.fusion if explain else "")
    if result.next_offset:
        say(f"rag-index: there are more documents: --offset {result.next_offset}", err=True)
    if result.rerank_error:
        say(f"rag-index: the hits are not reranked: {result.rerank_error}", err=True)
    if explain:
        times = [f"{name} {ms:.1f} ms" for name, ms in result.timings_ms.items()]
        searched = [f"{index} in {name}" for index, name in result.collections.items()]
        weight = f" Meaning weighs {result.dense_weight:g}." if result.dense_weight < 1 else ""
        order = ", best hits reranked" if result.reranked else ""
        say(f"\nFused by {result.fusion}{order}. {', '.join(times)}.{weight}")
        say(f"Searched: {', '.join(searched)}.")


def _print_hit(hit: SearchHit, fusion: str) -> None:
    """Print a hit in two lines, or four with a link and with its scores. `fusion` is the method of
    the search; without it the scores are not shown."""
    from rag_index.search.highlights import is_code

    index = shortened(hit.index, SNIPPET)
    # Not by `say`: the words are bold, and `shortened` has cleaned the text.
    click.echo(f"{hit.score:.3f}  {index}: {_shown(_place(hit), hit.highlights)}")
    if fusion:
        say(f"       {_explanation(hit, fusion)}")
    link = hit.part.get("link") or hit.link
    if link:
        say(f"       {link}")
    # Source code is shown by its signature, if it has one.
    signature = hit.payload.get("signature") if is_code(hit) else None
    click.echo(f"       {_shown(signature or hit.text, hit.highlights)}")


def _place(hit: SearchHit) -> str:
    """Return the place of a hit: "Printer offline (4711), comment 3", or the id alone if it has no
    title. Source code is file:line, which editors and terminals understand."""
    from rag_index.core.documents.batches import part_name
    from rag_index.search.highlights import is_code

    if is_code(hit):
        return f"{hit.document_id}:{hit.payload['lines'][0]}"
    place = hit.document_id
    if hit.title and hit.title != hit.document_id:
        place = f"{shortened(hit.title, SNIPPET)} ({hit.document_id})"
    part = part_name(hit.part)
    return f"{place}, {part}" if part else place


def _explanation(hit: SearchHit, fusion: str) -> str:
    """Return the scores of a hit that apply to it, in one line."""
    scores = [f"relevance {hit.relevance:.2f}", f"cosine {hit.cosine:.4f}"]
    if hit.bm25:
        scores.append(f"BM25 {hit.bm25:.3f} ({', '.join(hit.matched)})")
    if hit.synonyms:
        scores.append(f"synonyms {', '.join(hit.synonyms)}")
    if hit.soft:
        scores.append(f"soft match {hit.soft:.3f}")
    if hit.recency is not None:
        scores.append(f"recency {hit.recency:.2f}")
    if hit.rerank_score is not None:
        scores.append(f"rerank score {hit.rerank_score:.4f}")
    rank = f"rank {hit.rank} in {hit.index}, fused by {fusion} {hit.fused:.4f}"
    chunks = ", ".join(f"chunk {chunk.chunk} {chunk.score:.4f}" for chunk in hit.chunks)
    return f"{', '.join(scores)}; {rank}; {chunks}"


@command(endless_without="new_token", example="serve --port 8080")
@click.option("--host", metavar="ADDRESS", help="The address to listen on.")
@click.option(
    "--port",
    type=IntegerOption(0, 65_535),
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
    # A token is printed, and nothing is served.
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
    of_token = {"--group": groups, "--role": role, "--all-groups": all_groups}
    for option, value in of_token.items():
        if value:
            raise click.UsageError(f"{option} belongs to --new-token NAME")
    from rag_index.search.service.server import serve

    settings = context.settings(wait=wait, **address)
    root = logging.getLogger()
    log_to_terminal(root)
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
    # A file for agents is printed, and nothing is served.
    if kind:
        from rag_index.search.service.mcp_tools import skill

        click.echo(skill(context.settings(), front_matter=kind == "skill"), nl=False)
        return
    import asyncio  # every command imports this module, and asyncio takes 20 ms

    from rag_index.search.service.mcp_tools import serve_standard_streams

    settings = context.settings(wait=wait)
    # A thread that waits for input cannot be stopped otherwise.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
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
    type=IntegerOption(min=0),
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
    """Evaluate with the queries of the golden file; without one, with those of the query log."""
    from rag_index.search.evaluation.evaluation import evaluate
    from rag_index.search.evaluation.golden import golden_of_log, read_golden

    if golden is not None:
        return evaluate(settings, read_golden(golden), names, metrics, worst=worst)
    log = query_log(settings.serve)
    if log is None:
        raise SettingsError(
            "--from-log needs [serve] query_log, which keeps what was asked and opened: set it, or"
            " name a golden file"
        )
    return evaluate(settings, golden_of_log(log, names), names, metrics, worst=worst)


def _print_evaluation(evaluation: Evaluation) -> None:
    if evaluation.scopes:
        print_table(_metric_rows(evaluation))
        # The last scope is all indexes together. --json has the poor queries of each index.
        scope = evaluation.scopes[-1]
        if scope.worst:
            say(f"\nQueries that do worst in {scope.index or ALL}, {scope.ways[-1].way}:")
            for query in scope.worst:
                _print_poor(query, several=scope.index is None)
    for index, reason in evaluation.errors.items():
        say(f"rag-index: {index} did not answer {reason}", err=True)


def _metric_rows(evaluation: Evaluation) -> list[tuple[str, ...]]:
    """Return a row for each index and way to search it: "0.812 (0.790 to 0.834)" per metric."""
    rows = [("index", "queries", "searched", *evaluation.scopes[0].ways[0].metrics)]
    for scope in evaluation.scopes:
        head = (scope.index or ALL, f"{scope.queries:,}")
        for way in scope.ways:
            name = f"{way.way} {way.dense_weight:g}" if way.way == "hybrid" else way.way
            cells = [f"{m.mean:.3f} ({m.low:.3f} to {m.high:.3f})" for m in way.metrics.values()]
            rows.append((*head, name, *cells))
            # The index stands in its first row alone.
            head = ("", "")
    return rows


def _print_poor(query: PoorQuery, *, several: bool) -> None:
    """Print a query with its metrics, the ranks of its relevant documents, and the first hits."""

    def name(place: Place) -> str:
        return f"{place.index}: {place.document_id}" if several else place.document_id

    ranks = []
    for place in query.relevant:
        rank = f"at {place.rank}" if place.rank else "not found"
        ranks.append(f"{name(place)} {rank}")
    values = [f"{metric} {value:.2f}" for metric, value in query.metrics.items()]
    first = ", ".join(map(name, query.found)) or "nothing"
    say(f"  {shortened(query.query, SHORT_CHARS)}")
    say(f"      {', '.join(values)}; {', '.join(ranks)}; first: {first}")
