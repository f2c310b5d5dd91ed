"""The commands that write and show settings: `init`, `sample`, `config`."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import FILE, Context, command, json_option, print_json, say, show
from rag_index.core.files import unwritable
from rag_index.errors import RagIndexError, SettingsError, SourceError, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from rag_index.components.embedders.candidates import ProposedEmbedder
    from rag_index.first_run.schema import Proposal, Scaffold
    from rag_index.first_run.schema.screen import Line

MAX_CHUNKS = 3
SHOWN_DOCUMENTS = 2
WIDTH, MIN_WIDTH = 100, 40
"""The characters of a line without a terminal, and at least in one."""
INDENT = " " * 7
HEADINGS = {
    "question": "     who may see these rows? What is left out stays so until you answer",
    "decided": "     decided by names and values, or by you",
    "table": "     {}  text  becomes",
    "column": "     text that is left out",
}
HOW_TO_ANSWER = (
    "Answer by number or id: show 7, hide 9 yes, look 3 (two documents), why 7, more (all lines)."
)
SCHEMA_NAME = "rag-index.schema.json"
"""The file beside the settings file in which a person has put its schema for editors."""


@command(example="config")
@click.option(
    "--schema", is_flag=True, help="Print the JSON schema of the settings file, for editors."
)
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
@click.option(
    "--source",
    metavar="URL|FILE",
    help="The database to propose indexes for, instead of the argument.",
)
@click.option(
    "--answers",
    "answers_file",
    metavar="FILE",
    help="Apply the answers in a JSON file; - is stdin.",
)
@click.option(
    "--why",
    "column",
    metavar="TABLE.COLUMN",
    help="Print why a column hides rows, and write nothing.",
)
@click.option(
    "--examples",
    is_flag=True,
    help="With --json, print example rows, but no secret or personal columns.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
@click.option(
    "--yes", is_flag=True, help="Ask nothing: write what is proposed, and leave out what is open."
)
@json_option
def init(
    context: Context,
    url: str | None,
    source: str | None,
    answers_file: str | None,
    column: str | None,
    examples: bool,
    force: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Write rag-index.toml with the indexes a database suggests.

    Ask who may see rows that look like exceptions, and leave them out until that is answered. In a
    terminal, one prompt takes the answers; elsewhere, a file does: --json prints the questions with
    their ids, and --answers applies {"comment.held": {"show": ["no"]}, "audit": "leave out"}. With
    --json and without --yes, nothing is written. It ends with 3 if every row of an index is left
    out.
    """
    about_a_database = bool(answers_file or column or as_json)
    database = _database(url, source, is_needed=about_a_database)
    if examples and not as_json:
        raise click.UsageError("--examples adds example rows to what --json prints: add --json")
    if database is not None:
        say("Reading the database …", err=True)
    from rag_index.core.settings import FILE_NAME
    from rag_index.first_run.schema import nothing_found, screen

    path = Path(context.config or FILE_NAME)
    # --json alone prints the questions, and --why explains a column.
    writes = (yes or not as_json) and column is None
    if path.exists() and not force and writes:
        raise click.UsageError(
            f"{path} exists already; overwrite it with --force, or name another file with --config"
        )
    if database is None:
        _write_template(path)
        return 0
    made = _proposed(database, answers_file, path)
    # --why comment.held
    if column is not None:
        lines, found = screen.why(made.proposal, column)
        show(found, *lines, as_json=as_json)
        return 0
    if yes and not made.text:
        raise nothing_found(made)
    embedder = _embedder(made)
    made = made.with_embedder(embedder)
    if as_json:
        print_json(_proposal_json(made, embedder, examples=examples))
    else:
        _print_notes(made, embedder)
        # Without a terminal nobody can answer: a file of --answers does.
        asks = not yes and sys.stdin.isatty() and sys.stdout.isatty()
        made = Conversation(made, path).held() if asks else _printed(made)
    if writes:
        _write(made, path, as_json=as_json)
    return _exit_code(made.proposal)


def _database(url: str | None, source: str | None, *, is_needed: bool) -> str | None:
    """Return the database that a command names; None if it names none.

    Raises:
        click.UsageError: it names two, or none where another option is about one.
    """
    if url and source:
        raise click.UsageError(f"{url} and --source name a database each: leave one out")
    database = url or source
    if database is None and is_needed:
        raise click.UsageError("--answers, --why and --json are for a database: name it, too")
    return database


def _write_template(path: Path) -> None:
    """Write a settings file without a database."""
    from rag_index.first_run.schema import scaffold

    write_file(path, scaffold(None, path.parent).text)
    say(
        f"Wrote {path}, a template: put your database into it, or write it with rag-index init"
        " --force URL|FILE"
    )


def _proposed(database: str, answers_file: str | None, path: Path) -> Scaffold:
    """Read a database, and return what is proposed with the answers in a file."""
    from rag_index.first_run.schema import Answers, scaffold

    answers = Answers.read(answers_file) if answers_file else None
    with without_settings(), tables_read() as progress:
        return scaffold(database, path.parent, answers=answers, progress=progress)


def _embedder(made: Scaffold) -> ProposedEmbedder | None:
    """Return the embedder to propose; None if there is no text, or a variable of the environment
    names one."""
    from rag_index.first_run.schema import propose_embedder, proposed_settings

    if not made.text or made.catalog is None:
        return None
    try:
        given = proposed_settings(made).embedder
    except RagIndexError:  # a run will say which variable it is
        return None
    if given.kind != "local":
        return None
    return propose_embedder(made.proposal, made.catalog, given.hosts, partial(say, err=True))


def _proposal_json(
    made: Scaffold, embedder: ProposedEmbedder | None, *, examples: bool
) -> dict[str, Any]:
    """Return the object that --json prints."""
    from rag_index.first_run.schema import screen

    found = screen.to_json(made.proposal)
    if examples:
        from rag_index.first_run.schema.examples import add_examples

        add_examples(found["questions"], made)
    if embedder is not None:
        found["embedder"] = embedder.to_json()
    found["answers"] = made.answers.model_dump()
    return found


def _print_notes(made: Scaffold, embedder: ProposedEmbedder | None) -> None:
    """Print what the user of the database may not read, and the proposed model."""
    for sentence in made.proposal.notes:
        say(sentence)
    if embedder is not None:
        line = f"Embedder: {embedder.why}"
        # Without a candidate no rate was measured.
        say(f"{line} {embedder.rate}" if embedder.candidate else line)


def _printed(made: Scaffold) -> Scaffold:
    """Print what is proposed where nobody can answer."""
    for line in screen_lines(made.first, made.proposal):
        say(line)
    return made


def _write(made: Scaffold, path: Path, *, as_json: bool) -> None:
    """Write the settings, and print what comes next. Raises SettingsError if nothing is
    proposed."""
    from rag_index.first_run.schema import nothing_found

    if not made.text:
        raise nothing_found(made)
    write_file(path, made.text)
    say(f"Wrote {path}. Check it, then run: rag-index plan; rag-index index-all", err=as_json)
    if made.lacks_password:
        say(
            "It has no password: before that, set RAG_INDEX_SOURCE__URL to the complete URL.",
            err=as_json,
        )


def _exit_code(proposal: Proposal) -> int:
    """Return 3, with a sentence for each, if an index would have no document."""
    empty = [table for table in proposal.tables if table.index and table.is_hidden]
    for table in empty:
        say(
            f"rag-index: every row of {table.name} is left out: answer who may see them, with"
            " --answers FILE",
            err=True,
        )
    return 3 if empty else 0


def write_file(path: Path, text: str) -> None:
    """Write a settings file, with a reference to its schema if that lies beside it. Raises
    SettingsError."""
    schema = f"#:schema ./{SCHEMA_NAME}\n\n" if (path.parent / SCHEMA_NAME).exists() else ""
    try:
        path.write_text(schema + text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            unwritable(path, error, "name a file in another folder with --config")
        ) from error


@contextmanager
def without_settings() -> Iterator[None]:
    """Let an error in the block name the URL on the command line: there is no settings file yet."""
    try:
        yield
    except RagIndexError as error:
        error.args = (without_file(str(error)), *error.args[1:])
        raise


def without_file(message: str) -> str:
    """Return a message about [source] url as a message about the URL on the command line."""
    words = message.replace(", or set RAG_INDEX_SOURCE__URL to the complete URL", "")
    return words.replace("[source] url", "the URL")


@contextmanager
def tables_read() -> Iterator[Callable[[int, int, str], None]]:
    """Yield a function that shows which table of a database is being read. Its arguments are the
    number of tables read, their total, and the table."""
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

    found = screen.lines(first, now, all_of_it=all_of_it)
    width = max(MIN_WIDTH, shutil.get_terminal_size((WIDTH, 0)).columns)
    rows_width = max([4, *(len(line.rows) for line in found)])
    longest_id = max([5, *(len(line.id) for line in found)])
    id_width = min(longest_id, width // 3)
    number = 0
    kind = ""
    for line in found:
        # The first line of its kind: a heading comes before it.
        if line.kind not in (kind, "folded"):
            kind = line.kind
            heading = HEADINGS[kind].format(f"{'table':<{id_width}}  {'rows':>{rows_width}}")
            yield from textwrap.wrap(heading, width)
        # The sentence for lines that are left out has no number.
        if line.kind == "folded":
            yield from textwrap.wrap(
                line.says, width, initial_indent=INDENT, subsequent_indent=INDENT
            )
            continue
        number += 1
        head = f"{number:>3}  {shortened(line.id, id_width):<{id_width}}  "
        if line.kind == "table":
            head += f"{line.rows:>{rows_width}}  {line.share:>4}  "
        # In a narrow terminal the sentence gets lines of its own.
        if len(head) > width - MIN_WIDTH // 2:
            yield head.rstrip()
            head = INDENT
        yield from textwrap.wrap(
            line.says,
            width,
            initial_indent=head,
            subsequent_indent=INDENT,
            max_lines=2,
            placeholder=" …",
        )
    yield from textwrap.wrap(f"{screen.share_sentence(now)}.", width)


class Conversation:
    """A person answers at a prompt, line by line, until Enter accepts what is proposed."""

    def __init__(self, made: Scaffold, path: Path) -> None:
        self._made = made
        self._path = path
        self._is_long = False

    def held(self) -> Scaffold:
        """Ask until a person accepts, and return what follows from the answers. Raises Abort on
        Ctrl-C."""
        say(HOW_TO_ANSWER)
        try:
            while True:
                self._print_screen()
                typed = input(f"Enter writes {self._path}, Ctrl-C nothing: ").strip()
                if not typed:
                    return self._made
                try:
                    self._obey(typed)
                except SettingsError as error:
                    say(str(error))
        except EOFError:
            return self._made
        except KeyboardInterrupt:
            raise click.Abort from KeyboardInterrupt("stopped; no settings file was written")

    def _print_screen(self) -> None:
        lines = screen_lines(self._made.first, self._made.proposal, all_of_it=self._is_long)
        for text in ["", *lines, ""]:
            say(text)

    def _obey(self, typed: str) -> None:
        """Do what a person typed: `hide 9 yes`. Raises SettingsError if it cannot be understood, or
        does not fit."""
        from rag_index.first_run.schema import screen

        verb, _, rest = typed.partition(" ")
        # All lines, or the first ones again.
        if typed == "more":
            self._is_long = not self._is_long
            return
        if verb not in ("show", "hide", "look", "why") or not rest:
            raise SettingsError(
                f"{verb} is no answer: write show, hide, look or why with the number of a line; or"
                " more"
            )
        line, values = self._line(rest.strip())
        # "look 3": two documents of the tables of a line
        if verb == "look":
            tables = screen.documents_about(self._made.proposal, line)
            for text in shown_lines(self._made, tables, SHOWN_DOCUMENTS):
                say(text)
        # "why 7"
        elif verb == "why":
            lines, _ = screen.why(self._made.proposal, line.id)
            for text in lines:
                say(text)
        # "show 7", "hide 9 yes"
        else:
            answer = screen.answer_to(line, self._made.proposal, show=verb == "show", values=values)
            self._made = self._made.answered(self._made.answers.with_answer(line.id, answer))

    def _line(self, typed: str) -> tuple[Line, str]:
        """Return the line that is named by its number or its id, and the values after it. Raises
        SettingsError."""
        from rag_index.first_run.schema import screen

        shown = screen.lines(self._made.first, self._made.proposal, all_of_it=self._is_long)
        numbered = [line for line in shown if line.id]
        number, _, values = typed.partition(" ")
        # "9 yes"
        if number.isdecimal() and 0 < int(number) <= len(numbered):
            return numbered[int(number) - 1], values.strip()
        # "comment.held yes". An id may have spaces, and a folded line has one, too.
        every = screen.lines(self._made.first, self._made.proposal, all_of_it=True)
        named = [line for line in every if typed == line.id or typed.startswith(f"{line.id} ")]
        if not named:
            raise SettingsError(
                f"{number} is neither the number of a line nor an id; more lists all"
            )
        longest = max(named, key=lambda line: len(line.id))
        return longest, typed[len(longest.id) :].strip()


def shown_lines(made: Scaffold, tables: Collection[str], count: int) -> Iterator[str]:
    """Yield documents of the indexes of some tables, as a search would show them."""
    from rag_index.care.plan import show_documents
    from rag_index.cli.status import document_lines
    from rag_index.first_run.schema import proposed_settings

    examples = proposed_settings(made)
    for index, proposed in zip(examples.indexes, made.proposal.indexes, strict=True):
        if proposed.table not in tables:
            continue
        try:
            for document in show_documents(examples, index, count):
                yield from document_lines(document, MAX_CHUNKS)
        except SourceError as error:  # one index leaves the others as they are
            yield f"{index.name}: no document can be shown: {error}"


@command(example="sample workshop --out workshop.db --settings")
@click.argument("kind", type=click.Choice(["pydocs", "workshop"]))
@click.option("--out", required=True, type=FILE, help="The SQLite file to write.")
@click.option(
    "--settings", is_flag=True, help="Also write a rag-index.toml beside it, if there is none."
)
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
        counts = pydocs.write(out)
        text = pydocs.scaffold(out.name)
    else:
        counts = workshop.write(out)
        absolute = str(out.absolute())
        proposed = scaffold(f"sqlite:///{absolute}", out.parent)
        # The file and its settings may be moved together.
        text = proposed.text.replace(absolute, out.name)
    listed = ", ".join(f"{count:,} in {table}" for table, count in counts.items())
    say(f"Wrote {out}: {listed}")
    file = out.parent / FILE_NAME
    if settings and file.exists():
        say(
            f"Left {file} as it is: if it is not for this database, remove it and write the sample"
            " again"
        )
    elif settings:
        write_file(file, text)
        say(f"Wrote {file}")
