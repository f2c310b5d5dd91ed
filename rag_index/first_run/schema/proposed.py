"""What `init` proposes and what a person may decide: plain data between what reads a database and what shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

CHOSEN = "is left out, as you said"
UNREAD = "cannot be read"
"""What the reason of a table begins with that the database does not let us read."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person decided: tables by name or pattern, columns as TABLE.COLUMN."""

    include: tuple[str, ...] = ()
    """Tables that become documents if they have any text, whatever else speaks against it, `exclude` too."""
    exclude: tuple[str, ...] = ()
    """Tables of which nothing is read."""
    show: tuple[str, ...] = ()
    """Columns that hide nothing, or, if they were left out, that are text."""
    hide: tuple[str, ...] = ()
    """Columns whose exceptions are hidden; as TABLE.COLUMN=VALUE the rows with this value. Text is left out."""
    uses: Mapping[str, str] = field(default_factory=dict)
    """Columns with what they are used for: `title`, `text` or `out`."""


@dataclass(frozen=True, slots=True)
class HiddenRows:
    """Rows that are left out, or would be, for what a column says: what a person answers."""

    place: str
    """The column, as TABLE.COLUMN."""
    says: str
    """Why the rows are hidden: `is_confidential is yes`."""
    sql: str
    """What rows must meet to be shown."""
    rows: int
    """The rows of indexes that are hidden by it, with all that belongs to them; -1 if that is not known."""
    of: int
    """The rows that there are of the tables whose rows are hidden."""
    state: Literal["known", "open", "asked", "answered"]
    """Whether its name or values say it, or it is an exception; `asked` takes effect with an answer only."""
    hidden: bool
    """Whether the rows are left out."""
    values: tuple[tuple[str, int, bool], ...] = ()
    """The values as people read them, with their rows, and whether these are hidden."""
    large: bool = False
    """Whether it hides more than half of an index."""

    @property
    def is_asked(self) -> bool:
        """Return whether a person has to answer: it is an exception, waits, or hides more than half of an index."""
        return self.state in ("open", "asked") or (self.large and self.state != "answered")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A column with text that no search reaches."""

    table: str
    column: str
    why: str
    """The reason, to be read after the column's name: `is a secret`."""
    chars: int

    @property
    def place(self) -> str:
        """Return the column as TABLE.COLUMN."""
        return f"{self.table}.{self.column}"


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
    left_out: tuple[LeftOut, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    """The columns with text, each with what it is used for: `title`, `text` or `out`."""
    searched: int = 0
    """The characters that a search reaches, without those of columns left out and of hidden rows."""
    is_hidden: bool = False
    """Whether every row is left out, for what conditions say."""


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
    hidden: tuple[HiddenRows, ...] = ()
    """Who may see rows: first what hides most of an index, then what is asked, what is open, and what is known."""
    notes: tuple[str, ...] = ()
    """What the user of the database may not read, and what row level security means for the indexes."""

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
        """Return what a person has to answer."""
        return [one for one in self.hidden if one.is_asked]

    @property
    def exact(self) -> bool:
        """Return whether all text was counted."""
        return all(table.exact for table in self.tables)
