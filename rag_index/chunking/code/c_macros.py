"""Macros of C and C++ that stand where the grammars expect something else, so that they take the macro for a name.

They are hidden behind spaces before a file is parsed, so that all offsets stay. Names and texts are read from the file
itself. A macro is taken for one if its name has no lower-case letters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["hide_macros"]

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


def hide_macros(data: bytes, check: Callable[[], None]) -> bytes:
    """Return the file with spaces in place of such macros; directives stay as they are.

    `check` is called now and then, and may raise.
    """
    parts = _DIRECTIVE.split(data)
    for number in range(0, len(parts), 2):
        for pattern in _HIDDEN:
            check()
            parts[number] = pattern.sub(_hide, parts[number])
    return b"".join(parts)


def _hide(match: re.Match[bytes]) -> bytes:
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + _VISIBLE.sub(b" ", match[1]) + match[0][end:]
