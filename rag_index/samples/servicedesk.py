"""A generated service desk of any size: tickets with title, description, comments, work logs and solutions.

    title, description      one for each ticket
    comment                 about half of all documents
    worklog, solution       for about two tickets in three

The same seed gives the same desk on every machine. A document is the same in desks of different sizes, except for the
last documents, which belong to other tickets.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from rag_index.errors import SettingsError
from rag_index.samples.prose import AUTHORS, Prose, Subject, subject_for
from rag_index.samples.sample import SampleIndex, new_database, settings_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FULL_SIZE = {"comment": 108_129, "description": 30_871, "solution": 24_305, "title": 30_871, "worklog": 19_896}
"""Numbers of documents by table; other sizes keep these proportions. The total is 214,072."""

TABLES: dict[str, tuple[str, ...]] = {
    "comment": ("body",),
    "description": ("body",),
    "solution": ("symptom", "resolution"),
    "title": ("title",),
    "worklog": ("body",),
}
"""Tables, with the columns that hold their text."""

_COLUMNS = ("ticket_id", "author", "priority", "created_at", "updated_at")
_PRIORITIES = ("low",) * 5 + ("normal",) * 20 + ("high",) * 6 + ("urgent",)
_FIRST_DAY = datetime(2020, 1, 1)  # noqa: DTZ001 - a TIMESTAMP without time zone, as such databases have
_BETWEEN_TICKETS = 1200
"""Seconds from one ticket to the next, on average."""
_STILL_OPEN = 40
"""About this many tickets receive comments at a time."""
_MASK = (1 << 64) - 1

_Row = tuple[int, int, str | None, str, str, str, *tuple[str | None, ...]]


@dataclass(frozen=True, slots=True)
class _Ticket:
    """Values that all documents of a ticket share."""

    number: int
    about: Subject
    priority: str
    opened: int
    """Seconds after the first day."""


def table_sizes(documents: int) -> dict[str, int]:
    """Return the numbers of documents by table: at least one each, exactly `documents` in total, as in `FULL_SIZE`.

    Raises:
        SettingsError: fewer than five documents.
    """
    if documents < len(TABLES):
        raise SettingsError(
            f"{documents} documents are too few for {len(TABLES)} tables; ask for {len(TABLES)} or more"
        )
    total = sum(FULL_SIZE.values())
    sizes = {table: max(1, documents * FULL_SIZE[table] // total) for table in TABLES}
    sizes["comment"] += documents - sum(sizes.values())
    return sizes


def write(out: Path, *, documents: int = 20_000, seed: int = 1) -> dict[str, int]:
    """Write the SQLite database `out`, replacing what was there, and return the number of rows by table.

    Rows are made one by one, so memory does not grow with `documents`.

    Raises:
        SettingsError: fewer than five documents.
        SourceError: the file cannot be written.
    """
    sizes = table_sizes(documents)
    with new_database(out) as connection:
        for table, texts in TABLES.items():
            columns = "".join(f", {column} TEXT" for column in texts)
            connection.execute(
                f"CREATE TABLE {table} (id INTEGER NOT NULL PRIMARY KEY, ticket_id INTEGER NOT NULL, author TEXT,"
                f" priority TEXT NOT NULL, created_at TIMESTAMP NOT NULL, updated_at TIMESTAMP NOT NULL{columns})"
            )
            placeholders = ", ".join("?" * (1 + len(_COLUMNS) + len(texts)))
            rows = _rows(table, sizes[table], sizes["title"], seed)
            connection.executemany(f"INSERT INTO {table} VALUES ({placeholders})", rows)
    return sizes


def scaffold(database: str) -> str:
    """Return a commented rag-index.toml with an index for each table of the SQLite file `database`."""
    wanted = [SampleIndex(f"{table}s", table, "id", texts, _COLUMNS) for table, texts in TABLES.items()]
    return settings_file("A generated service desk", database, wanted)


def _rows(table: str, count: int, tickets: int, seed: int) -> Iterator[_Row]:
    """Yield the first `count` rows of a table's endless stream, for tickets from 1 to `tickets`."""
    prose = Prose(f"{seed}/{table}")
    for key in range(1, count + 1):
        ticket = _ticket(min(_ticket_number(table, key, prose), tickets), seed)
        later = 0 if table in ("title", "description") else int(10 ** (1 + 4.5 * prose.below(1000) / 1000))
        created = ticket.opened + later
        updated = created + (60 + prose.below(500_000) if prose.chance(0.15) else 0)
        author = None if prose.chance(0.01) else prose.pick(AUTHORS)
        texts = _texts(table, ticket.about, prose)
        yield key, ticket.number, author, ticket.priority, _timestamp(created), _timestamp(updated), *texts


def _ticket_number(table: str, key: int, prose: Prose) -> int:
    """Return the ticket of a row: titles and descriptions have one per ticket, others spread over the open tickets."""
    if table in ("title", "description"):
        return key
    newest = key * FULL_SIZE["title"] // FULL_SIZE[table] + 1
    return max(1, newest - prose.below(_STILL_OPEN))


def _ticket(number: int, seed: int) -> _Ticket:
    """Return a ticket made of its number and the seed alone, so every table has the same one without a lookup."""
    value = (number * 0x9E3779B97F4A7C15 + seed * 0xD1B54A32D192ED03) & _MASK  # mixed as in splitmix64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    opened = number * _BETWEEN_TICKETS + (value >> 20) % _BETWEEN_TICKETS
    return _Ticket(number, subject_for(value >> 32), _PRIORITIES[value % len(_PRIORITIES)], opened)


def _texts(table: str, about: Subject, prose: Prose) -> tuple[str | None, ...]:
    if table == "title":
        return (prose.title(about),)
    if table == "description":
        return (prose.body(about, steps=False, scale=2),)
    if table == "worklog":
        return (prose.body(about, steps=True, threads=False),)
    if table == "comment":
        return (prose.body(about, steps=prose.chance(0.6)),)
    resolution = prose.body(about, steps=True, threads=False)
    if resolution is None or not resolution.strip():
        return (None if prose.chance(0.8) else "", resolution)
    return (prose.sentences(about, 1 + prose.below(3), steps=False) if prose.chance(0.95) else None, resolution)


def _timestamp(seconds: int) -> str:
    return (_FIRST_DAY + timedelta(seconds=seconds)).isoformat(" ")
