"""What of a hit is shown: its text, cut around the words of the query and with marks around
them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.embedders.tokenizer import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.search.results import SearchHit

BEFORE = 0.3
"""The share of a snippet that stands before its first marked word."""


def is_code(hit: SearchHit) -> bool:
    """Return whether a hit is from a file of source code: only those have lines."""
    return "path" in hit.payload and isinstance(hit.payload.get("lines"), list)


def marked(text: str, words: Sequence[str], before: str, after: str) -> str:
    """Return a text with each of these words between two marks: `marked("a printer", ["printer"],
    "**", "**")`."""
    shown, done = list[str](), 0
    for start, end in places(text, words):
        shown += [text[done:start], before, text[start:end], after]
        done = end
    return "".join([*shown, text[done:]])


def snippet(text: str, words: Sequence[str], chars: int) -> str:
    """Return about `chars` characters of a text, where most of these words stand, with "…" where it
    is cut."""
    if len(text) <= chars:
        return text
    found, before = [start for start, _ in places(text, words)], int(BEFORE * chars)
    starts = [0, *[min(max(0, place - before), len(text) - chars) for place in found]]
    start = max(starts, key=lambda one: sum(one <= place < one + chars for place in found))
    end = start + chars
    if start:  # no word is cut, unless it is as long as what is shown
        start = text.find(" ", start, start + before) + 1 or start
    if end < len(text):
        end = max(text.rfind(" ", start, end), end - before)
    return f"{'… ' if start else ''}{text[start:end].strip()}{' …' if end < len(text) else ''}"
