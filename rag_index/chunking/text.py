"""Cutting documents into chunks. Prose: at a paragraph, else a sentence, else a line, else a word, else a character."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_index.documents.batches import ChunkedDocument

if TYPE_CHECKING:
    from rag_index.documents.batches import DocumentBatch
    from rag_index.errors import RagIndexError

__all__ = ["TextChunker", "halved", "halves", "whole_character"]

VERSION = 1
_SPACE = re.compile(r"\s*")
_BREAKS = (
    re.compile(r"\n[ \t\r]*\n\s*"),  # a paragraph
    re.compile(r"(?<=[.!?…؟।])[\"')\]»”’]*\s+|(?<=[。！？])"),  # a sentence
    re.compile(r"\n\s*"),  # a line
    re.compile(r"\s+"),  # a word
)
_JOINER = "\u200d"
_VIRAMA = 9
"""The combining class of signs that bind an Indic consonant to the next."""
MAX_FLAGS = 64
"""So far back it is looked where a row of flags began."""


@dataclass(frozen=True, slots=True)
class TextChunker:
    """Cuts texts into chunks of at most `chars` characters, each repeating about `overlap` of the one before.

    An overlap of more than half of a chunk is taken as half.
    """

    chars: int
    overlap: int

    def __post_init__(self) -> None:
        if self.chars < 1 or self.overlap < 0:
            raise ValueError(f"chunks of {self.chars} characters with {self.overlap} of overlap cannot be cut")

    @property
    def fingerprint(self) -> str:
        """What decides the cutting."""
        return f"text-{VERSION}/{self.chars}/{self.overlap}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """As `Cutter.cut`."""
        return [ChunkedDocument(self.split(text)) for text in documents.texts]

    def halved(self, at: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """As `Cutter.halved`."""
        return halved(at, number)

    def split(self, text: str) -> list[str]:
        """The chunks, in order, edges stripped. Every character that is not white space is in at least one.

        Each chunk has something that the one before has not. A text of white space alone gives no chunk.
        """
        text = text.strip()
        if len(text) <= self.chars:
            return [text] if text else []
        chunks = []
        start = taken = 0
        while taken < len(text):
            end = self._end(text, start, taken)
            chunks.append(text[start:end].strip())
            taken = _past_space(text, end)
            start = self._next_start(text, start, end, taken)
        return chunks

    def _end(self, text: str, start: int, taken: int) -> int:
        """Where the chunk from `start` ends: the last good break in the second half of its room for new text."""
        limit = start + self.chars
        if limit >= len(text):
            return len(text)
        earliest = taken + max((limit - taken) // 2, 1)
        for pattern in _BREAKS:
            ends = [match.end() for match in pattern.finditer(text, earliest, limit)]
            if ends:
                return ends[-1]
        return whole_character(text, earliest, limit)

    def _next_start(self, text: str, start: int, end: int, taken: int) -> int:
        """Where the next chunk starts: about `overlap` before `end`, at a word; at `taken` where nothing fits."""
        most = self.chars // 2
        back = end - min(self.overlap, most)
        if back == end or back <= start or taken - back > most:
            return taken
        word = _BREAKS[-1].search(text, back - 1, end)
        if word and word.end() < end:
            return word.end()
        whole = whole_character(text, start + 1, back)
        return whole if taken - whole <= most else taken


def halved(at: ChunkedDocument, number: int) -> ChunkedDocument | None:
    """A cut with one chunk as its `halves`, which keep its context and payload; None where it cannot be cut."""
    first, second = halves(at.chunks[number])
    if not first:
        return None
    chunks = [*at.chunks[:number], first, second, *at.chunks[number + 1 :]]
    contexts, payloads = at.contexts, at.payloads
    return replace(
        at,
        chunks=chunks,
        contexts=[*contexts[: number + 1], *contexts[number:]] if contexts else contexts,
        payloads=[*payloads[: number + 1], *payloads[number:]] if payloads else payloads,
    )


def halves(text: str) -> tuple[str, str]:
    """Two parts of a text that was too long for the embedder, cut near the middle; ("", text) if it cannot be cut."""
    if len(text) < 2:
        return "", text
    middle = len(text) // 2
    for pattern in _BREAKS:
        breaks = [m.end() for m in pattern.finditer(text, middle // 2, len(text) - middle // 2)]
        breaks = [at for at in breaks if text[:at].strip() and text[at:].strip()]
        if breaks:
            best = min(breaks, key=lambda at: abs(at - middle))
            return text[:best].strip(), text[best:].strip()
    at = whole_character(text, 1, middle)
    first, second = text[:at].strip(), text[at:].strip()
    return (first, second) if first and second else ("", text)


def _past_space(text: str, position: int) -> int:
    """The first position from here that is not white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position


def whole_character(text: str, earliest: int, position: int) -> int:
    """The last position at or before `position` that parts no character as people see it; `position` if none does."""
    for at in range(min(position, len(text) - 1), earliest - 1, -1):
        if not _joined(text, at):
            return at
    return position


def _joined(text: str, at: int) -> bool:
    """Whether the character before `cut` and the one at `cut` belong together (after Unicode's UAX 29, in short)."""
    before, after = text[at - 1], text[at]
    if after < "\u0300":
        return False
    if unicodedata.category(after)[0] == "M" or _JOINER in (before, after):
        return True
    if unicodedata.combining(before) == _VIRAMA:
        return True
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":  # skin tones, flags of regions
        return True
    if "\u1160" <= after <= "\u11ff":  # a Korean syllable in parts
        return True
    return _is_regional(after) and _regionals_before(text, at) % 2 == 1


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _regionals_before(text: str, at: int) -> int:
    """How many letters of flags stand before `cut` in a row; two make a flag."""
    first = at
    while first and at - first < 2 * MAX_FLAGS and _is_regional(text[first - 1]):
        first -= 1
    return at - first
