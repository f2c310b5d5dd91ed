"""The commands that repair: `doctor`, `rollback`, `erase`, `drop`, `export` and `move`."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, json_option, name_argument, names_argument, say, show, wait_option
from rag_index.cli.runs import flow_loader, launch_flow, launch_run, prefect_option
from rag_index.core.reports.metrics import size_text
from rag_index.core.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.care.doctor import Diagnosis
    from rag_index.etl.erase import Erased, Witness


@command(example="drop comments --yes")
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
    if not yes:
        say(f"{name}: {kept}", err=True)
        if settings.alias(name) in settings.aliases:
            say(f"{settings.path.name} has this index, so its next run indexes everything again.", err=True)
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask on; --yes deletes without asking")
        if not click.confirm("Delete all of it?", err=True):
            say("Nothing was deleted.", err=True)
            return 1
    dropped = drop_index(settings, name)
    show({"index": name, "dropped": dropped}, f"{name}: deleted {kept}.", as_json=as_json)
    return 0


@command(quiet=True, example="erase comments --key 4711")
@name_argument
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Delete this document first (may be repeated).")
@click.option(
    "--proof",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read all files of the store, and write to FILE what they hold.",
)
@click.option("--look-for", type=click.Path(path_type=Path), metavar="FILE", help="Look for each line of FILE, too.")
@click.option(
    "--folder", "folders", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Also read the files of this folder, such as a server's storage (may be repeated).",
)  # fmt: skip
@wait_option
@json_option
def erase(
    context: Context,
    name: str,
    keys: tuple[str, ...],
    proof: Path | None,
    look_for: Path | None,
    folders: tuple[Path, ...],
    wait: float | None,
    as_json: bool,
) -> int:
    """Leave no file of the store with what was deleted or changed.

    The living points are copied, which takes the time and room of a rebuild without embedding, and collections that
    were kept for rollback are dropped. The
    exit code is 3 if the delete guard holds documents back.
    """
    from rag_index.components.ledger import Ledger
    from rag_index.components.ledger.runs import IndexLease
    from rag_index.components.stores import open_store
    from rag_index.etl.erase import erase
    from rag_index.etl.tombstones import neighbours

    witness = _witness(proof, look_for, folders)
    settings = context.settings(wait=wait)
    index, alias, proved = settings.index(name), settings.alias(name), None
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, alias, f"erase-{uuid.uuid4()}") as lease,
    ):
        with closing(open_store(settings.store, wait=settings.run.wait)) as store:
            erased = erase(settings, index, ledger, store, lease, keys, witness)
        if witness is not None and erased is not None:
            proved = witness.prove(settings, ledger, erased)
        ledger.end_erasure(alias)
        ledger.empty_log()
    if erased is None:
        nothing = {"index": name, "collection": None}
        show(nothing, f"{name}: nothing is indexed, so nothing was erased.", as_json=as_json)
        return 0
    others = [one.name for one in neighbours(settings, index)] if keys else []
    lines = [*_erased_lines(erased, keys, others), *(_proof_lines(str(proof), proved) if proved else ())]
    show(asdict(erased) | ({"proof": proved} if proved else {}), *lines, as_json=as_json)
    return 3 if erased.held_back else 0


def _witness(proof: Path | None, look_for: Path | None, folders: tuple[Path, ...]) -> Witness | None:
    """Return what watches an erasure for a proof, with the words to look for; None if no proof is asked for."""
    from rag_index.etl.erase import Witness

    if proof is None:
        if look_for or folders:
            raise click.UsageError("--look-for and --folder are of the proof: give --proof too")
        return None
    if proof.exists():
        raise click.UsageError(f"--proof {proof} exists, and a proof is not overwritten: name a new file")
    if look_for is not None and not look_for.is_file():
        raise click.UsageError(f"--look-for {look_for} is no file; name one with a text on each line")
    witness = Witness(proof, list(folders))
    for words in filter(None, map(str.strip, look_for.read_text("utf-8").splitlines() if look_for else ())):
        witness.scanner.add_words(words)
    return witness


def _erased_lines(erased: Erased, keys: tuple[str, ...], others: list[str]) -> Iterator[str]:
    from rag_index.etl.delete_guard import held_back

    if held := held_back(erased.held_back, erased.index):
        yield f"{erased.index}: not erased: {held}."
    yield f"{erased.index}: erased what {erased.documents:,} deleted or changed documents had left."
    yield (
        f"{erased.collection} is live with {erased.points:,} points; {', '.join(erased.dropped)} dropped. "
        f"{erased.seconds:.2f} s. Backups, snapshots and the blocks of the file system are not ours to erase."
    )
    if keys:
        yield f"No run indexes {', '.join(keys)} again until `rag-index index {erased.index} --id` names it."
    for other in others:
        yield f"{other} has the same rows: its next run deletes these, and `rag-index erase {other}` erases them there."


def _proof_lines(proof: str, proved: dict[str, Any]) -> Iterator[str]:
    read, unknown = proved["read"], proved["not_looked_for"]
    yield (
        f"{proof}: read {read['files']:,} files ({size_text(read['bytes'])}): none holds the text of "
        f"{count_of(len(proved['documents']), 'document')}. Before, {proved['found_before']['files']:,} did."
    )
    if unknown:
        yield (
            f"It does not name {count_of(unknown, 'document')}, whose former texts are unknown: runs deleted "
            "or changed them, or they are short. Look for them with --look-for."
        )
    yield f"Not read: {'; '.join(proved['not_read'])}."
    yield f"Keep this key if somebody is to check {proof} later; it is not stored: {proved['key']}"


@command(quiet=True, example="export comments --out comments.jsonl")
@name_argument
@click.option("--out", required=True, metavar="FILE.jsonl", help="The file to write, or - for standard output.")
@click.option("--no-vectors", is_flag=True, help="Leave out the vectors.")
@wait_option
def export(context: Context, name: str, out: str, no_vectors: bool, wait: float | None) -> None:
    """Write every point of an index as JSON lines, sorted by id."""
    from rag_index.care.transfer import STANDARD_OUTPUT, export

    count = export(context.settings(wait=wait), name, out, vectors=not no_vectors)
    where = "standard output" if out == STANDARD_OUTPUT else out
    say(f"Wrote {count:,} points to {where}", err=out == STANDARD_OUTPUT)


@command(quiet=True, example="move --to http://qdrant.example.org:6333")
@names_argument
@click.option(
    "--to", required=True, metavar="URL", help="A Qdrant server (http://…), or a folder for the embedded one."
)
@click.option("--api-key-env", metavar="VAR", help="The environment variable that holds the server's API key.")
@wait_option
@json_option
def move(
    context: Context, names: tuple[str, ...], to: str, api_key_env: str | None, wait: float | None, as_json: bool
) -> None:
    """Move indexes to another store, without embedding.

    Repeat the command to resume a move that was stopped.
    """
    from rag_index.care.transfer import move, next_steps, settings_line, target_settings

    api_key = None
    if api_key_env is not None and not (api_key := os.environ.get(api_key_env)):
        raise click.UsageError(
            f"--api-key-env names {api_key_env}, which is not set or is empty; set it to the server's API key"
        )
    settings = context.settings(wait=wait)
    target = target_settings(settings, to, api_key)
    moved = move(settings, target, names, say=lambda line: say(line, err=True))
    lines = [f"{one.index}: {one.sentence()}" for one in moved]
    lines.append(next_steps(settings, target, names, api_key=api_key_env is not None))
    show({"indexes": moved, "store": settings_line(target)}, *lines, as_json=as_json)


@command(quiet=True, example="rollback comments")
@name_argument
@json_option
def rollback(context: Context, name: str, as_json: bool) -> None:
    """Make the index's previous collection live again."""
    from rag_index.components.ledger import Ledger
    from rag_index.components.ledger.runs import IndexLease
    from rag_index.components.stores import open_store
    from rag_index.etl.publish import roll_back

    settings = context.settings()
    alias, access = settings.alias(name), settings.index(name).access is not None
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, alias, str(uuid.uuid4())),
        closing(open_store(settings.store, wait=settings.run.wait)) as store,
    ):
        before, live, returned = roll_back(ledger, store, alias, name, access=access)
    came = f", with {returned:,} that {before} no longer had" if returned else ""
    show(
        {"index": name, "before": before, "live": live, "returned": returned},
        f"{name}: {live} is live, {before} is kept.",
        f"{name}: its documents are as the last run left them{came}; `rag-index index {name}` brings it up to date.",
        as_json=as_json,
    )


@command(quiet=True, example="doctor --repair")
@names_argument
@click.option("--repair", "repairing", is_flag=True, help="Repair what is found, then check again.")
@prefect_option
@wait_option
@json_option
def doctor(
    context: Context, names: tuple[str, ...], repairing: bool, prefect: bool, wait: float | None, as_json: bool
) -> int:
    """Compare source, ledger and store; --repair repairs.

    The exit code is 0 if nothing is found or everything is repaired, and 3 if something is left.
    """
    from rag_index.care.doctor import examine, repair

    settings = context.settings(wait=wait)

    def index(indexes: list[str], rebuild: bool) -> None:
        from rag_index.etl.run import RunOptions

        options = RunOptions(full=rebuild, retry_failed=True, wait=wait)
        report = launch_run(context, settings, indexes, options, prefect=prefect)
        if report.state != "completed":
            say(f"rag-index: the run that repairs: {report.sentence()}", err=True)

    if repairing:
        diagnosis = repair(settings, names, index)
    elif prefect:
        chosen = [one.name for one in settings.named(names)]
        diagnosis = launch_flow(context, settings, flow_loader("doctor"), indexes=chosen, wait=wait)
    else:
        diagnosis = examine(settings, names)
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
    left, repaired = len(diagnosis.findings), len(diagnosis.repaired)
    if repairing and repaired:
        yield f"{repaired} of {repaired + left} findings repaired."
    else:
        yield f"{count_of(left, 'finding')}." if left else "Nothing found."
