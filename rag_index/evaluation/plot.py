"""A plot of an evaluation: each metric of each index, by meaning, by words and by both. Needs the extra `plots`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.evaluation.report import DENSE, HYBRID, SPARSE
from rag_index.reports.plots import require_plots, save_figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from rag_index.evaluation.report import Evaluation, Scope

__all__ = ["draw"]

COLOURS = {DENSE: "tab:blue", SPARSE: "tab:orange", HYBRID: "tab:green"}
WIDTH = 0.26


def draw(evaluation: Evaluation, path: Path) -> None:
    """Write a PNG with a row of bars for each metric, and the 95% interval of each bar.

    Raises SettingsError if matplotlib is missing or the file cannot be written.
    """
    require_plots(path)
    from matplotlib.figure import Figure

    metrics = list(evaluation.scopes[0].ways[0].metrics)
    width = max(5.0, 2 + 1.3 * len(evaluation.scopes))
    figure = Figure(figsize=(width, 0.6 + 2.4 * len(metrics)), layout="constrained")
    for axes, metric in zip(figure.subplots(len(metrics), squeeze=False)[:, 0], metrics, strict=True):
        _draw_metric(axes, metric, evaluation.scopes)
    figure.axes[0].legend(loc="lower left", ncols=len(COLOURS), bbox_to_anchor=(0, 1.0), frameon=False)
    save_figure(figure, path)


def _draw_metric(axes: Axes, metric: str, scopes: tuple[Scope, ...]) -> None:
    for position, (name, colour) in enumerate(COLOURS.items()):
        drawn = [
            (place + (position - 1) * WIDTH, way.metrics[metric])
            for place, scope in enumerate(scopes)
            for way in scope.ways
            if way.name == name
        ]
        if drawn:
            places, found = zip(*drawn, strict=True)
            heights = [one.mean for one in found]
            errors = [[max(0, one.mean - one.low) for one in found], [max(0, one.high - one.mean) for one in found]]
            axes.bar(places, heights, WIDTH, yerr=errors, color=colour, label=name, capsize=2)
    axes.set_xticks(range(len(scopes)), [f"{scope.name}\n{scope.queries:,} queries" for scope in scopes])
    axes.set(ylabel=metric, ylim=(0, 1))
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
