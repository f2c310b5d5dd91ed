"""The commands that write and show settings: `init`, `sample`, `config`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rag_index.cli import (
    FILE,
    Context,
    command,
    json_option,
    parallel_options,
    print_json,
    repeated,
    show,
    wait_option,
)
from rag_index.errors import SettingsError

SCHEMA_NAME = "rag-index.schema.json"
"""The schema of the settings file, where a person has written it beside the file for editors."""


@command()
@click.option("--explain", is_flag=True, help="Also explain the automatic values.")
@parallel_options
@wait_option
@click.option("--schema", is_flag=True, help="Print the JSON schema of the settings file, for editors.")
@json_option
def config(context: Context, explain: bool, schema: bool, as_json: bool, **given: Any) -> None:
    """Show every effective setting and where it comes from. Secrets are masked.

    A golden file that a gate could not use is an error, as it is for a rebuild.
    """
    from rag_index.evaluation.gate import check_gate
    from rag_index.status.effective_settings import effective_settings, machine_facts, settings_schema

    if schema:
        print_json(settings_schema())
        return
    settings = context.settings(**given)
    for index in settings.indexes:
        check_gate(settings, index)
    here = {"run.wait": given.pop("wait"), **{f"parallel.{name}": value or None for name, value in given.items()}}
    values = effective_settings(settings, here)
    facts = machine_facts(settings) if explain else []
    answer: dict[str, Any] = {"file": str(settings.path), "settings": [value.to_json() for value in values]}
    if explain:
        answer["machine"] = [asdict(fact) for fact in facts]
    lines = [f"Settings of {settings.path}:"]
    key_width = max(len(value.key) for value in values)
    text_width = min(40, max(len(_text(value.value)) for value in values))
    for value in values:
        why = f": {value.why}" if explain and value.why else ""
        lines.append(f"  {value.key:<{key_width}}  {_text(value.value):<{text_width}}  {value.source}{why}")
    show(answer, *lines, *(f"{fact.name}: {fact.sentence}" for fact in facts), as_json=as_json)


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-" if value is None else "''"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


@command()
@click.option("--source", metavar="URL", help="A database to read: what people look for in it becomes an index.")
@repeated("--include", "include", "Propose only these tables", metavar="PATTERN")
@repeated("--exclude", "exclude", "Do not look at these tables", metavar="PATTERN")
@repeated("--add", "add", "Make an index of this table, too", metavar="TABLE")
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
def init(context: Context, source: str | None, force: bool, **chosen: tuple[str, ...]) -> None:
    """Write a commented rag-index.toml, and show a document of each index that it proposes."""
    from rag_index.settings import FILE_NAME
    from rag_index.sources.scaffold import proposed_settings, scaffold

    path = Path(context.config or FILE_NAME)
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists already; overwrite it with --force, or name another file with --config")
    if source is None and any(chosen.values()):
        raise click.UsageError("--include, --exclude and --add choose tables of a database: name it with --source")
    made = scaffold(source, path.parent, **chosen)
    if source is not None:
        from rag_index.cli.status import document_lines
        from rag_index.status.plan import show_documents

        examples = proposed_settings(made, source)
        for index, proposed in zip(examples.indexes, made.proposed, strict=True):
            lines = [line for document in show_documents(examples, index, 1) for line in document_lines(document)]
            lines += [f"{index.name} leaves rows out: {reason}" for reason in proposed.hidden]
            lines += [f"{index.name} may show too much: {sentence}" for sentence in proposed.unclear]
            for line in lines:
                click.echo(line)
    schema = f"#:schema ./{SCHEMA_NAME}\n\n" if (path.parent / SCHEMA_NAME).exists() else ""
    try:
        path.write_text(schema + made.text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that you may write to with --config"
        ) from error
    if made.left_out:
        click.echo("Left out:")
    for sentence in made.left_out:
        click.echo(f"- {sentence}")
    click.echo(f"Wrote {path}. Check it, then run: rag-index plan; rag-index index-all")


@command()
@click.argument("kind", type=click.Choice(["pydocs", "servicedesk", "workshop"]))
@click.option("--out", required=True, type=FILE, help="The SQLite file to write.")
@click.option("--documents", type=click.IntRange(min=5), default=20_000, help="servicedesk: number [20000].")
@click.option("--seed", type=int, default=1, help="servicedesk: a different seed gives different texts [1].")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--settings", is_flag=True, help="Also write a rag-index.toml beside it, if there is none.")
def sample(context: Context, kind: str, out: Path, documents: int, seed: int, force: bool, settings: bool) -> None:
    """Write a sample source: Python's own documentation, a generated service desk, or a small repair workshop."""
    from rag_index.samples import pydocs, servicedesk, workshop
    from rag_index.settings import FILE_NAME
    from rag_index.sources.scaffold import scaffold

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists already; overwrite it with --force, or name another file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pydocs":
        counts, text = pydocs.write(out), pydocs.scaffold(out.name)
    elif kind == "workshop":
        counts = workshop.write(out)
        text = scaffold(f"sqlite:///{out.absolute()}", out.parent).text.replace(str(out.absolute()), out.name)
    else:
        counts = servicedesk.write(out, documents=documents, seed=seed)
        text = servicedesk.scaffold(out.name)
    click.echo(f"Wrote {out}: " + ", ".join(f"{count:,} in {table}" for table, count in counts.items()))
    file = out.parent / FILE_NAME
    if settings and file.exists():
        click.echo(f"Left {file} as it is: if it is not for this database, remove it and write the sample again")
    elif settings:
        file.write_text(text, encoding="utf-8")
        click.echo(f"Wrote {file}")
