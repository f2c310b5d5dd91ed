"""A sample database: its tables and rows, the questions of its users, and how it is written into a
real database."""

import importlib
import random
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

SEEN = ("tracker", "forum")
"""Kinds that were there when the proposals of `init` were written."""
UNSEEN = ("pages", "helpdesk", "wiki")
"""Kinds that were made afterwards, and for which nothing in the proposals was changed before the
first count."""

TYPES = {
    "sqlite": {},
    "postgresql": {
        "BLOB": "BYTEA",
        "DATETIME": "TIMESTAMP",
        "JSON": "JSONB",
        "DOUBLE": "DOUBLE PRECISION",
    },
    "mariadb": {"TEXT": "LONGTEXT", "BLOB": "LONGBLOB"},
}
"""The types that a database calls otherwise than these samples."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a user asks, the row whose document answers it, and words that only the answering text
    has."""

    text: str
    table: str
    id: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A database of one kind; rows in the order of the tables' columns."""

    tables: str
    rows: dict[str, list[tuple[Any, ...]]]
    questions: list[Question]
    hidden: dict[str, str]
    """Words that only a row has that nobody may be shown, and what would be asked to find it."""
    secrets: list[str]
    """Values that may be in no setting, no payload and no text."""
    private: list[str] = field(default_factory=list)
    """E-mail addresses and telephone numbers, which nobody asked for."""


def tables(name: str) -> str:
    """Return the statements that make the tables of this kind, each of which ends with a
    semicolon."""
    return Path(__file__).with_name(f"{name}.sql").read_text(encoding="utf-8")


@cache
def sample(name: str) -> Sample:
    """Return the sample of this kind."""
    made: Sample = importlib.import_module(f"tests.wild.{name}").SAMPLE
    return made


def write(made: Sample, engine: sa.Engine) -> None:
    """Write the tables and rows into an empty database."""
    types = TYPES["mariadb" if engine.dialect.name in ("mysql", "mariadb") else engine.dialect.name]
    with engine.begin() as connection:
        if engine.dialect.name in ("mysql", "mariadb"):
            connection.exec_driver_sql("SET SESSION sql_mode = 'ANSI_QUOTES'")
            connection.exec_driver_sql("SET SESSION foreign_key_checks = 0")
        for statement in filter(str.strip, made.tables.split(";")):
            given = re.sub(r"\b[A-Z]+\b", lambda word: types.get(word[0], word[0]), statement)
            connection.exec_driver_sql(given.replace("%", "%%"))
        for table, rows in made.rows.items():
            values = ", ".join(f":c{number}" for number in range(len(rows[0])))
            statement = sa.text(f'INSERT INTO "{table}" VALUES ({values})')
            connection.execute(
                statement, [{f"c{n}": value for n, value in enumerate(row)} for row in rows]
            )


class Filler:
    """An endless stream of sentences from a few words of a trade; equal seeds give equal
    streams."""

    def __init__(self, seed: int, things: str, deeds: str, ends: str) -> None:
        self.random = random.Random(seed)
        self._things, self._deeds, self._ends = (text.split("|") for text in (things, deeds, ends))

    def title(self) -> str:
        """Return some words."""
        return f"{self.pick(self._things)} {self.pick(self._deeds)}".capitalize()

    def text(self, count: int = 3) -> str:
        """Return sentences."""
        parts = [
            (self.pick(self._things), self.pick(self._deeds), self.pick(self._ends))
            for _ in range(count)
        ]
        return " ".join(f"The {thing} {deed} {end}." for thing, deed, end in parts)

    def pick(self, choices: Any) -> Any:
        """Return one of the choices."""
        return choices[self.random.randrange(len(choices))]

    def time(self, year: int = 2024) -> str:
        """Return a time as text."""
        return f"{year}-{self.random.randint(1, 12):02d}-{self.random.randint(1, 28):02d} {self.random.randint(7, 19):02d}:15:00"
