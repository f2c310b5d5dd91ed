"""The command `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.cli.runs import launch_flow

if TYPE_CHECKING:
    from rag_index.tuning.benchmark import BenchmarkReport


class _WorkerCounts(click.ParamType[list[int]]):
    """Whole numbers above 0, separated by commas."""

    name = "N,N,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """Return each number once, in ascending order."""
        if isinstance(value, list):
            return value
        try:
            counts = sorted({int(part) for part in str(value).split(",")})
        except ValueError:
            counts = [0]
        if counts[0] < 1:
            self.fail(f"{value!r} is not a list of whole numbers above 0, such as 1,2,4", param, ctx)
        return counts


@command()
@click.option("--index", "name", metavar="NAME", help="The index to sample [the first].")
@click.option("--sample-size", type=click.IntRange(min=1), default=1000, show_default=True, help="Number of documents.")
@click.option(
    "--workers", type=_WorkerCounts(), help="Numbers of workers to try [1, 2, 4, … up to the settings' number]."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw a PNG (needs the extra `plots`).")
@json_option
def benchmark(
    context: Context, name: str | None, sample_size: int, workers: list[int] | None, plot: Path | None, as_json: bool
) -> int:
    """Compare the usual serial script with parallel runs on a sample. Real collections are not touched."""
    from rag_index.reports.plots import require_plots
    from rag_index.tuning.benchmark import draw

    settings = context.settings()
    index = settings.index(name).name if name else settings.indexes[0].name
    if plot:
        require_plots(plot)
    report: BenchmarkReport = launch_flow(
        context, settings, _load_benchmark, index=index, sample_size=sample_size, workers=workers
    )
    if plot:
        draw(report, plot)
    if as_json:
        print_json(report.to_json() | ({"plot": str(plot)} if plot else {}))
    else:
        _print_report(report)
    return 0 if report.in_parity else 1


def _load_benchmark() -> Any:
    from flows.benchmark import benchmark

    return benchmark


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
        click.echo(f"Peak private memory, {one.name}: {memory}")
        if one.parity:
            same = "same ids" if one.parity.same_ids else "DIFFERENT ids"
            click.echo(
                f"{one.name} compared with serial: {same}, "
                f"largest difference {one.parity.largest_difference:.1e}, "
                f"recall of 10 neighbours {one.parity.recall:.4f}"
            )
    best = max(report.measured, key=lambda one: one.rate)
    if best is report.measured[0]:
        click.echo(
            "Serial was fastest. The sample may be too small for workers to pay off: try a larger --sample-size."
        )
