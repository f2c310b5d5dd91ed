"""Why a row of the database is no document of an index: the condition or join that excludes it."""

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
    from rag_index.core.settings.parts import JoinSettings
    from rag_index.core.settings.visible import VisibleSettings

_PIECE = re.compile(
    r"'(?:[^']|'')*(?:'|\Z)|\"(?:[^\"]|\"\")*(?:\"|\Z)|`[^`]*(?:`|\Z)|--[^\n]*|/\*.*?(?:\*/|\Z)|\w+|.",
    re.DOTALL,
)
"""A text, a quoted name, a comment, a word, or another character of SQL."""


def and_parts(condition: str | None) -> list[str]:
    """Return the parts of a condition that AND joins at its top level; all of it as one part if OR
    joins them; no parts for None.

    and_parts("public = 1 AND (state = 2 OR age BETWEEN 1 AND 9)")  # two parts
    """
    if condition is None:
        return []
    parts = [""]
    depth = 0
    # Whether BETWEEN was read, whose AND follows.
    in_between = False
    # Whether something follows the parentheses with which the condition begins.
    goes_on = False
    for token in _PIECE.findall(condition.strip()):
        word = token.upper()
        if depth == 0 and parts[0].strip():
            goes_on = True
        if word in ("(", "[", "CASE"):
            depth += 1
        elif word in (")", "]", "END"):
            depth -= 1
        is_top = depth == 0
        if is_top and word in ("OR", "XOR"):
            return [condition.strip()]
        if is_top and word == "AND" and not in_between:
            parts.append("")
        else:
            parts[-1] += token
        if is_top and word in ("AND", "BETWEEN"):
            in_between = word == "BETWEEN"
    found = [part.strip() for part in parts]
    first = found[0]
    # (a = 1 AND b = 2): look inside.
    if not goes_on and first.startswith("("):
        return and_parts(first[1:-1])
    return found


class RowFinder:
    """Searches the source for the row of one document, with single conditions of the settings."""

    def __init__(self, settings: Settings, index: IndexSettings, document_id: str) -> None:
        self._settings = settings
        self._index = index
        self._id = document_id
        joins: dict[str, JoinSettings] = {}
        for name, join in index.joins.items():
            joins[name] = join.model_copy(update={"where": None, "required": False})
        bare: dict[str, Any] = dict.fromkeys(
            ("title", "link", "access", "language_column", "where", "newest")
        )
        bare |= {"text": index.key_columns, "payload": [], "parts": [], "format": {}}
        bare |= {"joins": joins, "visible": {}}
        self._bare = index.model_copy(update=bare)
        """The index without conditions, and with the columns of its key alone."""

    def hidden_by(self) -> str | None:
        """Return the setting that excludes the row; "" if the table does not have it; None if no
        setting does.

        Raises:
            SourceUnavailable: The source does not answer.
            SourceError: It cannot be read.
        """
        if not self._is_there():
            return "" if self._index.query is None else "query, which does not return it"
        for name, settings in self._conditions():
            if not self._is_there(**settings):
                return name
        return None

    def _conditions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield each condition of the settings for a row: its name for a person, and the settings
        of an index with this condition alone."""
        index = self._index
        for decision in decisions_of(index):
            # Decisions on columns of other tables count within the conditions that name them.
            if decision.table is None:
                only = {decision.name: decision.settings}
                yield f"visible.{decision.name}, which does not show its value", {"visible": only}
        for part in and_parts(index.where):
            yield f"where: {part}", {"where": part, "visible": self._referred(part)}
        # Each part may hold for some version of the document, and not all for its newest.
        of_newest = ""
        if index.newest:
            of_newest = f", which the version with the greatest {index.newest} does not meet"
        referred = self._referred(index.where)
        together = {"where": index.where, "newest": index.newest, "visible": referred}
        yield f"where{of_newest}", together
        for name, join in index.joins.items():
            if not join.required:
                continue
            # The join alone, and then with each part of its condition
            for part_of_join in [None, *and_parts(join.where)]:
                changed = join.model_copy(update={"where": part_of_join})
                joins = {**self._bare.joins, name: changed}
                what = part_of_join or f"{join.table} has no row for it"
                referred = self._referred(part_of_join)
                yield f"joins.{name}: {what}", {"joins": joins, "visible": referred}

    def _referred(self, sql: str | None) -> dict[str, VisibleSettings]:
        """Return the decisions that a condition refers to."""
        visible = self._index.visible
        return {name: visible[name] for name, _ in tokens_of(sql)}

    def full_row(self) -> dict[str, Any]:
        """Return all columns of the row, also those that are not indexed, except columns with the
        names of secrets."""
        with self._source(self._bare) as source:
            row = source.full_row(self._id)
        return {name: value for name, value in row.items() if not is_named_like_a_secret(name)}

    def _is_there(self, **conditions: Any) -> bool:
        with self._source(self._bare.model_copy(update=conditions)) as source:
            return source.has(self._id)

    def _source(self, index: IndexSettings) -> closing[SqlSource]:
        settings = self._settings
        return closing(SqlSource(settings.source_url, index, timeout=settings.source.timeout))
