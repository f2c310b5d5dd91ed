"""Source code: which language a file is in, the symbols that it defines, and how it is cut at them.

    languages -> symbols -> splitting -> cutter

Grammars and what is a definition in them come from tree-sitter's own packages (the extra `code`).
"""
