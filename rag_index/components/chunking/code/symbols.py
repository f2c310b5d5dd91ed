"""The symbols of a file: what it defines, under which names, and where; and the known languages with their grammars."""

from __future__ import annotations

import functools
import itertools
import re
import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib import import_module
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import SettingsError, TerminalError, install_command

if TYPE_CHECKING:
    from tree_sitter import Node, Parser, Point, Query, Tree

TEXT = "text"
"""The language of files that the settings include although no grammar is known for them."""

C_HEADER = ".h"
"""The suffix that C and C++ share."""

_JS_WRAPPERS = frozenset({
    "export_statement", "lexical_declaration", "variable_declaration", "expression_statement", "ambient_declaration",
})  # fmt: skip
_C_WRAPPERS = frozenset({
    "declaration", "field_declaration", "template_declaration", "function_definition", "pointer_declarator",
    "reference_declarator", "init_declarator",
})  # fmt: skip
_LINE_AND_BLOCK = frozenset({"line_comment", "block_comment"})
_TYPESCRIPT = """
(enum_declaration name: (identifier) @name) @definition.enum
(type_alias_declaration name: (type_identifier) @name) @definition.type
"""
_C = """
[(preproc_def name: (_) @name value: (_)) (preproc_function_def name: (_) @name)] @definition.macro
(union_specifier name: (type_identifier) @name body: (_)) @definition.class
"""
_CPP = """
(namespace_definition name: (_) @name) @definition.module
(struct_specifier name: [(template_type) (qualified_identifier)] @name body: (_)) @definition.class
(class_specifier name: [(template_type) (qualified_identifier)] @name body: (_)) @definition.class
(function_declarator declarator: [(qualified_identifier) (operator_name) (destructor_name)] @name) @definition.function
"""
_DOC = re.compile(r'\(comment\)\* @doc\s*\.|\(#[\w!?-]+(?:\s+(?:@[\w.]+|"(?:[^"\\]|\\.)*"|\w+))*\s*\)')
"""What the queries say of comments, of which they take all before a symbol, and of texts: py-tree-sitter 0.26 crashes
where a file is given to the parser in parts."""
READ_BYTES = 1024
"""Bytes that the parser is given at a time."""
NODES_PER_LOOK = 256
"""Nodes that are visited between two looks at the clock."""
MAX_INDENTATION = 1000
"""Bytes of white space before a comment that begins its line."""
MAX_SIGNATURE_CHARS = 300
"""Characters of a signature, and of a docstring."""
MAX_READ_BYTES = 2000
"""Bytes that are read for one of them: patterns take the square of the time for some long texts."""
MAX_SYMBOLS_WITHIN = 40
"""Symbols that are nested deeper belong to the symbols around them."""
TYPE_KINDS = {"class", "interface", "implementation", "enum", "type"}
"""Kinds of symbols whose functions are methods."""
_C_TYPES = {"struct_specifier", "union_specifier", "class_specifier", "enum_specifier", "declaration"}
"""Nodes that define a type if they have a body, and else name one."""
_NAMELESS = {"type_definition", "preproc_def", "preproc_function_def", "assignment"}
"""Definitions whose name is not part of the qualified names of what is within them."""
_KEYWORDS = {"defined", "for", "if", "return", "sizeof", "switch", "while"}
"""What damaged text may show in the place of a function's name."""
LOOK_BACK_BYTES = 400
"""How far before a symbol its comment may end."""
_BLANK_LINE = re.compile(rb"\n[ \t\f\r]*\n")
_MARKERS = re.compile(r"^[\s/*#!]+|[\s/*#]+$", re.M)
_ATTRIBUTE = re.compile(r"^\s*#!?\[.*$", re.M)
_OPENING = re.compile(r"(=>|[\s:{;=])+$")
_buffer = functools.cache(bytearray)
"""Returns the buffer of a size through which the parser reads, overwritten by each file: py-tree-sitter 0.26.1 keeps
what it was given for ever, so that each process grew by all that it parsed."""
_QUOTE = re.compile(r"""[A-Za-z]*("{3}|'{3}|"|')""")


def without_arguments(name: str, opens: str, closes: str) -> str:
    """Return a name without the arguments of a template (`<>`), or of a generic type in Go (`[]`)."""
    first = name.find(opens)
    if name[: max(0, first)].endswith("operator"):
        first = name.find(opens, first + 1)
    last = name.rfind(closes)
    return name[:first] + name[last + 1 :] if 0 <= first < last else name


@dataclass(frozen=True, slots=True)
class Language:
    """A language: the package of its grammar, and what belongs to a definition in it."""

    name: str
    package: str
    suffixes: tuple[str, ...]
    queries: str = field(default="", repr=False)
    """What defines a symbol beside what the grammar's own query for tags says. It comes first."""
    grammar: str = ""
    """Which grammar of the package it is, if there are several."""
    comments: frozenset[str] = frozenset({"comment"})
    """The types of nodes that belong to the symbol right after them."""
    wrappers: frozenset[str] = frozenset()
    """The types of nodes that belong to the one definition within them."""
    local: frozenset[str] = frozenset()
    """The types of nodes in which what looks like a function is none."""
    separator: str = "."


_ALL = (
    Language(
        "python", "tree_sitter_python", (".py", ".pyi", ".pyw"),
        wrappers=frozenset({"decorated_definition", "expression_statement"}),
    ),
    Language("javascript", "tree_sitter_javascript", (".js", ".mjs", ".cjs", ".jsx"), wrappers=_JS_WRAPPERS),
    Language(
        "typescript", "tree_sitter_typescript", (".ts", ".mts", ".cts"), _TYPESCRIPT, "typescript",
        wrappers=_JS_WRAPPERS,
    ),
    Language("tsx", "tree_sitter_typescript", (".tsx",), _TYPESCRIPT, "tsx", wrappers=_JS_WRAPPERS),
    Language(
        "go", "tree_sitter_go", (".go",), """
        (method_elem name: (field_identifier) @name) @definition.method
        (type_alias name: (type_identifier) @name) @definition.type
        """, wrappers=frozenset({"type_declaration"}),
    ),
    Language(
        "rust", "tree_sitter_rust", (".rs",), """
        (impl_item type: (_) @name) @definition.implementation
        (function_signature_item name: (identifier) @name) @definition.function
        """, separator="::", comments=_LINE_AND_BLOCK | {"attribute_item"},
    ),
    Language(
        "java", "tree_sitter_java", (".java",), """
        (enum_declaration name: (identifier) @name) @definition.enum
        (record_declaration name: (identifier) @name) @definition.class
        (constructor_declaration name: (identifier) @name) @definition.method
        """, comments=_LINE_AND_BLOCK,
    ),
    Language(
        "c", "tree_sitter_c", (".c", C_HEADER), _C, wrappers=_C_WRAPPERS,
        local=frozenset({"compound_statement", "parameter_list"}),
    ),
    Language(
        "cpp", "tree_sitter_cpp", (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tpp"),
        _C + _CPP, wrappers=_C_WRAPPERS, local=frozenset({"compound_statement", "parameter_list"}), separator="::",
    ),
    Language(
        "ruby", "tree_sitter_ruby", (".rb", ".rake", ".gemspec"), """
        (assignment left: (constant) @name) @definition.constant
        (class name: (scope_resolution) @name) @definition.class
        (module name: (scope_resolution) @name) @definition.module
        """, separator="::",
    ),
)  # fmt: skip
CODE_LANGUAGES = {language.name: language for language in _ALL}
_BY_SUFFIX = {suffix: language.name for language in _ALL for suffix in language.suffixes}


def language_of(path: str, overrides: Mapping[str, str] | None = None) -> str:
    """Return the language of a file by its name, or `TEXT` if none is known; `overrides` maps suffixes to languages."""
    suffix = f".{path.rpartition('.')[2].lower()}"  # no known suffix has a /
    return (overrides or {}).get(suffix) or _BY_SUFFIX.get(suffix, TEXT)


def require_grammars() -> None:
    """Check that tree-sitter and all grammars are installed. Raises SettingsError, which says how to install them."""
    for name in CODE_LANGUAGES:
        open_grammar(name)


class Grammar(NamedTuple):
    """What reads a language: its parser, the query for its tags, and the types of nodes that this begins with."""

    parser: Parser
    tags: Query
    types: Set[str]


@functools.cache
def open_grammar(name: str) -> Grammar:
    """Return the grammar of a language, made on first use. Raises SettingsError if a package is not installed."""
    language = CODE_LANGUAGES[name]
    try:
        import tree_sitter

        package = import_module(language.package)
        tags = [package.TAGS_QUERY]
        if language.grammar:  # TypeScript's query says what it has beside JavaScript
            tags.append(import_module("tree_sitter_javascript").TAGS_QUERY)
    except ImportError as exc:
        raise SettingsError(
            f"an index of source code needs {exc.name}, which is not installed: {install_command('code')}"
        ) from exc
    grammar = tree_sitter.Language(getattr(package, f"language_{language.grammar}".rstrip("_"))())
    text = _DOC.sub("", "\n".join([language.queries, *tags]))
    query, types = tree_sitter.Query(grammar, text), set[str]()
    for number in range(query.pattern_count):
        pattern = text.encode()[query.start_byte_for_pattern(number) : query.end_byte_for_pattern(number)].decode()
        if "@definition" in pattern:
            types.update(re.findall(r"\((\w+)\s", pattern))
        else:
            query.disable_pattern(number)
    return Grammar(tree_sitter.Parser(grammar), query, types)


class Definition(NamedTuple):
    """A symbol where it is defined."""

    kind: str
    name: str
    owner: str
    """The type or namespace that the definition itself names as its owner."""
    node: Node
    whole: Node
    """The node of the symbol, or the declaration around it."""
    start: int
    """Where it begins, with decorators, `export` and the like."""
    end: int


def check_time(deadline: float) -> None:
    """Raise TimeoutError after the deadline, by the clock of `time.monotonic`."""
    if time.monotonic() > deadline:
        raise TimeoutError


def parse(data: bytes, language: Language, deadline: float) -> Tree:
    """Return the syntax tree of a file. Raises TimeoutError at the deadline, and SettingsError without its grammar."""
    parser = open_grammar(language.name).parser

    def read(offset: int, _: Point) -> bytearray:
        part = data[offset : offset + READ_BYTES]
        buffer = _buffer(len(part))
        buffer[:] = part
        return buffer

    try:
        return parser.parse(read, progress_callback=lambda _, __: time.monotonic() > deadline)
    except ValueError:  # what the parser raises when the callback tells it to stop
        parser.reset()
        check_time(deadline)
        raise


@shows_sizes("kind", "start", "end", "line")
@dataclass(frozen=True, slots=True)
class Symbol:
    """A definition with its decorators and the comment right before it. `start` and `end` are byte offsets into the
    file as UTF-8."""

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


def symbols_of(data: bytes, language: str, *, seconds: float) -> list[Symbol]:
    """Return the symbols of a file (UTF-8) in the order in which they begin, an outer one before those within it.
    Raises TerminalError if parsing took longer than `seconds`, and SettingsError if the language's grammar is not
    installed."""
    deadline, known = time.monotonic() + seconds, CODE_LANGUAGES[language]
    reader = _SymbolReader(data, known, deadline)
    try:
        reader.walk(parse(data, known, deadline))
        return reader.symbols()
    except TimeoutError as error:
        raise TerminalError(f"it could not be parsed in {seconds:g} s; exclude it") from error


class _SymbolReader:
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
        """Whether what is within each of them, and within the file, is local to a function."""
        self._lonely: dict[int, bool] = {}
        """Whether wrappers hold a single definition, by the id of their node."""
        self._found: dict[tuple[int, int], Definition] = {}
        self._comments: dict[int, int] = {}
        """Where comments that begin their line start, by their end."""
        self._comment_starts: list[int] = []

    def walk(self, tree: Tree) -> None:
        """Find the definitions and the comments of a file."""
        from tree_sitter import QueryCursor

        query = QueryCursor(self._grammar.tags)
        query.set_max_start_depth(0)  # it is asked of each node: of the whole tree, it takes hours for some files
        cursor = tree.walk()
        for visited in itertools.count(1):
            if not visited % NODES_PER_LOOK:
                check_time(self._deadline)
            node = cursor.node
            if node is None:
                return
            if node.type in self._grammar.types:
                self._tag(query.matches(node))
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

    def _tag(self, matches: Sequence[tuple[int, Mapping[str, Sequence[Node]]]]) -> None:
        for _, captured in sorted(matches, key=itemgetter(0)):
            for kind, [node, *_] in captured.items():
                if kind.startswith("definition.") and "name" in captured:
                    self._tags.setdefault(node.id, (kind.removeprefix("definition."), captured["name"][0]))

    def _visit(self, node: Node) -> None:
        if node.id in self._tags:
            self._add(node, *self._tags[node.id])
        elif node.type in self._language.comments:
            column = node.start_point.column
            if column <= MAX_INDENTATION and not self._data[node.start_byte - column : node.start_byte].strip():
                self._comments[node.end_byte] = node.start_byte

    def _add(self, node: Node, kind: str, named: Node) -> None:
        names_a_type = node.type in _C_TYPES and node.child_by_field_name("body") is None
        if names_a_type or (self._local[-1] and kind == "function"):
            return
        owner, _, name = self._name(node, named).rpartition("::")
        whole = outer = node  # the declaration around it, without and with its decorators and `export`
        for wrapper in reversed(self._around):
            if wrapper.type not in self._language.wrappers or not self._is_lonely(wrapper):
                break
            outer = wrapper
            whole = whole if wrapper.type in {"decorated_definition", "export_statement"} else outer
        place = (whole.start_byte, whole.end_byte)
        if place in self._found:  # `struct a {…} b = …` holds two definitions
            whole = outer = node
            place = (node.start_byte, node.end_byte)
        definition = Definition(kind, name, owner, node, whole, outer.start_byte, outer.end_byte)
        if name and name not in _KEYWORDS:  # damaged code may have such names
            self._found.setdefault(place, definition)

    def _is_lonely(self, wrapper: Node) -> bool:
        """Return whether a wrapper holds one definition; `var a = …, b = …` holds several, and so may `type (…)`."""
        if wrapper.id not in self._lonely:
            types = self._grammar.types | self._language.wrappers
            self._lonely[wrapper.id] = sum(child.type in types for child in wrapper.named_children) <= 1
        return self._lonely[wrapper.id]

    def _name(self, node: Node, named: Node) -> str:
        """Return the name of a symbol, after what the definition says that it belongs to."""
        name = without_arguments(self._text(named.start_byte, named.end_byte), "<", ">")
        if node.type == "impl_item":  # `impl fmt::Display for &'a Table`
            return "".join(name.split()[-1:]).strip("&*").rpartition("::")[2]
        if (receiver := node.child_by_field_name("receiver")) is not None:  # `func (q *Queue) Push()`
            words = re.findall(r"\w+", without_arguments(self._text(receiver.start_byte, receiver.end_byte), "[", "]"))
            return "::".join([*words[-1:], name])
        return " ".join(name.strip("\"'`:").split())

    def symbols(self) -> list[Symbol]:
        symbols: list[Symbol] = []
        scopes: list[tuple[int, Symbol | None]] = []
        """Where each symbol around the current one ends, and the one that gives names within it their beginning."""
        self._comment_starts = sorted(self._comments.values())
        earliest = 0
        """Where the previous symbol ends, or the enclosing one begins: comments of the next one come after it."""
        for definition in sorted(self._found.values(), key=lambda definition: (definition.start, -definition.end)):
            check_time(self._deadline)
            while scopes and scopes[-1][0] <= definition.start:
                earliest = max(earliest, scopes.pop()[0])
            if len(scopes) == MAX_SYMBOLS_WITHIN or (scopes and definition.end > scopes[-1][0]):
                continue
            outer = scopes[-1][1] if scopes else None
            start = self._start_with_comments(definition.start, earliest)
            symbols.append(symbol := self._symbol(definition, start, outer))
            scopes.append((symbol.end, outer if definition.node.type in _NAMELESS else symbol))
            earliest = max(earliest, definition.start)
        return symbols

    def _symbol(self, definition: Definition, start: int, outer: Symbol | None) -> Symbol:
        kind, separator = definition.kind, self._language.separator
        owner = definition.owner.strip(":").replace("::", separator)
        around = outer.qualified_name if outer is not None else ""
        parent = "" if kind == "macro" else separator.join(filter(None, [around, owner]))
        if kind in {"function", "method"} and (outer or owner):  # grammars differ in what they call a method
            kind = "method" if owner or (outer and outer.kind in TYPE_KINDS) else "function"
        body = _find_body(definition)
        return Symbol(
            kind=kind,
            name=definition.name,
            qualified_name=separator.join(filter(None, [parent, definition.name])),
            signature=self._signature(definition, body),
            parent=parent,
            docstring=self._docstring(body, start, definition.start),
            start=start,
            end=definition.end,
            line=definition.whole.start_point.row + 1,
        )

    def _signature(self, definition: Definition, body: Node | None) -> str:
        start = definition.whole.start_byte
        end = body.start_byte if body is not None and body.start_byte > start else definition.whole.end_byte
        comment = bisect_right(self._comment_starts, start)
        end = min([end, *self._comment_starts[comment : comment + 1]])
        if body is None and definition.kind not in {"function", "method"}:
            end = start + len(self._data[start:end].partition(b"\n")[0])
        return _shorten(_OPENING.sub("", self._text(start, end)))

    def _docstring(self, body: Node | None, start: int, definition_start: int) -> str:
        if self._language.name == "python" and body is not None and body.named_child_count:
            first = body.named_children[0]
            inner = (
                first.named_children[0] if first.type == "expression_statement" and first.named_child_count else first
            )
            if inner.type == "string":
                text = self._text(inner.start_byte, inner.end_byte)
                quote = _QUOTE.match(text)
                return _shorten(_first_paragraph(text[quote.end() :].removesuffix(quote[1]) if quote else text))
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

    def _text(self, start: int, end: int) -> str:
        return self._data[start : min(end, start + MAX_READ_BYTES)].decode("utf-8", "replace")


def _find_body(definition: Definition) -> Node | None:
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
    return line if len(line) <= MAX_SIGNATURE_CHARS else line[: MAX_SIGNATURE_CHARS - 1] + "…"
