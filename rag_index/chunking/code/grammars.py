"""The parsers of the known languages, from tree-sitter's own packages. Each process makes each of them once."""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING

from rag_index.chunking.code.languages import LANGUAGES
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from tree_sitter import Parser

MISSING = 'an index of source code needs {name}, which is not installed: pip install "rag-index[code]"'


def require_grammars() -> None:
    """Check that tree-sitter and all grammars are installed.

    Raises:
        SettingsError: a package is missing; the message says how to install it.
    """
    for package in ("tree_sitter", *(language.package for language in LANGUAGES.values())):
        try:
            import_module(package)
        except ImportError as exc:
            raise SettingsError(MISSING.format(name=package)) from exc


@functools.cache
def open_parser(name: str) -> Parser:
    """Return the parser of a language, made on first use.

    Raises:
        SettingsError: its package is not installed.
    """
    language = LANGUAGES[name]
    try:
        import tree_sitter

        package = import_module(language.package)
    except ImportError as exc:
        raise SettingsError(MISSING.format(name=exc.name)) from exc
    return tree_sitter.Parser(tree_sitter.Language(getattr(package, language.grammar_function)()))
