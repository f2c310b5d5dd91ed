"""What a benchmark measured, and the words for it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rag_index.tuning.parity import Parity

__all__ = ["MIN_RECALL", "STAGES", "BenchmarkReport", "Measured"]

STAGES = ("fetch", "chunk", "embed", "upsert")
MIN_RECALL = 0.999
"""Recall of neighbours from which two ways count as equal."""


@dataclass(slots=True)
class Measured:
    """One way of embedding the sample."""

    name: str
    workers: int
    documents: int
    chunks: int
    seconds: float
    """Wall seconds from the first document to the last vector in the store, without start-up."""
    stages: dict[str, float]
    """Busy seconds of each stage, over all processes together."""
    memory: dict[str, int]
    """Highest own memory of each process, in bytes."""
    speed_up: float = 1.0
    parity: Parity | None = None
    """How alike the points are to those of the serial way."""

    @property
    def rate(self) -> float:
        """Documents per second."""
        return self.documents / self.seconds if self.seconds else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """The share of each stage in all busy seconds, 0 to 1."""
        busy = sum(self.stages.values())
        return {name: seconds / busy if busy else 0.0 for name, seconds in self.stages.items()}

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "name": self.name,
            "workers": self.workers,
            "seconds": round(self.seconds, 3),
            "documents_per_second": round(self.rate, 2),
            "speed_up": round(self.speed_up, 3),
            "stages": {name: round(share, 4) for name, share in self.shares.items()},
            "memory_mb": {name: round(size / 1e6, 1) for name, size in self.memory.items()},
            **(asdict(self.parity) if self.parity else {}),
        }


@dataclass(slots=True)
class BenchmarkReport:
    """All that a benchmark measured, the serial way first."""

    index: str
    documents: int
    embedder: str
    measured: list[Measured] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        serial, *parallel = [one.to_json() for one in self.measured]
        head = {"index": self.index, "documents": self.documents, "chunks": self.measured[0].chunks}
        return head | {"embedder": self.embedder, "serial": serial, "parallel": parallel}

    @property
    def in_parity(self) -> bool:
        """Whether every way made the same ids, and vectors that find the same neighbours."""
        found = [one.parity for one in self.measured if one.parity]
        return all(one.same_ids and one.recall >= MIN_RECALL for one in found)

    def sentence(self) -> str:
        """Return the best way in one line."""
        best = max(self.measured, key=lambda one: one.rate)
        same = "the same ids and neighbours" if self.in_parity else "NOT the same ids and neighbours: see the table"
        return (
            f"{self.index}: {self.documents:,} documents, best with {best.name}: {best.rate:,.1f} documents/s, "
            f"{best.speed_up:.2f} times the serial way; {same}"
        )
