"""The command `sample`."""

from __future__ import annotations

from pathlib import Path

import click

from rag_index.cli import Context, command


@command()
@click.argument("kind", type=click.Choice(["pydocs", "servicedesk"]))
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
    """Write a sample source: Python's own documentation, or a generated service desk."""
    from rag_index.samples import pydocs, servicedesk
    from rag_index.settings import FILE_NAME

    if out.exists() and not force:
        raise click.UsageError(f"{out} exists already; overwrite it with --force, or name another file with --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pydocs":
        counts, text = pydocs.write(out), pydocs.scaffold(out.name)
    else:
        counts = servicedesk.write(out, documents=documents, seed=seed)
        text = servicedesk.scaffold(out.name)
    click.echo(f"Wrote {out}: " + ", ".join(f"{count:,} in {table}" for table, count in counts.items()))
    file = out.parent / FILE_NAME
    if settings and not file.exists():
        file.write_text(text, encoding="utf-8")
        click.echo(f"Wrote {file}")
