"""The command `report`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, UnicodeText, command, json_option, print_json

SHORT = 0.05
"""Seconds. Shorter stages are left out."""
SMALL = 100_000
"""Bytes. Less is printed in kB."""
MAX_WORSE = 20
"""Queries of a gate that are printed."""


@command()
@click.argument("run", required=False, type=UnicodeText(), metavar="[RUN]")
@json_option
def report(context: Context, run: str | None, as_json: bool) -> None:
    """Show where the time of each index's last run went (or of RUN), and what would help."""
    from rag_index.status.runs import run_reports

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
    worse = gate["worse"]
    means = f"{gate['before']:.3f} before, {gate['after']:.3f} now, p = {gate['p']:.2g}"
    changed = f"{len(worse):,} worse, {gate['better']:,} better"
    lines = [f"{gate['metric']} of {gate['queries']:,} golden queries: {means}; {changed}"]
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
