"""The command `tune`."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, print_json

if TYPE_CHECKING:
    from rag_index.settings import Settings
    from rag_index.tuning.candidate import Candidate
    from rag_index.tuning.tune import Outcome

__all__ = ["tune"]


@command()
@click.option("--budget", type=click.FloatRange(min=5), default=120, show_default=True, help="Seconds to spend.")
@click.option("--write", is_flag=True, help="Put what was found into the settings file; comments are kept.")
@click.option("--local-servers", is_flag=True, help="Try 1 to N Ollama servers of this machine, started for it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def tune(context: Context, budget: float, write: bool, local_servers: bool, as_json: bool) -> None:
    """Find the setting that the embedder and this machine can do, with your own documents."""
    from rag_index.tuning import tune as tuning

    settings = context.settings()

    def tell(candidate: Candidate, texts_per_second: float, why: str) -> None:
        if not why.startswith("not tried"):
            click.echo(f"{_levers(settings, candidate)}: {why or f'{texts_per_second:,.1f} texts/s'}", err=as_json)

    with _servers(settings) if local_servers else nullcontext(None) as hosts:
        outcome = tuning.tune(settings, budget=budget, hosts=hosts, tell=tell)
    overridden = _write(settings, outcome) if write else []
    if as_json:
        print_json(outcome.to_json() | {"written": write, "overridden": overridden})
        return
    _print_outcome(settings, outcome, local_servers=local_servers)
    if outcome.changes and not write:
        click.echo("`rag-index tune --write` searches again and puts it into the settings file.")
    for variable in overridden:
        click.echo(f"Written, but {variable} is set and wins: unset it.")


def _servers(settings: Settings) -> Any:
    from rag_index.machine.resources import survey
    from rag_index.tuning.local_servers import local_servers

    program = shutil.which("ollama")
    if settings.embedder.kind != "ollama":
        raise click.UsageError(f"--local-servers is for kind 'ollama'; the settings say {settings.embedder.kind!r}")
    if program is None:
        raise click.UsageError("--local-servers needs the program `ollama`, which is not on the PATH")
    return local_servers(program, max(2, min(survey().processors, 8)), os.environ)


def _write(settings: Settings, outcome: Outcome) -> list[str]:
    """Write the changes; variables of the environment that are stronger than what was written."""
    from rag_index.settings import origins
    from rag_index.tuning.settings_file import write_keys

    write_keys(settings.path, outcome.changes)
    places = origins(settings.path)
    found = (places.get(place, settings.path.name) for place in outcome.changes)
    return [name for name in found if name != settings.path.name]


def _print_outcome(settings: Settings, outcome: Outcome, *, local_servers: bool) -> None:
    done = sum(one.rate > 0 for one in outcome.tried)
    slow = f", {len(outcome.tried) - done} left out as too slow" if done < len(outcome.tried) else ""
    click.echo(f"\n{done} settings tried in {outcome.seconds:.0f} s{slow}; texts/s, medians:")
    named = {"serial script": outcome.serial, "as it is set": outcome.now, "fastest": outcome.best}
    for name, one in {**named, "cheapest within 5%": outcome.knee}.items():
        times = f"{one.rate / outcome.serial.rate:.2f} times serial" if outcome.serial.rate and one.rate else "too slow"
        levers = _levers(settings, one.candidate)
        click.echo(f"  {name:<20}{outcome.texts(one.rate):>10,.1f}  {times:<20}{levers}")
    if local_servers:
        _print_servers(outcome)
    if not outcome.changes:
        click.echo("The settings are as good as it gets here.")
    for (table, key), value in outcome.changes.items():
        said = f"{key} = {value}".replace("True", "true").replace("False", "false")
        click.echo(f"  [{table}] {said if value is not None else f'without {key}'}")


def _print_servers(outcome: Outcome) -> None:
    rates = outcome.servers()
    said = ", ".join(f"{count}: {outcome.texts(rate):,.1f}" for count, rate in rates.items())
    worth = outcome.knee.candidate.hosts
    click.echo(f"Best texts/s by number of local servers: {said}")
    if worth == 1:
        click.echo("One server is as good as several on this machine.")
        return
    ports = [11434 + number for number in range(worth)]
    units = " ".join(f"ollama@{port}" for port in ports)
    hosts = ", ".join(f'"http://127.0.0.1:{port}"' for port in ports)
    click.echo(f"{worth} servers are worth running: systemctl enable --now {units} (deployments/ollama@.service), then")
    click.echo(f"  [embedder] hosts = [{hosts}]")


def _levers(settings: Settings, candidate: Candidate) -> str:
    workers = f"{candidate.workers} worker{'s' if candidate.workers > 1 else ''}"
    if settings.embedder.kind == "local":
        return workers
    texts = f"{workers}, {candidate.batch_texts} texts a request"
    if settings.embedder.kind != "ollama":
        return texts
    hosts = f", {candidate.hosts} hosts" if candidate.hosts > 1 else ""
    threads = f"num_thread {candidate.num_thread}" if candidate.num_thread else "default threads"
    return f"{texts}, {candidate.requests_in_flight} in flight, {threads}{hosts}"
