"""What `init` proposes and what a person may decide: plain data between what reads a database and what shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person decided: tables by name or pattern, columns as TABLE.COLUMN."""

    include: tuple[str, ...] = ()
    """Tables that become documents if they have any text, whatever else speaks against it, `exclude` too."""
    exclude: tuple[str, ...] = ()
    """Tables of which nothing is read."""
    show: tuple[str, ...] = ()
    """Columns whose condition goes, or, if they were left out, that are text."""
    hide: tuple[str, ...] = ()
    """Columns whose rows that are set, or differ from the majority, are hidden; columns of text are left out."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """Columns with what they are used for: `title`, `text` or `out`."""


@dataclass(frozen=True, slots=True)
class HiddenRows:
    """A condition that leaves rows of a table out."""

    table: str
    columns: tuple[str, ...]
    """Those of the table; of another one as TABLE.COLUMN."""
    sql: str
    says: str
    """Why the rows are hidden: `is_confidential is true`, `its space is private`."""
    rows: int
    """The rows that are hidden; -1 if that is not known."""
    of: int
    question: str = ""
    """What a person has to confirm, a sentence; "" if the condition is certain."""

    @property
    def places(self) -> tuple[str, ...]:
        """Return the columns as TABLE.COLUMN."""
        return tuple(name if "." in name else f"{self.table}.{name}" for name in self.columns)

    @property
    def like(self) -> tuple[object, ...]:
        """Return what equal conditions of several tables have in common."""
        return self.columns, self.says

    @property
    def amount(self) -> int:
        """Return how much a person loses by it."""
        return self.rows


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column with text that no search reaches."""

    table: str
    column: str
    why: str
    """The reason, to be read after the column's name: `is a secret`."""
    chars: int

    @property
    def places(self) -> tuple[str, ...]:
        """Return the column as TABLE.COLUMN."""
        return (f"{self.table}.{self.column}",)

    @property
    def like(self) -> tuple[object, ...]:
        """Return what equal columns of several tables have in common."""
        return self.column, self.why

    @property
    def amount(self) -> int:
        """Return how much a person loses by it."""
        return self.chars


UNREAD = "cannot be read"
"""What the reason of a table begins with that the database does not let us read."""


@dataclass(frozen=True, slots=True)
class TableUse:
    """What becomes of a table."""

    name: str
    """The name, with the schema if that is not the default one."""
    rows: int
    chars: int
    """The characters of all readable text, about if not `exact`."""
    exact: bool
    becomes: Literal["document", "part", "label", "out"]
    of: tuple[str, ...] = ()
    """The tables whose part or label it is."""
    why: str = ""
    """The reason to leave it out, to be read after the table's name: `is empty`."""
    index: str = ""
    """The name of its index, if its rows are documents."""
    hidden: tuple[HiddenRows, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    """The columns with text, each with what it is used for: `title`, `text` or `out`."""
    searched: int = 0
    """The characters that a search reaches, without those of columns left out and of hidden rows."""


@dataclass(slots=True)
class ProposedIndex:
    """The settings of an index, with the reasons for them."""

    name: str
    table: str
    """The name of its table as in `TableUse`."""
    settings: dict[str, Any]
    """The keys of [[indexes]] but for `name`, in the order of the file."""
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a key has its value, by the key; of conditions, by their SQL."""
    age: str = ""
    """The column whose greatest values the newest rows have."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What becomes of all tables of a database, those with most text first, and the indexes."""

    tables: tuple[TableUse, ...] = ()
    indexes: tuple[ProposedIndex, ...] = ()
    policies: tuple[str, ...] = ()
    """What row level security means for the indexes, a sentence each."""

    @property
    def chars(self) -> int:
        """Return the characters of all readable text of the database."""
        return sum(table.chars for table in self.tables)

    @property
    def searched(self) -> int:
        """Return the characters of them that a search reaches."""
        return sum(table.searched for table in self.tables)

    @property
    def questions(self) -> list[HiddenRows]:
        """Return the conditions that a person has to confirm, those that hide most rows first."""
        found = [one for table in self.tables for one in table.hidden if one.question]
        return sorted(found, key=lambda one: -one.rows)

    @property
    def exact(self) -> bool:
        """Return whether all text was counted."""
        return all(table.exact for table in self.tables)
