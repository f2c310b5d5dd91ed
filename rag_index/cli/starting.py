"""`init` and `sample`: a settings file, and something to try it with."""

from __future__ import annotations

from pathlib import Path

import click

from rag_index.cli import Context, command

__all__ = ["init", "sample"]


@command()
@click.option("--source", metavar="URL", help="A database to look at: each table with text becomes an index.")
@click.option("--force", is_flag=True, help="Overwrite a settings file that is there.")
def init(context: Context, source: str | None, force: bool) -> None:
    """Write a commented rag-index.toml."""
    from rag_index.proposal import settings_text
    from rag_index.settings import FILE_NAME

    path = Path(context.config or FILE_NAME)
    if path.exists() and not force:
        raise click.UsageError(f"{path} is there already; --force overwrites it, --config names another")
    text = settings_text(source, path.parent)
    path.write_text(text, encoding="utf-8")
    click.echo(f"Wrote {path}. Look through it, then: rag-index plan; rag-index index-all")


@command()
@click.argument("kind", type=click.Choice(["pydocs", "servicedesk"]))
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The SQLite file to write.")
@click.option(
    "--documents", type=click.IntRange(min=5), default=20_000, show_default=True, help="servicedesk: how many."
)
@click.option("--seed", type=int, default=1, show_default=True, help="servicedesk: another seed, other texts.")
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@click.option("--settings", is_flag=True, help="Also write a rag-index.toml beside it, where there is none.")
def sample(context: Context, kind: str, out: Path, documents: int, seed: int, force: bool, settings: bool) -> None:
    """Write a sample source: Python's own documentation, or a generated service desk."""
    from rag_index.samples import pydocs, servicedesk
    from rag_index.settings import FILE_NAME

    if out.exists() and not force:
        raise click.UsageError(f"{out} is there already; --force overwrites it, --out names another")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pydocs":
        counts, text = pydocs.write(out), pydocs.settings_text(out.name)
    else:
        counts = servicedesk.write(out, documents=documents, seed=seed)
        text = servicedesk.settings_text(out.name)
    click.echo(f"Wrote {out}: " + ", ".join(f"{count:,} in {table}" for table, count in counts.items()))
    file = out.parent / FILE_NAME
    if settings and not file.exists():
        file.write_text(text, encoding="utf-8")
        click.echo(f"Wrote {file}")
