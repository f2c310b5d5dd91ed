"""The commands that show how indexes are: `status`, `failed`, `report`, `plan`."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, IndexName, UnicodeText, command, json_option, print_json, print_table
from rag_index.machine.garbage import collect_seldom
from rag_index.reports.outcome import BY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.settings import IndexSettings, Settings
    from rag_index.status.plan import RunPlan, ShownDocument
    from rag_index.status.status import ProjectStatus

SHORT = 0.05
"""Seconds. Shorter stages are left out."""
SMALL = 100_000
"""Bytes. Less is printed in kB."""
MAX_SHOWN = 50
"""Chunks of a document that are printed."""
MAX_WORSE = 20
"""Queries of a gate that are printed."""
ALWAYS = ("documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
SELDOM = ("held_back", "failed", "skipped")
"""Columns that are printed if a plan has such documents."""


@command()
@json_option
def status(context: Context, as_json: bool) -> int:
    """Show each index: its collection, documents, points, failures and last run.

    If the store does not answer, the exit code is 1, and all is shown that the ledger knows.
    """
    settings = context.settings()
    with collect_seldom():
        from rag_index.errors import StoreError, StoreUnavailable
        from rag_index.status.status import ledger_status, status

        error = ""
        try:
            known = status(settings)
        except (StoreError, StoreUnavailable) as raised:
            known, error = ledger_status(settings), str(raised)
    if as_json:
        found = {"indexes": [one.to_json() for one in known.indexes], "unwanted": known.unwanted}
        print_json({**found, **({"error": error} if error else {})})
    else:
        _print_status(known)
    if error:
        click.echo(f"rag-index: {error} (what is shown is from the ledger alone)", err=True)
    return int(bool(error))


def _print_status(known: ProjectStatus) -> None:
    indexes = known.indexes
    any_held = any(one.held_back for one in indexes)
    on_server = any(one.indexed is not None for one in indexes)
    head = ("documents", "points", *["indexed"] * on_server, "failed", *["held back"] * any_held)
    rows = [("index", "collection", *head, "last run")]
    for one in indexes:
        numbers = [one.documents, one.points, *[one.indexed or 0] * on_server, one.failed]
        numbers += [one.held_back] * any_held
        rows.append((one.index, one.collection or "-", *(f"{n:,}" for n in numbers), _last_run(one.last_run)))
    print_table(rows)
    for one in indexes:
        if one.restored:
            click.echo(f"{one.index}: {one.restored}")
        if one.as_of and not _in_last_run(one.as_of, one.last_run):
            position = f" (position {one.as_of['position']})" if one.as_of["position"] else ""
            click.echo(f"{one.index}: complete up to {one.as_of['at']}{position}, known by {one.as_of['known_by']}")
        if one.channels:
            click.echo(f"{one.index}: {one.channels}")
        if one.watch:
            click.echo(f"{one.index}: {_watch(one.watch)}")
            if one.watch["missed"]:
                click.echo(one.watch["missed"]["message"])
        if one.last_run and one.last_run["message"]:
            click.echo(f"{one.index}: {one.last_run['message']}")
    for index, sentence in known.unwanted.items():
        click.echo(f"{index}: {sentence}")


def _watch(watch: dict[str, Any]) -> str:
    count = watch["changes_waiting"]
    waiting = f", {count:,} change{'s wait' if count != 1 else ' waits'}" if count else ""
    behind = f", {watch['seconds_behind']:,.0f} s behind" if watch["seconds_behind"] >= 1 else ""
    why = f": {watch['message']}" if watch["message"] else ""
    return f"watch {watch['state']}{waiting}{behind}{why}"


def _in_last_run(as_of: dict[str, Any], run: dict[str, Any] | None) -> bool:
    """Return whether it is the last run that an index is complete by, which the table shows."""
    return run is not None and as_of["known_by"] == "run" and as_of["at"] >= run["started"]


def _last_run(run: dict[str, Any] | None) -> str:
    if run is None:
        return "never"
    seconds = f", {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    return f"{run['state']}, {run['started'].replace('T', ' ').rstrip('Z')} UTC{seconds}"


@command()
@click.argument("names", type=IndexName(), nargs=-1, metavar="[NAME]…")
@json_option
def failed(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """List the documents that could not be indexed, with the reason and the number of tries."""
    from rag_index.status.status import failed

    settings = context.settings()
    documents = failed(settings, settings.named(names))
    if as_json:
        print_json({"failed": [one.to_json() for one in documents]})
        return
    if not documents:
        click.echo("No documents are listed as failed.")
        return
    rows = [("index", "document", "kind", "tries", "last tried", "reason")]
    rows += [(one.index, one.document_id, one.kind, str(one.tries), one.last_tried, one.reason) for one in documents]
    print_table(rows)
    kinds = {one.kind for one in documents}
    if "failed" in kinds:
        click.echo("Each run tries failed documents again, up to five times; `rag-index retry-failed` tries them now.")
    if "incomplete" in kinds:
        click.echo("Incomplete documents are indexed but lack something; `rag-index retry-failed` tries them again.")
    if "skipped" in kinds:
        click.echo("Skipped documents are excluded by a rule of the source; they do not make a run fail.")


@command()
@click.argument("run", required=False, type=UnicodeText(), metavar="[RUN]")
@json_option
def report(context: Context, run: str | None, as_json: bool) -> None:
    """Show where the time of each index's last run went (or of RUN), and what would help."""
    from rag_index.status.status import run_reports

    settings = context.settings()
    found = run_reports(settings, settings.indexes, run)
    if run and not found:
        raise click.UsageError(f"there is no run {run!r}; `rag-index report` and Prefect show the ids of runs")
    if as_json:
        print_json({"runs": found})
        return
    for one in found:
        click.echo(f"{one.get('index', 'a run')}: {one['state']}, {one['started']}, run {one['run']}")
        missed = one.get("missed", {}).get("message")
        for line in [*filter(None, [one.get("message"), missed]), *_gate(one), *_metrics(one)]:
            click.echo(f"  {line}")


def _gate(run: dict[str, Any]) -> list[str]:
    """Return the lines about the queries that a rebuilt collection answers worse; none if no gate was asked."""
    gate = run.get("gate")
    if not gate:
        return []
    worse, lines = gate["worse"], []
    for name, way in gate["ways"].items():
        means = f"{way['before']:.3f} before, {way['after']:.3f} now, p = {way['p']:.2g}"
        changed = f"{way['worse']:,} worse, {way['better']:,} better"
        metric = " ".join(filter(None, [gate["metric"], BY.get(name)]))
        lines.append(f"{metric} of {gate['queries']:,} golden queries: {means}; {changed}")
    for one in worse[:MAX_WORSE]:
        lost = f", lost {', '.join(one['lost'])}" if one["lost"] else ""
        lines.append(f"  {one['before']:.3f} → {one['after']:.3f}  {one['query']}{lost}")
    if len(worse) > MAX_WORSE:
        lines.append(f"  and {len(worse) - MAX_WORSE:,} more, which --json prints")
    return lines


def _metrics(run: dict[str, Any]) -> list[str]:
    """Return the lines about a run's time; none if it has not ended, or failed before it read anything."""
    metrics = run.get("metrics")
    if not metrics or (run["state"] == "failed" and not metrics["documents"]):
        return []
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in metrics["stages"].items() if seconds >= SHORT)
    return [
        f"{metrics['documents']:,} documents in {metrics['seconds']:.1f} s: {stages or 'no stage took long'}",
        f"workers ({metrics['workers']}) busy {metrics['worker_seconds']:.1f} s, {metrics['utilisation']:.0%}"
        + (f", idle {metrics['idle_seconds']:.1f} s" if metrics.get("idle_seconds") else "")
        + (
            f", {metrics['speed_up']:.1f} times one process"
            if metrics.get("speed_up") and metrics["workers"] > 1
            else ""
        )
        + (f", at most {metrics['peak_memory'] / 1e6:.0f} MB each" if metrics.get("peak_memory") else ""),
        f"{metrics['texts']:,} texts embedded, {metrics['repeated']:,} duplicates, {metrics['reused']:,} reused",
        f"{metrics['requests']:,} requests, {metrics['retries']:,} retried, {metrics['rate_limited']:,} rate-limited"
        + (f", {metrics['splits']:,} for parts of refused batches" if metrics.get("splits") else ""),
        *_bytes(metrics),
        *_symbols(run, metrics),
        *_hosts(metrics),
        *_contexts(metrics),
        run["advice"],
    ]


def _bytes(metrics: dict[str, Any]) -> list[str]:
    """Return a line about bytes; none for a run that did not count them."""
    if "read_bytes" not in metrics:
        return []
    read, sent, vectors = (_size(metrics[name]) for name in ("read_bytes", "sent_bytes", "vector_bytes"))
    return [f"{read} read from the source, {sent} of text embedded, {vectors} of vectors written"]


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= SMALL else f"{size / 1e3:,.1f} kB"


def _symbols(run: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """Return a line about the symbols found in source code; none for other documents."""
    found = metrics.get("symbols")
    if not found:
        return []
    kinds = ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(found.items(), key=lambda kind: (-kind[1], kind[0]))
    )
    done = run["new"] + run["changed"]
    return [f"{done:,} files done, {run['failed']:,} failed, {run.get('skipped', 0):,} skipped; symbols: {kinds}"]


def _hosts(metrics: dict[str, Any]) -> list[str]:
    """Return a line per host: how long it had a request in flight, and how long none. Workers' times add up to 100%."""
    whole = max(metrics["seconds"] - (metrics["first_shard_after"] or 0.0), 0.001)
    found = metrics.get("by_host", {}).items()
    return [
        f"{host} busy {seconds:.1f} s, {min(1.0, seconds / whole):.0%}, idle {max(0.0, whole - seconds):.1f} s"
        for host, seconds in found
    ]


def _contexts(metrics: dict[str, Any]) -> list[str]:
    """Return a line about contexts; none if the index does not use them."""
    made, cached, missing = (metrics.get(f"contexts_{what}", 0) for what in ("made", "cached", "missing"))
    if not made + cached + missing:
        return []
    took = f"in {metrics['chunk_seconds']:.1f} s of the workers' time"
    return [f"contexts: {made:,} written, {cached:,} from the cache, {missing:,} missing, {took}"]


@command(quiet=True)
@click.argument("names", type=IndexName(), nargs=-1, metavar="[NAME]…")
@click.option("--show", type=click.IntRange(min=1), metavar="N", help="Show N whole documents as they are embedded.")
@json_option
def plan(context: Context, names: tuple[str, ...], show: int | None, as_json: bool) -> int:
    """Show what a run would do, without changing anything.

    With --show, show some documents of each index instead, as they would be embedded.
    """
    from rag_index.status.plan import plan_runs

    settings = context.settings()
    if show is not None:
        return _show_documents(settings, settings.named(names), show, as_json=as_json)
    plans = plan_runs(settings, settings.named(names))
    if as_json:
        print_json({"indexes": [one.to_json() for one in plans]})
    else:
        _print_plans(plans)
    codes = {one.exit_code for one in plans}
    return codes.pop() if len(codes) == 1 else 1


def _show_documents(settings: Settings, indexes: Sequence[IndexSettings], count: int, *, as_json: bool) -> int:
    """Print documents of each index as they would be embedded, and return the exit code."""
    from rag_index.status.plan import show_documents

    shown = [one for index in indexes for one in show_documents(settings, index, count)]
    if as_json:
        print_json({"documents": [one.to_json() for one in shown]})
        return 0
    for one in shown:
        print_document(one)
    for name in sorted({index.name for index in indexes} - {one.index for one in shown}):
        click.echo(f"{name}: no document with text")
    return 0


def print_document(document: ShownDocument) -> None:
    """Print a document as it would be embedded."""
    title = f"{' '.join(document.title.split())} " if document.title else ""
    click.secho(f"{document.index}: {title}({document.document_id})", bold=True)
    if document.link:
        click.echo(f"  {document.link}")
    if document.payload:
        click.echo(f"  payload: {json.dumps(document.payload, ensure_ascii=False)}")
    for number, chunk in enumerate(document.chunks[:MAX_SHOWN]):
        click.echo(f"  --- {chunk.part or f'chunk {number}'}")
        click.echo(textwrap.indent("".join(map(_printable, chunk.text)), "  "))
    if len(document.chunks) > MAX_SHOWN:
        click.echo(f"  --- and {len(document.chunks) - MAX_SHOWN:,} more chunks")
    click.echo()


def _printable(character: str) -> str:
    """Return a character, or a mark for one that a terminal might take for a command."""
    return character if character.isprintable() or character.isspace() else "\N{REPLACEMENT CHARACTER}"


def _print_plans(plans: list[RunPlan]) -> None:
    columns = [*ALWAYS, *(name for name in SELDOM if any(getattr(one, name) for one in plans))]
    rows = [("index", *(name.replace("_", " ") for name in columns))]
    rows += [(one.index, *("-" if one.error else f"{getattr(one, name):,}" for name in columns)) for one in plans]
    if not all(one.error for one in plans):
        print_table(rows)
    for one in plans:
        if one.error:
            click.echo(f"rag-index: {one.index}: a run would fail: {one.error}", err=True)
            continue
        if one.cost:
            click.echo(f"{one.index}: {one.cost.sentence()}")
        if one.message:
            click.echo(f"{one.index}: {one.message}")
