"""A plot of a benchmark: documents per second by the number of workers. Needs the extra `plots` (matplotlib)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.reports.plots import require_plots, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from rag_index.tuning.benchmark_report import BenchmarkReport

__all__ = ["draw"]


def draw(report: BenchmarkReport, path: Path) -> None:
    """Write a PNG with one point per number of workers, and a horizontal line for the serial script.

    Raises:
        SettingsError: matplotlib is missing, or the file cannot be written.
    """
    require_plots(path)
    from matplotlib.figure import Figure

    serial, *parallel = report.measured
    counts, rates = [one.workers for one in parallel], [one.rate for one in parallel]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(serial.rate, color="0.5", linestyle="--", label=f"serial: {serial.rate:,.1f}")
    axes.plot(counts, rates, marker="o", color="tab:blue", label="parallel")
    for one in parallel:
        axes.annotate(
            f"{one.rate:,.1f}", (one.workers, one.rate), textcoords="offset points", xytext=(0, 7), ha="center"
        )
    axes.set(xlabel="workers", ylabel="documents/s", title=f"{report.index}: {report.documents:,} documents")
    axes.set_xticks(counts)
    axes.set_ylim(0, 1.2 * max(serial.rate, *rates))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
