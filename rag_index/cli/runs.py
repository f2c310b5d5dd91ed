"""The commands that run indexes (`index-all`, `rebuild`, `rollback`, `watch`), measure runs
(`benchmark`), or repair indexes (`doctor`, `erase`, `drop`, `export`)."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    POSITIVE,
    Context,
    api_key_in,
    api_key_option,
    command,
    json_option,
    log_to_terminal,
    name_argument,
    names_argument,
    options,
    parallel_options,
    print_json,
    print_table,
    repeated,
    say,
    show,
    wait_option,
)
from rag_index.core.reports.outcome import RunReport, count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.care.benchmark import BenchmarkReport
    from rag_index.care.doctor import Diagnosis
    from rag_index.core.settings import Settings, StoreSettings
    from rag_index.etl.opened import RunOptions

required_names = click.argument("names", nargs=-1, required=True, metavar="INDEX…")
BEGINS = "Opening source, ledger and store …"
NOT_OURS = "Backups, snapshots and the blocks of the file system are not ours to erase."
run_options = options(
    parallel_options,
    click.option(
        "--allow-deletes",
        is_flag=True,
        help="Delete what the source no longer has, whatever the guard says.",
    ),
    click.option(
        "--allow-loss",
        is_flag=True,
        help=(
            "Publish a rebuilt collection without asking its gate, or in place of one that another"
            " ledger made."
        ),
    ),
    wait_option,
    json_option,
)


def run_indexes(context: Context, names: list[str] | None, *, as_json: bool, **asked: Any) -> int:
    """Run these indexes (None: all), print the report and return the exit code."""
    from rag_index.etl.opened import RunOptions

    chosen = RunOptions(**asked)
    settings = context.settings(**chosen.in_settings())
    return print_report(launch_run(context, settings, names, chosen), as_json=as_json)


def print_report(report: RunReport, *more: str, as_json: bool, **also: object) -> int:
    """Print the report and return its exit code.

    Args:
        more: Lines after it, for a person.
        also: Further keys of the object of --json.
    """
    if all(outcome.nothing_to_do for outcome in report.indexes):
        line = f"Nothing changed. {report.seconds:.1f} s."
    else:
        sentence = report.sentence()
        end = "" if sentence.endswith("?") else "."
        line = f"{report.state.capitalize()}: {sentence}{end} {report.seconds:.1f} s."
    show({**report.to_json(), **also}, line, *more, as_json=as_json)
    return report.exit_code


def launch_run(
    context: Context,
    settings: Settings,
    names: list[str] | None,
    chosen: RunOptions,
    *,
    to: StoreSettings | None = None,
) -> RunReport:
    """Run these indexes (None: all), or rebuild them in the store `to`."""
    from rag_index.orchestration.launch import make_folder, run_locally

    log_of_run(verbose=context.verbose)
    if not settings.data.exists():
        make_folder(settings.data)
    return run_locally(settings, settings.named(names), chosen, to=to)


def log_of_run(*, verbose: bool) -> None:
    """Write the log of a run without Prefect to the terminal if `verbose`. Otherwise only the
    report at its end names faults."""
    root = logging.getLogger()
    if verbose:
        log_to_terminal(root)
        root.setLevel(logging.INFO)
    else:
        # Without a handler, Python writes warnings to the terminal.
        root.addHandler(logging.NullHandler())


@command("index-all", example="index-all", begins=BEGINS)
@names_argument
@repeated("--id", "ids", "Index only this document", metavar="ID")
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Try failed documents again, however often they were tried.",
)
@run_options
def index_all(
    context: Context,
    names: tuple[str, ...],
    ids: tuple[str, ...],
    as_json: bool,
    wait: float | None,
    **others: Any,
) -> int:
    """Bring all indexes, some, or single documents up to date.

    `rag-index index` is the same.
    """
    # Complete indexes.
    if not ids:
        return run_indexes(context, list(names) or None, as_json=as_json, wait=wait, **others)
    # Single documents: --id 4711 --id 4712.
    from rag_index.etl.changed import index_documents

    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if len(names) != 1:
        found = f"{len(names)} are named" if names else "none is named"
        raise click.UsageError(f"--id is for documents of one index, and {found}: name one")
    if given:
        raise click.UsageError(f"--id cannot be combined with {', '.join(given)}: leave it out")
    settings = context.settings(wait=wait)
    outcome = index_documents(settings, names[0], ids)
    report = RunReport([outcome], outcome.seconds)
    return print_report(report, as_json=as_json)


@command(example="rebuild comments", begins=BEGINS)
@required_names
@click.option(
    "--to",
    metavar="URL",
    help="Build them in another store: a Qdrant server (http://…) or a folder.",
)
@api_key_option
@run_options
def rebuild(
    context: Context,
    names: tuple[str, ...],
    to: str | None,
    api_key_env: str | None,
    as_json: bool,
    **asked: Any,
) -> int:
    """Build new collections beside the live ones and publish them.

    They are verified first. With --to, the live ones are only read, and searches go on there until
    you change the settings as the command says.
    """
    # In another store, such as --to http://qdrant:6333.
    if to is not None:
        return _rebuild_elsewhere(context, list(names), to, api_key_env, as_json=as_json, **asked)
    if api_key_env is not None:
        raise click.UsageError("--api-key-env is for the server that --to names")
    return run_indexes(context, list(names), full=True, as_json=as_json, **asked)


def _rebuild_elsewhere(
    context: Context,
    names: list[str],
    to: str,
    api_key_env: str | None,
    *,
    as_json: bool,
    **asked: Any,
) -> int:
    """Rebuild indexes in another store, and print the report and what to change then.

    Return the exit code.
    """
    from rag_index.etl.another_store import missing_indexes, next_steps, parse_target, settings_line
    from rag_index.etl.opened import RunOptions

    chosen = RunOptions(full=True, **asked)
    settings = context.settings(**chosen.in_settings())
    target = parse_target(settings, to, api_key_in(api_key_env))
    report = launch_run(context, settings, names, chosen, to=target)
    # Not all are there: the settings must not name the new store yet.
    if any(outcome.state != "completed" for outcome in report.indexes):
        wanted = ", ".join(names)
        left = [
            f"The settings stay as they are until all of {wanted} are there: run this command again."
        ]
        if any(outcome.error_class == "StoreRefused" for outcome in report.indexes):
            left.append(f"--api-key-env names the variable that holds the API key of {to}.")
        return print_report(report, *left, as_json=as_json)
    missing = missing_indexes(settings, target)
    steps = next_steps(settings, target, missing, to=to, api_key_env=api_key_env)
    return print_report(
        report, *steps, as_json=as_json, store=settings_line(target), missing=missing
    )


@command(endless_without="once", example="watch")
@names_argument
@click.option("--once", is_flag=True, help="Index what has changed until now, and end.")
def watch(context: Context, names: tuple[str, ...], once: bool) -> int:
    """Index what has changed within seconds, until it is stopped."""
    context.settings()
    # Messages of the watch are printed, and warnings of the other modules of ours.
    ours = logging.getLogger("rag_index")
    log_to_terminal(ours)
    ours.propagate = False
    logging.getLogger("rag_index.watch").setLevel(logging.INFO)
    # Without a handler, Python prints warnings of other libraries.
    logging.getLogger().addHandler(logging.NullHandler())
    from rag_index.care.index_status import try_to_write_metrics
    from rag_index.watch import follow
    from rag_index.watch.loop import Stop, stopped_by_signals

    stop = Stop()
    with stopped_by_signals(stop):
        caught_up = follow(
            context.settings,
            names or None,
            stop,
            once=once,
            changed=try_to_write_metrics,
            began=lambda watch: say(
                f"Watching {', '.join(watch.names)}; Ctrl-C ends it at the next commit.", err=True
            ),
        )
    return 0 if caught_up else 1


@command(example="drop comments --yes", kept="stopped; the same command deletes what is left")
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_option
@json_option
def drop(context: Context, name: str, yes: bool, wait: float | None, as_json: bool) -> int:
    """Delete an index: its collections, its texts, its ledger rows.

    The index may be gone from the settings already. Without --yes the command asks first.
    """
    from rag_index.etl.erase import drop_index, kept_index

    settings = context.settings(wait=wait)
    kept = kept_index(settings, name)
    if not yes and not _is_drop_confirmed(settings, name, kept):
        say("Nothing was deleted.", err=True)
        return 1
    dropped = drop_index(settings, name)
    answer = {"index": name, "dropped": dropped.collections}
    if dropped.elsewhere:
        answer["elsewhere"] = dropped.elsewhere
    show(answer, f"{name}: {dropped.sentence}", as_json=as_json)
    return 0


def _is_drop_confirmed(settings: Settings, name: str, kept: str) -> bool:
    """Show what an index has (`kept`), and ask whether to delete it. Raises UsageError without a
    terminal."""
    say(f"{name}: {kept}", err=True)
    if settings.alias(name) in settings.aliases:
        say(
            f"{settings.path.name} has this index, so its next run indexes everything again.",
            err=True,
        )
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; --yes deletes without asking")
    return click.confirm("Delete all of it?", err=True)


@command(
    quiet=True,
    example="erase comments",
    kept="stopped; searches work as before, and the same command completes the erasure",
)
@name_argument
@wait_option
@json_option
def erase(context: Context, name: str, wait: float | None, as_json: bool) -> int:
    """Leave no file of the store with what was deleted or changed.

    The living points are copied, which takes the time and room of a rebuild without embedding, and
    collections that were kept for rollback are dropped. The exit code is 3 if the delete guard
    holds documents back.
    """
    from rag_index.etl.deletes import held_back
    from rag_index.etl.erase import erase
    from rag_index.etl.opened import hold_index

    settings = context.settings(wait=wait)
    index = settings.index(name)
    with hold_index(settings, settings.alias(name)) as (ledger, lease, store):
        erased = erase(settings, index, ledger, store, lease)
    # The index has no collection.
    if erased is None:
        nothing = {"index": name, "collection": None}
        show(nothing, f"{name}: nothing is indexed, so nothing was erased.", as_json=as_json)
        return 0
    held = held_back(erased.held_back, name)
    dropped = ", ".join(erased.dropped)
    lines = [f"{name}: not erased: {held}."] if held else []
    lines += [
        f"{name}: erased what {erased.documents:,} deleted or changed documents had left.",
        f"{erased.collection} is live with {erased.points:,} points; {dropped} dropped.",
        f"{erased.seconds:.2f} s. {NOT_OURS}",
    ]
    show(asdict(erased), *lines, as_json=as_json)
    return 3 if held else 0


@command(
    quiet=True, example="export comments --out comments.jsonl", kept="stopped; no file was written"
)
@name_argument
@click.option(
    "--out",
    required=True,
    metavar="FILE.jsonl",
    help="The file to write, or - for standard output.",
)
@click.option("--no-vectors", is_flag=True, help="Leave out the vectors.")
@wait_option
def export(context: Context, name: str, out: str, no_vectors: bool, wait: float | None) -> None:
    """Write every point of an index as JSON lines, sorted by id."""
    from rag_index.care.export import STANDARD_OUTPUT, export

    count = export(context.settings(wait=wait), name, out, vectors=not no_vectors)
    where = "standard output" if out == STANDARD_OUTPUT else out
    say(f"Wrote {count:,} points to {where}", err=out == STANDARD_OUTPUT)


@command(quiet=True, example="rollback comments")
@name_argument
@json_option
def rollback(context: Context, name: str, as_json: bool) -> None:
    """Make the index's previous collection live again."""
    from rag_index.etl.opened import hold_index
    from rag_index.etl.publish import roll_back

    settings = context.settings()
    alias = settings.alias(name)
    has_access = settings.index(name).access is not None
    with hold_index(settings, alias) as (ledger, _, store):
        before, live, returned = roll_back(ledger, store, alias, name, access=has_access)
    answer = {"index": name, "before": before, "live": live, "returned": returned}
    came = f", with {returned:,} that {before} no longer had" if returned else ""
    state = f"its documents are as the last run left them{came}"
    lines = [
        f"{name}: {live} is live, {before} is kept.",
        f"{name}: {state}; `rag-index index {name}` brings it up to date.",
    ]
    show(answer, *lines, as_json=as_json)


@command(
    quiet=True,
    example="doctor --repair",
    kept=(
        "stopped; what is repaired is kept, nothing else was changed, and the same command begins"
        " again"
    ),
)
@names_argument
@click.option(
    "--repair", "repairing", is_flag=True, help="Repair what is found; the next run does the rest."
)
@wait_option
@json_option
def doctor(
    context: Context, names: tuple[str, ...], repairing: bool, wait: float | None, as_json: bool
) -> int:
    """Compare source, ledger and store; --repair repairs.

    What has to be indexed again is left to the next run. The exit code is 0 if nothing is found or
    everything is repaired, and 3 if something is left.
    """
    from rag_index.care.doctor import examine, repair

    settings = context.settings(wait=wait)
    diagnosis = repair(settings, names) if repairing else examine(settings, names)
    show(asdict(diagnosis), *_finding_lines(diagnosis, repairing=repairing), as_json=as_json)
    return diagnosis.exit_code


def _finding_lines(diagnosis: Diagnosis, *, repairing: bool) -> Iterator[str]:
    def prefix(index: str | None) -> str:
        return f"{index}: " if index else ""

    for finding in diagnosis.repaired:
        yield f"{prefix(finding.index)}repaired: {finding.message}"
    for finding in diagnosis.findings:
        yield f"{prefix(finding.index)}{finding.kind}: {finding.message}"
        yield f"    {finding.remedy}"
    for advice in diagnosis.advice:
        yield f"{prefix(advice.index)}advice: {advice.message}"
    left = len(diagnosis.findings)
    repaired = len(diagnosis.repaired)
    if repairing and repaired:
        yield f"{repaired} of {repaired + left} findings repaired."
    elif left:
        yield f"{count_of(left, 'finding')}."
    else:
        yield "Nothing found."


@command(example="benchmark --sample-size 2000")
@click.option("--index", "name", metavar="INDEX", help="The index to sample [the first].")
@click.option(
    "--sample-size",
    type=POSITIVE,
    default=1000,
    show_default=True,
    help="How many documents to embed each time.",
)
@repeated(
    "--workers",
    "workers",
    "Try N workers [1, 2, 4, … up to the settings' number]",
    type=POSITIVE,
    metavar="N",
)
@json_option
def benchmark(
    context: Context, name: str | None, sample_size: int, workers: tuple[int, ...], as_json: bool
) -> int:
    """Compare a serial script with parallel runs.

    Real collections are not touched.
    """
    from rag_index.orchestration.launch import benchmark_locally

    settings = context.settings()
    index = settings.index(name).name if name else settings.indexes[0].name
    report = benchmark_locally(
        settings, index=index, sample_size=sample_size, workers=list(workers)
    )
    if as_json:
        print_json(report.to_json())
    else:
        _print_benchmark(report)
    return 0 if report.in_parity else 1


def _print_benchmark(report: BenchmarkReport) -> None:
    serial = report.measured[0]
    say(
        f"{report.documents:,} documents of {report.index}, {serial.chunks:,} chunks,"
        f" {report.embedder}"
    )
    rows = [("", "seconds", "documents/s", "speed-up", *serial.stages, "points")]
    for run in report.measured:
        rate = f"{run.documents_per_second:,.1f}"
        shares = [f"{share:.0%}" for share in run.stages.values()]
        # Whether the run wrote the same points as the serial one.
        points = "the same" if run.in_parity else "OTHERS"
        rows.append((run.name, f"{run.seconds:.2f}", rate, f"{run.speed_up:.2f}", *shares, points))
    print_table(rows)
