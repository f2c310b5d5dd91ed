"""The command `config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, print_json

if TYPE_CHECKING:
    from rag_index.status.effective_settings import Value

__all__ = ["config"]


@command()
@click.option("--explain", is_flag=True, help="Also say what automatic values come to, and why.")
@click.option("--workers", type=click.IntRange(min=1), help="As `index` takes it.")
@click.option("--shard-documents", type=click.IntRange(min=1), help="As `index` takes it.")
@click.option("--serial", is_flag=True, help="As `index` takes it.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="As `index` takes it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def config(
    context: Context,
    explain: bool,
    workers: int | None,
    shard_documents: int | None,
    serial: bool,
    wait: float | None,
    as_json: bool,
) -> None:
    """Show every setting in force and where it comes from. Secrets are masked."""
    from rag_index.status import effective_settings

    settings = context.settings(workers=workers, shard_documents=shard_documents, serial=serial, wait=wait)
    given = {"parallel.workers": workers, "parallel.shard_documents": shard_documents, "run.wait": wait}
    values = effective_settings.effective_settings(settings, given | {"parallel.serial": serial or None})
    facts = effective_settings.explained(settings) if explain else []
    if as_json:
        said: dict[str, Any] = {"file": str(settings.path), "settings": [value.to_json() for value in values]}
        print_json(said | ({"machine": [fact.to_json() for fact in facts]} if explain else {}))
        return
    click.echo(f"Settings of {settings.path}:")
    _print_values(values, explain=explain)
    for fact in facts:
        click.echo(f"{fact.name}: {fact.sentence}")


def _print_values(values: list[Value], *, explain: bool) -> None:
    shown = [(value, _text(value.value)) for value in values]
    width = max(len(value.key) for value in values)
    across = min(40, max(len(text) for _, text in shown))
    for value, text in shown:
        why = f": {value.why}" if explain and value.why else ""
        click.echo(f"  {value.key:<{width}}  {text:<{across}}  {value.source}{why}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value!r}" if value == "" else str(value)
