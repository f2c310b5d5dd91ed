"""The languages that are known: by what file names, with which grammar, and what defines a symbol in them.

Definitions are those of the grammars' own tags queries (https://tree-sitter.github.io/tree-sitter/4-code-navigation.html),
and of a few patterns more for what these leave out. Parser and query of a language are made once a process.
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
    "known_suffixes",
    "language_of",
    "need_grammars",
]

VERSION = 1
"""Of what decides symbols here: another one means that code has to be cut anew."""
TEXT = "text"
"""The language of files that settings include and no grammar is known for."""
MISSING = 'source code needs tree-sitter and its grammars ({name} is missing): pip install "rag-index[code]"'


@dataclass(frozen=True, slots=True)
class Language:
    """A grammar's package, whose tags to use, and how its trees are to be read."""

    name: str
    package: str
    suffixes: tuple[str, ...]
    function: str = "language"
    """Of the package: gives the grammar."""
    tags_from: tuple[str, ...] = ()
    """Packages whose tags queries apply; the grammar's own where none are named."""
    more: str = ""
    """Patterns for definitions that the tags queries leave out."""
    comments: str = "(comment) @attached"
    """What belongs to the symbol that it stands right before."""
    wrappers: frozenset[str] = frozenset()
    """Types of nodes that belong to the one definition within."""
    separator: str = "."
    """Between the parts of a qualified name."""


_JAVASCRIPT = "tree_sitter_javascript"
_JS_WRAPPERS = frozenset({
    "export_statement", "lexical_declaration", "variable_declaration", "expression_statement", "ambient_declaration",
})  # fmt: skip
_C_WRAPPERS = frozenset({
    "pointer_declarator", "reference_declarator", "parenthesized_declarator", "function_definition", "declaration",
    "field_declaration", "type_definition", "template_declaration", "init_declarator", "qualified_identifier",
})  # fmt: skip
_JS_MORE = """
(method_definition name: [(property_identifier) (private_property_identifier)] @name) @definition.method
"""
_TS_MORE = (
    _JS_MORE
    + """
(enum_declaration name: (identifier) @name) @definition.enum
(type_alias_declaration name: (type_identifier) @name) @definition.type
(internal_module name: (_) @name) @definition.module
(public_field_definition name: (property_identifier) @name value: (arrow_function)) @definition.method
"""
)
_C_MORE = "(preproc_function_def name: (identifier) @name) @definition.macro\n"
_CPP_MORE = (
    _C_MORE
    + """
(namespace_definition name: (_) @name) @definition.module
(function_declarator declarator: (qualified_identifier name: (_) @name)) @definition.method
(function_declarator declarator: [(destructor_name) (operator_name)] @name) @definition.method
"""
)

_ALL = (
    Language("python", "tree_sitter_python", (".py", ".pyi", ".pyw"), wrappers=frozenset({"decorated_definition"})),
    Language(
        "javascript", _JAVASCRIPT, (".js", ".mjs", ".cjs", ".jsx"), more=_JS_MORE, wrappers=_JS_WRAPPERS,
    ),
    Language(
        "typescript", "tree_sitter_typescript", (".ts", ".mts", ".cts"), function="language_typescript",
        tags_from=(_JAVASCRIPT, "tree_sitter_typescript"), more=_TS_MORE, wrappers=_JS_WRAPPERS,
    ),
    Language(
        "tsx", "tree_sitter_typescript", (".tsx",), function="language_tsx",
        tags_from=(_JAVASCRIPT, "tree_sitter_typescript"), more=_TS_MORE, wrappers=_JS_WRAPPERS,
    ),
    Language("go", "tree_sitter_go", (".go",), wrappers=frozenset({"type_declaration"})),
    Language(
        "rust", "tree_sitter_rust", (".rs",), separator="::",
        more="(impl_item type: (_) @name) @definition.implementation",
        comments="[(line_comment) (block_comment) (attribute_item)] @attached",
    ),
    Language(
        "java", "tree_sitter_java", (".java",), comments="[(line_comment) (block_comment)] @attached",
        more="""
(constructor_declaration name: (identifier) @name) @definition.method
(enum_declaration name: (identifier) @name) @definition.enum
(record_declaration name: (identifier) @name) @definition.class
(annotation_type_declaration name: (identifier) @name) @definition.interface
""",
    ),
    Language("c", "tree_sitter_c", (".c", ".h"), more=_C_MORE, wrappers=_C_WRAPPERS),
    Language(
        "cpp", "tree_sitter_cpp", (".cc", ".cpp", ".cxx", ".c++", ".hh", ".hpp", ".hxx", ".h++", ".ipp", ".tpp"),
        more=_CPP_MORE, wrappers=_C_WRAPPERS, separator="::",
    ),
    Language("ruby", "tree_sitter_ruby", (".rb", ".rake", ".gemspec"), separator="::"),
)  # fmt: skip
LANGUAGES = {language.name: language for language in _ALL}
_BY_SUFFIX = {suffix: language.name for language in _ALL for suffix in language.suffixes}


@dataclass(frozen=True, slots=True)
class Grammar:
    """Parser and query of a language; `definitions` are the kinds that patterns define, by capture."""

    language: Language
    parser: Parser
    query: Query
    kinds: dict[str, str] = field(default_factory=dict)


def language_of(path: str) -> str:
    """The language of a file by its name; `TEXT` where none is known."""
    return _BY_SUFFIX.get(f".{path.rpartition('.')[2].lower()}", TEXT)  # with a / in it, it is none that is known


def known_suffixes() -> list[str]:
    """Ends of names of files whose language is known, sorted."""
    return sorted(_BY_SUFFIX)


def need_grammars() -> None:
    """See that tree-sitter and all grammars are installed.

    Raises:
        SettingsError: names the first that is not, and how to install it.
    """
    for package in ("tree_sitter", *(language.package for language in _ALL)):
        try:
            import_module(package)
        except ImportError as exc:
            raise SettingsError(MISSING.format(name=package)) from exc


@functools.cache
def grammar(name: str) -> Grammar:
    """Parser and query of a language, made on first use.

    Raises:
        SettingsError: its package is not installed.
    """
    language = LANGUAGES[name]
    try:
        import tree_sitter

        made = tree_sitter.Language(getattr(import_module(language.package), language.function)())
        tags = [import_module(package).TAGS_QUERY for package in language.tags_from or (language.package,)]
    except ImportError as exc:
        raise SettingsError(MISSING.format(name=exc.name)) from exc
    source = "\n".join([*tags, language.more, language.comments])
    query = tree_sitter.Query(made, source)
    encoded = source.encode()
    for number in range(query.pattern_count):
        pattern = encoded[query.start_byte_for_pattern(number) : query.end_byte_for_pattern(number)]
        if b"@definition." not in pattern and b"@attached" not in pattern:  # calls and other references
            query.disable_pattern(number)
    if b"@doc" in encoded:
        query.disable_capture("doc")  # the comments before a symbol are found by their place
    names = map(query.capture_name, range(query.capture_count))
    kinds = {capture: capture.removeprefix("definition.") for capture in names if capture.startswith("definition.")}
    return Grammar(language, tree_sitter.Parser(made), query, kinds)
