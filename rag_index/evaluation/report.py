"""What an evaluation found, for people and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.evaluation.asking import Document
    from rag_index.evaluation.estimates import Estimate
    from rag_index.evaluation.fusion_weight import WeightChoice

__all__ = ["DENSE", "FUSED", "HYBRID", "SPARSE", "Evaluation", "PoorQuery", "Scope", "Way"]

DENSE, SPARSE, HYBRID = "dense", "sparse", "hybrid"
"""The ways to search: by meaning alone, by words alone, and by both with the weight of the settings."""
FUSED = "all"
"""The name of the scope of all indexes searched at once."""
PARTIAL = 3


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
            "relevant": [
                {"index": index, "document_id": document_id, "rank": rank}
                for (index, document_id), rank in self.ranks.items()
            ],
            "found": [{"index": index, "document_id": document_id} for index, document_id in self.found],
        }


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
            plain["missing"] = [{"index": index, "document_id": document_id} for index, document_id in self.missing]
        if self.errors:
            plain["errors"] = dict(self.errors)
        if self.weight:
            plain["fusion"] = self.weight.to_json()
        return plain
