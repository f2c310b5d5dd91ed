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

_TOKENS = r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<space>\s+)|(?P<end>;)
    |%s|"(?:[^"]|"")*"|`[^`]*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|."""
_LEXERS = [
    re.compile(_TOKENS % text, re.DOTALL | re.VERBOSE)
    for text in (r"'(?:[^']|'')*'", r"'(?:[^'\\]|''|\\.)*'")  # standard SQL; MySQL and E'…', where \' is a quote
]


def single_select(query: str, index: str, what: str = "query") -> sa.TextClause:
    """Return the query without semicolons and comments at its end, ready to be put in parentheses.

    A colon in it stays a colon and never begins a parameter. `what` names it in a message.

    Raises:
        SettingsError: the query is empty, or has several statements.
    """
    lengths = [_statement_length(query, lexer) for lexer in _LEXERS]
    length = next((length for length in lengths if length is not None), None)
    if length is None:
        raise SettingsError(f"index {index}: the {what} has several statements; write a single one")
    if not length:
        raise SettingsError(f"index {index}: the {what} is empty; write one in SQL")
    return sa.text(query[:length].strip().replace(":", "\\:"))


def untyped(value: Any) -> sa.ColumnElement[Any]:
    """Return a bound value without a type, so that the database uses the type of the column it is compared with."""
    return sa.literal(value, NullType())


class Untyped(UserDefinedType[Any]):
    """A type that adds nothing. Unlike NullType, it keeps `IN` from taking the type of the column."""

    cache_ok = True


def any_untyped(values: Sequence[Any]) -> sa.BindParameter[Any]:
    """Return bound values without a type, for `IN`. However many there are, SQLAlchemy compiles the statement once."""
    return sa.bindparam(None, list(values), type_=Untyped(), expanding=True)


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


def _statement_length(query: str, lexer: re.Pattern[str]) -> int | None:
    """Return where the only statement ends; None if there are several."""
    ended = False
    last = 0
    for token in lexer.finditer(query):
        if token["end"]:
            ended = True
        elif not token["comment"] and not token["space"]:
            if ended:
                return None
            last = token.end()
    return last
