"""`automations`: Prefect tells somebody when a run fails, dies, or does not happen."""

from __future__ import annotations

import os

import click

from rag_index.cli import Context, command, print_json
from rag_index.errors import SettingsError, TransientError

__all__ = ["automations"]


@command()
@click.option("--webhook", required=True, metavar="URL", help="Called with JSON: text, flow_run, state, message, url.")
@click.option(
    "--silent-after",
    type=click.IntRange(min=60),
    default=180,
    show_default=True,
    metavar="SECONDS",
    help="A run without a heartbeat for so long is marked as crashed.",
)
@click.option(
    "--late-after",
    type=click.IntRange(min=10),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="A planned run may wait so long for a worker.",
)
@click.option(
    "--missing-after",
    type=click.FloatRange(min=0.01),
    default=26.0,
    show_default=True,
    metavar="HOURS",
    help="There should be a run of index-all at least so often.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def automations(
    context: Context, webhook: str, silent_after: int, late_after: int, missing_after: float, as_json: bool
) -> None:
    """Have Prefect call a webhook when a run fails, dies or is missing."""
    if not webhook.startswith(("http://", "https://")):
        raise click.UsageError("--webhook is no address; write it as https://host/path")
    if "PREFECT_API_URL" not in os.environ:
        raise SettingsError("PREFECT_API_URL names no Prefect server; set it, as http://127.0.0.1:4200/api")
    import httpx

    from rag_index.orchestration.automations import create_automations

    try:
        names = create_automations(webhook, silent=silent_after, late=late_after, missing=missing_after * 3600)
    except httpx.HTTPError as exc:
        raise TransientError(f"the Prefect server at {os.environ['PREFECT_API_URL']} does not answer: {exc}") from exc
    if as_json:
        print_json({"automations": names})
    else:
        click.echo("Prefect now has: " + ", ".join(names))
