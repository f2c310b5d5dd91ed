"""The command `try`: from the URL of a database to a page that searches it, without a settings file."""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.evaluation.trial import Quality
    from rag_index.settings import Settings
    from rag_index.sources.scaffold import Scaffold

NEWEST = 1000
"""Documents of each index that are indexed before anybody can search; the rest follows."""
STOP_SECONDS = 10.0
PROGRAM = "from rag_index.cli import main; main()"


@command("try")
@click.argument("url", metavar="URL")
@click.option("--newest", type=click.IntRange(min=1), default=NEWEST, show_default=True, metavar="N",
              help="Documents of each index that are indexed before the page opens.")  # fmt: skip
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, metavar="N", help="The port of the page [a free one]."
)
@click.option("--write", is_flag=True, help="Keep settings and indexes in the current folder.")
@click.option("--once", is_flag=True, help="Index the newest, say how good it is, and end.")
def try_(context: Context, url: str, newest: int, port: int, write: bool, once: bool) -> None:
    """Search a database at once: propose indexes, index the newest rows, and open a page while the rest follows.

    Nothing is left behind, unless --write says so.
    """
    from rag_index.database.drivers import database_url
    from rag_index.orchestration.signals import terminable
    from rag_index.settings import FILE_NAME, load_settings
    from rag_index.sources.scaffold import scaffold

    here = Path.cwd()
    if write and (here / FILE_NAME).exists():
        raise click.UsageError(f"{FILE_NAME} exists already in {here}: try the database from another folder")
    temporary = partial(TemporaryDirectory, prefix="rag-index-try-", ignore_cleanup_errors=True)
    with terminable(), nullcontext(here) if write else temporary() as folder:
        made, file = scaffold(url, Path(folder)), Path(folder, FILE_NAME)
        file.write_text(made.text, encoding="utf-8")
        whole = database_url(url, here).render_as_string(hide_password=False)
        sections: dict[str, Any] = {"source": {"url": whole}, "parallel": {"serial": True}, "serve": {"port": port}}
        settings = load_settings(file, **sections)
        click.echo(
            f"Found {', '.join(index.name for index in made.proposed)}. Indexing the newest {newest:,} of each …"
        )
        indexed = _index_newest(settings, made, newest)
        click.echo(_sentence(made, indexed, written=write))
        if not once:
            from rag_index.service.server import serve

            with _rest(settings), suppress(KeyboardInterrupt):
                serve(settings, lambda: settings, _announce)


def _index_newest(settings: Settings, made: Scaffold, newest: int) -> Settings:
    """Index the newest rows of each index, and return the settings for these. Raises SourceError if nothing can be."""
    from rag_index.cli.runs import load_index_all
    from rag_index.errors import SourceError
    from rag_index.evaluation.trial import with_newest
    from rag_index.indexing.run import RunOptions
    from rag_index.orchestration.launch import FlowStart, make_folder
    from rag_index.orchestration.plain_run import run_plainly

    bounded = with_newest(settings, made.proposed, newest)
    make_folder(settings.data)
    start = FlowStart(load_index_all, settings.data / "prefect")
    report = run_plainly(start, bounded, bounded.indexes, RunOptions())
    if report.exit_code == 1 and all(outcome.state == "failed" for outcome in report.indexes):
        raise SourceError(f"nothing could be indexed: {report.indexes[0].message}")
    return bounded


def _sentence(made: Scaffold, settings: Settings, *, written: bool) -> str:
    """Return what was found and guessed, how good it is, and how to keep it."""
    from rag_index.evaluation.trial import known_item_quality

    quality: Quality = known_item_quality(settings)
    hidden = sum(len(index.hidden) for index in made.proposed)
    guessed = f"{hidden} condition{'s' * (hidden != 1)} guessed that hide rows" if hidden else "no rows hidden"
    keep = f"Settings and indexes are in {settings.folder}." if written else "Add --write to keep settings and indexes."
    return (
        f"{len(made.proposed)} index{'es' * (len(made.proposed) != 1)} proposed, {guessed}; of {quality.asked} "
        f"documents, {quality.found} are found among the first ten by some words of theirs. {keep}"
    )


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


def _announce(url: str) -> None:
    click.echo(f"Search at {url}; Ctrl-C ends it. The rest is indexed meanwhile.")
    if sys.stdout.isatty() and {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        webbrowser.open(url)
