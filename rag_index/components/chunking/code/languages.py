"""The known languages: their file names, their grammars, and how to read their syntax trees."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from rag_index.components.chunking.code import c_definitions, definitions
from rag_index.core.extras import install_command
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from tree_sitter import Parser

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
        "c", "tree_sitter_c", (".c", C_HEADER), c_definitions.C, wrappers=_C_WRAPPERS,
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
CODE_LANGUAGES = {language.name: language for language in _ALL}
_BY_SUFFIX = {suffix: language.name for language in _ALL for suffix in language.suffixes}


def language_of(path: str, overrides: Mapping[str, str] | None = None) -> str:
    """Return the language of a file by its name, or `TEXT` if none is known; `overrides` maps suffixes to languages."""
    suffix = f".{path.rpartition('.')[2].lower()}"  # no known suffix has a /
    return (overrides or {}).get(suffix) or _BY_SUFFIX.get(suffix, TEXT)


def require_grammars() -> None:
    """Check that tree-sitter and all grammars are installed.

    Raises SettingsError if a package is missing; the message says how to install it.
    """
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
