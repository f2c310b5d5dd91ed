"""Newer first: how much the time of a document lifts its score, and hits in the order of a field."""

from __future__ import annotations

import datetime as dt
import math
import re
import time
from typing import TYPE_CHECKING, Any

from rag_index.search.results import value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.core.settings.sections import RecencySettings
    from rag_index.search.results import SearchHit

SHARE = 0.1
"""The share of its score by which a document of today is lifted."""
MAX_SECONDS = 1e11
"""Greater numbers are milliseconds since 1970, or microseconds or nanoseconds: a time in one unit is far from any in
another."""
NUMBER = re.compile(r"(?!\d{8}$)-?\d{1,20}(\.\d{1,9})?")
"""A number in a text. Eight digits are a date."""


def freshness(recency: RecencySettings, payload: Mapping[str, Any]) -> float:
    """Return 1 for a document of now, 0.5 for one of the age of the half-life, and 0 for one without a time."""
    value = value_of(payload, recency.field)
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    moment = moment_of(value)
    return 0.0 if moment is None else math.pow(0.5, max(0.0, time.time() - moment) / recency.seconds)


def moment_of(value: Any) -> float | None:
    """Return the time of a payload's value in seconds since 1970; None if it is none. Without a zone, it is UTC."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value / next((unit for unit in (1, 1e3, 1e6) if abs(value) <= MAX_SECONDS * unit), 1e9)
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def in_order(hits: Iterable[SearchHit], order: str, fits: float) -> list[SearchHit]:
    """Return the hits that fit, in the order of a field, the greatest first if `order` begins with a minus.

    `fits` is the relevance from which a hit does. Those without a value come last. If none fits, all are returned.
    """
    field, down = order.removeprefix("-"), order.startswith("-")
    every = list(hits)
    fitting = [hit for hit in every if hit.relevance >= fits] or every
    valued = [(value, hit) for hit in fitting if (value := value_of(hit.payload, field)) is not None]
    keys: list[Any] = [value for value, _ in valued]
    if not all(isinstance(value, int | float) for value in keys):
        moments = [moment_of(value) for value in keys]
        keys = [str(value).casefold() for value in keys] if None in moments else moments
    ordered = sorted(zip(keys, range(len(valued)), strict=True), key=lambda one: one[0], reverse=down)
    return [
        *(valued[place][1] for _, place in ordered),
        *(one for one in fitting if value_of(one.payload, field) is None),
    ]
