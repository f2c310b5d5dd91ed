"""What `init` proposes and what a person may decide: plain data between what reads a database and
what shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.first_run.schema.candidates import Candidate, Use

CHOSEN = "is left out, as you said"
UNREAD = "cannot be read"
"""What the reason of a table begins with that the database does not let us read."""


@dataclass(frozen=True, slots=True)
class ColumnUse:
    """A column with text, and what it is used for."""

    id: str
    """`schema.table.column`, as of a candidate."""
    name: str
    use: Use
    chars: int
    """The characters that people can read, whether they may or not; 0 for a column with a
    secret."""
    why: str = ""
    """Why no search reaches it, to be read after its id: `is a secret`."""


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
    columns: tuple[ColumnUse, ...] = ()
    """The columns with text."""
    searched: int = 0
    """The characters that a search reaches, without those of columns left out and of hidden
    rows."""
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
    candidates: tuple[Candidate, ...] = ()
    """The columns that may say who sees a row, of all tables."""
    excused: Mapping[str, str] = field(default_factory=dict)
    """Why other columns are no candidates, by their ids, to be read after their names."""
    notes: tuple[str, ...] = ()
    """What the user of the database may not read, and what row level security means for the
    indexes."""

    @property
    def chars(self) -> int:
        """Return the characters of all readable text of the database."""
        return sum(table.chars for table in self.tables)

    @property
    def searched(self) -> int:
        """Return the characters of them that a search reaches."""
        return sum(table.searched for table in self.tables)

    @property
    def questions(self) -> list[Candidate]:
        """Return what a person has to answer: first what decides about the tables with the most
        text."""
        return [one for one in self.ranked if one.is_open and one.chars]

    @property
    def ranked(self) -> list[Candidate]:
        """Return the candidates by the text of the tables that they decide about, the most
        first."""
        return sorted(self.candidates, key=lambda one: (-one.chars, one.id))

    @property
    def exact(self) -> bool:
        """Return whether all text was counted."""
        return all(table.exact for table in self.tables)
