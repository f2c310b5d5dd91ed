"""`status`, `failed` and `plan`: what there is, and what a run would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["failed", "plan", "report", "status"]


@command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(context: Context, as_json: bool) -> None:
    """Show each index: its collection, documents, points, failures, last run."""
    from rag_index import overview

    found = overview.status(context.settings())
    if as_json:
        print_json({"indexes": [one.to_json() for one in found]})
        return
    rows = [("index", "collection", "documents", "points", "failed", "last run")]
    for one in found:
        last = _last_run(one.last_run)
        rows.append(
            (one.index, one.collection or "-", f"{one.documents:,}", f"{one.points:,}", f"{one.failed:,}", last)
        )
    _table(rows)


def _last_run(run: dict[str, Any] | None) -> str:
    if run is None:
        return "never"
    seconds = f", {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    said = f": {run['message']}" if run["message"] else ""
    return f"{run['state']}, {run['started'].replace('T', ' ').rstrip('Z')} UTC{seconds}{said}"


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def failed(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """List documents that could not be indexed: why, and how often they were tried."""
    from rag_index import overview

    settings = context.settings()
    found = overview.failed(settings, settings.named(names))
    if as_json:
        print_json({"failed": [one.to_json() for one in found]})
        return
    if not found:
        click.echo("No documents are listed as failed.")
        return
    rows = [("index", "document", "kind", "tries", "last tried", "reason")]
    rows += [(one.index, one.document_id, one.kind, str(one.tries), one.last_tried, one.reason) for one in found]
    _table(rows)
    kinds = {one.kind for one in found}
    if "failed" in kinds:
        click.echo("Each run tries them again, five times at most; `rag-index retry-failed` tries them at once.")
    if "incomplete" in kinds:
        click.echo("What is incomplete is indexed without something; `rag-index retry-failed` makes it anew.")
    if "skipped" in kinds:
        click.echo("What is skipped a rule of the source keeps out; it fails no run.")


@command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def report(context: Context, run: str | None, as_json: bool) -> None:
    """Show where the time of the last run of each index went, or of RUN, and what would help."""
    from rag_index import overview

    settings = context.settings()
    found = overview.run_reports(settings, settings.indexes, run)
    if run and not found:
        raise click.UsageError(f"there is no run {run!r}; `rag-index status --json` and Prefect show their ids")
    if as_json:
        print_json({"runs": found})
        return
    for one in found:
        click.echo(f"{one.get('index', 'a run')}: {one['state']}, {one['started']}, run {one['run']}")
        for line in _figures(one):
            click.echo(f"  {line}")


def _figures(run: dict[str, Any]) -> list[str]:
    """What a run took, in lines; nothing for one that has not ended."""
    figures = run.get("figures")
    if not figures:
        return []
    stages = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in figures["stages"].items())
    return [
        f"{figures['documents']:,} documents in {figures['seconds']:.1f} s: {stages}",
        f"workers ({figures['workers']}) busy {figures['worker_seconds']:.1f} s, {figures['utilisation']:.0%}"
        + (f", {figures['speed_up']:.1f} times one process" if figures.get("speed_up") else "")
        + (f", at most {figures['peak_memory'] / 1e6:.0f} MB each" if figures.get("peak_memory") else ""),
        f"{figures['texts']:,} texts embedded, {figures['repeated']:,} repeated, {figures['reused']:,} reused",
        f"{figures['requests']:,} requests, {figures['retries']:,} again, {figures['rate_limited']:,} told to wait",
        *_symbols(run, figures),
        *_hosts(figures),
        *_contexts(figures),
        run["advice"],
    ]


def _symbols(run: dict[str, Any], figures: dict[str, Any]) -> list[str]:
    """What was found in source code; nothing for other documents."""
    found = figures.get("symbols")
    if not found:
        return []
    kinds = ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(found.items(), key=lambda kind: (-kind[1], kind[0]))
    )
    done = run["new"] + run["changed"]
    return [f"{done:,} files done, {run['failed']:,} failed, {run.get('skipped', 0):,} skipped; symbols: {kinds}"]


def _hosts(figures: dict[str, Any]) -> list[str]:
    """How busy each host of the embedder was, at least one request under way; several workers count at most as one."""
    whole = max(figures["seconds"] - (figures["first_shard_after"] or 0.0), 0.001)
    found = figures.get("by_host", {}).items()
    return [f"{host} busy {seconds:.1f} s, {min(1.0, seconds / whole):.0%}" for host, seconds in found]


def _contexts(figures: dict[str, Any]) -> list[str]:
    """What contexts took; nothing where none were asked for."""
    made, cached, missing = (figures.get(f"contexts_{what}", 0) for what in ("made", "cached", "missing"))
    if not made + cached + missing:
        return []
    took = f"in {figures['cut_seconds']:.1f} s of the workers' time"
    return [f"contexts: {made:,} written, {cached:,} from the cache, {missing:,} missing, {took}"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def plan(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Show what a run would do, without doing it."""
    from rag_index import overview

    settings = context.settings()
    previews = [overview.preview(settings, index) for index in settings.named(names)]
    if as_json:
        print_json({"indexes": [one.to_json() for one in previews]})
        return
    columns = ("index", "documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
    rows = [tuple(name.replace("_", " ") for name in columns)]
    for one in previews:
        values: dict[str, Any] = one.to_json()
        rows.append(tuple(v if isinstance(v, str) else f"{v:,}" for v in (values[name] for name in columns)))
    _table(rows)


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns, numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width)
            if cell.replace(",", "").isdigit() or (row is rows[0] and _numeric(rows, i))
            else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _numeric(rows: Sequence[Sequence[str]], column: int) -> bool:
    return len(rows) > 1 and rows[1][column].replace(",", "").isdigit()
