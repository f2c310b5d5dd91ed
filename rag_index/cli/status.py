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
from rag_index.core.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.care.index_status import IndexStatus, ListedDocument, ProjectStatus
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
"""What each kind of failure means for the next run."""
LAST_RUN = "\0"
"""The value of `--report` without a run: no id of a run has this character."""
MAX_SHOWN_CHUNKS = 50
"""Chunks of a document that `plan --show` prints. Chosen; nothing depends on it."""
MAX_ALIKE = 5
"""Documents with reasons of one kind that `--failed` lists. Of more, it lists the first and their
number. Chosen; nothing depends on it."""
ALWAYS = ("documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
"""The columns of every plan."""
SELDOM = ("held_back", "failed", "skipped")
"""The columns of a plan in which some index has a number."""


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

    If the store does not answer, the command shows what the ledger knows. Then, and if the ledger
    of live indexes is missing, the exit code is 1.
    """
    settings = context.settings()
    chosen = settings.named(names)
    if failed and run is not None:
        raise click.UsageError("--failed and --report are two questions: ask one after the other")
    if failed:
        _show_failed_documents(settings, chosen, as_json=as_json)
        return 0
    if run is not None:
        _show_reports(settings, chosen, "" if run == LAST_RUN else run, as_json=as_json)
        return 0
    return _show_status(settings, {index.name for index in chosen}, as_json=as_json)


def _show_status(settings: Settings, chosen: set[str], *, as_json: bool) -> int:
    """Print the status of these indexes. Return the exit code."""
    with collect_seldom():
        from rag_index.care.index_status import ledger_status, status
        from rag_index.errors import StoreError, StoreUnavailable

        shown_from = ""
        try:
            project = status(settings)
            error = project.problem
        except (StoreError, StoreUnavailable) as raised:
            project = ledger_status(settings)
            error = str(raised)
            shown_from = " (what is shown is from the ledger alone)"
    indexes = [index for index in project.indexes if index.index in chosen]
    project = replace(project, indexes=indexes)
    not_found = _queries_not_found(settings)
    if as_json:
        _print_status_json(project, not_found, error)
    else:
        _print_status(settings, project)
        if not_found:
            listed = "; ".join(f"{query} ({times:,} ×)" for query, times in not_found)
            cli.say(f"asked for, and not found: {listed}")
    if error:
        cli.say(f"rag-index: {error}{shown_from}", err=True)
    return int(bool(error))


def _queries_not_found(settings: Settings) -> list[tuple[str, int]]:
    """Return the commonest queries without a hit, with how often each was asked. The list is empty
    without a query log, or if it belongs to another user."""
    log = query_log(settings.serve)
    if log is None:
        return []
    with suppress(OSError):
        return log.not_found()
    return []


def _print_status_json(
    project: ProjectStatus, not_found: list[tuple[str, int]], error: str
) -> None:
    answer: dict[str, Any] = {"indexes": project.indexes, "unwanted": project.unwanted}
    if not_found:
        answer["not_found"] = [{"query": query, "times": times} for query, times in not_found]
    if error:
        answer["error"] = error
    cli.print_json(answer)


def _print_status(settings: Settings, project: ProjectStatus) -> None:
    columns = ["documents", "points"]
    if any(index.indexed is not None for index in project.indexes):
        columns.append("indexed")
    columns.append("failed")
    if any(index.held_back for index in project.indexes):
        columns.append("held_back")
    titles = [name.replace("_", " ") for name in columns]
    rows = [("index", "collection", *titles, "last run")]
    for index in project.indexes:
        numbers = [f"{getattr(index, name) or 0:,}" for name in columns]
        collection = index.collection or cli.NO_NUMBER
        rows.append((index.index, collection, *numbers, _last_run(index.last_run)))
    cli.print_table(rows)
    by_embedder: dict[str, list[str]] = {}
    for index in project.indexes:
        if index.embedder:
            by_embedder.setdefault(index.embedder, []).append(index.index)
    for embedder, names in by_embedder.items():
        cli.say(f"embedder of {', '.join(names)}: {embedder}")
    for line in _languages(settings, project):
        cli.say(line)
    for index in project.indexes:
        for line in _remarks(index):
            cli.say(line)
    for name, sentence in project.unwanted.items():
        cli.say(f"{name}: {sentence}")


def _languages(settings: Settings, project: ProjectStatus) -> Iterator[str]:
    """Yield a line for each embedder of English alone whose indexes have other languages."""
    from rag_index.components.embedders import knows_english_alone
    from rag_index.core.settings.index import NO_LANGUAGE, split_languages

    unknown: dict[str, list[str]] = {}
    for index in project.indexes:
        languages = set(split_languages(settings.index(index.index).language))
        others = sorted(languages - {"english", NO_LANGUAGE})
        # An embedder is shown as "256-d wordllama (local, 4f76a02e27ab, no prefixes)".
        model = index.embedder.split(" ")[1] if index.embedder else ""
        if others and knows_english_alone(model):
            unknown.setdefault(model, []).append(f"{index.index} has {' and '.join(others)}")
    for model, indexes in unknown.items():
        yield f"this embedder knows English: {model}; {', '.join(indexes)}, which words alone find"


def _remarks(index: IndexStatus) -> Iterator[str]:
    """Yield what the table does not show: changes that need a rebuild, the watch, erasures."""
    name = index.index
    run = index.last_run
    if index.outdated:
        yield f"{name}: {index.outdated}: run `rag-index rebuild {name}`"
    if index.restored:
        yield f"{name}: {index.restored}"
    if index.findable:
        state = "is being filled" if run and run["state"] == "running" else "is not complete"
        yield f"{name} {state}: {index.findable}"
    if index.as_of and not _is_of_last_run(index.as_of, run):
        yield f"{name}: complete up to {index.as_of['at']}, known by {index.as_of['known_by']}"
    if index.watch:
        seconds = index.watch["seconds_behind"]
        behind = f", {seconds:,.0f} s behind" if seconds >= 60 else ""
        why = f": {index.watch['message']}" if index.watch["message"] else ""
        yield f"{name}: watch {index.watch['state']}{behind}{why}"
    if index.erasable:
        texts = count_of(index.erasable, "deleted or changed document")
        yield f"{name}: the store's files may keep texts of {texts} since {index.erasable_since}"
    if run and run["message"]:
        yield f"{name}: {run['message']}"


def _is_of_last_run(as_of: dict[str, Any], run: dict[str, Any] | None) -> bool:
    """Return whether an index is complete up to its last run, which the table shows."""
    if run is None or run["state"] == "failed":
        return False
    return bool(as_of["known_by"] == "run" and as_of["at"] >= run["started"])


def _last_run(run: dict[str, Any] | None) -> str:
    """Return "completed, 2024-05-01 08:00:00 UTC, 12 s"."""
    if run is None:
        return "never"
    started = run["started"].replace("T", " ").rstrip("Z")
    # It is still running, or was killed.
    if run["seconds"] is None:
        return f"{run['state']}, {started} UTC"
    return f"{run['state']}, {started} UTC, {run['seconds']:.0f} s"


def _show_failed_documents(
    settings: Settings, indexes: Sequence[IndexSettings], *, as_json: bool
) -> None:
    """List the documents that could not be indexed. Of many with reasons of one kind, the table has
    the first and their number."""
    from rag_index.care.index_status import failed
    from rag_index.core.documents.batches import kinds_of

    documents = failed(settings, indexes)
    if as_json:
        cli.print_json({"failed": documents})
        return
    if not documents:
        cli.say("No documents are listed as failed.")
        return
    alike: dict[Any, list[ListedDocument]] = {}
    for document in documents:
        patterns = frozenset(kinds_of(document.reason, document.kind))
        group = (document.index, document.kind, patterns)
        alike.setdefault(group, []).append(document)
    rows: list[tuple[str, ...]] = [
        ("index", "document", "kind", "tries", "last tried", "reason"),
    ]
    for group_documents in alike.values():
        if len(group_documents) <= MAX_ALIKE:
            rows += [_failed_document_row(document) for document in group_documents]
        else:
            others = len(group_documents) - 1
            rows.append(_failed_document_row(group_documents[0], f" and {others:,} like it"))
    cli.print_table(rows)
    kinds = {document.kind for document in documents}
    for kind, sentence in KIND_SENTENCES.items():
        if kind in kinds:
            cli.say(sentence)


def _failed_document_row(document: ListedDocument, more: str = "") -> tuple[str, ...]:
    return (
        document.index,
        document.document_id + more,
        document.kind,
        str(document.tries),
        document.last_tried,
        document.reason,
    )


def _show_reports(
    settings: Settings, indexes: Sequence[IndexSettings], run: str, *, as_json: bool
) -> None:
    """Show where the time of the run `run` went, or without an id that of each index's last run."""
    from rag_index.care.index_status import run_reports
    from rag_index.core.reports.metrics import report_lines

    found = run_reports(settings, indexes, run or None)
    if run and not found:
        raise click.UsageError(
            f"there is no run {run!r}; `rag-index status --report` and Prefect show the ids of runs"
        )
    lines = []
    for report in found:
        index = report.get("index", "a run")
        lines.append(f"{index}: {report['state']}, {report['started']}, run {report['run']}")
        lines += [f"  {line}" for line in report_lines(report)]
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
        documents: list[ShownDocument] = []
        for index in indexes:
            documents += show_documents(settings, index, shown)
        lines: list[str] = []
        for document in documents:
            lines += document_lines(document)
        empty = {index.name for index in indexes} - {document.index for document in documents}
        lines += [f"{name}: no document with text" for name in sorted(empty)]
        answer = {"documents": [document.to_json() for document in documents]}
        cli.show(answer, *lines, as_json=as_json)
        return 0
    plans = plan_runs(settings, indexes)
    if as_json:
        cli.print_json({"indexes": [plan.to_json() for plan in plans]})
    else:
        _print_plans(plans)
    codes = {plan.exit_code for plan in plans}
    # 2 only if wrong settings would make every run fail.
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
        part = chunk.get("part") or f"chunk {number}"
        yield f"  --- {part}"
        yield textwrap.indent(chunk["text"], "  ")
    more = len(document.chunks) - most
    if more > 0:
        yield f"  --- and {count_of(more, 'more chunk')}"
    yield ""


def _print_plans(plans: list[RunPlan]) -> None:
    seldom = [name for name in SELDOM if any(getattr(plan, name) for plan in plans)]
    columns = [*ALWAYS, *seldom]
    rows = [("index", *(name.replace("_", " ") for name in columns))]
    for plan in plans:
        # A plan that failed has no numbers.
        cells = ["-" if plan.error else f"{getattr(plan, name):,}" for name in columns]
        rows.append((plan.index, *cells))
    if not all(plan.error for plan in plans):
        cli.print_table(rows)
    for embedder in dict.fromkeys(plan.embedder for plan in plans if plan.embedder):
        cli.say(f"embedder: {embedder}")
    # One error may concern many indexes, such as a database that does not answer.
    errors: dict[str, list[str]] = {}
    for plan in plans:
        if plan.error:
            error = plan.error.removeprefix(f"index {plan.index}: ")
            errors.setdefault(error, []).append(plan.index)
    for error, names in errors.items():
        cli.say(f"rag-index: {', '.join(names)}: a run would fail: {error}", err=True)
    for plan in plans:
        if plan.cost:
            cli.say(f"{plan.index}: {plan.cost.sentence()}")
        if plan.message:
            cli.say(f"{plan.index}: {plan.message}")
