"""The known languages: their file names, their grammars, and what defines a symbol in them.

Definitions are those of the grammars' own tags queries (https://tree-sitter.github.io/tree-sitter/4-code-navigation.html),
and of a few more patterns for what these leave out. Each process makes the parser and the query of a language once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from tree_sitter import Parser, Query

__all__ = [
    "LANGUAGES",
    "TEXT",
    "VERSION",
    "Grammar",
    "Language",
    "grammar",
    "language_of",
    "require_grammars",
]

VERSION = 1
"""The version of the rules for symbols. It is in the fingerprint: raising it asks for a rebuild of code indexes."""
TEXT = "text"
"""The language of files that the settings include although no grammar is known for them."""
MISSING = 'an index of source code needs {name}, which is not installed: pip install "rag-index[code]"'


@dataclass(frozen=True, slots=True)
class Language:
    """A language: the package of its grammar, the tags queries that apply, and how to read its syntax trees."""

    name: str
    package: str
    suffixes: tuple[str, ...]
    grammar_function: str = "language"
    """The package's function that returns the grammar."""
    tags_from: tuple[str, ...] = ()
    """The packages whose tags queries apply; if none are named, the grammar's own package."""
    extra_patterns: str = ""
    """Patterns for definitions that the tags queries leave out."""
    comment_pattern: str = "(comment) @attached"
    """A pattern for the nodes that belong to the symbol right after them."""
    wrappers: frozenset[str] = frozenset()
    """The types of nodes that belong to the one definition within them."""
    separator: str = "."
    """The separator between the parts of a qualified name."""


_JAVASCRIPT = "tree_sitter_javascript"
_JS_WRAPPERS = frozenset({
    "export_statement", "lexical_declaration", "variable_declaration", "expression_statement", "ambient_declaration",
})  # fmt: skip
_C_WRAPPERS = frozenset({
    "pointer_declarator", "reference_declarator", "parenthesized_declarator", "function_definition", "declaration",
    "field_declaration", "type_definition", "template_declaration", "init_declarator", "qualified_identifier",
})  # fmt: skip
_JS_EXTRA = """
(method_definition name: [(property_identifier) (private_property_identifier)] @name) @definition.method
"""
_TS_EXTRA = (
    _JS_EXTRA
    + """
(enum_declaration name: (identifier) @name) @definition.enum
(type_alias_declaration name: (type_identifier) @name) @definition.type
(internal_module name: (_) @name) @definition.module
(public_field_definition name: (property_identifier) @name value: (arrow_function)) @definition.method
"""
)
_C_EXTRA = "(preproc_function_def name: (identifier) @name) @definition.macro\n"
_CPP_EXTRA = (
    _C_EXTRA
    + """
(namespace_definition name: (_) @name) @definition.module
(function_declarator declarator: (qualified_identifier name: (_) @name)) @definition.method
(function_declarator declarator: [(destructor_name) (operator_name)] @name) @definition.method
"""
)

_ALL = (
    Language("python", "tree_sitter_python", (".py", ".pyi", ".pyw"), wrappers=frozenset({"decorated_definition"})),
    Language(
        "javascript", _JAVASCRIPT, (".js", ".mjs", ".cjs", ".jsx"), extra_patterns=_JS_EXTRA, wrappers=_JS_WRAPPERS,
    ),
    Language(
        "typescript", "tree_sitter_typescript", (".ts", ".mts", ".cts"), grammar_function="language_typescript",
        tags_from=(_JAVASCRIPT, "tree_sitter_typescript"), extra_patterns=_TS_EXTRA, wrappers=_JS_WRAPPERS,
    ),
    Language(
        "tsx", "tree_sitter_typescript", (".tsx",), grammar_function="language_tsx",
        tags_from=(_JAVASCRIPT, "tree_sitter_typescript"), extra_patterns=_TS_EXTRA, wrappers=_JS_WRAPPERS,
    ),
    Language("go", "tree_sitter_go", (".go",), wrappers=frozenset({"type_declaration"})),
    Language(
        "rust", "tree_sitter_rust", (".rs",), separator="::",
        extra_patterns="(impl_item type: (_) @name) @definition.implementation",
        comment_pattern="[(line_comment) (block_comment) (attribute_item)] @attached",
    ),
    Language(
        "java", "tree_sitter_java", (".java",), comment_pattern="[(line_comment) (block_comment)] @attached",
        extra_patterns="""
(constructor_declaration name: (identifier) @name) @definition.method
(enum_declaration name: (identifier) @name) @definition.enum
(record_declaration name: (identifier) @name) @definition.class
(annotation_type_declaration name: (identifier) @name) @definition.interface
""",
    ),
    Language("c", "tree_sitter_c", (".c", ".h"), extra_patterns=_C_EXTRA, wrappers=_C_WRAPPERS),
    Language(
        "cpp", "tree_sitter_cpp", (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tpp"),
        extra_patterns=_CPP_EXTRA, wrappers=_C_WRAPPERS, separator="::",
    ),
    Language("ruby", "tree_sitter_ruby", (".rb", ".rake", ".gemspec"), separator="::"),
)  # fmt: skip
LANGUAGES = {language.name: language for language in _ALL}
_BY_SUFFIX = {suffix: language.name for language in _ALL for suffix in language.suffixes}


@dataclass(frozen=True, slots=True)
class Grammar:
    """The parser and the query of a language; `kinds` maps each capture of a definition to the kind of its symbol."""

    language: Language
    parser: Parser
    query: Query
    kinds: dict[str, str] = field(default_factory=dict)


def language_of(path: str) -> str:
    """Return the language of a file by its name, or `TEXT` if none is known."""
    return _BY_SUFFIX.get(f".{path.rpartition('.')[2].lower()}", TEXT)  # no known suffix has a /


def require_grammars() -> None:
    """Check that tree-sitter and all grammars are installed.

    Raises:
        SettingsError: a package is missing; the message says how to install it.
    """
    for package in ("tree_sitter", *(language.package for language in _ALL)):
        try:
            import_module(package)
        except ImportError as exc:
            raise SettingsError(MISSING.format(name=package)) from exc


@functools.cache
def grammar(name: str) -> Grammar:
    """Return the parser and the query of a language, made on first use.

    Raises:
        SettingsError: its package is not installed.
    """
    language = LANGUAGES[name]
    try:
        import tree_sitter

        loaded = tree_sitter.Language(getattr(import_module(language.package), language.grammar_function)())
        tags = [import_module(package).TAGS_QUERY for package in language.tags_from or (language.package,)]
    except ImportError as exc:
        raise SettingsError(MISSING.format(name=exc.name)) from exc
    source = "\n".join([*tags, language.extra_patterns, language.comment_pattern])
    query = tree_sitter.Query(loaded, source)
    encoded = source.encode()
    for number in range(query.pattern_count):
        pattern = encoded[query.start_byte_for_pattern(number) : query.end_byte_for_pattern(number)]
        if b"@definition." not in pattern and b"@attached" not in pattern:  # calls and other references
            query.disable_pattern(number)
    if b"@doc" in encoded:
        query.disable_capture("doc")  # comments before a symbol are found by their position
    names = map(query.capture_name, range(query.capture_count))
    kinds = {capture: capture.removeprefix("definition.") for capture in names if capture.startswith("definition.")}
    return Grammar(language, tree_sitter.Parser(loaded), query, kinds)
