"""What an evaluation found, for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.reports.plots import require_plots, save_figure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rag_index.evaluation.evaluate import WeightChoice
    from rag_index.evaluation.significance import Estimate

    Document = tuple[str, str]
    """An index and the id of a document in it."""

DENSE, SPARSE, HYBRID = "dense", "sparse", "hybrid"
"""The ways to search: by meaning alone, by words alone, and by both with the weight of the settings."""

FUSED = "all"
"""The name of the scope of all indexes searched at once."""

PARTIAL = 3
COLOURS = {DENSE: "tab:blue", SPARSE: "tab:orange", HYBRID: "tab:green"}
WIDTH = 0.26


@dataclass(frozen=True, slots=True)
class Way:
    """A way to search, and how good it is: an estimate for each metric.

    `hybrid_gain` is by how much hybrid is better, query by query; it is empty for hybrid itself.
    """

    name: str
    dense_weight: float
    metrics: Mapping[str, Estimate]
    hybrid_gain: Mapping[str, Estimate] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index evaluate --json` prints."""
        plain: dict[str, Any] = {"way": self.name, "dense_weight": self.dense_weight, "metrics": _json(self.metrics)}
        return plain | ({"hybrid_gain": _json(self.hybrid_gain)} if self.hybrid_gain else {})


def _json(metrics: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: one.to_json() for name, one in metrics.items()}


@dataclass(frozen=True, slots=True)
class PoorQuery:
    """A query that does badly: its measures, the rank of each relevant document, and what was found first instead.

    A rank is None if the document is not among the hits that were asked for.
    """

    query: str
    metrics: Mapping[str, float]
    ranks: Mapping[Document, int | None]
    found: tuple[Document, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index evaluate --json` prints."""
        return {
            "query": self.query,
            "metrics": {name: round(value, 6) for name, value in self.metrics.items()},
            "relevant": [{**_named(document), "rank": rank} for document, rank in self.ranks.items()],
            "found": list(map(_named, self.found)),
        }


def _named(document: Document) -> dict[str, Any]:
    return dict(zip(("index", "document_id"), document, strict=True))


@dataclass(frozen=True, slots=True)
class Scope:
    """One index, or all at once (`fused`): the ways to search it side by side, and the queries that do worst."""

    name: str
    fused: bool
    queries: int
    ways: tuple[Way, ...]
    worst: tuple[PoorQuery, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index evaluate --json` prints."""
        return {
            "index": None if self.fused else self.name,
            "queries": self.queries,
            "ways": [way.to_json() for way in self.ways],
            "worst": [query.to_json() for query in self.worst],
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation.

    `errors` has a sentence for each index that did not answer every query, and `missing` the relevant documents that
    an index does not have, so that nothing can find them.
    """

    scopes: tuple[Scope, ...]
    errors: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[Document, ...] = ()
    weight: WeightChoice | None = None

    @property
    def exit_code(self) -> int:
        """3 if an index did not answer every query, else 0."""
        return PARTIAL if self.errors else 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index evaluate --json` prints; what there is nothing to say about is left out."""
        plain: dict[str, Any] = {"scopes": [scope.to_json() for scope in self.scopes]}
        if self.missing:
            plain["missing"] = list(map(_named, self.missing))
        if self.errors:
            plain["errors"] = dict(self.errors)
        if self.weight:
            plain["fusion"] = self.weight.to_json()
        return plain


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
        for position, (name, colour) in enumerate(COLOURS.items()):
            drawn = [
                (place + (position - 1) * WIDTH, way.metrics[metric])
                for place, scope in enumerate(evaluation.scopes)
                for way in scope.ways
                if way.name == name
            ]
            if drawn:
                places, found = zip(*drawn, strict=True)
                heights = [one.mean for one in found]
                errors = [[max(0, one.mean - one.low) for one in found], [max(0, one.high - one.mean) for one in found]]
                axes.bar(places, heights, WIDTH, yerr=errors, color=colour, label=name, capsize=2)
        labels = [f"{scope.name}\n{scope.queries:,} queries" for scope in evaluation.scopes]
        axes.set_xticks(range(len(labels)), labels)
        axes.set(ylabel=metric, ylim=(0, 1))
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    figure.axes[0].legend(loc="lower left", ncols=len(COLOURS), bbox_to_anchor=(0, 1.0), frameon=False)
    save_figure(figure, path)
