"""The commands that write and show settings: `init`, `sample`, `config`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import FILE, Context, command, json_option, print_json, repeated, say, show
from rag_index.core.files import unwritable
from rag_index.errors import RagIndexError, SettingsError, SourceError, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.components.embedders.candidates import ProposedEmbedder
    from rag_index.first_run.schema import Proposal, Scaffold

MAX_CHUNKS = 3
SHOWN_DOCUMENTS = 2
WIDTH, MIN_WIDTH = 100, 40
"""How many characters a line has where there is no terminal, and in a terminal at least."""
HEADS = {
    "open": "     who may see these rows? The end of each line holds until you answer",
    "rows": "     left out for what names and values say",
    "table": "     {}  text  becomes",
    "column": "     text that is left out",
}
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
@repeated(
    "--hide", "hide", "Hide the rows with this value, or those that are set or differ from most; leave text out",
    metavar="TABLE.COLUMN[=VALUE]",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
@click.option("--yes", is_flag=True, help="Ask nothing: write what is proposed, and leave out what is open.")
@json_option
def init(
    context: Context, url: str | None, source: str | None, force: bool, yes: bool, as_json: bool, **chosen: Any
) -> int:
    """Write rag-index.toml with the indexes a database suggests.

    Ask who may see rows that look like exceptions, and leave them out until that is answered. In a terminal, one prompt
    takes the answers; elsewhere, options do. With --json and without --yes, print the proposal and write nothing. It
    ends with 3 if every row of an index is left out.
    """
    source = _database(url, source, answers=any(chosen.values()) or as_json)
    from rag_index.core.settings import FILE_NAME
    from rag_index.first_run.schema import Choices, nothing_found, scaffold, source_url, with_embedder

    path, writes = Path(context.config or FILE_NAME), yes or not as_json
    if path.exists() and not force and writes:
        raise click.UsageError(f"{path} exists already; overwrite it with --force, or name another file with --config")
    source = source and source_url(source)
    with without_settings(), tables_read() if source else nullcontext() as progress:
        made = scaffold(source, path.parent, choices=Choices(**chosen), progress=progress)
    if source is None:
        write_file(path, made.text)
        say(f"Wrote {path}, a template: put your database into it, or write it with rag-index init --force URL|FILE")
        return 0
    embedder = _embedder(made, source)
    made = with_embedder(made, embedder)
    if as_json:
        answers = {key: value for key, value in chosen.items() if value}
        models = {"embedder": embedder.to_json()} if embedder else {}
        print_json(asdict(made.proposal) | models | {"answers": answers})
    else:
        asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
        made = _shown(made, source, path, embedder, asks=asks)
    if not made.text:
        raise nothing_found(source, made.proposal)
    if writes:
        write_file(path, made.text)
        say(f"Wrote {path}. Check it, then run: rag-index plan; rag-index index-all", err=as_json)
        if made.lacks_password:
            say("It has no password: before that, set RAG_INDEX_SOURCE__URL to the complete URL.", err=as_json)
    return _hidden_whole(made.proposal)


def _database(url: str | None, source: str | None, *, answers: bool) -> str | None:
    """Return the only database that is named, if any."""
    if url and source:
        raise click.UsageError(f"{url} and --source name a database each: leave one out")
    if not (url or source) and answers:
        raise click.UsageError("--include, --exclude, --show, --hide and --json are for a database: name it, too")
    if url or source:
        say("Reading the database …", err=True)
    return url or source


def _embedder(made: Scaffold, source: str) -> ProposedEmbedder | None:
    """Return the embedder to propose; None if there is no text, or a variable of the environment names one."""
    from rag_index.first_run.schema import propose_embedder, proposed_settings

    if not made.text or made.catalog is None:
        return None
    try:
        given = proposed_settings(made, source).embedder
    except RagIndexError:  # a run will say which variable it is
        return None
    if given.kind != "local":
        return None
    return propose_embedder(made.proposal, made.catalog, given.hosts, partial(say, err=True))


def _shown(made: Scaffold, source: str, path: Path, embedder: ProposedEmbedder | None, *, asks: bool) -> Scaffold:
    """Show what is proposed, and return what follows from the answers of a person who can be asked."""
    from rag_index.first_run.schema import scaffold, with_embedder

    for sentence in made.proposal.notes:
        say(sentence)
    if embedder is not None:
        said = f"Embedder: {embedder.why}"
        say(f"{said} {embedder.rate}" if embedder.candidate else said)
    if asks:

        def make(**choices: Any) -> Scaffold:
            return with_embedder(scaffold(source, path.parent, catalog=made.catalog, **choices), embedder)

        return _answered(made, make, source, path)
    for line in screen_lines(made.proposal, made.proposal):
        say(line)
    return made


def _hidden_whole(proposal: Proposal) -> int:
    """Return the exit code: 3, with a sentence for each, if an index would have no document."""
    empty = [one for one in proposal.tables if one.index and one.is_hidden]
    for one in empty:
        say(f"rag-index: every row of {one.name} is left out: show some with --show TABLE.COLUMN", err=True)
    return 3 if empty else 0


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
        progress.say(table)

    try:
        yield show
    finally:
        progress.finish(f"Read {progress.total:,} table{'s' * (progress.total != 1)}.")


def screen_lines(first: Proposal, now: Proposal, *, all_of_it: bool = False) -> Iterator[str]:
    """Yield the lines that a person can answer, with their numbers, as wide as the terminal."""
    from rag_index.first_run.schema import screen

    found, last = screen.lines(first, now, all_of_it=all_of_it), ""
    width = max(MIN_WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
    rows = max([4, *(len(one.rows) for one in found)])
    name = min(max([5, *(len(one.title) for one in found)]), width // 3)
    for number, one in enumerate(found, start=1):
        kind = "open" if one.is_open else one.kind
        if kind != last:
            yield from textwrap.wrap(HEADS[kind].format(f"{'table':<{name}}  {'rows':>{rows}}"), width)
        head = f"{number:>3}  {shortened(one.title, name):<{name}}  "
        if one.kind == "table":
            head += f"{one.rows:>{rows}}  {one.share:>4}  "
        told = "   ".join(filter(None, (one.says, one.note)))
        if len(head) > width - MIN_WIDTH // 2:
            yield head.rstrip()
            head = " " * 7
        yield from textwrap.wrap(
            told, width, initial_indent=head, subsequent_indent=" " * 7, max_lines=2, placeholder=" …"
        )
        last = kind
    yield from textwrap.wrap(f"{screen.share_sentence(now)}.", width)


def _answered(made: Scaffold, make: Callable[..., Scaffold], source: str, path: Path) -> Scaffold:
    """Show what is proposed until a person accepts it, and return what follows from the answers."""
    first, all_of_it = made.proposal, False
    say("Answer by number: show 7, hide 9 yes, look 3 (two documents), ? (all lines).")
    try:
        while True:
            for text in ["", *screen_lines(first, made.proposal, all_of_it=all_of_it), ""]:
                say(text)
            verb, *said = input(f"Enter writes {path}, Ctrl-C nothing: ").split() or [""]
            if not verb:
                return made
            if verb == "?":
                all_of_it = not all_of_it
                continue
            try:
                made = _one_answer(first, made, make, source, verb, said, all_of_it=all_of_it)
            except SettingsError as error:
                say(str(error))
    except EOFError:
        return made
    except KeyboardInterrupt:
        raise click.Abort from KeyboardInterrupt("stopped; no settings file was written")


def _one_answer(
    first: Proposal, made: Scaffold, make: Callable[..., Scaffold], source: str, verb: str, said: Sequence[str], *,
    all_of_it: bool,
) -> Scaffold:  # fmt: skip
    """Return what follows from one answer. Raises SettingsError if it cannot be understood, or does not fit."""
    from rag_index.first_run.schema import screen

    if verb not in ("show", "hide", "look") or not said:
        raise SettingsError(f"{verb} is no answer: write show, hide or look with the number of a line, or ?")
    found = screen.lines(first, made.proposal, all_of_it=all_of_it)
    numbers = [one for one in said if one.isdecimal() and 0 < int(one) <= len(found)]
    lines = [found[int(said[0]) - 1]] if numbers[:1] == [*said[:1]] else [one for one in found if said[0] in one.names]
    if not lines:
        raise SettingsError(f"{said[0]} is neither the number of a line nor a name in one")
    line = lines[0] if said[0].isdecimal() else replace(lines[0], names=(said[0],))
    if verb == "look":
        for text in shown_lines(made, source, line.names, SHOWN_DOCUMENTS):
            say(text)
        return made
    several = [*numbers] == [*said] and verb == "show"
    choices = made.choices
    for one in [found[int(number) - 1] for number in numbers] if several else [line]:
        choices = screen.answer(choices, one, show=verb == "show", values=() if several else _values(said[1:]))
    return make(choices=choices)


def _values(said: Sequence[str]) -> list[str]:
    """Return the values of an answer, which commas separate: `hide 9 held, taken down`."""
    return [one.strip() for one in " ".join(said).split(",") if one.strip()]


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
