"""The command `automations`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.errors import TransientError


@command()
@click.option(
    "--webhook",
    required=True,
    metavar="URL",
    help="The address to call, with JSON: text, flow_run, state, message, url.",
)
@click.option(
    "--silent-after",
    type=click.IntRange(min=60),
    default=180,
    show_default=True,
    metavar="SECONDS",
    help="Mark a run as crashed if it sends no heartbeat for this long.",
)
@click.option(
    "--late-after",
    type=click.IntRange(min=10),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="Call if a scheduled run waits this long for a worker.",
)
@click.option(
    "--missing-after",
    type=click.FloatRange(min=0.01),
    default=26.0,
    show_default=True,
    metavar="HOURS",
    help="Call if index-all has not run for this long.",
)
@json_option
def automations(
    context: Context, webhook: str, silent_after: int, late_after: int, missing_after: float, as_json: bool
) -> None:
    """Have Prefect call a webhook when a run fails, dies or does not start."""
    if not webhook.startswith(("http://", "https://")):
        raise click.UsageError("--webhook is not a URL; write it as https://host/path")
    import httpx

    from rag_index.orchestration.launch import trusted_folder

    with trusted_folder():
        from rag_index.orchestration.automations import create_automations, server_url

        server = server_url()
        try:
            names = create_automations(webhook, silent=silent_after, late=late_after, missing=missing_after * 3600)
        except httpx.HTTPError as exc:
            raise TransientError(f"the Prefect server at {server} does not answer ({exc}); check that it runs") from exc
    if as_json:
        print_json({"automations": names})
    else:
        click.echo("Prefect now has: " + ", ".join(names))
