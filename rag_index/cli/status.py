"""The commands that show how indexes are: `status`, `plan`."""

from __future__ import annotations

import json
import textwrap
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from rag_index import cli
from rag_index.core.machine import collect_seldom
from rag_index.core.query_log import query_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.care.index_status import FailedDocument, IndexStatus, ProjectStatus
    from rag_index.care.plan import RunPlan, ShownDocument
    from rag_index.core.settings import IndexSettings, Settings

KIND_SENTENCES = {
    "failed": (
        "Each run tries failed documents again, for five nights; `index-all --retry-failed` tries"
        " them now."
    ),
    "incomplete": (
        "Incomplete documents are indexed but lack something; `index-all --retry-failed` tries them"
        " again."
    ),
    "skipped": (
        "Skipped documents are excluded by a rule of the source; they do not make a run fail."
    ),
}
LAST_RUN = "\0"
MAX_SHOWN_CHUNKS = 50
MAX_ALIKE = 5
"""`--failed` lists at most this many documents with a reason of one kind; of more, the first one
and their number."""
ALWAYS = ("documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
SELDOM = ("held_back", "failed", "skipped")


@cli.command(example="status")
@cli.names_argument
@click.option(
    "--failed", is_flag=True, help="List the documents that could not be indexed, and why."
)
@click.option(
    "--report",
    "run",
    is_flag=False,
    flag_value=LAST_RUN,
    metavar="[RUN]",
    help="Show where the time of the last run, or of RUN, went, and what would make it faster.",
)
@cli.json_option
def status(
    context: cli.Context, names: tuple[str, ...], failed: bool, run: str | None, as_json: bool
) -> int:
    """Show each index: documents, points, failures, last run.

    If the store does not answer, the command shows what the ledger knows, and the exit code is 1.
    """
    settings = context.settings()
    chosen = settings.named(names)
    if failed and run is not None:
        raise click.UsageError("--failed and --report are two questions: ask one after the other")
    if failed:
        _show_failed(settings, chosen, as_json=as_json)
        return 0
    if run is not None:
        _show_reports(settings, chosen, "" if run == LAST_RUN else run, as_json=as_json)
        return 0
    return _show_status(settings, {index.name for index in chosen}, as_json=as_json)


def _show_status(settings: Settings, chosen: set[str], *, as_json: bool) -> int:
    with collect_seldom():
        from rag_index.care.index_status import ledger_status, status
        from rag_index.errors import StoreError, StoreUnavailable

        error = ""
        try:
            known = status(settings)
        except (StoreError, StoreUnavailable) as raised:
            known, error = ledger_status(settings), str(raised)
    known = replace(known, indexes=[one for one in known.indexes if one.index in chosen])
    log = query_log(settings.serve)
    missed: list[tuple[str, int]] = []
    with suppress(OSError):  # another user's
        missed = log.not_found() if log else []
    if as_json:
        found = {"indexes": known.indexes, "unwanted": known.unwanted} | (
            {"not_found": [{"query": query, "times": times} for query, times in missed]}
            if missed
            else {}
        )
        cli.print_json({**found, **({"error": error} if error else {})})
    else:
        _print_status(settings, known)
        if missed:
            cli.say(
                "asked for, and not found: "
                + "; ".join(f"{query} ({times:,} ×)" for query, times in missed)
            )
    if error:
        cli.say(f"rag-index: {error} (what is shown is from the ledger alone)", err=True)
    return int(bool(error))


def _print_status(settings: Settings, known: ProjectStatus) -> None:
    seldom = {
        "indexed": any(one.indexed is not None for one in known.indexes),
        "held_back": any(one.held_back for one in known.indexes),
    }
    columns = [
        name
        for name in ("documents", "points", "indexed", "failed", "held_back")
        if seldom.get(name, True)
    ]
    rows = [("index", "collection", *(name.replace("_", " ") for name in columns), "last run")]
    for one in known.indexes:
        numbers = [f"{getattr(one, name) or 0:,}" for name in columns]
        rows.append((one.index, one.collection or cli.NO_NUMBER, *numbers, _last_run(one.last_run)))
    cli.print_table(rows)
    for embedder in dict.fromkeys(one.embedder for one in known.indexes if one.embedder):
        names = ", ".join(one.index for one in known.indexes if one.embedder == embedder)
        cli.say(f"embedder of {names}: {embedder}")
    for line in _languages(settings, known):
        cli.say(line)
    for one in known.indexes:
        for line in _remarks(one):
            cli.say(line)
    for index, sentence in known.unwanted.items():
        cli.say(f"{index}: {sentence}")


def _languages(settings: Settings, known: ProjectStatus) -> Iterator[str]:
    """Say once of each embedder that it does not know the languages of its indexes."""
    from rag_index.components.embedders import knows_english_alone
    from rag_index.core.settings.index import NO_LANGUAGE, split_languages

    unknown: dict[str, list[str]] = {}
    for one in known.indexes:
        others = {*split_languages(settings.index(one.index).language)} - {"english", NO_LANGUAGE}
        model = one.embedder.split(" ")[1] if one.embedder else ""
        if others and knows_english_alone(model):
            unknown.setdefault(model, []).append(f"{one.index} has {' and '.join(sorted(others))}")
    for model, indexes in unknown.items():
        yield f"this embedder knows English: {model}; {', '.join(indexes)}, which words alone find"


def _remarks(one: IndexStatus) -> Iterator[str]:
    run, as_of, watch = one.last_run, one.as_of, one.watch
    if one.outdated:
        yield f"{one.index}: {one.outdated}: run `rag-index rebuild {one.index}`"
    if one.restored:
        yield f"{one.index}: {one.restored}"
    if one.findable:
        state = "is being filled" if run and run["state"] == "running" else "is not complete"
        yield f"{one.index} {state}: {one.findable}"
    ended = run if run and run["state"] != "failed" else None
    if as_of and not (
        ended and as_of["known_by"] == "run" and as_of["at"] >= ended["started"]
    ):  # the table says it
        yield f"{one.index}: complete up to {as_of['at']}, known by {as_of['known_by']}"
    if watch:
        behind = (
            f", {watch['seconds_behind']:,.0f} s behind" if watch["seconds_behind"] >= 60 else ""
        )
        why = f": {watch['message']}" if watch["message"] else ""
        yield f"{one.index}: watch {watch['state']}{behind}{why}"
    if one.erasable:
        texts = f"{one.erasable:,} deleted or changed document{'s' if one.erasable > 1 else ''}"
        yield f"{one.index}: the store's files may keep texts of {texts} since {one.erasable_since}"
    if run and run["message"]:
        yield f"{one.index}: {run['message']}"


def _last_run(run: dict[str, Any] | None) -> str:
    if run is None:
        return "never"
    seconds = f", {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    return f"{run['state']}, {run['started'].replace('T', ' ').rstrip('Z')} UTC{seconds}"


def _show_failed(settings: Settings, indexes: Sequence[IndexSettings], *, as_json: bool) -> None:
    """List the documents that could not be indexed. Of many that failed alike the first stands for
    all in a table."""
    from rag_index.care.index_status import failed
    from rag_index.core.documents.batches import kinds_of

    documents = failed(settings, indexes)
    if as_json:
        cli.print_json({"failed": documents})
        return
    if not documents:
        cli.say("No documents are listed as failed.")
        return
    rows = [("index", "document", "kind", "tries", "last tried", "reason")]
    alike: dict[Any, list[FailedDocument]] = {}
    for one in documents:
        alike.setdefault(
            (one.index, one.kind, frozenset(kinds_of(one.reason, one.kind))), []
        ).append(one)
    for some in alike.values():
        shown = some if len(some) <= MAX_ALIKE else some[:1]
        for one in shown:
            more = f" and {len(some) - len(shown):,} like it" if len(some) > len(shown) else ""
            rows.append(
                (
                    one.index,
                    one.document_id + more,
                    one.kind,
                    str(one.tries),
                    one.last_tried,
                    one.reason,
                )
            )
    cli.print_table(rows)
    for kind, sentence in KIND_SENTENCES.items():
        if any(one.kind == kind for one in documents):
            cli.say(sentence)


def _show_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run: str, *, as_json: bool
) -> None:
    """Show where the time of each index's last run went, or that of `run`."""
    from rag_index.care.index_status import run_reports
    from rag_index.core.reports.metrics import report_lines

    found = run_reports(settings, indexes, run or None)
    if run and not found:
        raise click.UsageError(
            f"there is no run {run!r}; `rag-index status --report` and Prefect show the ids of runs"
        )
    lines = []
    for one in found:
        lines.append(
            f"{one.get('index', 'a run')}: {one['state']}, {one['started']}, run {one['run']}"
        )
        lines += [f"  {line}" for line in report_lines(one)]
    cli.show({"runs": found}, *lines, as_json=as_json)


@cli.command(quiet=True, example="plan --show 3", begins="Reading settings and source …")
@cli.names_argument
@click.option(
    "--show",
    "shown",
    type=cli.POSITIVE,
    metavar="N",
    help="Show N whole documents as they are embedded.",
)
@cli.json_option
def plan(context: cli.Context, names: tuple[str, ...], shown: int | None, as_json: bool) -> int:
    """Show what a run would do, without changing anything.

    With --show, show some documents of each index instead, as they would be embedded.
    """
    from rag_index.care.plan import plan_runs, show_documents

    settings = context.settings()
    indexes = settings.named(names)
    if shown is not None:
        documents = [one for index in indexes for one in show_documents(settings, index, shown)]
        lines = [line for one in documents for line in document_lines(one)]
        empty = sorted({index.name for index in indexes} - {one.index for one in documents})
        lines += [f"{name}: no document with text" for name in empty]
        cli.show({"documents": [one.to_json() for one in documents]}, *lines, as_json=as_json)
        return 0
    plans = plan_runs(settings, indexes)
    if as_json:
        cli.print_json({"indexes": [one.to_json() for one in plans]})
    else:
        _print_plans(plans)
    codes = {one.exit_code for one in plans}
    return codes.pop() if len(codes) == 1 else 1


def document_lines(document: ShownDocument, most: int = MAX_SHOWN_CHUNKS) -> Iterator[str]:
    """Yield a document as it would be embedded, with `most` of its chunks."""
    title = f"{' '.join(document.title.split())} " if document.title else ""
    yield f"{document.index}: {title}({document.document_id})"
    if document.link:
        yield f"  {document.link}"
    if document.payload:
        yield f"  payload: {json.dumps(document.payload, ensure_ascii=False)}"
    for number, chunk in enumerate(document.chunks[:most]):
        yield f"  --- {chunk.get('part') or f'chunk {number}'}"
        yield textwrap.indent(chunk["text"], "  ")
    if (more := len(document.chunks) - most) > 0:
        yield f"  --- and {more:,} more chunk{'s' * (more > 1)}"
    yield ""


def _print_plans(plans: list[RunPlan]) -> None:
    columns = [*ALWAYS, *(name for name in SELDOM if any(getattr(one, name) for one in plans))]
    rows = [("index", *(name.replace("_", " ") for name in columns))]
    rows += [
        (one.index, *("-" if one.error else f"{getattr(one, name):,}" for name in columns))
        for one in plans
    ]
    if not all(one.error for one in plans):
        cli.print_table(rows)
    for embedder in dict.fromkeys(one.embedder for one in plans if one.embedder):
        cli.say(f"embedder: {embedder}")
    errors: dict[str, list[str]] = {}
    for one in plans:
        if one.error:
            errors.setdefault(one.error.removeprefix(f"index {one.index}: "), []).append(one.index)
    for error, names in errors.items():
        cli.say(f"rag-index: {', '.join(names)}: a run would fail: {error}", err=True)
    for one in plans:
        if one.cost:
            cli.say(f"{one.index}: {one.cost.sentence()}")
        if one.message:
            cli.say(f"{one.index}: {one.message}")
