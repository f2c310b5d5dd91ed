"""Display of a hit: its text, cut around the words of the query, which are highlighted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.embedders.tokenizer import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.search.results import SearchHit

BEFORE = 0.3
"""The share of a snippet before its first highlighted word. Chosen; nothing depends on it."""


def is_code(hit: SearchHit) -> bool:
    """Return whether a hit is source code: only files of source code have a path and lines."""
    payload = hit.payload
    return "path" in payload and isinstance(payload.get("lines"), list)


def marked(text: str, words: Sequence[str], before: str, after: str) -> str:
    """Return a text with `before` and `after` around each of these words.

    Example: `marked("a printer", ["printer"], "**", "**")` is "a **printer**".
    """
    shown = list[str]()
    done = 0
    for start, end in places(text, words):
        shown += [text[done:start], before, text[start:end], after]
        done = end
    shown.append(text[done:])
    return "".join(shown)


def snippet(text: str, words: Sequence[str], chars: int) -> str:
    """Return about `chars` characters of a text, where most of these words are, with "…" where it
    is cut."""
    if len(text) <= chars:
        return text
    found = [start for start, _ in places(text, words)]
    start = _best_start(found, len(text), chars)
    end = start + chars
    before = int(BEFORE * chars)
    # Begin and end between words, unless a word is as long as the part that may be left out.
    if start > 0:
        start = text.find(" ", start, start + before) + 1 or start
    if end < len(text):
        end = max(text.rfind(" ", start, end), end - before)
    first = "… " if start > 0 else ""
    last = " …" if end < len(text) else ""
    return f"{first}{text[start:end].strip()}{last}"


def _best_start(found: Sequence[int], length: int, chars: int) -> int:
    """Return the start of the `chars` characters that contain the most of the places `found`."""
    before = int(BEFORE * chars)
    # The beginning of the text, and a little before each place.
    starts = [0]
    for place in found:
        starts.append(min(max(0, place - before), length - chars))
    return max(starts, key=lambda start: sum(start <= place < start + chars for place in found))
