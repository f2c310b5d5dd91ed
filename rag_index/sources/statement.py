"""Parts of SQL statements: a query from the settings as a subquery, and values without a type."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType, UserDefinedType

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

VALUES = 500
"""Values that one statement compares with: databases limit the parameters of a statement."""
_END = re.compile(r"(?:[\s;]|--[^\n'\"`]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)*\Z")
"""Semicolons and comments at the end of a query. A comment with a quote may be the end of a text, and stays."""


def single_select(query: str, index: str, what: str = "query") -> sa.TextClause:
    """Return the query without semicolons and comments at its end, ready to be put in parentheses.

    There the database refuses several statements. A colon in it stays a colon and never begins a parameter. `what`
    names it in a message. Raises SettingsError if the query is empty.
    """
    end = _END.search(query)
    text = query[: end.start() if end else None].strip()
    if not text:
        raise SettingsError(f"index {index}: the {what} is empty; write one in SQL")
    newline = "\n" if re.search(r"--|#", text.rpartition("\n")[2]) else ""  # ends what may be a comment
    return sa.text(text.replace(":", "\\:") + newline)


def untyped(value: Any) -> sa.ColumnElement[Any]:
    """Return a bound value without a type, so that the database uses the type of the column it is compared with."""
    return sa.literal(value, NullType())


class Untyped(UserDefinedType[Any]):
    """A type that adds nothing. Unlike NullType, it keeps `IN` from taking the type of the column."""

    cache_ok = True


def equals_any(columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Sequence[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition for rows that have one of these values (a value for each column) in the columns.

    However many there are, SQLAlchemy compiles the statement once.
    """
    if len(columns) == 1:
        plain = [value for [value] in values]
        return columns[0].in_(sa.bindparam(None, plain, type_=Untyped(), expanding=True))
    return sa.tuple_(*columns, types=[Untyped()] * len(columns)).in_(list(map(tuple, values)))


def equals_any_row(columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Sequence[Any]]) -> sa.ColumnElement[bool]:
    """Return the condition of `equals_any` for thousands of values of several columns in PostgreSQL.

    It would compare each row with each value of a list, and has no stack for many. Rows of values are joined instead.
    The first row has no values: it gives the others the types of the columns.
    """
    types = [sa.select(column).correlate(None).where(sa.false()).scalar_subquery() for column in columns]
    names = [sa.column(f"value_{number}", Untyped()) for number in range(len(columns))]
    rows = sa.values(*names, name="wanted").data([tuple(types), *map(tuple, values)])
    return sa.tuple_(*columns).in_(sa.select(rows))


class number_after(FunctionElement[int]):  # noqa: N801 (used as a function)
    """The whole number that follows a text at the beginning of a value: 102 for `tt:` and `tt:102`; else no key.

    Rows with that key are found by their index, as they would not be if the text were put before each key.
    """

    type = sa.BigInteger()
    inherit_cache = True

    def __init__(self, prefix: str, column: sa.ColumnElement[Any]) -> None:
        """`prefix` is one of `settings.parts.PREFIX`, so it can stand in SQL as it is."""
        super().__init__(sa.literal_column(f"'{prefix}'"), column)
        self.length = len(prefix)


@compiles(number_after)
def _compile_number_after(element: number_after, compiler: Any, **options: Any) -> str:
    prefix, column = element.clauses
    if compiler.dialect.name == "sqlite":  # to which no text is equal to bytes
        column = sa.cast(column, sa.Text)
    number: Any = sa.func.substr(column, sa.literal_column(str(element.length + 1)))
    if compiler.dialect.name == "postgresql":  # where a text that is no number is an error
        number = sa.func.substring(number, sa.literal_column("'^[0-9]{1,18}'"))
    starts = sa.func.substr(column, sa.literal_column("1"), sa.literal_column(str(element.length))) == prefix
    return str(compiler.process(sa.case((starts, sa.cast(number, sa.BigInteger))), **options))
