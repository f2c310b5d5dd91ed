"""Chunks of source code: the language of a file, the symbols that it defines, and how it is split at them.

    languages -> symbols -> splitting -> chunker

The grammars, and most of what counts as a definition in them, come from tree-sitter's own packages (the extra `code`).
"""
