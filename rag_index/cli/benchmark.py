"""The command `benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, print_json

if TYPE_CHECKING:
    from rag_index.settings import Settings
    from rag_index.tuning.benchmark import BenchmarkReport

__all__ = ["benchmark"]


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
@click.option("--index", "name", metavar="NAME", help="The index whose documents are taken [the first].")
@click.option("--sample-size", type=click.IntRange(min=1), default=1000, show_default=True, help="Documents.")
@click.option("--workers", type=_Counts(), help="Numbers of workers to try [1, 2, 4, … as the settings allow].")
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="A PNG to draw (extra `plots`).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def benchmark(
    context: Context, name: str | None, sample_size: int, workers: list[int] | None, picture: Path | None, as_json: bool
) -> int:
    """Compare the usual serial way with parallel runs on a sample. Nothing real is written to."""
    from rag_index.tuning.plot import draw, require_plots

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
    from rag_index.orchestration.launch import launch

    report: BenchmarkReport = launch(
        _load_flow,
        settings.folder / ".rag-index" / "prefect",
        verbose=context.verbose,
        config=str(settings.path),
        **parameters,
    )
    return report


def _load_flow() -> Any:
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
