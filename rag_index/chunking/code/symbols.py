"""The symbols of a file: what it defines, under which names, and where."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rag_index.chunking.code.definitions import first_child
from rag_index.chunking.code.languages import LANGUAGES
from rag_index.chunking.code.walk import Deadline, find_definitions

if TYPE_CHECKING:
    from tree_sitter import Node

    from rag_index.chunking.code.languages import Language
    from rag_index.chunking.code.walk import Definition

MAX_CHARS = 300
"""Characters of a signature, and of a docstring."""
MAX_READ_BYTES = 2000
"""Bytes that are read for one of them: patterns take the square of the time for some long texts."""
MAX_DEPTH = 40
"""Symbols that are nested deeper belong to the symbols around them."""
TYPE_KINDS = {"class", "interface", "implementation", "enum", "type"}
"""Kinds of symbols whose functions are methods."""
LOOK_BACK_BYTES = 400
"""How far before a symbol its comment may end."""
_BLANK_LINE = re.compile(rb"\n[ \t\f\r]*\n")
_MARKERS = re.compile(r"^[\s/*#!]+|[\s/*#]+$", re.M)
_ATTRIBUTE = re.compile(r"^\s*#!?\[.*$", re.M)
_OPENING = re.compile(r"(=>|[\s:{;=])+$")
_QUOTE = re.compile(r"""[A-Za-z]*("{3}|'{3}|"|')""")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition with its decorators and the comment right before it.

    `start` and `end` are byte offsets into the file as UTF-8.
    """

    kind: str
    name: str
    qualified_name: str
    signature: str
    parent: str
    """The qualified name of the symbol that it belongs to."""
    docstring: str
    """The first paragraph of the docstring, or of the comment right before the symbol, on one line."""
    start: int
    end: int
    line: int
    """The line on which the definition itself begins, from 1."""
    last_line: int
    depth: int
    """The number of symbols around it."""


class _Scope(NamedTuple):
    """What a symbol is to those within it."""

    end: int
    prefix: str
    """What qualified names begin with."""
    is_type: bool


def symbols_of(data: bytes, language: str, *, seconds: float) -> list[Symbol]:
    """Return the symbols of a file (UTF-8) in the order in which they begin, an outer one before those within it.

    Raises:
        FileTimedOut: parsing took longer than `seconds`.
        SettingsError: the language's grammar is not installed.
    """
    deadline = Deadline.after(seconds)
    definitions, comments = find_definitions(data, language, deadline)
    return _SymbolReader(data, LANGUAGES[language], comments).read(definitions, deadline)


class _SymbolReader:
    """Makes the symbols of one file."""

    def __init__(self, data: bytes, language: Language, comments: dict[int, int]) -> None:
        self._data = data
        self._language = language
        self._comments = comments
        """Where comments that begin their line start, by their end."""
        self._comment_starts = sorted(comments.values())
        self._line_starts = [match.end() for match in re.finditer(b"\n", data)]
        """Where the lines begin, from the second on."""

    def read(self, definitions: list[Definition], deadline: Deadline) -> list[Symbol]:
        """As `symbols_of`."""
        symbols: list[Symbol] = []
        scopes: list[_Scope] = []
        earliest = 0
        """Where the previous symbol ends, or the enclosing one begins: comments of the next one come after it."""
        for definition in definitions:
            deadline.check()
            while scopes and scopes[-1].end <= definition.start:
                earliest = max(earliest, scopes.pop().end)
            if len(scopes) == MAX_DEPTH or (scopes and definition.end > scopes[-1].end):
                continue
            outer = scopes[-1] if scopes else _Scope(len(self._data), "", is_type=False)
            start = self._start_with_comments(definition.start, earliest)
            symbol = self._symbol(definition, start, outer, len(scopes))
            symbols.append(symbol)
            inner = _Scope(symbol.end, symbol.qualified_name, symbol.kind in TYPE_KINDS)
            scopes.append(inner if definition.named.encloses else outer._replace(end=symbol.end))
            earliest = max(earliest, definition.start)
        return symbols

    def _symbol(self, definition: Definition, start: int, outer: _Scope, depth: int) -> Symbol:
        named, separator = definition.named, self._language.separator
        parent = "" if named.is_global else separator.join(filter(None, [outer.prefix, named.owner]))
        in_type = outer.is_type or bool(named.owner)
        body = _find_body(definition)
        return Symbol(
            kind="method" if named.kind == "function" and in_type else named.kind,
            name=named.name,
            qualified_name=separator.join(filter(None, [parent, named.name])),
            signature=self._signature(definition, body),
            parent=parent,
            docstring=self._docstring(body, start, definition.start),
            start=start,
            end=definition.end,
            line=self._line_number(definition.whole.start_byte),
            last_line=self._line_number(self._last_byte(definition)),
            depth=depth,
        )

    def _signature(self, definition: Definition, body: Node | None) -> str:
        start = definition.whole.start_byte
        end = body.start_byte if body is not None and body.start_byte > start else definition.whole.end_byte
        comment = bisect_right(self._comment_starts, start)
        end = min([end, *self._comment_starts[comment : comment + 1]])
        if body is None and definition.named.kind not in {"function", "method"}:
            end = self._line_end(start, end)
        return _shorten(_OPENING.sub("", self._text(start, end)))

    def _docstring(self, body: Node | None, start: int, definition_start: int) -> str:
        first = first_child(body) if self._language.name == "python" and body is not None else None
        if first is not None:
            inner = first_child(first) if first.type == "expression_statement" else first
            if inner is not None and inner.type == "string":
                return _shorten(_first_paragraph(_unquoted(self._text(inner.start_byte, inner.end_byte))))
        comment = _ATTRIBUTE.sub("", self._text(start, definition_start))
        return _shorten(_first_paragraph(_MARKERS.sub("", comment)))

    def _start_with_comments(self, start: int, earliest: int) -> int:
        """Return where a symbol begins with the comments right before it, but not before `earliest`."""
        comments = self._comments
        while True:
            gap = self._data[max(earliest, start - LOOK_BACK_BYTES) : start]
            end = start - len(gap) + len(gap.rstrip())
            if end in comments and not _BLANK_LINE.search(self._data, end, start) and comments[end] >= earliest:
                start = comments[end]
            elif end + 1 in comments and comments[end + 1] >= earliest and end + 1 <= start:
                start = comments[end + 1]  # a comment whose node includes the end of its line
            else:
                return start

    def _last_byte(self, definition: Definition) -> int:
        """Return the last byte of a definition, without the comments at the end of its block."""
        start, end = definition.whole.start_byte, definition.whole.end_byte
        while (comment := self._comments.get(end, 0)) > start:
            end = start + len(self._data[start:comment].rstrip())
        return max(start, end - 1)

    def _text(self, start: int, end: int) -> str:
        return self._data[start : min(end, start + MAX_READ_BYTES)].decode("utf-8", "replace")

    def _line_number(self, offset: int) -> int:
        return bisect_right(self._line_starts, offset) + 1

    def _line_end(self, start: int, end: int) -> int:
        line_end = self._data.find(b"\n", start, end)
        return end if line_end < 0 else line_end


def _find_body(definition: Definition) -> Node | None:
    """Return the node of the definition's body, if it has one."""
    for node in (definition.named.node, definition.whole):
        fields = [node.child_by_field_name(field) for field in ("value", "right", "type")]
        for inner in (node, *fields, *(node.named_children if node.type == "template_declaration" else ())):
            body: Node | None = inner.child_by_field_name("body") if inner is not None else None
            if body is not None:
                return body
    return None


def _unquoted(text: str) -> str:
    """Return a string's content; the end of the string may be missing."""
    quote = _QUOTE.match(text)
    return text[quote.end() :].removesuffix(quote[1]) if quote else text


def _first_paragraph(text: str) -> str:
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"
