"""`config`, `benchmark` and `tune`: which settings are in force, what they give, and which give more."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, print_json

if TYPE_CHECKING:
    from rag_index.benchmark import BenchmarkReport
    from rag_index.in_force import Value
    from rag_index.settings import Settings
    from rag_index.tune import Outcome
    from rag_index.tune.candidate import Candidate

__all__ = ["benchmark", "config", "tune"]


class _Counts(click.ParamType[list[int]]):
    """Whole numbers above 0 with commas between them."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers, each once, in order."""
        if isinstance(value, list):
            return value
        try:
            found = sorted({int(part) for part in str(value).split(",")})
        except ValueError:
            found = [0]
        if found[0] < 1:
            self.fail(f"{value!r} is not whole numbers above 0 with commas between them, as 1,2,4", param, ctx)
        return found


@command()
@click.option("--explain", is_flag=True, help="Also say what automatic values come to, and why.")
@click.option("--workers", type=click.IntRange(min=1), help="As `index` takes it.")
@click.option("--chunk-size", type=click.IntRange(min=1), help="As `index` takes it.")
@click.option("--serial", is_flag=True, help="As `index` takes it.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="As `index` takes it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def config(
    context: Context,
    explain: bool,
    workers: int | None,
    chunk_size: int | None,
    serial: bool,
    wait: float | None,
    as_json: bool,
) -> None:
    """Show every setting in force and where it comes from. Secrets are masked."""
    from rag_index import in_force

    settings = context.settings(workers=workers, chunk_size=chunk_size, serial=serial, wait=wait)
    given = {"parallel.workers": workers, "parallel.chunk_size": chunk_size, "run.wait": wait}
    values = in_force.in_force(settings, given | {"parallel.serial": serial or None})
    facts = in_force.explained(settings) if explain else []
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


@command()
@click.option("--index", "name", metavar="NAME", help="The index whose documents are taken [the first].")
@click.option("--sample-size", type=click.IntRange(min=1), default=1000, show_default=True, help="Documents.")
@click.option("--workers", type=_Counts(), help="Numbers of workers to try [1, 2, 4, … as the settings allow].")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="A PNG to draw (extra `plots`).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def benchmark(
    context: Context, name: str | None, sample_size: int, workers: list[int] | None, picture: Path | None, as_json: bool
) -> int:
    """Compare the usual serial way with parallel runs on a sample. Nothing real is written to."""
    from rag_index.picture import draw, require_plots

    settings = context.settings()
    index = settings.index(name).name if name else settings.indexes[0].name
    if picture:
        require_plots()
    report = _measure(context, settings, index=index, sample_size=sample_size, workers=workers)
    if picture:
        draw(report, picture)
    if as_json:
        print_json(report.to_json() | ({"picture": str(picture)} if picture else {}))
    else:
        _print_report(report)
    return 0 if report.agrees else 1


def _measure(context: Context, settings: Settings, **parameters: Any) -> BenchmarkReport:
    from flows.launch import prefect_api, quiet
    from flows.stopping import terminable

    quiet(settings.folder / ".rag-index" / "prefect", verbose=context.verbose)
    from flows.benchmark import benchmark as measure

    with terminable(), prefect_api():
        state: Any = measure(config=str(settings.path), **parameters, return_state=True)
        report: BenchmarkReport | BaseException = state.result(raise_on_failure=False)
    if isinstance(report, BaseException):
        raise report
    return report


def _print_report(report: BenchmarkReport) -> None:
    click.echo(
        f"{report.documents:,} documents of {report.index}, {report.measured[0].chunks:,} chunks, {report.embedder}"
    )
    stages = list(report.measured[0].stages)
    click.echo(f"{'':<12}{'seconds':>9}{'documents/s':>13}{'speed-up':>10}" + "".join(f"{name:>8}" for name in stages))
    for one in report.measured:
        shares = "".join(f"{one.shares[name]:>8.0%}" for name in stages)
        click.echo(f"{one.name:<12}{one.seconds:>9.2f}{one.rate:>13,.1f}{one.speed_up:>10.2f}{shares}")
    for one in report.measured:
        memory = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in sorted(one.memory.items()))
        click.echo(f"Peak own memory, {one.name}: {memory}")
        if one.agrees:
            same = "same ids" if one.agrees.same_ids else "OTHER ids"
            click.echo(
                f"Against serial, {one.name}: {same}, largest difference {one.agrees.largest_difference:.1e}, "
                f"recall of 10 neighbours {one.agrees.recall:.4f}"
            )
    best = max(report.measured, key=lambda one: one.rate)
    if best is report.measured[0]:
        click.echo("So few documents are through before workers pay: try a larger --sample-size.")


@command()
@click.option("--budget", type=click.FloatRange(min=5), default=120, show_default=True, help="Seconds to spend.")
@click.option("--write", is_flag=True, help="Put what was found into the settings file; comments are kept.")
@click.option("--local-servers", is_flag=True, help="Try 1 to N Ollama servers of this machine, started for it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def tune(context: Context, budget: float, write: bool, local_servers: bool, as_json: bool) -> None:
    """Find the setting that the embedder and this machine can do, with your own documents."""
    from rag_index import tune as tuning

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
    from rag_index.autoconfig import survey
    from rag_index.tune.local_servers import local_servers

    program = shutil.which("ollama")
    if settings.embedder.kind != "ollama":
        raise click.UsageError(f"--local-servers is for kind 'ollama'; the settings say {settings.embedder.kind!r}")
    if program is None:
        raise click.UsageError("--local-servers needs the program `ollama`, which is not on the PATH")
    return local_servers(program, max(2, min(survey().processors, 8)), os.environ)


def _write(settings: Settings, outcome: Outcome) -> list[str]:
    """Write the changes; variables of the environment that are stronger than what was written."""
    from rag_index.settings import origins
    from rag_index.tune.settings_file import write_keys

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
