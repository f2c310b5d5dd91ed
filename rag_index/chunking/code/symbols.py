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
MAX_WORDS = 300
"""Characters of a signature, and of a docstring."""
DEEPEST = 40
"""Symbols nested deeper are part of those around them."""
MATCHES_AT_ONCE = 4096
HOLDERS = {"class", "interface", "implementation", "enum"}
"""Kinds of symbols whose functions are methods."""
_BREAK = re.compile(rb"\n[ \t\f\r]*\n")
_MARKERS = re.compile(r"^[\s/*#!]+|[\s/*#]+$", re.M)
_ATTRIBUTE = re.compile(r"^\s*#!?\[.*$", re.M)
_OPENING = re.compile(r"(=>|[\s:{;=])+$")
_GENERIC = re.compile(r"<.*>$", re.S)
_STRING = re.compile(r"""^[A-Za-z]*("{3}|'{3}|"|')(.*)\1$""", re.S)
_RECEIVER = re.compile(r"([A-Za-z_]\w*)\s*(\[[^)]*\])?\s*,?\s*\)$")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition. `start` and `end` are bytes of the file as UTF-8, with decorators and the comment right before."""

    kind: str
    name: str
    qualified_name: str
    signature: str
    parent: str
    """The qualified name of what it belongs to."""
    docstring: str
    """The first paragraph of it, or of the comment right before, on one line."""
    start: int
    end: int
    line: int
    """Where the definition itself begins, from 1."""
    last_line: int
    depth: int
    """How many symbols are around it."""


class _Found(NamedTuple):
    """A definition as the query finds it."""

    kind: str
    name: Node
    node: Node
    """What the query calls the definition."""
    whole: Node
    """That with the declaration around it."""
    start: int
    """With decorators, `export` and such."""
    end: int


def symbols_of(data: bytes, language: str, *, seconds: float) -> list[Symbol]:
    """The symbols of a file (UTF-8) in the order in which they begin, an outer one before those within.

    Raises:
        FileTimedOut: it took longer than `seconds`.
        SettingsError: the language's grammar is not installed.
    """
    return _Reader(data, grammar(language), seconds).symbols()


class _Reader:
    """One file."""

    def __init__(self, data: bytes, rules: Grammar, seconds: float) -> None:
        self._data = data
        self._grammar = rules
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._comments: list[int] = []
        """Where comments begin."""
        self._lines = [match.end() for match in re.finditer(b"\n", data)]

    def symbols(self) -> list[Symbol]:
        """As `symbols_of`."""
        found, comments = self._definitions()
        self._comments = sorted(comments.values())
        made: list[Symbol] = []
        around: list[Symbol] = []
        before = 0
        """Where the symbol before ends, or the one around begins: what is attached is after it."""
        for one in found:
            self._in_time()
            while around and around[-1].end <= one.start:
                before = max(before, around.pop().end)
            if len(around) == DEEPEST or (around and one.end > around[-1].end):
                continue
            start = self._with_comments(one.start, comments, before)
            symbol = self._symbol(one, start, around, comments)
            made.append(symbol)
            around.append(symbol)
            before = max(before, one.start)
        return made

    def _definitions(self) -> tuple[list[_Found], dict[int, int]]:
        """All definitions in order, outer ones first; and comments that begin their line: where each ends, begins."""
        from tree_sitter import QueryCursor

        kinds = self._grammar.kinds
        found: dict[tuple[int, int], _Found] = {}
        comments: dict[int, int] = {}
        tree = self._parsed()
        cursor = QueryCursor(self._grammar.query, match_limit=MATCHES_AT_ONCE)
        for _, captures in cursor.matches(tree):  # its progress callback crashes the process (py-tree-sitter 0.26.1)
            for comment in captures.get("attached", ()):
                if not self._data[self._line_start(comment.start_byte) : comment.start_byte].strip():
                    comments[comment.end_byte] = comment.start_byte
            for capture in captures.keys() & kinds.keys():
                self._in_time()
                one = self._found(kinds[capture], captures["name"][0], captures[capture][0])
                place = (one.whole.start_byte, one.whole.end_byte) if one else (0, 0)
                if one and (place not in found or one.kind == "method"):
                    found[place] = one
        return sorted(found.values(), key=lambda one: (one.start, -one.end)), comments

    def _parsed(self) -> Node:
        try:
            parsed = self._grammar.parser.parse(
                lambda offset, _: self._data[offset : offset + READ_BYTES],
                progress_callback=lambda _, __: time.monotonic() > self._end,
            )
        except ValueError as exc:  # its word for a callback that says to stop
            self._grammar.parser.reset()
            raise self._timed_out() from exc
        return parsed.root_node

    def _found(self, kind: str, name: Node, node: Node) -> _Found | None:
        """The definition with the declaration around it; nothing for what is declared inside a list of parameters."""
        wrappers = self._grammar.language.wrappers
        whole = outer = node
        while (parent := outer.parent) is not None and parent.type in wrappers:
            if sum(child.type == outer.type for child in parent.named_children) > 1:
                break  # `var a = …, b = …` are several definitions
            outer = parent
            whole = whole if parent.type in ("decorated_definition", "export_statement") else outer
        if parent is not None and parent.type in ("parameter_declaration", "parameter_list"):
            return None
        return _Found(kind, name, node, whole, outer.start_byte, outer.end_byte)

    def _symbol(self, one: _Found, start: int, around: list[Symbol], comments: dict[int, int]) -> Symbol:
        outer = around[-1] if around else None
        separator = self._grammar.language.separator
        name = self._words(one.name.start_byte, one.name.end_byte)
        scope, _, last = name.rpartition("::") if self._grammar.language.name == "cpp" else ("", "", name)
        owner = self._owner(one, scope)
        parent = separator.join(filter(None, [outer.qualified_name if outer else "", owner]))
        kind = self._kind(one, held=bool(owner or (outer and outer.kind in HOLDERS)))
        if kind == "implementation":
            last = _GENERIC.sub("", last)
        body = _body(one)
        return Symbol(
            kind, last, separator.join(filter(None, [parent, last])), self._signature(one, body), parent,
            self._docstring(body, start, one.start), start, one.end,
            self._line(one.whole.start_byte), self._line(self._last(one, comments)),
            len(around),
        )  # fmt: skip

    def _kind(self, one: _Found, *, held: bool) -> str:
        """What a query calls a function is a method where a type holds it; Rust's tags have methods in modules, too."""
        if one.kind == "function" and held:
            return "method"
        return "function" if one.kind == "method" and self._grammar.language.name == "rust" and not held else one.kind

    def _owner(self, one: _Found, scope: str) -> str:
        """What a definition that lies outside its type says to belong to."""
        if one.node.type == "method_declaration" and (receiver := one.node.child_by_field_name("receiver")):
            match = _RECEIVER.search(self._words(receiver.start_byte, receiver.end_byte))
            return match[1] if match else ""
        around = one.name.parent
        if around is not None and around.type == "qualified_identifier":
            before = self._words(around.start_byte, one.name.start_byte)
            return "::".join(filter(None, [before.strip().removesuffix("::"), scope]))
        return scope

    def _signature(self, one: _Found, body: Node | None) -> str:
        start = one.whole.start_byte
        end = body.start_byte if body is not None and body.start_byte > start else one.whole.end_byte
        comment = bisect_right(self._comments, start)
        end = min([end, *self._comments[comment : comment + 1]])
        words = self._words(start, end) if body is not None else self._words(start, self._line_end(start, end))
        return _short(_OPENING.sub("", words))

    def _docstring(self, body: Node | None, start: int, definition: int) -> str:
        if self._grammar.language.name == "python" and body is not None and body.named_children:
            first = body.named_children[0]
            inner = first.named_children[0] if first.type == "expression_statement" and first.named_children else first
            if inner.type == "string" and (match := _STRING.match(self._words(inner.start_byte, inner.end_byte))):
                return _short(_paragraph(match[2]))
        comment = _ATTRIBUTE.sub("", self._words(start, definition))
        return _short(_paragraph(_MARKERS.sub("", comment)))

    def _with_comments(self, start: int, comments: dict[int, int], before: int) -> int:
        """Where a symbol begins with the comments that stand right before it, but not before `before`."""
        while True:
            gap = self._data[max(before, start - 400) : start]
            end = start - len(gap) + len(gap.rstrip())
            if end in comments and not _BREAK.search(self._data, end, start) and comments[end] >= before:
                start = comments[end]
            elif end + 1 in comments and comments[end + 1] >= before and end + 1 <= start:
                start = comments[end + 1]  # a comment that has its line's end within
            else:
                return start

    def _last(self, one: _Found, comments: dict[int, int]) -> int:
        """The last byte of a definition, without comments that its block ends with."""
        start, end = one.whole.start_byte, one.whole.end_byte
        while (comment := comments.get(end, 0)) > start:
            end = start + len(self._data[start:comment].rstrip())
        return max(start, end - 1)

    def _words(self, start: int, end: int) -> str:
        return self._data[start:end].decode("utf-8", "replace")

    def _line(self, offset: int) -> int:
        return bisect_right(self._lines, offset) + 1

    def _line_start(self, offset: int) -> int:
        line = bisect_right(self._lines, offset)
        return self._lines[line - 1] if line else 0

    def _line_end(self, start: int, end: int) -> int:
        line = self._data.find(b"\n", start, end)
        return end if line < 0 else line

    def _in_time(self) -> None:
        if time.monotonic() > self._end:
            raise self._timed_out()

    def _timed_out(self) -> FileTimedOut:
        return FileTimedOut(
            f"it could not be parsed in {self._seconds:g} s; exclude it, or raise the index's file_timeout"
        )


def _body(one: _Found) -> Node | None:
    """Where the definition's inside begins."""
    for node in (one.node, one.whole):
        named = [node.child_by_field_name(field) for field in ("value", "right", "type")]
        for inner in (node, *named, *(node.named_children if node.type == "template_declaration" else ())):
            body: Node | None = inner.child_by_field_name("body") if inner is not None else None
            if body is not None:
                return body
    return None


def _paragraph(text: str) -> str:
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MAX_WORDS else words[: MAX_WORDS - 1] + "…"
