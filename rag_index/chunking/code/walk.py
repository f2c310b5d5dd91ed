"""All definitions and comments of a file, found in one walk through its syntax tree.

The walk replaces tree-sitter's queries, whose time on a damaged file has no bound: nothing can interrupt a query (its
progress callback crashes the process in py-tree-sitter 0.26.1), whereas the walk looks at the clock as it goes. It
holds one node for each level of the tree, however large the file is.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rag_index.chunking.code.c_macros import hide_macros
from rag_index.chunking.code.definitions import Place
from rag_index.chunking.code.grammars import open_parser
from rag_index.chunking.code.languages import LANGUAGES
from rag_index.errors import FileTimedOut

if TYPE_CHECKING:
    from tree_sitter import Node, Point, Tree

    from rag_index.chunking.code.definitions import Named
    from rag_index.chunking.code.languages import Language

READ_BYTES = 1024
"""Bytes that the parser is given at a time."""
NODES_PER_LOOK = 256
"""Nodes that are visited between two looks at the clock."""
MAX_INDENTATION = 1000
"""Bytes of white space before a comment that begins its line."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time by which a file has to be done."""

    seconds: float
    at: float

    @staticmethod
    def after(seconds: float) -> Deadline:
        """Return the deadline that many seconds from now."""
        return Deadline(seconds, time.monotonic() + seconds)

    def check(self) -> None:
        """Raise FileTimedOut if the time is over."""
        if self.is_over():
            raise FileTimedOut(
                f"it could not be parsed in {self.seconds:g} s; exclude it, or raise the index's file_timeout"
            )

    def is_over(self) -> bool:
        """Return whether the time is over."""
        return time.monotonic() > self.at


class Definition(NamedTuple):
    """A symbol where it is defined."""

    named: Named
    whole: Node
    """The node of the symbol, or the declaration around it."""
    start: int
    """Where it begins, with decorators, `export` and the like."""
    end: int


def find_definitions(data: bytes, name: str, deadline: Deadline) -> tuple[list[Definition], dict[int, int]]:
    """Return all definitions in order, outer ones first, and where comments that begin their line start, by end.

    Raises:
        FileTimedOut: the deadline is over.
        SettingsError: the language's grammar is not installed.
    """
    language = LANGUAGES[name]
    walk = _Walk(data, language, deadline)
    walk.run(parse(data, language, deadline))
    definitions = sorted(walk.found.values(), key=lambda definition: (definition.start, -definition.end))
    return definitions, walk.comments


def parse(data: bytes, language: Language, deadline: Deadline) -> Tree:
    """Return the syntax tree of a file.

    Raises:
        FileTimedOut: the deadline is over.
        SettingsError: the language's grammar is not installed.
    """
    parser = open_parser(language.name)
    source = hide_macros(data, deadline.check) if language.name in {"c", "cpp"} else data

    def read(offset: int, _: Point) -> bytearray:
        part = source[offset : offset + READ_BYTES]
        buffer = _buffer(len(part))
        buffer[:] = part
        return buffer

    try:
        return parser.parse(
            read,
            progress_callback=lambda _, __: deadline.is_over(),
        )
    except ValueError:  # what the parser raises when the callback tells it to stop
        parser.reset()
        deadline.check()
        raise


@functools.cache
def _buffer(size: int) -> bytearray:
    """Return the buffer through which the parser reads, which is the same for each size and is written anew.

    py-tree-sitter 0.26.1 keeps whatever it was given for ever, so that each process grew by all that it parsed.
    """
    return bytearray(size)


class _Walk:
    """One walk through a tree."""

    def __init__(self, data: bytes, language: Language, deadline: Deadline) -> None:
        self._data = data
        self._language = language
        self._deadline = deadline
        self._around: list[Node] = []
        """The nodes around the current one."""
        self._local: list[bool] = [False]
        """For each of them, and for the file, whether what is within is local to a function."""
        self._lonely: dict[int, bool] = {}
        """Whether wrappers hold a single definition, by the id of their node."""
        self.found: dict[tuple[int, int], Definition] = {}
        self.comments: dict[int, int] = {}

    def run(self, tree: Tree) -> None:
        """Visit all nodes."""
        cursor = tree.walk()
        visited = 0
        while True:
            visited += 1
            if not visited % NODES_PER_LOOK:
                self._deadline.check()
            node = cursor.node
            if node is None:
                return
            self._visit(node)
            if cursor.goto_first_child():
                self._around.append(node)
                self._local.append(self._local[-1] or node.type in self._language.local)
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return
                self._around.pop()
                self._local.pop()

    def _visit(self, node: Node) -> None:
        kind = node.type
        if (reader := self._language.definitions.get(kind)) is not None and node.is_named:
            for one in reader(node, Place(self._data, self._around, self._local[-1])):
                self._add(one)
        elif kind in self._language.comments:
            column = node.start_point.column
            if column <= MAX_INDENTATION and not self._data[node.start_byte - column : node.start_byte].strip():
                self.comments[node.end_byte] = node.start_byte

    def _add(self, named: Named) -> None:
        node = named.node
        whole, outer = self._wrapped(node)
        place = (whole.start_byte, whole.end_byte)
        if place in self.found:  # `struct a {…} b = …` holds two definitions
            whole = outer = node
            place = (node.start_byte, node.end_byte)
        self.found.setdefault(place, Definition(named, whole, outer.start_byte, outer.end_byte))

    def _wrapped(self, node: Node) -> tuple[Node, Node]:
        """Return the declaration around a definition, without and with its decorators and `export`."""
        whole = outer = node
        around = self._around if not self._around or node != self._around[-1] else self._around[:-1]
        for wrapper in reversed(around):
            if wrapper.type not in self._language.wrappers or not self._is_lonely(wrapper, outer.type):
                break
            outer = wrapper
            whole = whole if wrapper.type in {"decorated_definition", "export_statement"} else outer
        return whole, outer

    def _is_lonely(self, wrapper: Node, kind: str) -> bool:
        """Return whether a wrapper holds one node of this type; `var a = …, b = …` holds several definitions."""
        if wrapper.id not in self._lonely:
            self._lonely[wrapper.id] = sum(child.type == kind for child in wrapper.named_children) <= 1
        return self._lonely[wrapper.id]
