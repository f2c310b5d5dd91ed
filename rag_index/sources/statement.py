"""A query from the settings as a part of a bigger statement: one SELECT, without what would end it."""

from __future__ import annotations

import re

import sqlalchemy as sa

from rag_index.errors import SettingsError

__all__ = ["one_select"]

_PARTS = r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<space>\s+)|(?P<end>;)
    |%s|"(?:[^"]|"")*"|`[^`]*`|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$|."""
_LEXERS = [
    re.compile(_PARTS % text, re.DOTALL | re.VERBOSE)
    for text in (r"'(?:[^']|'')*'", r"'(?:[^'\\]|''|\\.)*'")  # standard SQL; MySQL and E'…', where \' is a quote
]


def one_select(query: str, index: str) -> sa.TextClause:
    """The query, without semicolons and comments at its end, to be put between parentheses.

    A colon in it is a colon, never a parameter.

    Raises:
        SettingsError: it is empty, or several statements.
    """
    lengths = [_length(query, lexer) for lexer in _LEXERS]
    length = next((length for length in lengths if length is not None), None)
    if length is None:
        raise SettingsError(f"index {index}: the query is several statements; give one SELECT")
    if not length:
        raise SettingsError(f"index {index}: the query is empty")
    return sa.text(query[:length].strip().replace(":", "\\:"))


def _length(query: str, lexer: re.Pattern[str]) -> int | None:
    """Where the only statement ends; None where there are several."""
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
