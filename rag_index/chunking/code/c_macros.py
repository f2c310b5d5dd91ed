"""Macros and conditions of C and C++ that stand where the grammars expect something else.

They take the macro for a name, and a class for one that never ends. So both are hidden behind spaces before a file is
parsed, and all offsets stay. Names and texts are read from the file itself. A macro is taken for one if its name has no
lower-case letters.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

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
_CONDITION = re.compile(rb"[ \t]*#[ \t]*(if|el|endif)")
_COMMENT = re.compile(rb"/\*.*?\*/|//[^\n]*", re.S)
_INITIALISERS = re.compile(rb"\)\s*(?:noexcept\s*)?:(?!:)(?:[^;{}]|\{[^{}]*\})*\Z")
LOOK_BYTES, LOOK_PARTS = 1000, 20
"""How far to look for what is before and after a directive."""
_VISIBLE = re.compile(rb"[^\r\n]")


def hide_macros(data: bytes, check: Callable[[], None]) -> bytes:
    """Return the file with spaces in place of such macros and conditions; other directives stay as they are.

    `check` is called now and then, and may raise.
    """
    parts = _DIRECTIVE.split(data)
    _hide_conditions(parts, check)
    for number in range(0, len(parts), 2):
        for pattern in _HIDDEN:
            check()
            parts[number] = pattern.sub(_hide, parts[number])
    return b"".join(parts)


def _hide(match: re.Match[bytes]) -> bytes:
    start, end = match.start(1) - match.start(), match.end(1) - match.start()
    return match[0][:start] + _VISIBLE.sub(b" ", match[1]) + match[0][end:]


def _hide_conditions(parts: list[bytes], check: Callable[[], None]) -> None:
    """Hide conditions among parameters and the initialisers of a constructor, with all branches but the first.

    Every second part is a directive.
    """
    opened: list[list[int]] = []
    for number in range(1, len(parts), 2):
        check()
        if (match := _CONDITION.match(parts[number])) is None:
            continue
        if match[1] == b"if":
            opened.append([])
        elif not opened:
            continue
        opened[-1].append(number)
        if match[1] == b"endif" and _is_in_list(parts, (group := opened.pop())[0]):
            for hidden in (group[0], *range(group[1], group[-1] + 1)):
                parts[hidden] = _VISIBLE.sub(b" ", parts[hidden])


def _is_in_list(parts: list[bytes], number: int) -> bool:
    """Return whether a list of parameters or of initialisers goes on, or begins, after a directive."""
    before = b"".join(reversed([parts[n][-LOOK_BYTES:] for n in range(number - 1, -1, -2)[:LOOK_PARTS]]))
    after = b"".join(parts[n][:LOOK_BYTES] for n in range(number + 1, len(parts), 2)[:LOOK_PARTS])
    before = _COMMENT.sub(b"", before[-LOOK_BYTES:]).rstrip()
    after = _COMMENT.sub(b"", after[:LOOK_BYTES]).lstrip()
    if after.startswith(b",") or (before.endswith(b")") and re.match(rb":(?!:)", after)):
        return True
    statement = re.split(rb"[;{}]", before)[-1]
    is_open = statement.count(b"(") > statement.count(b")")
    return before.endswith((b",", b":", b"(")) and (is_open or _INITIALISERS.search(before) is not None)
