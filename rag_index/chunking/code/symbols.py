"""The symbols of a file: what it defines, under which names, and where."""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rag_index.chunking.code.languages import grammar
from rag_index.errors import FileTimedOut

if TYPE_CHECKING:
    from tree_sitter import Node

    from rag_index.chunking.code.languages import Grammar

__all__ = ["Symbol", "symbols_of"]

READ_BYTES = 4096
MAX_CHARS = 300
"""Characters of a signature, and of a docstring."""
MAX_DEPTH = 40
"""Symbols that are nested deeper belong to the symbols around them."""
MAX_MATCHES = 4096
"""Matches of the query that the parser keeps in progress at once."""
TYPE_KINDS = {"class", "interface", "implementation", "enum"}
"""Kinds of symbols whose functions are methods."""
LOOK_BACK_BYTES = 400
"""How far before a symbol its comment may end."""
_BLANK_LINE = re.compile(rb"\n[ \t\f\r]*\n")
_MARKERS = re.compile(r"^[\s/*#!]+|[\s/*#]+$", re.M)
_ATTRIBUTE = re.compile(r"^\s*#!?\[.*$", re.M)
_OPENING = re.compile(r"(=>|[\s:{;=])+$")
_GENERIC = re.compile(r"<.*>$", re.S)
_STRING = re.compile(r"""^[A-Za-z]*("{3}|'{3}|"|')(.*)\1$""", re.S)
_RECEIVER = re.compile(r"([A-Za-z_]\w*)\s*(\[[^)]*\])?\s*,?\s*\)$")


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


class _Definition(NamedTuple):
    """A definition as the query finds it."""

    kind: str
    name: Node
    node: Node
    """The node that the query calls the definition."""
    whole: Node
    """That node, or the declaration around it."""
    start: int
    """Where it begins, with decorators, `export` and the like."""
    end: int


def symbols_of(data: bytes, language: str, *, seconds: float) -> list[Symbol]:
    """Return the symbols of a file (UTF-8) in the order in which they begin, an outer one before those within it.

    Raises:
        FileTimedOut: parsing took longer than `seconds`.
        SettingsError: the language's grammar is not installed.
    """
    return _SymbolReader(data, grammar(language), seconds).read()


class _SymbolReader:
    """Finds the symbols of one file."""

    def __init__(self, data: bytes, rules: Grammar, seconds: float) -> None:
        self._data = data
        self._grammar = rules
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._comment_starts: list[int] = []
        self._line_starts = [match.end() for match in re.finditer(b"\n", data)]
        """Where the lines begin, from the second on."""

    def read(self) -> list[Symbol]:
        """As `symbols_of`."""
        definitions, comments = self._find_definitions()
        self._comment_starts = sorted(comments.values())
        symbols: list[Symbol] = []
        enclosing: list[Symbol] = []
        earliest = 0
        """Where the previous symbol ends, or the enclosing one begins: comments of the next one come after it."""
        for definition in definitions:
            self._check_time()
            while enclosing and enclosing[-1].end <= definition.start:
                earliest = max(earliest, enclosing.pop().end)
            if len(enclosing) == MAX_DEPTH or (enclosing and definition.end > enclosing[-1].end):
                continue
            start = self._start_with_comments(definition.start, comments, earliest)
            symbol = self._symbol(definition, start, enclosing, comments)
            symbols.append(symbol)
            enclosing.append(symbol)
            earliest = max(earliest, definition.start)
        return symbols

    def _find_definitions(self) -> tuple[list[_Definition], dict[int, int]]:
        """Return all definitions in order, outer ones first, and where comments that begin their line start, by end."""
        from tree_sitter import QueryCursor

        kinds = self._grammar.kinds
        found: dict[tuple[int, int], _Definition] = {}
        comments: dict[int, int] = {}
        tree = self._parse()
        cursor = QueryCursor(self._grammar.query, match_limit=MAX_MATCHES)
        for _, captures in cursor.matches(tree):  # its progress callback crashes the process (py-tree-sitter 0.26.1)
            for comment in captures.get("attached", ()):
                if not self._data[self._line_start(comment.start_byte) : comment.start_byte].strip():
                    comments[comment.end_byte] = comment.start_byte
            for capture in captures.keys() & kinds.keys():
                self._check_time()
                definition = self._definition(kinds[capture], captures["name"][0], captures[capture][0])
                place = (definition.whole.start_byte, definition.whole.end_byte) if definition else (0, 0)
                if definition and (place not in found or definition.kind == "method"):
                    found[place] = definition
        return sorted(found.values(), key=lambda definition: (definition.start, -definition.end)), comments

    def _parse(self) -> Node:
        try:
            tree = self._grammar.parser.parse(
                lambda offset, _: self._data[offset : offset + READ_BYTES],
                progress_callback=lambda _, __: time.monotonic() > self._deadline,
            )
        except ValueError as exc:  # what the parser raises when the callback tells it to stop
            self._grammar.parser.reset()
            raise self._timed_out() from exc
        return tree.root_node

    def _definition(self, kind: str, name: Node, node: Node) -> _Definition | None:
        """Return the definition with the declaration around it; None for a declaration in a list of parameters."""
        wrappers = self._grammar.language.wrappers
        whole = outer = node
        while (parent := outer.parent) is not None and parent.type in wrappers:
            if sum(child.type == outer.type for child in parent.named_children) > 1:
                break  # `var a = …, b = …` holds several definitions
            outer = parent
            whole = whole if parent.type in ("decorated_definition", "export_statement") else outer
        if parent is not None and parent.type in ("parameter_declaration", "parameter_list"):
            return None
        return _Definition(kind, name, node, whole, outer.start_byte, outer.end_byte)

    def _symbol(self, definition: _Definition, start: int, enclosing: list[Symbol], comments: dict[int, int]) -> Symbol:
        outer = enclosing[-1] if enclosing else None
        separator = self._grammar.language.separator
        name = self._text(definition.name.start_byte, definition.name.end_byte)
        scope, _, last = name.rpartition("::") if self._grammar.language.name == "cpp" else ("", "", name)
        owner = self._owner(definition, scope)
        parent = separator.join(filter(None, [outer.qualified_name if outer else "", owner]))
        kind = self._kind(definition, in_type=bool(owner or (outer and outer.kind in TYPE_KINDS)))
        if kind == "implementation":
            last = _GENERIC.sub("", last)
        body = _find_body(definition)
        return Symbol(
            kind=kind,
            name=last,
            qualified_name=separator.join(filter(None, [parent, last])),
            signature=self._signature(definition, body),
            parent=parent,
            docstring=self._docstring(body, start, definition.start),
            start=start,
            end=definition.end,
            line=self._line_number(definition.whole.start_byte),
            last_line=self._line_number(self._last_byte(definition, comments)),
            depth=len(enclosing),
        )

    def _kind(self, definition: _Definition, *, in_type: bool) -> str:
        """Return the kind: a function within a type is a method. Rust's tags call functions of modules methods, too."""
        kind = definition.kind
        if kind == "function" and in_type:
            return "method"
        return "function" if kind == "method" and self._grammar.language.name == "rust" and not in_type else kind

    def _owner(self, definition: _Definition, scope: str) -> str:
        """Return the type that a definition outside the type names as its owner; "" if it names none."""
        node = definition.node
        if node.type == "method_declaration" and (receiver := node.child_by_field_name("receiver")):
            match = _RECEIVER.search(self._text(receiver.start_byte, receiver.end_byte))
            return match[1] if match else ""
        qualified = definition.name.parent
        if qualified is not None and qualified.type == "qualified_identifier":
            before = self._text(qualified.start_byte, definition.name.start_byte)
            return "::".join(filter(None, [before.strip().removesuffix("::"), scope]))
        return scope

    def _signature(self, definition: _Definition, body: Node | None) -> str:
        start = definition.whole.start_byte
        end = body.start_byte if body is not None and body.start_byte > start else definition.whole.end_byte
        comment = bisect_right(self._comment_starts, start)
        end = min([end, *self._comment_starts[comment : comment + 1]])
        text = self._text(start, end) if body is not None else self._text(start, self._line_end(start, end))
        return _shorten(_OPENING.sub("", text))

    def _docstring(self, body: Node | None, start: int, definition_start: int) -> str:
        if self._grammar.language.name == "python" and body is not None and body.named_children:
            first = body.named_children[0]
            inner = first.named_children[0] if first.type == "expression_statement" and first.named_children else first
            if inner.type == "string" and (match := _STRING.match(self._text(inner.start_byte, inner.end_byte))):
                return _shorten(_first_paragraph(match[2]))
        comment = _ATTRIBUTE.sub("", self._text(start, definition_start))
        return _shorten(_first_paragraph(_MARKERS.sub("", comment)))

    def _start_with_comments(self, start: int, comments: dict[int, int], earliest: int) -> int:
        """Return where a symbol begins with the comments right before it, but not before `earliest`."""
        while True:
            gap = self._data[max(earliest, start - LOOK_BACK_BYTES) : start]
            end = start - len(gap) + len(gap.rstrip())
            if end in comments and not _BLANK_LINE.search(self._data, end, start) and comments[end] >= earliest:
                start = comments[end]
            elif end + 1 in comments and comments[end + 1] >= earliest and end + 1 <= start:
                start = comments[end + 1]  # a comment whose node includes the end of its line
            else:
                return start

    def _last_byte(self, definition: _Definition, comments: dict[int, int]) -> int:
        """Return the last byte of a definition, without the comments at the end of its block."""
        start, end = definition.whole.start_byte, definition.whole.end_byte
        while (comment := comments.get(end, 0)) > start:
            end = start + len(self._data[start:comment].rstrip())
        return max(start, end - 1)

    def _text(self, start: int, end: int) -> str:
        return self._data[start:end].decode("utf-8", "replace")

    def _line_number(self, offset: int) -> int:
        return bisect_right(self._line_starts, offset) + 1

    def _line_start(self, offset: int) -> int:
        line = bisect_right(self._line_starts, offset)
        return self._line_starts[line - 1] if line else 0

    def _line_end(self, start: int, end: int) -> int:
        line_end = self._data.find(b"\n", start, end)
        return end if line_end < 0 else line_end

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise self._timed_out()

    def _timed_out(self) -> FileTimedOut:
        return FileTimedOut(
            f"it could not be parsed in {self._seconds:g} s; exclude it, or raise the index's file_timeout"
        )


def _find_body(definition: _Definition) -> Node | None:
    """Return the node of the definition's body, if it has one."""
    for node in (definition.node, definition.whole):
        fields = [node.child_by_field_name(field) for field in ("value", "right", "type")]
        for inner in (node, *fields, *(node.named_children if node.type == "template_declaration" else ())):
            body: Node | None = inner.child_by_field_name("body") if inner is not None else None
            if body is not None:
                return body
    return None


def _first_paragraph(text: str) -> str:
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"
