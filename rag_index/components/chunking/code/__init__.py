"""Chunks of source code: the language of a file, the symbols that it defines, and how it is split at them.

    languages -> definitions (c_definitions) -> symbols -> chunker

The grammars come from tree-sitter's own packages (the extra `code`). Their queries for tags find names alone, and not
all that is meant here: constants, enums, owners, what a macro hides. So each type of node has a reader of its own.
"""
