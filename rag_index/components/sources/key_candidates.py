"""The values that a key may have, from the id of a document.

An id does not tell the types of its key: "1" may be a number or a text. So a document is looked for
by each value that its id may stand for, of the types that the first rows of the source have.
"""

from __future__ import annotations

import datetime as dt
import itertools
import re
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.undecoded import Undecoded
from rag_index.core.documents.keys import values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.components.sources.pages import Row

_BEYOND_PYTHON = re.compile(
    r"-?infinity|(?:\d{5,}|0000)-\d\d-\d\d[\d :.+-]*|\d{4,}-\d\d-\d\d[\d :.+-]* BC"
)
"""A date or a time that Python has no value for, such as "infinity". Drivers return it as text."""
INT64 = 2**63
"""Integers of SQLite are below this, and not below its negative."""


class KeyCandidates:
    """The values that the key of a source may have, by the parts of its id."""

    def __init__(self, backend: str) -> None:
        self._is_sqlite = backend == "sqlite"
        self.types: list[set[type]] = []
        """The types of the values in each key column; empty until a row was read."""

    def learn_types(self, keys: Sequence[Row]) -> None:
        """Learn the types of the key columns from the keys of some rows."""
        columns = zip(*keys, strict=True)
        self.types = [{_type_of(value) for value in column} for column in columns]

    def values(self, wanted: Iterable[list[Any]], *, invalid: bool) -> list[tuple[Any, ...]]:
        """Return all values that keys may have whose ids consist of these parts.

        There are none while no row was read: the source has no documents then.

        Args:
            wanted: The parts of each id.
            invalid: Whether parts show the bytes of texts that are not valid in their charset.
        """
        values: list[tuple[Any, ...]] = []
        if not self.types:
            return values
        for parts in wanted:
            of_columns: list[list[Any]] = []
            for part, types in zip(parts, self.types, strict=False):
                of_columns.append(self._candidates(part, types, invalid=invalid))
            values += itertools.product(*of_columns)
        return values

    def _candidates(self, part: Any, types: set[type], *, invalid: bool) -> list[Any]:
        """Return the values that a part of an id may stand for, in a column of these types."""
        # "4bf66c6e", which shows bytes
        undecoded = undecoded_of(part) if invalid and str in types else None
        if undecoded is not None:
            return [undecoded]
        # A column of SQLite may hold values of several types: all of them are compared.
        if self._is_sqlite:
            return [value for value in values_of(part) if _fits_sqlite(value)]
        # In other databases, values of the column's type. A date such as "infinity" is a text.
        is_text = str in types
        if types & {dt.date, dt.datetime}:
            is_text = _BEYOND_PYTHON.fullmatch(str(part)) is not None
        types = {*types, str} if is_text else types - {str}
        return [value for value in values_of(part) if type(value) in types]


def _type_of(value: Any) -> type:
    return str if isinstance(value, Undecoded) else type(value)


def _fits_sqlite(value: Any) -> bool:
    """Return whether SQLite can store a value."""
    if isinstance(value, int):
        return -INT64 <= value < INT64
    return isinstance(value, str | float | bytes)


def undecoded_of(part: Any) -> Undecoded | None:
    """Return the text whose bytes this part of a document id shows, such as "4bf66c6e"; None if it
    may show none."""
    if not isinstance(part, str):
        return None
    try:
        raw = bytes.fromhex(part)
    except ValueError:
        return None
    is_shown = raw.hex() == part and not raw.isascii()
    return Undecoded(raw) if is_shown else None
