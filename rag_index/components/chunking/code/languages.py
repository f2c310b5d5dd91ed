"""The languages of source code: the names of their files, and their grammars.

A grammar comes with a query for its tags, which names the nodes that define symbols. What the
query leaves out, such as enums of TypeScript, is beside each language.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from rag_index.errors import SettingsError, install_command

if TYPE_CHECKING:
    from tree_sitter import Parser, Query

TEXT = "text"
"""The language of files that the settings include although no grammar is known for them."""

C_HEADER = ".h"
"""The suffix that C and C++ share."""

_JS_WRAPPERS = frozenset(
    {
        "export_statement",
        "lexical_declaration",
        "variable_declaration",
        "expression_statement",
        "ambient_declaration",
    }
)
_C_WRAPPERS = frozenset(
    {
        "declaration",
        "field_declaration",
        "template_declaration",
        "function_definition",
        "pointer_declarator",
        "reference_declarator",
        "init_declarator",
    }
)
_C_LOCAL = frozenset({"compound_statement", "parameter_list"})
_LINE_AND_BLOCK = frozenset({"line_comment", "block_comment"})
_TYPESCRIPT = """
(enum_declaration name: (identifier) @name) @definition.enum
(type_alias_declaration name: (type_identifier) @name) @definition.type
"""
_GO = """
(method_elem name: (field_identifier) @name) @definition.method
(type_alias name: (type_identifier) @name) @definition.type
"""
_RUST = """
(impl_item type: (_) @name) @definition.implementation
(function_signature_item name: (identifier) @name) @definition.function
"""
_JAVA = """
(enum_declaration name: (identifier) @name) @definition.enum
(record_declaration name: (identifier) @name) @definition.class
(constructor_declaration name: (identifier) @name) @definition.method
"""
_C = """
[(preproc_def name: (_) @name value: (_)) (preproc_function_def name: (_) @name)] @definition.macro
(union_specifier name: (type_identifier) @name body: (_)) @definition.class
"""
_CPP = """
(namespace_definition name: (_) @name) @definition.module
(struct_specifier name: [(template_type) (qualified_identifier)] @name body: (_)) @definition.class
(class_specifier name: [(template_type) (qualified_identifier)] @name body: (_)) @definition.class
(function_declarator
  declarator: [(qualified_identifier) (operator_name) (destructor_name)] @name) @definition.function
"""
_RUBY = """
(assignment left: (constant) @name) @definition.constant
(class name: (scope_resolution) @name) @definition.class
(module name: (scope_resolution) @name) @definition.module
"""
_DOC = re.compile(
    r'\(comment\)\* @doc\s*\.|\(#[\w!?-]+(?:\s+(?:@[\w.]+|"(?:[^"\\]|\\.)*"|\w+))*\s*\)'
)
"""Parts of the grammars' queries that are removed: comments, of which they take all before a
symbol, and predicates on texts, with which py-tree-sitter 0.26 crashes if the parser reads a file
in parts."""


@dataclass(frozen=True, slots=True)
class Language:
    """A language: the package of its grammar, and what belongs to a definition in it."""

    name: str
    package: str
    suffixes: tuple[str, ...]
    queries: str = field(default="", repr=False)
    """What defines a symbol besides the grammar's own query for tags. It comes first."""
    grammar: str = ""
    """Which grammar of the package it is, if there are several."""
    comments: frozenset[str] = frozenset({"comment"})
    """The types of nodes that belong to the symbol right after them."""
    wrappers: frozenset[str] = frozenset()
    """The types of nodes that belong to the one definition within them."""
    local: frozenset[str] = frozenset()
    """The types of nodes within which nothing is a function of its own."""
    separator: str = "."


_ALL = (
    Language(
        "python",
        "tree_sitter_python",
        (".py", ".pyi", ".pyw"),
        wrappers=frozenset({"decorated_definition", "expression_statement"}),
    ),
    Language(
        "javascript",
        "tree_sitter_javascript",
        (".js", ".mjs", ".cjs", ".jsx"),
        wrappers=_JS_WRAPPERS,
    ),
    Language(
        "typescript",
        "tree_sitter_typescript",
        (".ts", ".mts", ".cts"),
        _TYPESCRIPT,
        "typescript",
        wrappers=_JS_WRAPPERS,
    ),
    Language(
        "tsx",
        "tree_sitter_typescript",
        (".tsx",),
        _TYPESCRIPT,
        "tsx",
        wrappers=_JS_WRAPPERS,
    ),
    Language(
        "go",
        "tree_sitter_go",
        (".go",),
        _GO,
        wrappers=frozenset({"type_declaration"}),
    ),
    Language(
        "rust",
        "tree_sitter_rust",
        (".rs",),
        _RUST,
        comments=_LINE_AND_BLOCK | {"attribute_item"},
        separator="::",
    ),
    Language("java", "tree_sitter_java", (".java",), _JAVA, comments=_LINE_AND_BLOCK),
    Language(
        "c",
        "tree_sitter_c",
        (".c", C_HEADER),
        _C,
        wrappers=_C_WRAPPERS,
        local=_C_LOCAL,
    ),
    Language(
        "cpp",
        "tree_sitter_cpp",
        (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tpp"),
        _C + _CPP,
        wrappers=_C_WRAPPERS,
        local=_C_LOCAL,
        separator="::",
    ),
    Language("ruby", "tree_sitter_ruby", (".rb", ".rake", ".gemspec"), _RUBY, separator="::"),
)
CODE_LANGUAGES = {language.name: language for language in _ALL}


def _languages_by_suffix() -> dict[str, str]:
    by_suffix: dict[str, str] = {}
    for language in _ALL:
        by_suffix.update(dict.fromkeys(language.suffixes, language.name))
    return by_suffix


_BY_SUFFIX = _languages_by_suffix()


def language_of(path: str, overrides: Mapping[str, str] | None = None) -> str:
    """Return the language of a file by its name, or `TEXT` if the suffix is unknown.

    Args:
        overrides: Languages by suffix: {".h": "cpp"}.
    """
    # Without a dot in the name, "a.b/c", this is ".b/c", which is no known suffix.
    suffix = f".{path.rpartition('.')[2].lower()}"
    override = overrides.get(suffix) if overrides else None
    return override or _BY_SUFFIX.get(suffix, TEXT)


def require_grammars() -> None:
    """Check that tree-sitter and all grammars are installed.

    Raises:
        SettingsError: If a package is missing. The message says how to install it.
    """
    for name in CODE_LANGUAGES:
        open_grammar(name)


class Grammar(NamedTuple):
    """What parses a language: its parser, the query for its tags, and the query's first node
    types."""

    parser: Parser
    tags: Query
    types: Set[str]


@functools.cache
def open_grammar(name: str) -> Grammar:
    """Return the grammar of a language, created on first use.

    Raises:
        SettingsError: If a package is not installed.
    """
    language = CODE_LANGUAGES[name]
    try:
        import tree_sitter

        package = import_module(language.package)
        queries = [language.queries, package.TAGS_QUERY]
        if language.grammar:
            # TypeScript's query has only what JavaScript lacks.
            queries.append(import_module("tree_sitter_javascript").TAGS_QUERY)
    except ImportError as exc:
        missing = f"an index of source code needs {exc.name}, which is not installed"
        raise SettingsError(f"{missing}: {install_command('code')}") from exc
    # The package of TypeScript has `language_typescript` and `language_tsx`, others have
    # `language`.
    pointer = f"language_{language.grammar}" if language.grammar else "language"
    grammar = tree_sitter.Language(getattr(package, pointer)())
    text = _DOC.sub("", "\n".join(queries))
    query = tree_sitter.Query(grammar, text)
    types = _enable_definitions(query, text.encode())
    return Grammar(tree_sitter.Parser(grammar), query, types)


def _enable_definitions(query: Query, text: bytes) -> set[str]:
    """Disable all patterns but definitions. Return the types of nodes in the patterns left."""
    types: set[str] = set()
    for number in range(query.pattern_count):
        start = query.start_byte_for_pattern(number)
        end = query.end_byte_for_pattern(number)
        pattern = text[start:end].decode()
        if "@definition" in pattern:
            types.update(re.findall(r"\((\w+)\s", pattern))
        else:
            # `(call …) @reference.call`
            query.disable_pattern(number)
    return types
