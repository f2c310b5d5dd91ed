"""The command `config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, json_option, print_json

if TYPE_CHECKING:
    from rag_index.status.effective_settings import EffectiveValue


@command()
@click.option("--explain", is_flag=True, help="Also explain the automatic values.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="The same option as in `index`.")
@click.option("--shard-documents", type=click.IntRange(min=1), metavar="N", help="The same option as in `index`.")
@click.option("--serial", is_flag=True, help="The same option as in `index`.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="The same option as in `index`.")
@json_option
def config(
    context: Context,
    explain: bool,
    workers: int | None,
    shard_documents: int | None,
    serial: bool,
    wait: float | None,
    as_json: bool,
) -> None:
    """Show every effective setting and where it comes from. Secrets are masked.

    A golden file that a gate could not use is an error, as it is for a rebuild.
    """
    from rag_index.evaluation.gate import check_gate
    from rag_index.status.effective_settings import effective_settings, machine_facts

    settings = context.settings(workers=workers, shard_documents=shard_documents, serial=serial, wait=wait)
    for index in settings.indexes:
        check_gate(settings, index)
    given = {"parallel.workers": workers, "parallel.shard_documents": shard_documents, "run.wait": wait}
    values = effective_settings(settings, given | {"parallel.serial": serial or None})
    facts = machine_facts(settings) if explain else []
    if as_json:
        answer: dict[str, Any] = {"file": str(settings.path), "settings": [value.to_json() for value in values]}
        print_json(answer | ({"machine": [fact.to_json() for fact in facts]} if explain else {}))
        return
    click.echo(f"Settings of {settings.path}:")
    _print_values(values, explain=explain)
    for fact in facts:
        click.echo(f"{fact.name}: {fact.sentence}")


def _print_values(values: list[EffectiveValue], *, explain: bool) -> None:
    rows = [(value, _text(value.value)) for value in values]
    key_width = max(len(value.key) for value in values)
    text_width = min(40, max(len(text) for _, text in rows))
    for value, text in rows:
        why = f": {value.why}" if explain and value.why else ""
        click.echo(f"  {value.key:<{key_width}}  {text:<{text_width}}  {value.source}{why}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else f"{value!r}" if value == "" else str(value)
