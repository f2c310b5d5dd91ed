"""The mark of a commit, which ledger and store both keep: what `rag-index status` compares must import little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class CommitMark:
    """The last commit of a collection, as the ledger has it or as the store keeps it with the points.

    `at` (ISO, UTC) tells apart two commits of the same number, one of which was undone by restoring a backup.
    """

    number: int = 0
    at: str = ""

    @classmethod
    def parse(cls, stored: Any) -> CommitMark:
        """Return the mark that a store keeps as JSON; no commit if it is none."""
        values = stored if isinstance(stored, dict) else {}
        return cls(int(values.get("number") or 0), str(values.get("at") or ""))

    def __str__(self) -> str:
        return f"commit {self.number:,} ({self.at[:19].replace('T', ' ')} UTC)" if self.number else "no commit"
