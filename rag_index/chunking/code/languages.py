"""The known languages: their file names, their grammars, how to read their syntax trees, and what a header is."""

from __future__ import annotations

import functools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from rag_index.chunking.code import c_definitions, definitions
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tree_sitter import Parser

    from rag_index.chunking.code.definitions import Reader

VERSION = 4
"""The version of the rules for symbols. It is in the fingerprint: raising it asks for a rebuild of code indexes."""

TEXT = "text"
"""The language of files that the settings include although no grammar is known for them."""

HEADER = ".h"
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
_HEADER_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)|//[^\n]*", re.S)
_CPP_ALONE = re.compile(
    r"^[ \t]*(?:"
    r"(?:inline[ \t]+)?namespace\b[ \t\w:]*(?:\{|$)"
    r"|template[ \t]*<"
    r"|(?:public|private|protected)\b[ \t]*\w*[ \t]*:"
    r"|class[ \t]+[A-Za-z_][\w \t:()]*(?:[:{;<]|$)"
    r"|using[ \t]+[\w:]+"
    r"|\#[ \t]*include[ \t]*<[a-z_]+>"
    r")"
    r"|\b[A-Za-z_]\w*::~?[A-Za-z_]|\boperator[ \t]*[-+*/%=<>!&|^(\[]|\b(?:static|const|dynamic|reinterpret)_cast[ \t]*<"
    r"|\bvirtual[ \t]+[~\w]|\)[ \t]*(?:const[ \t]*)?(?:noexcept|override)\b|=[ \t]*(?:delete|default)[ \t]*;",
    re.M,
)
_CONDITION = re.compile(r"[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b(.*)")
MISSING = 'an index of source code needs {name}, which is not installed: pip install "rag-index[code]"'


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
    """The separator between the parts of a qualified name."""


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
        "c", "tree_sitter_c", (".c", HEADER), c_definitions.C, wrappers=_C_WRAPPERS,
        local=frozenset({"compound_statement"}),
    ),
    Language(
        "cpp", "tree_sitter_cpp", (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tpp"),
        c_definitions.CPP, wrappers=_C_WRAPPERS, local=frozenset({"compound_statement"}), separator="::",
    ),
    Language(
        "ruby", "tree_sitter_ruby", (".rb", ".rake", ".gemspec"), definitions.RUBY, separator="::",
        local=frozenset({"method", "singleton_method", "block", "do_block", "lambda"}),
    ),
)  # fmt: skip
LANGUAGES = {language.name: language for language in _ALL}
_BY_SUFFIX = {suffix: language.name for language in _ALL for suffix in language.suffixes}


def language_of(path: str, overrides: Mapping[str, str] | None = None) -> str:
    """Return the language of a file by its name, or `TEXT` if none is known; `overrides` maps suffixes to languages."""
    suffix = f".{path.rpartition('.')[2].lower()}"  # no known suffix has a /
    return (overrides or {}).get(suffix) or _BY_SUFFIX.get(suffix, TEXT)


def require_grammars() -> None:
    """Check that tree-sitter and all grammars are installed.

    Raises SettingsError if a package is missing; the message says how to install it.
    """
    for package in ("tree_sitter", *(language.package for language in LANGUAGES.values())):
        try:
            import_module(package)
        except ImportError as exc:
            raise SettingsError(MISSING.format(name=package)) from exc


@functools.cache
def open_parser(name: str) -> Parser:
    """Return the parser of a language, made on first use. Raises SettingsError if its package is not installed."""
    language = LANGUAGES[name]
    try:
        import tree_sitter

        package = import_module(language.package)
    except ImportError as exc:
        raise SettingsError(MISSING.format(name=exc.name)) from exc
    return tree_sitter.Parser(tree_sitter.Language(getattr(package, language.grammar_function)()))


def header_language(text: str, guess: str) -> str:
    """Return the language of a header: `guess` if its text is C and C++ alike."""
    return "cpp" if _CPP_ALONE.search(_HEADER_COMMENT.sub(" ", _without_cpp_blocks(text))) else guess


def _without_cpp_blocks(text: str) -> str:
    """Return a header without what only a C++ compiler sees, as headers of C have it (`#ifdef __cplusplus`)."""
    if "__cplusplus" not in text:
        return text
    kept: list[str] = []
    hidden: list[bool] = []
    for line in text.split("\n"):
        match = _CONDITION.match(line)
        if match is None:
            if not any(hidden):
                kept.append(line)
        elif match[1] in {"if", "ifdef"}:
            hidden.append("__cplusplus" in match[2] and "!" not in match[2])
        elif match[1] == "ifndef":
            hidden.append(False)
        elif hidden and match[1] == "endif":
            hidden.pop()
        elif hidden:
            hidden[-1] = False
    return "\n".join(kept)


class Neighbours:
    """The sources in C and C++ of a tree, which tell the language of headers that are both."""

    def __init__(self) -> None:
        self._found: dict[str, Counter[str]] = defaultdict(Counter)
        """The languages of the sources of each path without suffix, of each folder (with /), and of the tree ("")."""

    def add(self, path: str) -> None:
        """Add a file of the tree; files in other languages do not count."""
        language = language_of(path)
        if language in {"c", "cpp"} and not path.lower().endswith(HEADER):
            for place in _places(path):
                self._found[place][language] += 1

    def guess(self, path: str) -> str:
        """Return the language of the sources nearest to a header: of its name, in its folder, in the tree."""
        name, *around = (self._found.get(place, Counter[str]()) for place in _places(path))
        if len(name) == 1:
            return next(iter(name))
        counts = next(filter(None, around), Counter[str]())
        return "cpp" if counts["cpp"] > counts["c"] else "c"


def _places(path: str) -> tuple[str, str, str]:
    return path.rpartition(".")[0], f"{path.rpartition('/')[0]}/", ""
