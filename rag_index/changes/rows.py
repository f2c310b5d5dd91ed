"""Changes of rows, as the feeds of a database give them, and the tables that they watch.

`routing` says which tables an index needs, and turns changes of their rows into changes of documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RowChange", "WatchedTable"]


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table whose changes are followed. Each table of the source occurs once, whatever indexes need it."""

    name: str
    """The name of a table, which is never a view."""
    schema: str | None
    """Its schema; None: the default one."""
    columns: tuple[str, ...]
    """The columns whose values tell which documents show a row, sorted."""
    used: frozenset[str] | None = None
    """The columns whose update matters (`columns` among them); None: all."""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that was inserted, updated or deleted.

    An update that changes one of `table.columns` gives two of these: the values before, and the values after.
    """

    table: WatchedTable
    values: Mapping[str, Any]
    """The value of each of `table.columns`, of the type that the driver gives when it reads that column."""
    changed_at: float
    """As `DocumentChange.changed_at`."""
