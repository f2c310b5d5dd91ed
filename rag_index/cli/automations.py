"""The command `automations`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, json_option, show
from rag_index.errors import TransientError


@command()
@click.option(
    "--webhook",
    required=True,
    metavar="URL",
    help="The address to call, with JSON: text, flow_run, state, message, url.",
)
@click.option(
    "--silent-after", "silent", type=click.IntRange(min=60), default=180, show_default=True, metavar="SECONDS",
    help="Mark a run as crashed if it sends no heartbeat for this long.",
)  # fmt: skip
@click.option(
    "--late-after", "late", type=click.IntRange(min=10), default=600, show_default=True, metavar="SECONDS",
    help="Call if a scheduled run waits this long for a worker.",
)  # fmt: skip
@click.option(
    "--missing-after", "missing", type=click.FloatRange(min=0.01), default=26.0, show_default=True, metavar="HOURS",
    help="Call if index-all has not run for this long.",
)  # fmt: skip
@json_option
def automations(context: Context, webhook: str, silent: int, late: int, missing: float, as_json: bool) -> None:
    """Have Prefect call a webhook when a run fails, dies or does not start."""
    if not webhook.startswith(("http://", "https://")):
        raise click.UsageError("--webhook is not a URL; write it as https://host/path")
    import httpx

    from rag_index.orchestration.launch import trusted_folder

    with trusted_folder():
        from rag_index.orchestration.automations import create_automations, server_url

        server = server_url()
        try:
            names = create_automations(webhook, silent=silent, late=late, missing=missing * 3600)
        except httpx.HTTPError as exc:
            raise TransientError(f"the Prefect server at {server} does not answer ({exc}); check that it runs") from exc
    show({"automations": names}, "Prefect now has: " + ", ".join(names), as_json=as_json)
