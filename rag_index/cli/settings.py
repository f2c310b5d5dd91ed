"""The commands that write and show settings: `init`, `sample`, `config`."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import FILE, Context, command, json_option, print_json, repeated, say, show
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.first_run.schema import Question, Scaffold

MAX_CHUNKS = 3
SCHEMA_NAME = "rag-index.schema.json"
"""The schema of the settings file, where a person has written it beside the file for editors."""


@command(example="config")
@click.option("--schema", is_flag=True, help="Print the JSON schema of the settings file, for editors.")
@json_option
def config(context: Context, schema: bool, as_json: bool) -> None:
    """Show every effective setting and where it comes from.

    It explains the number of workers. Secrets are redacted.
    """
    from rag_index.care.effective_settings import effective_settings, settings_schema

    if schema:
        print_json(settings_schema())
        return
    settings = context.settings()
    values = effective_settings(settings)
    answer = {"file": str(settings.path), "settings": [value.to_json() for value in values]}
    lines = [f"Settings of {settings.path}:"]
    width = max(len(value.key) for value in values)
    for value in values:
        shown = "-" if value.value is None else json.dumps(value.value, ensure_ascii=False)
        why = f": {value.why}" if value.why else ""
        lines.append(f"  {value.key:<{width}}  {shown:<40}  {value.source}{why}")
    show(answer, *lines, as_json=as_json)


@command(example="init --source sqlite:///shop.db")
@click.option("--source", metavar="URL", help="The database to propose indexes for.")
@repeated("--include", "include", "Propose only these tables", metavar="PATTERN")
@repeated("--exclude", "exclude", "Do not look at these tables", metavar="PATTERN")
@repeated("--add", "add", "Make an index of this table, too", metavar="TABLE")
@click.option("--files", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER",
              help="Read the files in this folder that columns name.")  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
@click.option("--yes", is_flag=True, help="Ask no question: write a guess and the question into the file.")
def init(context: Context, source: str | None, force: bool, yes: bool, **chosen: Any) -> None:
    """Write rag-index.toml with the indexes a database suggests.

    Show a document of each. In a terminal, first ask what the database leaves open: three questions at most.
    """
    from rag_index.core.settings import FILE_NAME
    from rag_index.first_run.schema import scaffold

    path = Path(context.config or FILE_NAME)
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists already; overwrite it with --force, or name another file with --config")
    if source is None and any(chosen.values()):
        raise click.UsageError("--include, --exclude, --add and --files are for a database: name it with --source")
    make = partial(scaffold, source, path.parent, **chosen)
    made = make()
    if source is not None:
        if made.proposal.questions and not yes and sys.stdin.isatty() and sys.stdout.isatty():
            made = _asked(made, partial(make, catalog=made.catalog), source)
        for sentence in made.proposal.policies:
            say(sentence)
        for line in shown_lines(made, source):
            say(line)
    write_file(path, made.text)
    if made.left_out:
        say("Left out:")
    for sentence in made.left_out:
        say(f"- {sentence}")
    for sentence in made.coverage:
        say(sentence)
    say(f"Wrote {path}. Check it, then run: rag-index plan; rag-index index-all")


def write_file(path: Path, text: str) -> None:
    """Write a settings file, for editors with its schema if that lies beside it. Raises SettingsError."""
    schema = f"#:schema ./{SCHEMA_NAME}\n\n" if (path.parent / SCHEMA_NAME).exists() else ""
    try:
        path.write_text(schema + text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that you may write to with --config"
        ) from error


def _asked(made: Scaffold, make: Callable[..., Scaffold], source: str) -> Scaffold:
    """Ask the questions of a scaffold, and return the one that follows from the answers."""
    answers: dict[str, bool] = {}
    say("The database leaves this open. Enter takes the answer in capitals; Ctrl-D takes it for all that follow.")
    try:
        for question in made.proposal.questions:
            yes = answers | dict.fromkeys(question.keys, True)
            said = _answer(question, partial(make, answers=yes), source)
            answers |= dict.fromkeys(question.keys, said)
    except EOFError:
        say("")
    except KeyboardInterrupt:
        raise click.Abort from KeyboardInterrupt("stopped; no settings file was written")
    return make(answers=answers) if answers else made


def _answer(question: Question, make: Callable[[], Scaffold], source: str) -> bool:
    """Ask a question until it is answered. Raises EOFError if the input ends."""
    say(f"\n{question.sentence}\n  yes: {question.yes}\n  no: {question.no}")
    choices = "[Y/n/show]" if question.guess else "[y/N/show]"
    while True:
        said = input(f"{choices} ").strip().lower()
        if said and "show".startswith(said):
            for line in shown_lines(make(), source, question.tables):
                say(line)
        elif said in ("", "y", "yes", "n", "no"):
            return said.startswith("y") if said else question.guess
        else:
            say("Answer yes, no, or show to see one of its documents as a search would find it.")


def shown_lines(made: Scaffold, source: str, tables: Sequence[str] = (), chunks: int = MAX_CHUNKS) -> Iterator[str]:
    """Yield a document of each index, or of those of some tables alone, and what hides rows of it."""
    from rag_index.care.plan import show_documents
    from rag_index.cli.status import document_lines
    from rag_index.first_run.schema import proposed_settings

    examples = proposed_settings(made, source)
    for index, proposed in zip(examples.indexes, made.proposal.indexes, strict=True):
        if tables and proposed.tables[0] not in tables:
            continue
        try:
            yield from (line for one in show_documents(examples, index, 1) for line in document_lines(one, chunks))
        except SourceError as error:  # one index leaves the others as they are
            yield f"{index.name}: no document can be shown: {error}"
        yield from (f"{index.name} leaves rows out: {reason}" for reason in proposed.hidden)
        yield from (f"{index.name} may show too much: {sentence}" for sentence in proposed.unclear)


@command(example="sample workshop --out workshop.db --settings")
@click.argument("kind", type=click.Choice(["pydocs", "workshop"]))
@click.option("--out", required=True, type=FILE, help="The SQLite file to write.")
@click.option("--settings", is_flag=True, help="Also write a rag-index.toml beside it, if there is none.")
def sample(context: Context, kind: str, out: Path, settings: bool) -> None:
    """Write a sample database.

    The kinds are Python's own documentation and a small repair workshop.
    """
    from rag_index.core.settings import FILE_NAME
    from rag_index.first_run.samples import pydocs, workshop
    from rag_index.first_run.schema import scaffold

    if out.exists():
        raise click.UsageError(f"{out} exists already: remove it, or name another file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pydocs":
        counts, text = pydocs.write(out), pydocs.scaffold(out.name)
    else:
        counts = workshop.write(out)
        text = scaffold(f"sqlite:///{out.absolute()}", out.parent).text.replace(str(out.absolute()), out.name)
    say(f"Wrote {out}: " + ", ".join(f"{count:,} in {table}" for table, count in counts.items()))
    file = out.parent / FILE_NAME
    if settings and file.exists():
        say(f"Left {file} as it is: if it is not for this database, remove it and write the sample again")
    elif settings:
        file.write_text(text, encoding="utf-8")
        say(f"Wrote {file}")
