"""Positions: how far into the history of its source an index is complete, as text that can be compared.

A position is a place in PostgreSQL's log (`0/16B3748`) or a number of a queue (`4711`). A time (ISO 8601) compares with
the moment at which the source was looked at.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal

Kind = Literal["log position", "number", "time"]
PAGE, SEGMENT = 8192, 1 << 20
"""The size of a page of PostgreSQL's log, and of its smallest segment, whose first page has a longer header."""
HEADER, LONG_HEADER = 24, 40


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was seen: every change that was committed before `at`, or up to `text`, is known."""

    at: float
    """In seconds since 1970, by the clock of whoever looked, before the look."""
    text: str = ""
    """The place in the log or the number; "" where the source has neither."""
    how: str = "run"
    """How it is known: `wal`, `queue`, `poll`, `files` or `run`."""


def parse_position(text: str) -> tuple[Kind, float]:
    """Return what kind of position a text is, and a number that grows with it. Raises ValueError."""
    given = text.strip()
    high, slash, low = given.partition("/")
    if slash:
        number = int(high, 16) << 32 | int(low, 16)
        # at the start of a page, the server names the place after the header, before anything is written there
        header = LONG_HEADER if number % SEGMENT == LONG_HEADER else HEADER
        return "log position", number - header if number % PAGE == header else number
    if given.isascii() and given.isdigit():
        return "number", int(given)
    time = dt.datetime.fromisoformat(given)
    if time.tzinfo is None:
        raise ValueError("a time needs its zone")
    return "time", time.timestamp()
