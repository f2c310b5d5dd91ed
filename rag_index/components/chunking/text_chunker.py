"""Chunks of prose: they end at a paragraph, else at a sentence, a line, a word, or a character."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Protocol

from rag_index.core.documents.batches import LINK, PART, RESERVED_KEY, ChunkedDocument, DocumentBatch, TextLayout
from rag_index.core.documents.canonical import encode_payload

if TYPE_CHECKING:
    from rag_index.errors import RagIndexError

_SPACE = re.compile(r"\s*")
_BREAKS = (
    re.compile(r"\n[ \t\r]*\n\s*"),  # a paragraph
    re.compile(r"(?<=[.!?…؟।])[\"')\]»”’]*\s+|(?<=[。！？])"),  # a sentence
    re.compile(r"\n\s*"),  # a line
    re.compile(r"\s+"),  # a word
)
TITLE_CHARS = 200
"""How much of a title stands before each chunk."""
NO_FIELDS = b"{}"
_JOINER = "\u200d"


class Chunker(Protocol):
    """Splits documents into chunks. It is sent to the workers, so it pickles and is small."""

    @property
    def fingerprint(self) -> str:
        """Name everything that decides the chunks: when it changes, the index has to be rebuilt."""

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """Return the chunks of each document, or the reason why it has none. Equal documents give equal chunks.

        Raises what the services that it asks raise (transient kinds of RagIndexError), for the shard as a whole.
        """

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """Return the document with chunk `number` split in two, because it is too long for the embedder.

        Returns None if the chunk cannot be split.
        """


@dataclass(frozen=True, slots=True)
class TextChunker:
    """Chunks of at most `chars` characters. Each repeats about `overlap` characters of the one before. An overlap of
    more than half a chunk counts as half a chunk."""

    chars: int
    overlap: int

    @property
    def fingerprint(self) -> str:
        return f"text/{self.chars}/{self.overlap}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        return [
            self.chunk_parts(text, TextLayout.decode(layout)) if layout else ChunkedDocument(self.split(text))
            for text, layout in zip_longest(documents.texts, documents.layouts)
        ]

    def chunk_parts(self, text: str, layout: TextLayout) -> ChunkedDocument:
        """Split the own text of a document, and each of its parts by itself; the title is the context of each chunk. A
        text that is nothing but the title has no context."""
        chunks = self.split(text[: layout.end])
        payloads = [NO_FIELDS] * len(chunks)
        for part in layout.parts:
            of_part = self.split(text[part.start : part.end])
            fields = {part.name: part.payload} if part.payload else {}
            described = {"name": part.name, "id": part.id, LINK: part.link, "page": part.page}
            shown = {name: value for name, value in described.items() if value}
            payload = encode_payload({**fields, RESERVED_KEY: {PART: shown}})
            chunks += of_part
            payloads += [payload] * len(of_part)
        title = shortened(layout.title)
        contexts = [title] * len(chunks) if title and chunks != [layout.title] else []
        return ChunkedDocument(chunks, contexts, payloads if layout.parts else [], layout.lacks)

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        first, second = halves(document.chunks[number])
        return document.with_halves(number, (first, second)) if first else None

    def split(self, text: str) -> list[str]:
        """Return the chunks of a text in order, without white space at their edges. Every character that is not white
        space is in at least one chunk, and each chunk has something that the one before has not. A text of white space
        alone has no chunk."""
        text = text.strip()
        if len(text) <= self.chars:
            return [text] if text else []
        chunks = []
        start = covered = 0
        while covered < len(text):
            limit = start + self.chars
            # at the last good break in the second half of what no chunk before has
            end = last_break(text, covered + max((limit - covered) // 2, 1), limit) if limit < len(text) else len(text)
            chunks.append(text[start:end].strip())
            space = _SPACE.match(text, end)
            covered = space.end() if space else end
            start = self._next_start(text, start, end, covered)
        return chunks

    def _next_start(self, text: str, start: int, end: int, covered: int) -> int:
        """Return where the next chunk starts: at a word, about `overlap` before `end`, or at `covered` if none fits."""
        max_overlap = self.chars // 2
        back = end - min(self.overlap, max_overlap)
        if back == end or back <= start or covered - back > max_overlap:
            return covered
        word = _BREAKS[-1].search(text, back - 1, end)
        if word and word.end() < end:
            return word.end()
        boundary = character_boundary(text, start + 1, back)
        return boundary if covered - boundary <= max_overlap else covered


def shortened(title: str, chars: int = TITLE_CHARS) -> str:
    """Return a title of at most `chars` characters, which ends at a word."""
    if len(title) <= chars:
        return title
    return title[: character_boundary(title, 1, chars)].rpartition(" ")[0] or title[:chars]


def halves(text: str) -> tuple[str, str]:
    """Split a text at the best break near its middle and return both parts, or ("", text) if it cannot be split."""
    position = middle_break(text)
    return (text[:position].strip(), text[position:].strip()) if position else ("", text)


def last_break(text: str, earliest: int, latest: int, breaks: Sequence[re.Pattern[str]] = _BREAKS) -> int:
    """Return where a chunk should end between two positions: after the last break of the first kind that there is."""
    for pattern in breaks:
        if ends := [match.end() for match in pattern.finditer(text, earliest, latest)]:
            return ends[-1]
    return character_boundary(text, earliest, latest)


def middle_break(text: str, breaks: Sequence[re.Pattern[str]] = _BREAKS) -> int | None:
    """Return the break nearest to the middle, of the first kind that leaves words on both sides; None if none does."""
    middle = len(text) // 2
    for pattern in (*breaks, None):
        ends = [character_boundary(text, 1, middle)]
        if pattern is not None:
            ends = [match.end() for match in pattern.finditer(text, middle // 2, len(text) - middle // 2)]
        if ends := [position for position in ends if text[:position].strip() and text[position:].strip()]:
            return min(ends, key=lambda position: abs(position - middle))
    return None


def character_boundary(text: str, earliest: int, position: int) -> int:
    """Return the last position up to `position` that splits no character as people see it. Returns `position` itself if
    there is none from `earliest` on."""
    for candidate in range(min(position, len(text) - 1), earliest - 1, -1):
        if not _splits_character(text, candidate):
            return candidate
    return position


def _splits_character(text: str, position: int) -> bool:
    """Return whether the characters before and at `position` belong together: a sign and its marks, or joined ones."""
    before, after = text[position - 1], text[position]
    if after < "\u0300":
        return before == "\r" and after == "\n"
    return unicodedata.category(after)[0] == "M" or _JOINER in (before, after)
