"""The command `init`."""

from __future__ import annotations

from pathlib import Path

import click

from rag_index.cli import Context, command
from rag_index.errors import SettingsError


@command()
@click.option("--source", metavar="URL", help="A database to read: each table with text becomes an index.")
@click.option("--force", is_flag=True, help="Overwrite an existing settings file.")
def init(context: Context, source: str | None, force: bool) -> None:
    """Write a commented rag-index.toml."""
    from rag_index.settings import FILE_NAME
    from rag_index.sources.scaffold import scaffold

    path = Path(context.config or FILE_NAME)
    if path.exists() and not force:
        raise click.UsageError(f"{path} exists already; overwrite it with --force, or name another file with --config")
    made = scaffold(source, path.parent)
    try:
        path.write_text(made.text, encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror}; name a file in a folder that you may write to with --config"
        ) from error
    for sentence in made.left_out:
        click.echo(sentence)
    click.echo(f"Wrote {path}. Check it, then run: rag-index plan; rag-index index-all")
