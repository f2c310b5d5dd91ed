"""The command `try`: from the URL of a database to a page that searches it, without a settings file."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, say
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa
    from fastapi import APIRouter

    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.first_run.schema import ProposedIndex, Scaffold
    from rag_index.search.service.models import ChoicesBody

NEWEST = 1000
"""Documents of each index that are indexed before anybody can search; the rest follows."""
NEWEST_SECONDS = 5.0
"""How long the question which rows are the newest may take."""
STOP_SECONDS = 10.0
PROGRAM = "from rag_index.cli import main; main()"


@command("try", example="try shop.db")
@click.argument("url", metavar="URL|FILE")
@click.option("--newest", type=click.IntRange(min=1), default=NEWEST, show_default=True, metavar="N",
              help="How many documents of each index are indexed before the page opens.")  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="The port of the page [a free one]."
)
@click.option("--write", is_flag=True, help="Keep settings and indexes in the current folder.")
@click.option("--once", is_flag=True, help="Index the newest documents, and end without a page.")
def try_(context: Context, url: str, newest: int, port: int, write: bool, once: bool) -> None:
    """Search a database at once, without a settings file.

    Propose indexes, index the newest rows, and open a page while the rest follows.

    The database is named by its URL, or by the path of a SQLite file. Nothing is left behind, unless --write says so.
    """
    from sqlalchemy.engine import URL

    from rag_index.core.database.drivers import database_url
    from rag_index.core.machine import terminable
    from rag_index.core.settings import FILE_NAME, load_settings
    from rag_index.first_run.schema import scaffold

    here = Path.cwd()
    if Path(url).is_file():
        url = URL.create("sqlite", database=str(Path(url).absolute())).render_as_string()
    if write and (here / FILE_NAME).exists():
        raise click.UsageError(f"{FILE_NAME} exists already in {here}: try the database from another folder")
    temporary = partial(TemporaryDirectory, prefix="rag-index-try-", ignore_cleanup_errors=True)
    with terminable(), nullcontext(here) if write else temporary() as folder:
        made, file = scaffold(url, Path(folder)), Path(folder, FILE_NAME)
        file.write_text(made.text, encoding="utf-8")
        whole = database_url(url, here).render_as_string(hide_password=False)
        sections: dict[str, Any] = {"source": {"url": whole}, "parallel": {"serial": True}, "serve": {"port": port}}
        settings = load_settings(file, **sections)
        say(f"Found {', '.join(index.name for index in settings.indexes)}. Indexing the newest {newest:,} of each …")
        indexed = _index_newest(settings, made, newest)
        say(_sentence(made, indexed, written=write))
        if not once:
            from rag_index.search.service.server import serve

            with _rest(settings), suppress(KeyboardInterrupt):
                serve(
                    settings, lambda: settings, _announce, more=_choices(whole, here / FILE_NAME, made, overwrite=write)
                )


def _index_newest(settings: Settings, made: Scaffold, newest: int) -> Settings:
    """Index the newest rows of each index, and return the settings for these. Raises SourceError if nothing can be."""
    from rag_index.etl.run import RunOptions
    from rag_index.orchestration.launch import make_folder, run_plainly

    bounded = _with_newest(settings, made.proposal.indexes, newest)
    make_folder(settings.data)
    report = run_plainly(bounded, bounded.indexes, RunOptions())
    if report.exit_code == 1 and all(outcome.state == "failed" for outcome in report.indexes):
        raise SourceError(f"nothing could be indexed: {report.indexes[0].message}")
    return bounded


def _with_newest(settings: Settings, proposed: Sequence[ProposedIndex], count: int) -> Settings:
    """Return the settings with indexes that have about the newest `count` rows each."""
    from rag_index.components.sources.engine import open_read_only

    engine = open_read_only(settings.source_url)
    indexes = []
    try:
        with engine.connect() as connection:
            for index, one in zip(settings.indexes, proposed, strict=True):
                bound = _bound(connection, index, one.age, count)
                quoted = connection.dialect.identifier_preparer.quote(one.age)
                where = " AND ".join(filter(None, [index.where, f"{quoted} >= {bound}"])) if bound else index.where
                indexes.append(index.model_copy(update={"where": where}))
    finally:
        engine.dispose()
    return settings.model_copy(update={"indexes": indexes})


def _bound(connection: sa.Connection, index: IndexSettings, column: str, count: int) -> str:
    """Return the value that the newest rows have at least, in SQL; "" if there are fewer rows, or it takes too long."""
    import sqlalchemy as sa

    from rag_index.components.sources.engine import limited

    newest: sa.ColumnClause[Any] = sa.column(column)
    statement = sa.select(newest).select_from(sa.table(str(index.table), schema=index.db_schema))
    if index.where is not None:
        statement = statement.where(sa.text(index.where.replace(":", "\\:")))
    try:
        with limited(connection, NEWEST_SECONDS, "the source"):
            value = connection.scalar(statement.order_by(newest.desc()).offset(count - 1).limit(1))
    except (sa.exc.DBAPIError, SourceError):
        connection.rollback()
        return ""
    if value is None:
        return ""
    text = str(value).replace("'", "''")
    return str(value) if isinstance(value, int | float) else f"'{text}'"


def _sentence(made: Scaffold, settings: Settings, *, written: bool) -> str:
    """Return what was found and guessed, and how to keep it."""
    indexes = made.proposal.indexes
    hidden = sum(len(index.hidden) for index in indexes)
    guessed = f"{hidden} condition{'s' * (hidden != 1)} guessed that hide rows" if hidden else "no rows hidden"
    keep = f"Settings and indexes are in {settings.folder}." if written else "Add --write to keep settings and indexes."
    return f"{len(indexes)} index{'es' * (len(indexes) != 1)} proposed, {guessed}. {keep}"


@contextmanager
def _rest(settings: Settings) -> Iterator[None]:
    """Index all rows in a process of its own while the block runs."""
    program = [sys.executable, "-P", "-c", PROGRAM, "--config", str(settings.path), "index-all", "--serial"]
    url = settings.source_url.render_as_string(hide_password=False)
    log = (settings.data / "try.log").open("wb")
    child = subprocess.Popen(
        program, env={**os.environ, "RAG_INDEX_SOURCE__URL": url}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )
    try:
        yield
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        child.kill()
        child.wait()
        log.close()


def _choices(source: str, file: Path, first: Scaffold, *, overwrite: bool) -> APIRouter:
    """Return the routes by which the page shows what is searched, changes it, and keeps it in a settings file."""
    from rag_index.cli.settings import shown_lines, write_file
    from rag_index.cli.status import MAX_SHOWN_CHUNKS
    from rag_index.first_run.schema import scaffold
    from rag_index.search.service.app import make_choices

    kept = {file} if overwrite else set()

    def made_of(chosen: ChoicesBody) -> Scaffold:
        return scaffold(source, file.parent, answers=chosen.tables, uses=chosen.columns, catalog=first.catalog)

    def proposal(chosen: ChoicesBody) -> dict[str, Any]:
        made = made_of(chosen)
        lines = [*shown_lines(made, source, [chosen.show], MAX_SHOWN_CHUNKS)] if chosen.show else []
        return {"tables": [asdict(one) for one in made.proposal.tables], "document": "\n".join(lines)}

    def keep(chosen: ChoicesBody) -> dict[str, Any]:
        if file.exists() and file not in kept:
            raise SettingsError(f"{file} exists already: move it away, or try the database from another folder")
        write_file(file, made_of(chosen).text)
        kept.add(file)
        return {"file": str(file)}

    return make_choices(proposal, keep)


def _announce(url: str) -> None:
    say(f"Search at {url}; Ctrl-C ends it. The rest is indexed meanwhile.")
    if sys.stdout.isatty() and {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(url)
