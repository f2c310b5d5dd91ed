"""The command `try`: from the URL of a database to a page that searches it, without a settings
file."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, IntegerOption, command, say
from rag_index.errors import RagIndexError, SettingsError, SourceError, TerminalError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import sqlalchemy as sa
    from fastapi import APIRouter

    from rag_index.core.reports.progress import Progress
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.first_run.schema import ProposedIndex, Scaffold

NEWEST = 1000
"""Documents of each index that are indexed before the page opens; the rest follows."""
NEWEST_SECONDS = 5.0
"""Seconds for the query that finds the newest rows. Without an answer, an index takes all rows.
Chosen."""
LOOK_SECONDS = 1.0
"""Seconds between two looks at how many documents can be searched. Chosen."""
STOP_SECONDS = 10.0
"""Seconds that the child process has to end. Chosen."""
PROGRAM = "from rag_index.cli import main; main()"


@command("try", example="try shop.db", begins="Reading the database …")
@click.argument("url", metavar="URL|FILE")
@click.option(
    "--newest",
    type=IntegerOption(min=1),
    default=NEWEST,
    show_default=True,
    metavar="N",
    help="How many documents of each index are indexed before the page opens.",
)
@click.option(
    "--port",
    type=IntegerOption(0, 65_535),
    default=0,
    metavar="N",
    help="The port of the page [a free one].",
)
@click.option("--write", is_flag=True, help="Keep settings and indexes in the current folder.")
@click.option("--once", is_flag=True, help="Index the newest documents, and end without a page.")
def try_(context: Context, url: str, newest: int, port: int, write: bool, once: bool) -> int:
    """Search a database at once, without a settings file.

    Propose indexes, index the newest rows, and open a page while the rest follows.

    The database is named by its URL, or by the path of a SQLite file. Nothing is left behind,
    unless --write says so.
    """
    current = Path.cwd()
    from rag_index.cli.settings import tables_read, without_settings
    from rag_index.core.database import database_url
    from rag_index.core.machine import terminable
    from rag_index.core.settings import FILE_NAME, load_settings
    from rag_index.first_run.schema import nothing_found, scaffold, source_url

    url = source_url(str(Path(url).absolute()) if Path(url).is_file() else url)
    if write and (current / FILE_NAME).exists():
        raise click.UsageError(
            f"{FILE_NAME} exists already in {current}: try the database from another folder"
        )
    temporary = partial(TemporaryDirectory, prefix="rag-index-try-", ignore_cleanup_errors=True)
    with terminable(), without_settings(), nullcontext(current) if write else temporary() as folder:
        with tables_read() as progress:
            made = scaffold(url, Path(folder), progress=progress)
        file = Path(folder, FILE_NAME)
        if not made.text:
            raise nothing_found(made)
        file.write_text(made.text, encoding="utf-8")
        complete = database_url(url, current).render_as_string(hide_password=False)
        sections: dict[str, Any] = {
            "source": {"url": complete},
            "parallel": {"serial": True},
            "serve": {"port": port},
        }
        settings = load_settings(file, **sections)
        say(
            f"Found {', '.join(index.name for index in settings.indexes)}. Indexing the newest"
            f" {newest:,} of each …"
        )
        indexed, failed_count = _index_newest(settings, made, newest, verbose=context.verbose)
        for sentence in _sentences(made, indexed, written=write):
            say(sentence)
        if not once:
            from rag_index.search.service.server import serve

            with _rest(settings) as (show, searchable), suppress(KeyboardInterrupt):
                moved = replace(made, folder=current)
                more = _routes(moved, current / FILE_NAME, searchable, overwrite=write)
                serve(settings, partial(_announce, show), more=more)
        return int(failed_count > 0)


def _index_newest(
    settings: Settings, made: Scaffold, newest: int, *, verbose: bool
) -> tuple[Settings, int]:
    """Index the newest rows of each index, and print a line for each that fails. Return the
    settings for these rows, and how many indexes failed. Raises TerminalError if all did."""
    from rag_index.cli.runs import log_of_run
    from rag_index.cli.settings import without_file
    from rag_index.etl.opened import RunOptions
    from rag_index.orchestration.launch import make_folder, run_locally

    log_of_run(verbose=verbose)
    bounded = _with_newest(settings, made.proposal.indexes, newest)
    make_folder(settings.data)
    report = run_locally(bounded, bounded.indexes, RunOptions())
    failed_outcomes = [outcome for outcome in report.indexes if outcome.state == "failed"]
    for outcome in failed_outcomes:
        say(
            f"rag-index: {outcome.index} failed: {one_line(without_file(outcome.message))}",
            err=True,
        )
    # One failed index leaves the others to search.
    if len(failed_outcomes) == len(report.indexes):
        raise TerminalError("nothing could be indexed")
    return bounded, len(failed_outcomes)


def _with_newest(settings: Settings, proposed: Sequence[ProposedIndex], count: int) -> Settings:
    from rag_index.components.sources.engine import open_read_only

    engine = open_read_only(settings.source_url)
    indexes = []
    try:
        with engine.connect() as connection:
            for index, proposal in zip(settings.indexes, proposed, strict=True):
                bound = _bound(connection, index, proposal.age, count)
                where = index.where
                if bound:
                    quoted = connection.dialect.identifier_preparer.quote(proposal.age)
                    is_new = f"{quoted} >= {bound}"
                    where = f"{where} AND {is_new}" if where else is_new
                indexes.append(index.model_copy(update={"where": where}))
    finally:
        engine.dispose()
    return settings.model_copy(update={"indexes": indexes})


def _bound(connection: sa.Connection, index: IndexSettings, column: str, count: int) -> str:
    """Return the value that the newest rows have at least, in SQL; "" if there are fewer rows, or
    it takes too long."""
    import sqlalchemy as sa

    from rag_index.components.sources.decisions import decided
    from rag_index.components.sources.engine import limited
    from rag_index.first_run.schema.tables import literal

    newest: sa.ColumnClause[Any] = sa.column(column)
    statement = sa.select(newest).select_from(sa.table(str(index.table), schema=index.db_schema))
    where = decided(index, connection.dialect).where
    if where is not None:
        # SQLAlchemy takes :name for a parameter.
        statement = statement.where(sa.text(where.replace(":", "\\:")))
    try:
        with limited(connection, NEWEST_SECONDS, "the source"):
            value = connection.scalar(statement.order_by(newest.desc()).offset(count - 1).limit(1))
    except (sa.exc.DBAPIError, SourceError):
        # All rows are indexed at once then.
        connection.rollback()
        return ""
    return "" if value is None else literal(value)


def _sentences(made: Scaffold, settings: Settings, *, written: bool) -> Iterator[str]:
    """Yield what is searched and hidden, and how to keep it."""
    from rag_index.first_run.schema.screen import count, share_sentence

    hiding = [column for column in made.proposal.candidates if column.chars and column.says]
    verb = "leaves" if len(hiding) == 1 else "leave"
    share = share_sentence(made.proposal)
    yield f"{share}; {count(len(hiding), 'column')} {verb} rows out."
    asked = len(made.proposal.questions)
    if asked:
        verb = "stands" if asked == 1 else "stand"
        yield (f"{count(asked, 'question')} about who may see rows {verb} under What is searched.")
    if written:
        yield f"Settings and indexes are in {settings.folder}."
    else:
        yield "Add --write to keep settings and indexes."


@contextmanager
def _rest(settings: Settings) -> Iterator[tuple[Callable[[], None], Callable[[], dict[str, Any]]]]:
    """Index all rows in a child process while the block runs.

    Yield two functions: one that begins to show in the terminal how many documents can be searched,
    and one that returns it for the page.
    """
    from rag_index.core.reports.progress import Progress, open_display

    program = [
        sys.executable,
        "-P",
        "-c",
        PROGRAM,
        "--config",
        str(settings.path),
        "index-all",
        "--serial",
    ]
    url = settings.source_url.render_as_string(hide_password=False)
    log = (settings.data / "try.log").open("wb")
    child = subprocess.Popen(
        program,
        env={**os.environ, "RAG_INDEX_SOURCE__URL": url},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )
    progress = Progress("try", "documents searchable, newest first")
    watching = Thread(target=_watch, args=(settings, child, progress))

    def show() -> None:
        progress.displays = [open_display()]
        watching.start()

    try:
        yield show, lambda: {"sentence": progress.headline(), "ended": not watching.is_alive()}
    finally:
        # It commits what it has, or is killed.
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        child.kill()
        child.wait()
        if watching.ident is not None:
            watching.join()
        log.close()


def _watch(settings: Settings, child: subprocess.Popen[bytes], progress: Progress) -> None:
    """Count the documents that can be searched until the child process ends."""
    from rag_index.care.index_status import ledger_status
    from rag_index.components.sources import open_source

    def searchable() -> int:
        status = ledger_status(settings)
        return sum(index.documents for index in status.indexes)

    total = 0
    for index in settings.indexes:
        with suppress(RagIndexError), closing(open_source(settings, index)) as source:
            total += source.count()
    progress.start(total, searchable())
    while child.returncode is None:
        with suppress(subprocess.TimeoutExpired):
            child.wait(LOOK_SECONDS)
        with suppress(RagIndexError):
            progress.advance(searchable() - progress.done)
    if child.returncode == 0:
        # Some rows have no text, and are no documents.
        progress.total = int(progress.done)
    elif child.returncode > 0:
        log = (settings.data / "try.log").read_text(errors="replace")
        last_line = log.rstrip().rpartition("\n")[2]
        progress.say(last_line)
    progress.finish(progress.sentence())


def _routes(
    first: Scaffold, file: Path, searchable: Callable[[], dict[str, Any]], *, overwrite: bool
) -> APIRouter:
    """Return the routes by which the page shows what is searched, answers, and keeps the settings
    in a file."""
    from rag_index.care.plan import show_documents
    from rag_index.cli.settings import SHOWN_DOCUMENTS, write_file
    from rag_index.first_run.schema import Answers, proposed_settings, screen
    from rag_index.search.service.app import make_trial

    kept = {file} if overwrite else set()

    def answered(given: dict[str, Any]) -> Scaffold:
        return first.answered(Answers.parse(given))

    def proposal(given: dict[str, Any]) -> dict[str, Any]:
        made = answered(given).proposal
        return screen.to_json(made) | {"sentence": screen.share_sentence(made)}

    def documents(given: dict[str, Any], index: str) -> dict[str, Any]:
        settings = proposed_settings(answered(given))
        shown = show_documents(settings, settings.index(index), SHOWN_DOCUMENTS)
        return {"documents": [document.to_json() for document in shown]}

    def keep(given: dict[str, Any]) -> dict[str, Any]:
        if file.exists() and file not in kept:
            raise SettingsError(
                f"{file} exists already: move it away, or try the database from another folder"
            )
        write_file(file, answered(given).text)
        kept.add(file)
        return {"file": str(file)}

    return make_trial(proposal, documents, keep, searchable)


def _announce(show: Callable[[], None], url: str) -> None:
    say(f"Search at {url}; Ctrl-C ends it. The rest is indexed meanwhile.")
    if sys.stdout.isatty() and {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(url)
    show()  # last: a bar is redrawn on its line
