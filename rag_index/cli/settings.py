"""The commands that write and show settings: `init`, `sample`, `config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from rag_index.sources.scaffold import Scaffold
    from rag_index.status.effective_settings import EffectiveValue

SCHEMA_NAME = "rag-index.schema.json"
"""The schema of the settings file, where a person has written it beside the file for editors."""


@command()
@click.option("--explain", is_flag=True, help="Also explain the automatic values.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="The same option as in `index`.")
@click.option("--shard-documents", type=click.IntRange(min=1), metavar="N", help="The same option as in `index`.")
@click.option("--serial", is_flag=True, help="The same option as in `index`.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="The same option as in `index`.")
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
    names = {name: "run.wait" if name == "wait" else f"parallel.{name}" for name in given}
    values = effective_settings(
        settings, {names[name]: None if value is False else value for name, value in given.items()}
    )
    facts = machine_facts(settings) if explain else []
    if as_json:
        answer: dict[str, Any] = {"file": str(settings.path), "settings": [value.to_json() for value in values]}
        print_json(answer | ({"machine": [fact.to_json() for fact in facts]} if explain else {}))
        return
    click.echo(f"Settings of {settings.path}:")
    _print_values(values, explain=explain)
    for fact in facts:
        click.echo(f"{fact.name}: {fact.sentence}")


def _print_values(values: list[EffectiveValue], *, explain: bool) -> None:
    rows = [(value, _text(value.value)) for value in values]
    key_width = max(len(value.key) for value in values)
    text_width = min(40, max(len(text) for _, text in rows))
    for value, text in rows:
        why = f": {value.why}" if explain and value.why else ""
        click.echo(f"  {value.key:<{key_width}}  {text:<{text_width}}  {value.source}{why}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value!r}" if value == "" else str(value)


@command()
@click.option("--source", metavar="URL", help="A database to read: what people look for in it becomes an index.")
@click.option("--include", multiple=True, metavar="PATTERN", help="Propose only these tables (may be repeated).")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Do not look at these tables (may be repeated).")
@click.option("--add", multiple=True, metavar="TABLE", help="Make an index of this table, too (may be repeated).")
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
def init(context: Context, source: str | None, force: bool, **chosen: tuple[str, ...]) -> None:
    """Write a commented rag-index.toml, and show a document of each index that it proposes."""
    from rag_index.settings import FILE_NAME
    from rag_index.sources.scaffold import scaffold

    path = Path(context.config or FILE_NAME)
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists already; overwrite it with --force, or name another file with --config")
    if source is None and any(chosen.values()):
        raise click.UsageError("--include, --exclude and --add choose tables of a database: name it with --source")
    made = scaffold(source, path.parent, **chosen)
    if source is not None:
        _show_examples(made, source)
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


def _show_examples(made: Scaffold, source: str) -> None:
    """Print a document of each proposed index as it will be embedded, and what is hidden."""
    from rag_index.cli.status import print_document
    from rag_index.sources.scaffold import proposed_settings
    from rag_index.status.plan import show_documents

    settings = proposed_settings(made, source)
    for index, proposed in zip(settings.indexes, made.proposed, strict=True):
        for document in show_documents(settings, index, 1):
            print_document(document)
        for reason in proposed.hidden:
            click.echo(f"{index.name} leaves rows out: {reason}")
        for sentence in proposed.unclear:
            click.echo(f"{index.name} may show too much: {sentence}")


@command()
@click.argument("kind", type=click.Choice(["pydocs", "servicedesk", "workshop"]))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The SQLite file to write.")
@click.option(
    "--documents",
    type=click.IntRange(min=5),
    default=20_000,
    show_default=True,
    help="servicedesk: number of documents.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="servicedesk: a different seed gives different texts."
)
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
