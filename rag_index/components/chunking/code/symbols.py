"""The symbols of a file: what it defines, under which names, and where; and the known languages with their grammars."""

from __future__ import annotations

import functools
import itertools
import re
import time
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from rag_index.components.chunking.code import definitions
from rag_index.components.chunking.code.definitions import Named, Place, first_child
from rag_index.core.extras import install_command
from rag_index.errors import SettingsError, TerminalError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser, Point, Tree

    from rag_index.components.chunking.code.definitions import Reader

TEXT = "text"
"""The language of files that the settings include although no grammar is known for them."""

C_HEADER = ".h"
"""The suffix that C and C++ share."""

_JS_LOCAL = frozenset({
    "function_declaration", "generator_function_declaration", "function_expression", "generator_function",
    "arrow_function", "method_definition", "class_static_block", "if_statement", "for_statement", "for_in_statement",
    "while_statement", "do_statement", "try_statement", "switch_statement",
})  # fmt: skip
_JS_WRAPPERS = frozenset({
    "export_statement", "lexical_declaration", "variable_declaration", "expression_statement", "ambient_declaration",
})  # fmt: skip
_C_WRAPPERS = frozenset({"declaration", "field_declaration", "template_declaration"})
_LINE_AND_BLOCK = frozenset({"line_comment", "block_comment"})


@dataclass(frozen=True, slots=True)
class Language:
    """A language: the package of its grammar, what defines a symbol in it, and what belongs to a definition."""

    name: str
    package: str
    suffixes: tuple[str, ...]
    definitions: Mapping[str, Reader] = field(repr=False)
    """What reads the symbols of each type of node that may define some."""
    grammar_function: str = "language"
    """The package's function that returns the grammar."""
    comments: frozenset[str] = frozenset({"comment"})
    """The types of nodes that belong to the symbol right after them."""
    wrappers: frozenset[str] = frozenset()
    """The types of nodes that belong to the one definition within them."""
    local: frozenset[str] = frozenset()
    """The types of nodes in which constants, variables and prototypes are local, and are no symbols."""
    separator: str = "."


_ALL = (
    Language(
        "python", "tree_sitter_python", (".py", ".pyi", ".pyw"), definitions.PYTHON,
        wrappers=frozenset({"decorated_definition"}),
    ),
    Language(
        "javascript", "tree_sitter_javascript", (".js", ".mjs", ".cjs", ".jsx"), definitions.JAVASCRIPT,
        wrappers=_JS_WRAPPERS, local=_JS_LOCAL,
    ),
    Language(
        "typescript", "tree_sitter_typescript", (".ts", ".mts", ".cts"), definitions.JAVASCRIPT,
        grammar_function="language_typescript", wrappers=_JS_WRAPPERS, local=_JS_LOCAL,
    ),
    Language(
        "tsx", "tree_sitter_typescript", (".tsx",), definitions.JAVASCRIPT,
        grammar_function="language_tsx", wrappers=_JS_WRAPPERS, local=_JS_LOCAL,
    ),
    Language(
        "go", "tree_sitter_go", (".go",), definitions.GO, local=frozenset({"block"}),
        wrappers=frozenset({"type_declaration", "const_declaration", "var_declaration", "var_spec_list"}),
    ),
    Language(
        "rust", "tree_sitter_rust", (".rs",), definitions.RUST, local=frozenset({"block"}), separator="::",
        comments=_LINE_AND_BLOCK | {"attribute_item"},
    ),
    Language("java", "tree_sitter_java", (".java",), definitions.JAVA, comments=_LINE_AND_BLOCK),
    Language(
        "c", "tree_sitter_c", (".c", C_HEADER), definitions.C, wrappers=_C_WRAPPERS,
        local=frozenset({"compound_statement"}),
    ),
    Language(
        "cpp", "tree_sitter_cpp", (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tpp"),
        definitions.CPP, wrappers=_C_WRAPPERS, local=frozenset({"compound_statement"}), separator="::",
    ),
    Language(
        "ruby", "tree_sitter_ruby", (".rb", ".rake", ".gemspec"), definitions.RUBY, separator="::",
        local=frozenset({"method", "singleton_method", "block", "do_block", "lambda"}),
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
        open_parser(name)


@functools.cache
def open_parser(name: str) -> Parser:
    """Return the parser of a language, made on first use. Raises SettingsError if its package is not installed."""
    language = CODE_LANGUAGES[name]
    try:
        import tree_sitter

        package = import_module(language.package)
    except ImportError as exc:
        raise SettingsError(
            f"an index of source code needs {exc.name}, which is not installed: {install_command('code')}"
        ) from exc
    return tree_sitter.Parser(tree_sitter.Language(getattr(package, language.grammar_function)()))


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
_NAME = rb"[A-Z_][A-Z0-9_]{2,}"
_CALL = rb"(?:[ \t]*\([^()\n]*\))?"
_GAP = rb"[ \t\r\n]+"
_HIDDEN = (
    # class EXPORT Name : Base {
    re.compile(
        rb"\b(?:class|struct|union)((?:" + _GAP + _NAME + _CALL + rb")+)" + _GAP + rb"(?!final\b)[A-Za-z_][\w:]*"
        rb"\s*(?:<[^<>{};]*>\s*)?(?:final\s*)?(?=:[^:]|\{)"
    ),
    # void lock() LOCKS_EXCLUDED(mutex);
    re.compile(rb"\)\s*(?:(?:const|noexcept|override|final)\s*)*(" + _NAME + _CALL + rb")\s*(?=[;{:=])"),
    # extern EXPORT INLINE const Type *function(…
    re.compile(
        rb"^[ \t]*(?:(?:extern|static|inline|virtual|friend|explicit)[ \t]+)*"
        rb"((?:" + _NAME + _CALL + _GAP + rb"){1,4})"
        rb"(?:[A-Za-z_][\w:]*(?:<[^<>;{}()]*>)?[ \t\r\n*&]+){1,6}[A-Za-z_~][\w:]*[ \t]*\(",
        re.M,
    ),
    # BEGIN_WARNINGS(4251), and the same without parentheses before what no type may precede
    re.compile(rb"^[ \t]*(" + _NAME + rb"[ \t]*\([^()\n]*\))[ \t]*\r?$(?=\s*(?:[A-Za-z_~}/]|\Z))", re.M),
    re.compile(
        rb"^[ \t]*(" + _NAME + rb")[ \t]*\r?$"
        rb"(?=\s*(?:}|\Z|(?:class|namespace|struct|template|public|private|protected|using|typedef|enum|extern)\b))",
        re.M,
    ),
)
_DIRECTIVE = re.compile(rb"(^[ \t]*#(?:[^\\\n]|\\\r?\n|\\.)*)", re.M)
_VISIBLE = re.compile(rb"[^\r\n]")


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time by which a file has to be done: `seconds` from `begun`."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)

    def check(self) -> None:
        if self.is_over():
            raise TerminalError(f"it could not be parsed in {self.seconds:g} s; exclude it")

    def is_over(self) -> bool:
        return time.monotonic() > self.begun + self.seconds


class Definition(NamedTuple):
    """A symbol where it is defined."""

    named: Named
    whole: Node
    """The node of the symbol, or the declaration around it."""
    start: int
    """Where it begins, with decorators, `export` and the like."""
    end: int


def _without_macros(data: bytes, deadline: Deadline) -> bytes:
    """Return a file of C with spaces in place of macros that the grammar does not expect; directives stay as they
    are."""
    parts = _DIRECTIVE.split(data)
    for number in range(0, len(parts), 2):
        for pattern in _HIDDEN:
            deadline.check()
            parts[number] = pattern.sub(_hide, parts[number])
    return b"".join(parts)


def _hide(match: re.Match[bytes]) -> bytes:
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + _VISIBLE.sub(b" ", match[1]) + match[0][end:]


def parse(data: bytes, language: Language, deadline: Deadline) -> Tree:
    """Return the syntax tree of a file. Raises TerminalError at the deadline, and SettingsError without its grammar."""
    parser = open_parser(language.name)
    source = _without_macros(data, deadline) if language.name in {"c", "cpp"} else data

    def read(offset: int, _: Point) -> bytearray:
        part = source[offset : offset + READ_BYTES]
        buffer = _buffer(len(part))
        buffer[:] = part
        return buffer

    try:
        return parser.parse(read, progress_callback=lambda _, __: deadline.is_over())
    except ValueError:  # what the parser raises when the callback tells it to stop
        parser.reset()
        deadline.check()
        raise


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


class _Scope(NamedTuple):
    """What a symbol is to those within it."""

    end: int
    prefix: str
    """What qualified names begin with."""
    is_type: bool


def symbols_of(data: bytes, language: str, *, seconds: float) -> list[Symbol]:
    """Return the symbols of a file (UTF-8) in the order in which they begin, an outer one before those within it.
    Raises TerminalError if parsing took longer than `seconds`, and SettingsError if the language's grammar is not
    installed."""
    deadline, known = Deadline(seconds), CODE_LANGUAGES[language]
    reader = _SymbolReader(data, known, deadline)
    reader.walk(parse(data, known, deadline))
    return reader.symbols()


class _SymbolReader:
    def __init__(self, data: bytes, language: Language, deadline: Deadline) -> None:
        self._data = data
        self._language = language
        self._deadline = deadline
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
        cursor = tree.walk()
        for visited in itertools.count(1):
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
                if one.name:  # damaged code may have none
                    self._add(one)
        elif kind in self._language.comments:
            column = node.start_point.column
            if column <= MAX_INDENTATION and not self._data[node.start_byte - column : node.start_byte].strip():
                self._comments[node.end_byte] = node.start_byte

    def _add(self, named: Named) -> None:
        node = whole = outer = named.node  # the declaration around it, without and with its decorators and `export`
        around = self._around if not self._around or node != self._around[-1] else self._around[:-1]
        for wrapper in reversed(around):
            if wrapper.type not in self._language.wrappers or not self._is_lonely(wrapper):
                break
            outer = wrapper
            whole = whole if wrapper.type in {"decorated_definition", "export_statement"} else outer
        place = (whole.start_byte, whole.end_byte)
        if place in self._found:  # `struct a {…} b = …` holds two definitions
            whole = outer = node
            place = (node.start_byte, node.end_byte)
        self._found.setdefault(place, Definition(named, whole, outer.start_byte, outer.end_byte))

    def _is_lonely(self, wrapper: Node) -> bool:
        """Return whether a wrapper holds one definition; `var a = …, b = …` holds several, and so may `type (…)`."""
        if wrapper.id not in self._lonely:
            types = [*self._language.definitions, *self._language.wrappers]
            self._lonely[wrapper.id] = sum(child.type in types for child in wrapper.named_children) <= 1
        return self._lonely[wrapper.id]

    def symbols(self) -> list[Symbol]:
        symbols: list[Symbol] = []
        scopes: list[_Scope] = []
        self._comment_starts = sorted(self._comments.values())
        earliest = 0
        """Where the previous symbol ends, or the enclosing one begins: comments of the next one come after it."""
        for definition in sorted(self._found.values(), key=lambda definition: (definition.start, -definition.end)):
            self._deadline.check()
            while scopes and scopes[-1].end <= definition.start:
                earliest = max(earliest, scopes.pop().end)
            if len(scopes) == MAX_SYMBOLS_WITHIN or (scopes and definition.end > scopes[-1].end):
                continue
            outer = scopes[-1] if scopes else _Scope(len(self._data), "", is_type=False)
            start = self._start_with_comments(definition.start, earliest)
            symbol = self._symbol(definition, start, outer)
            symbols.append(symbol)
            inner = _Scope(symbol.end, symbol.qualified_name, symbol.kind in TYPE_KINDS)
            scopes.append(inner if definition.named.encloses else outer._replace(end=symbol.end))
            earliest = max(earliest, definition.start)
        return symbols

    def _symbol(self, definition: Definition, start: int, outer: _Scope) -> Symbol:
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
            line=definition.whole.start_point.row + 1,
        )

    def _signature(self, definition: Definition, body: Node | None) -> str:
        start = definition.whole.start_byte
        end = body.start_byte if body is not None and body.start_byte > start else definition.whole.end_byte
        comment = bisect_right(self._comment_starts, start)
        end = min([end, *self._comment_starts[comment : comment + 1]])
        if body is None and definition.named.kind not in {"function", "method"}:
            end = start + len(self._data[start:end].partition(b"\n")[0])
        return _shorten(_OPENING.sub("", self._text(start, end)))

    def _docstring(self, body: Node | None, start: int, definition_start: int) -> str:
        first = first_child(body) if self._language.name == "python" and body is not None else None
        if first is not None:
            inner = first_child(first) if first.type == "expression_statement" else first
            if inner is not None and inner.type == "string":
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
    for node in (definition.named.node, definition.whole):
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
