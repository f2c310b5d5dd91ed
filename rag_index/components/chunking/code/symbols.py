"""The symbols of a file: what it defines, under which names, and where.

A definition is a node that the query of its grammar names; a symbol is a definition with its
decorators and the comment right before it.
"""

from __future__ import annotations

import functools
import itertools
import re
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from rag_index.components.chunking.code.languages import CODE_LANGUAGES, Language, open_grammar
from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import TerminalError

if TYPE_CHECKING:
    from tree_sitter import Node, Point, Tree

READ_BYTES = 1024
"""Bytes that the parser reads at a time. Chosen; nothing depends on it."""
NODES_PER_LOOK = 256
"""Nodes that are visited between two looks at the clock. Chosen; nothing depends on it."""
MAX_INDENTATION = 1000
"""Bytes of white space before a comment that begins its line. They are read for each comment, so a
line with many comments needs a limit."""
MAX_SIGNATURE_CHARS = 300
"""Characters of a signature (docs/sources.md), and of a docstring. Chosen; a change raises
`INDEX_VERSION`."""
MAX_READ_BYTES = 2000
"""Bytes that are read for a signature, docstring or name: patterns take the square of the time for
some long texts."""
MAX_SYMBOLS_WITHIN = 40
"""Depth of nested symbols. Deeper ones belong to the symbols around them. Chosen; a change raises
`INDEX_VERSION`."""
TYPE_KINDS = {"class", "interface", "implementation", "enum", "type"}
"""Kinds of symbols whose functions are methods."""
_C_TYPES = {
    "struct_specifier",
    "union_specifier",
    "class_specifier",
    "enum_specifier",
    "declaration",
}
"""Nodes that define a type if they have a body, and only mention a type if not."""
_NAMELESS = {"type_definition", "preproc_def", "preproc_function_def", "assignment"}
"""Definitions whose name is not part of the qualified names of the symbols within them."""
_DECORATIONS = {"decorated_definition", "export_statement"}
"""Wrappers that add decorators or `export`: the symbol begins with them, its signature does not."""
_KEYWORDS = {"defined", "for", "if", "return", "sizeof", "switch", "while"}
"""Words that damaged code may have in the place of a function's name."""
LOOK_BACK_BYTES = 400
"""Bytes between a comment and its symbol, at most. Chosen: it bounds what is read for a symbol."""
_BLANK_LINE = re.compile(rb"\n[ \t\f\r]*\n")
_MARKERS = re.compile(r"^[\s/*#!]+|[\s/*#]+$", re.M)
"""The signs of a comment at both ends of a line."""
_ATTRIBUTE = re.compile(r"^\s*#!?\[.*$", re.M)
"""An attribute in Rust: `#[derive(Debug)]`."""
_OPENING = re.compile(r"(=>|[\s:{;=])+$")
"""What separates a signature from its body."""
_QUOTE = re.compile(r"""[A-Za-z]*("{3}|'{3}|"|')""")
_buffer = functools.cache(bytearray)
"""Returns the buffer of a size through which the parser reads. Each file overwrites it:
py-tree-sitter 0.26.1 never frees what it reads, so each process grew by every file it parsed."""


def without_arguments(name: str, opens: str, closes: str) -> str:
    """Return a name without the arguments of a template (`<>`), or of a generic type in Go
    (`[]`)."""
    first = name.find(opens)
    before = name[: max(0, first)]
    # `operator<` and `operator<<T>`: the first sign is part of the name.
    if before.endswith("operator"):
        first = name.find(opens, first + 1)
    last = name.rfind(closes)
    if not 0 <= first < last:
        return name
    # `Map<int>::put` is `Map::put`.
    return name[:first] + name[last + 1 :]


class Definition(NamedTuple):
    """A symbol where it is defined."""

    kind: str
    name: str
    owner: str
    """The type or namespace that the definition itself names as its owner."""
    node: Node
    declaration: Node
    """The node of the symbol, or the declaration around it."""
    start: int
    """Where it begins, with decorators, `export` and the like."""
    end: int


def check_time(deadline: float) -> None:
    """Raise TimeoutError after the deadline, by the clock of `time.monotonic`."""
    if time.monotonic() > deadline:
        raise TimeoutError


def parse(data: bytes, language: Language, deadline: float) -> Tree:
    """Return the syntax tree of a file.

    Raises:
        TimeoutError: At the deadline.
        SettingsError: If the language's grammar is not installed.
    """
    parser = open_grammar(language.name).parser

    def read(offset: int, _: Point) -> bytearray:
        part = data[offset : offset + READ_BYTES]
        buffer = _buffer(len(part))
        buffer[:] = part
        return buffer

    def is_late(_: int, __: bool) -> bool:
        return time.monotonic() > deadline

    try:
        return parser.parse(read, progress_callback=is_late)
    except ValueError:
        # The parser raises it if `is_late` stops it. It would continue with the next file.
        parser.reset()
        check_time(deadline)
        raise


@shows_sizes("kind", "start", "end", "line")
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
    """The first paragraph of the docstring, or of the comment right before the symbol, on one
    line."""
    start: int
    end: int
    line: int
    """The line on which the definition itself begins, from 1."""


class _Scope(NamedTuple):
    """A symbol around the current one."""

    end: int
    namespace: Symbol | None
    """The symbol whose qualified name begins the names within this one."""


def symbols_of(data: bytes, language: str, *, seconds: float) -> list[Symbol]:
    """Return the symbols of a file in the order in which they begin.

    A symbol precedes those within it.

    Args:
        data: The file in UTF-8.

    Raises:
        TerminalError: If it takes longer than `seconds`.
        SettingsError: If the language's grammar is not installed.
    """
    deadline = time.monotonic() + seconds
    known = CODE_LANGUAGES[language]
    reader = _SymbolReader(data, known, deadline)
    try:
        reader.walk(parse(data, known, deadline))
        return reader.symbols()
    except TimeoutError as error:
        raise TerminalError(f"it could not be parsed in {seconds:g} s; exclude it") from error


class _SymbolReader:
    """Reads the symbols of one file: `walk` finds the definitions, `symbols` describes them."""

    def __init__(self, data: bytes, language: Language, deadline: float) -> None:
        self._data = data
        self._language = language
        self._deadline = deadline
        self._grammar = open_grammar(language.name)
        self._tags: dict[int, tuple[str, Node]] = {}
        """The kind and the name of each node that defines a symbol, by its id."""
        self._around: list[Node] = []
        """The nodes around the current one."""
        self._local: list[bool] = [False]
        """Whether the nodes within the file, and within each node around, are local to a
        function."""
        self._single: dict[int, bool] = {}
        """Whether wrappers hold a single definition, by the id of their node."""
        self._found: dict[tuple[int, int], Definition] = {}
        """The definitions, by where their declaration starts and ends."""
        self._comments: dict[int, int] = {}
        """Where comments that begin their line start, by their end."""
        self._comment_starts: list[int] = []

    def walk(self, tree: Tree) -> None:
        """Find the definitions and the comments of a file.

        Raises:
            TimeoutError: At the deadline.
        """
        from tree_sitter import QueryCursor

        query = QueryCursor(self._grammar.tags)
        # The query runs at each node: for the tree at once, it takes hours for some files.
        query.set_max_start_depth(0)
        cursor = tree.walk()
        for visited in itertools.count(1):
            if visited % NODES_PER_LOOK == 0:
                check_time(self._deadline)
            node = cursor.node
            if node is None:
                return
            if node.type in self._grammar.types:
                self._tag(query.matches(node))
            self._visit(node)
            if cursor.goto_first_child():
                is_local = self._local[-1] or node.type in self._language.local
                self._around.append(node)
                self._local.append(is_local)
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return
                self._around.pop()
                self._local.pop()

    def _tag(self, matches: Sequence[tuple[int, Mapping[str, Sequence[Node]]]]) -> None:
        """Record kind and name of the nodes that a query matched. The first pattern counts."""
        for _, captured in sorted(matches, key=itemgetter(0)):
            if "name" not in captured:
                continue
            name = captured["name"][0]
            for capture, nodes in captured.items():
                # "definition.class", beside "name"
                if capture.startswith("definition."):
                    kind = capture.removeprefix("definition.")
                    self._tags.setdefault(nodes[0].id, (kind, name))

    def _visit(self, node: Node) -> None:
        """Record a node if it is a definition, or a comment that begins its line."""
        if node.id in self._tags:
            kind, name = self._tags[node.id]
            self._add(node, kind, name)
        elif node.type in self._language.comments:
            column = node.start_point.column
            if column > MAX_INDENTATION:
                return
            before = self._data[node.start_byte - column : node.start_byte]
            if not before.strip():
                self._comments[node.end_byte] = node.start_byte

    def _add(self, node: Node, kind: str, named: Node) -> None:
        """Record a definition, with the declaration around it."""
        # `struct stat buffer;` mentions a type.
        if node.type in _C_TYPES and node.child_by_field_name("body") is None:
            return
        # `int g(int);` within a function of C is no symbol.
        if self._local[-1] and kind == "function":
            return
        owner, _, name = self._name(node, named).rpartition("::")
        if not name or name in _KEYWORDS:
            return
        # The declaration around the definition, without and with decorators and `export`.
        declaration = outer = node
        for wrapper in reversed(self._around):
            if wrapper.type not in self._language.wrappers or not self._is_single(wrapper):
                break
            outer = wrapper
            if wrapper.type not in _DECORATIONS:
                declaration = wrapper
        place = (declaration.start_byte, declaration.end_byte)
        if place in self._found:
            # `struct a {…} b = …` holds two definitions; the second has no declaration around it.
            declaration = outer = node
            place = (node.start_byte, node.end_byte)
        start, end = outer.start_byte, outer.end_byte
        definition = Definition(kind, name, owner, node, declaration, start, end)
        self._found.setdefault(place, definition)

    def _is_single(self, wrapper: Node) -> bool:
        """Return whether a wrapper holds one definition.

        `var a = …, b = …` holds several, and so may `type (…)` of Go.
        """
        known = self._single.get(wrapper.id)
        if known is not None:
            return known
        types = self._grammar.types | self._language.wrappers
        definitions = sum(child.type in types for child in wrapper.named_children)
        self._single[wrapper.id] = definitions <= 1
        return definitions <= 1

    def _name(self, node: Node, named: Node) -> str:
        """Return the name of a symbol, after the owner that the definition itself names."""
        name = without_arguments(self._text(named.start_byte, named.end_byte), "<", ">")
        if node.type == "impl_item":
            # `impl fmt::Display for &'a Table` is "Table".
            words = name.split()
            last = words[-1] if words else ""
            return last.strip("&*").rpartition("::")[2]
        receiver = node.child_by_field_name("receiver")
        if receiver is not None:
            # `func (q *Queue[T]) Push()` is "Queue::Push".
            text = self._text(receiver.start_byte, receiver.end_byte)
            words = re.findall(r"\w+", without_arguments(text, "[", "]"))
            return "::".join([*words[-1:], name])
        # `"quoted-name"` and `:symbol`, on one line
        return " ".join(name.strip("\"'`:").split())

    def symbols(self) -> list[Symbol]:
        """Return the symbols in the order in which they begin, after `walk`.

        Raises:
            TimeoutError: At the deadline.
        """
        symbols: list[Symbol] = []
        scopes: list[_Scope] = []
        self._comment_starts = sorted(self._comments.values())
        # Where the previous symbol ends, or the enclosing one begins. Comments before it are not
        # of the next symbol.
        earliest = 0
        ordered = sorted(self._found.values(), key=lambda found: (found.start, -found.end))
        for definition in ordered:
            check_time(self._deadline)
            while scopes and scopes[-1].end <= definition.start:
                earliest = max(earliest, scopes.pop().end)
            if len(scopes) == MAX_SYMBOLS_WITHIN:
                continue
            # It ends after the symbol around it, so symbols would not be nested.
            if scopes and definition.end > scopes[-1].end:
                continue
            namespace = scopes[-1].namespace if scopes else None
            start = self._start_with_comments(definition.start, earliest)
            symbol = self._symbol(definition, start, namespace)
            symbols.append(symbol)
            # `typedef struct tag {…} T;`: "tag" is not "T.tag".
            if definition.node.type not in _NAMELESS:
                namespace = symbol
            scopes.append(_Scope(symbol.end, namespace))
            earliest = max(earliest, definition.start)
        return symbols

    def _symbol(self, definition: Definition, start: int, outer: Symbol | None) -> Symbol:
        """Describe a definition.

        Args:
            start: Where the comments right before it begin.
            outer: The symbol whose qualified name begins its name.
        """
        separator = self._language.separator
        owner = definition.owner.strip(":").replace("::", separator)
        around = outer.qualified_name if outer is not None else ""
        parents = [around, owner]
        # A macro belongs to the file, wherever it is defined.
        if definition.kind == "macro":
            parents = []
        parent = separator.join(filter(None, parents))
        body = _find_body(definition)
        return Symbol(
            kind=_symbol_kind(definition.kind, owner, outer),
            name=definition.name,
            qualified_name=separator.join(filter(None, [parent, definition.name])),
            signature=self._signature(definition, body),
            parent=parent,
            docstring=self._docstring(body, start, definition.start),
            start=start,
            end=definition.end,
            line=definition.declaration.start_point.row + 1,
        )

    def _signature(self, definition: Definition, body: Node | None) -> str:
        """Return the declaration up to its body, or to the first comment in it."""
        start, end = definition.declaration.start_byte, definition.declaration.end_byte
        if body is not None and body.start_byte > start:
            end = body.start_byte
        following = bisect_right(self._comment_starts, start)
        if following < len(self._comment_starts):
            end = min(end, self._comment_starts[following])
        if body is None and definition.kind not in {"function", "method"}:
            # The first line of a constant: `NAMES = [`
            line, _, _ = self._data[start:end].partition(b"\n")
            end = start + len(line)
        return _shorten(_OPENING.sub("", self._text(start, end)))

    def _docstring(self, body: Node | None, start: int, definition_start: int) -> str:
        """Return the first paragraph of the docstring, or else of the comment before a symbol."""
        string = None
        if self._language.name == "python" and body is not None:
            string = _first_string(body)
        if string is not None:
            text = self._text(string.start_byte, string.end_byte)
            quote = _QUOTE.match(text)
            if quote:
                text = text[quote.end() :].removesuffix(quote[1])
            return _shorten(_first_paragraph(text))
        comment = _ATTRIBUTE.sub("", self._text(start, definition_start))
        return _shorten(_first_paragraph(_MARKERS.sub("", comment)))

    def _start_with_comments(self, start: int, earliest: int) -> int:
        """Return where a symbol begins with the comments right before it, at `earliest` or
        later."""
        while True:
            comment = self._comment_before(start, earliest)
            if comment is None:
                return start
            start = comment

    def _comment_before(self, start: int, earliest: int) -> int | None:
        """Return where the comment begins that ends right before a position, if there is any."""
        gap = self._data[max(earliest, start - LOOK_BACK_BYTES) : start]
        end = start - len(gap) + len(gap.rstrip())
        comment = self._comments.get(end)
        if comment is not None and comment >= earliest:
            # After a blank line, the comment is not of this symbol.
            blank_line = _BLANK_LINE.search(self._data, end, start)
            if blank_line is None:
                return comment
        # Some grammars include the end of the line in the node of a comment.
        comment = self._comments.get(end + 1)
        if comment is not None and comment >= earliest and end + 1 <= start:
            return comment
        return None

    def _text(self, start: int, end: int) -> str:
        """Return the beginning of a part of the file."""
        end = min(end, start + MAX_READ_BYTES)
        return self._data[start:end].decode("utf-8", "replace")


def _symbol_kind(kind: str, owner: str, outer: Symbol | None) -> str:
    """Return the kind of a symbol. Grammars differ in what they call a method."""
    if kind not in {"function", "method"}:
        return kind
    # `void Map::put() {}` names its owner.
    if owner:
        return "method"
    if outer is None:
        return kind
    return "method" if outer.kind in TYPE_KINDS else "function"


def _first_string(body: Node) -> Node | None:
    """Return the string with which the body of a class or function in Python begins, if any."""
    if not body.named_child_count:
        return None
    first = body.named_children[0]
    if first.type == "expression_statement" and first.named_child_count:
        first = first.named_children[0]
    return first if first.type == "string" else None


def _find_body(definition: Definition) -> Node | None:
    """Return the body of a definition, or of its declaration."""
    for node in (definition.node, definition.declaration):
        for holder in _body_holders(node):
            body = holder.child_by_field_name("body")
            if body is not None:
                return body
    return None


def _body_holders(node: Node) -> list[Node]:
    """Return the nodes that may have the body of a definition: the node itself, and some within."""
    holders = [node]
    # `a = () => {…}` has it in the value, `exports.a = function () {…}` on the right, and
    # `type A struct {…}` in the type.
    for field_name in ("value", "right", "type"):
        child = node.child_by_field_name(field_name)
        if child is not None:
            holders.append(child)
    if node.type == "template_declaration":
        holders += node.named_children
    return holders


def _first_paragraph(text: str) -> str:
    return re.split(r"\n\s*\n", text.strip(), maxsplit=1)[0]


def _shorten(text: str) -> str:
    """Return a text on one line of at most MAX_SIGNATURE_CHARS characters."""
    line = " ".join(text.split())
    if len(line) <= MAX_SIGNATURE_CHARS:
        return line
    return line[: MAX_SIGNATURE_CHARS - 1] + "…"
