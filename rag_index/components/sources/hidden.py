"""Why a row of the database is no document of an index: which condition or join leaves it out."""

from __future__ import annotations

import re
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.decisions import decisions_of
from rag_index.components.sources.sql import SqlSource
from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.core.settings.visible import tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.core.settings.visible import VisibleSettings

_PIECE = re.compile(
    r"'(?:[^']|'')*(?:'|\Z)|\"(?:[^\"]|\"\")*(?:\"|\Z)|`[^`]*(?:`|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|\w+|.",
    re.DOTALL,
)


def and_parts(condition: str | None) -> list[str]:
    """Return the parts of a condition that AND joins at its top, or all of it if OR joins them;
    none for None.

    and_parts("public = 1 AND (state = 2 OR age BETWEEN 1 AND 9)")  # two parts
    """
    if condition is None:
        return []
    parts, depth, between, closed = [""], 0, False, False
    for piece in _PIECE.findall(condition.strip()):
        word = piece.upper()
        closed = closed or (depth == 0 and bool(parts[0].strip()))
        depth += (word in ("(", "[", "CASE")) - (word in (")", "]", "END"))
        if depth == 0 and word in ("OR", "XOR"):
            return [condition.strip()]
        if depth == 0 and word == "AND" and not between:
            parts.append("")
        else:
            parts[-1] += piece
        between = word != "AND" and (between or word == "BETWEEN") if depth == 0 else between
    [first, *others] = found = [part.strip() for part in parts]
    return found if others or closed or first[:1] != "(" else and_parts(first[1:-1])


class RowFinder:
    """The row of one document, looked for with and without what an index's settings ask of it."""

    def __init__(self, settings: Settings, index: IndexSettings, document_id: str) -> None:
        self._settings, self._index, self._id = settings, index, document_id
        joins = {
            name: one.model_copy(update={"where": None, "required": False})
            for name, one in index.joins.items()
        }
        nothing: dict[str, Any] = dict.fromkeys(
            ("title", "link", "access", "language_column", "where", "newest")
        )
        nothing |= {
            "text": index.key_columns,
            "payload": [],
            "parts": [],
            "format": {},
            "joins": joins,
            "visible": {},
        }
        self._bare = index.model_copy(update=nothing)

    def hidden_by(self) -> str | None:
        """Return what leaves the row out, "" if the table does not have it, and None if nothing
        does.

        Raises SourceUnavailable and SourceError.
        """
        if not self._is_there():
            return "" if self._index.query is None else "query, which does not return it"
        return next(
            (what for what, asked in self._conditions() if not self._is_there(**asked)), None
        )

    def _conditions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield what the settings ask of a row, one after another, and the settings that ask
        nothing else."""
        index = self._index
        for decision in decisions_of(index):
            if decision.table is None:
                only = {decision.name: decision.settings}
                yield f"visible.{decision.name}, which does not show its value", {"visible": only}
        for part in and_parts(index.where):
            yield f"where: {part}", {"where": part, "visible": self._referred(part)}
        of_newest = (
            f", which the version with the greatest {index.newest} does not meet"
            if index.newest
            else ""
        )
        yield f"where{of_newest}", self._asked_of_newest()
        for name, join in index.joins.items():
            for one in [None, *and_parts(join.where)] if join.required else ():
                joins = {**self._bare.joins, name: join.model_copy(update={"where": one})}
                asked = {"joins": joins, "visible": self._referred(one)}
                yield f"joins.{name}: " + (one or f"{join.table} has no row for it"), asked

    def _asked_of_newest(self) -> dict[str, Any]:
        where = self._index.where
        return {"where": where, "newest": self._index.newest, "visible": self._referred(where)}

    def _referred(self, sql: str | None) -> dict[str, VisibleSettings]:
        """Return the decisions that a condition refers to. Those of the row's own columns hold
        already."""
        return {name: self._index.visible[name] for name, _ in tokens_of(sql)}

    def whole_row(self) -> dict[str, Any]:
        """Return all columns of the row that may be shown, also those that are not indexed."""
        with self._source(self._bare) as source:
            row = source.whole_row(self._id)
        return {name: value for name, value in row.items() if not is_named_like_a_secret(name)}

    def _is_there(self, **conditions: Any) -> bool:
        with self._source(self._bare.model_copy(update=conditions)) as source:
            return source.has(self._id)

    def _source(self, index: IndexSettings) -> closing[SqlSource]:
        return closing(
            SqlSource(self._settings.source_url, index, timeout=self._settings.source.timeout)
        )
