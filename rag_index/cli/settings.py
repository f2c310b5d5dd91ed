"""The commands that write and show settings: `init`, `sample`, `config`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import FILE, Context, command, json_option, print_json, repeated, say, show
from rag_index.core.files import unwritable
from rag_index.errors import RagIndexError, SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.first_run.schema import Proposal, Scaffold
    from rag_index.first_run.schema.screen import Line

MAX_CHUNKS = 3
SHOWN_DOCUMENTS = 2
WIDTH, MIN_WIDTH = 100, 40
"""How many characters a line has where there is no terminal, and in a terminal at least."""
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


@command(example="init shop.db")
@click.argument("url", metavar="[URL|FILE]", required=False)
@click.option("--source", metavar="URL|FILE", help="The database to propose indexes for, instead of the argument.")
@repeated(
    "--include", "include", "Make documents of the rows of these tables, if they have any text", metavar="PATTERN"
)
@repeated("--exclude", "exclude", "Do not read these tables, but for those that are included", metavar="PATTERN")
@repeated("--show", "show", "Show the rows that this column hides, or search its text", metavar="TABLE.COLUMN")
@repeated("--hide", "hide", "Hide the rows where this column is set, or leave its text out", metavar="TABLE.COLUMN")
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
@click.option("--yes", is_flag=True, help="Ask nothing: write what is proposed, with what is open as comments.")
def init(context: Context, url: str | None, source: str | None, force: bool, yes: bool, **chosen: Any) -> None:
    """Write rag-index.toml with the indexes a database suggests.

    Show what becomes of each table, and which rows are hidden. In a terminal, numbers change that before it is written.
    """
    if url and source:
        raise click.UsageError(f"{url} and --source name a database each: leave one out")
    if (source := url or source) is not None:
        say("Reading the database …", err=True)
    elif any(chosen.values()):
        raise click.UsageError("--include, --exclude, --show and --hide are for a database: name it, too")
    from rag_index.core.settings import FILE_NAME
    from rag_index.first_run.schema import Choices, nothing_found, scaffold, source_url

    path = Path(context.config or FILE_NAME)
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists already; overwrite it with --force, or name another file with --config")
    source = source and source_url(source)
    with without_settings(), tables_read() if source else nullcontext() as progress:
        made = scaffold(source, path.parent, choices=Choices(**chosen), progress=progress)
    if source is None:
        write_file(path, made.text)
        say(f"Wrote {path}, a template: put your database into it, or write it with rag-index init --force URL|FILE")
        return
    for sentence in made.proposal.policies:
        say(sentence)
    if not yes and sys.stdin.isatty() and sys.stdout.isatty():
        made = _confirmed(made, partial(scaffold, source, path.parent, catalog=made.catalog), source, path)
    else:
        for line in (*(shown_lines(made, source) if made.text else ()), *screen_lines(made.proposal, made.proposal)):
            say(line)
    if not made.text:
        raise nothing_found(source, made.proposal)
    write_file(path, made.text)
    say(f"Wrote {path}. Check it, then run: rag-index plan; rag-index index-all")
    if made.lacks_password:
        say("It has no password: before that, set RAG_INDEX_SOURCE__URL to the complete URL.")


def write_file(path: Path, text: str) -> None:
    """Write a settings file, for editors with its schema if that lies beside it. Raises SettingsError."""
    schema = f"#:schema ./{SCHEMA_NAME}\n\n" if (path.parent / SCHEMA_NAME).exists() else ""
    try:
        path.write_text(schema + text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(unwritable(path, error, "name a file in another folder with --config")) from error


@contextmanager
def without_settings() -> Iterator[None]:
    """Let an error within the block speak of the URL that a person gave: there is no settings file yet."""
    try:
        yield
    except RagIndexError as error:
        error.args = (without_file(str(error)), *error.args[1:])
        raise


def without_file(message: str) -> str:
    """Return a message about [source] url as one about the URL on the command line."""
    words = message.replace(", or set RAG_INDEX_SOURCE__URL to the complete URL", "")
    return words.replace("[source] url", "the URL")


@contextmanager
def tables_read() -> Iterator[Callable[[int, int, str], None]]:
    """Yield what is told which table of a database is being read, and show it."""
    from rag_index.core.reports.progress import Progress, open_display

    progress = Progress("schema", "tables")
    progress.displays = [open_display()]

    def show(done: int, total: int, table: str) -> None:
        if not progress.total:
            progress.start(total)
        progress.advance(done - progress.done)
        progress.note_later(table)

    try:
        yield show
    finally:
        progress.finish(f"Read {progress.total:,} table{'s' * (progress.total != 1)}.")


def screen_lines(first: Proposal, now: Proposal, listed: Sequence[str] = ()) -> Iterator[str]:
    """Yield the lines that a person can change, with their numbers, as wide as the terminal."""
    from rag_index.first_run.schema import screen

    found, last = screen.lines(first, now, listed), ""
    width = max(MIN_WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
    rows = max([4, *(len(one.rows) for one in found)])
    widest = width // 3 if width >= 2 * MIN_WIDTH else width - rows - 14
    name = min(max([5, *(len(one.title) for one in found if one.kind == "table")]), widest)
    for number, one in enumerate(found, start=1):
        head, indent = f"{number:>3}  ", " " * 7
        if one.kind != last:
            yield f"     {'table':<{name}}  {'rows':>{rows}}  text  becomes" if one.kind == "table" else ""
        if one.kind == "table":
            *before, title = textwrap.wrap(one.title, name)
            yield from (f"{head if line == before[0] else ' ' * 5}{line}" for line in before)
            head = f"{' ' * 5 if before else head}{title:<{name}}  {one.rows:>{rows}}  {one.share:>4}  "
            indent = " " * len(head)
        if len(head) > width - MIN_WIDTH // 2:
            yield head.rstrip()
            head = indent = " " * 7
        yield from textwrap.wrap(one.says, width, initial_indent=head, subsequent_indent=indent)
        yield from textwrap.wrap(one.note, width, initial_indent=" " * 7, subsequent_indent=" " * 7)
        last = one.kind
    yield from ["", *textwrap.wrap(f"{screen.share_sentence(now)}.", width)]


def _confirmed(made: Scaffold, make: Callable[..., Scaffold], source: str, path: Path) -> Scaffold:
    """Show what is proposed until a person takes it, and return what follows from the lines that were changed."""
    from rag_index.first_run.schema import screen

    first, listed = made.proposal, list[str]()
    say("The number of a line changes it; `show` and numbers show two documents of each.")
    try:
        while True:
            for text in ["", *screen_lines(first, made.proposal, listed), ""]:
                say(text)
            if not (words := input(f"Enter writes {path}, Ctrl-C nothing: ").split()):
                return made
            found = screen.lines(first, made.proposal, listed)
            for line in filter(None, [_line_of(found, word) for word in words if word != "show"]):
                if "show" in words:
                    for text in shown_lines(made, source, line.names, SHOWN_DOCUMENTS):
                        say(text)
                elif line.is_group:
                    listed += line.names
                else:
                    made = _changed(made, make, line)
    except EOFError:
        return made
    except KeyboardInterrupt:
        raise click.Abort from KeyboardInterrupt("stopped; no settings file was written")


def _changed(made: Scaffold, make: Callable[..., Scaffold], line: Line) -> Scaffold:
    """Return what follows from changing a line; if it cannot be changed, as of a table without text, say why."""
    from rag_index.first_run.schema.screen import change

    try:
        return make(choices=change(made.choices, line))
    except SettingsError as error:
        say(str(error))
        return made


def _line_of(found: Sequence[Line], said: str) -> Line | None:
    """Return the line with a number, or the one of a table or column that is named; None, and say so, without any."""
    if said.isdecimal() and 0 < int(said) <= len(found):
        return found[int(said) - 1]
    if named := next((replace(one, names=(said,)) for one in found if said in one.names), None):
        return named
    say(f"{said} is neither the number of a line nor a name in one")
    return None


def shown_lines(made: Scaffold, source: str, tables: Sequence[str] = (), count: int = 1) -> Iterator[str]:
    """Yield documents of each index, or of those of some tables alone, as a search would show them."""
    from rag_index.care.plan import show_documents
    from rag_index.cli.status import document_lines
    from rag_index.first_run.schema import proposed_settings

    examples = proposed_settings(made, source)
    for index, proposed in zip(examples.indexes, made.proposal.indexes, strict=True):
        try:
            documents = [] if tables and proposed.table not in tables else show_documents(examples, index, count)
            yield from (line for one in documents for line in document_lines(one, MAX_CHUNKS))
        except SourceError as error:  # one index leaves the others as they are
            yield f"{index.name}: no document can be shown: {error}"


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
        write_file(file, text)
        say(f"Wrote {file}")
