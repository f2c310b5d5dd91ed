"""What a service answers: hits with the freshness of their indexes, and what indexes there are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.retrieve import SearchResult


@dataclass(frozen=True, slots=True)
class Freshness:
    """How old the content of an index is.

    `complete_at` is when a run last ended with everything in the index that the source had (ISO, UTC), and
    `age_seconds` how long ago that is; both are None if no run did. `last_run` is the state of the newest run:
    running, completed, partial, failed or, if its process died, interrupted; None if there was none.
    """

    complete_at: str | None = None
    age_seconds: int | None = None
    last_run: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the object that is part of every answer."""
        return {"complete_at": self.complete_at, "age_seconds": self.age_seconds, "last_run": self.last_run}


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """A payload field that filters may name; `kind` is that of its payload index, None without one."""

    name: str
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """An index of the settings: what can be asked of it, and what it holds.

    `fields` is None if only the index's own source knows its fields. `documents` and `chunks` are None where counts
    are not told: for an index with access rights.
    """

    name: str
    kind: str
    language: str
    search: str
    fields: tuple[FieldInfo, ...] | None
    documents: int | None
    chunks: int | None
    freshness: Freshness
    live: bool = True
    """Whether the index can be searched; False before its first run."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `GET /indexes` lists."""
        fields = None if self.fields is None else [{"name": one.name, "kind": one.kind} for one in self.fields]
        return {
            "name": self.name,
            "kind": self.kind,
            "language": self.language,
            "search": self.search,
            "fields": fields,
            "live": self.live,
            "documents": self.documents,
            "chunks": self.chunks,
            "freshness": self.freshness.to_json(),
        }


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The result of a search, with the freshness of each index that was searched."""

    result: SearchResult
    freshness: Mapping[str, Freshness] = field(default_factory=dict)

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the object that `POST /search` answers."""
        fresh = {index: one.to_json() for index, one in self.freshness.items()}
        return {**self.result.to_json(explain=explain), "freshness": fresh}
