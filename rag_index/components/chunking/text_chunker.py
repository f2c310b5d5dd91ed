"""Chunks of prose: they end at a paragraph, else at a sentence, a line, a word, or a character."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.core.documents.batches import (
    LINK,
    PART,
    RESERVED_KEY,
    ChunkedDocument,
    DocumentBatch,
    TextLayout,
    TextPart,
)
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
"""Where a chunk may end, best first. A chunk ends at the end of the match."""
TITLE_CHARS = 200
"""Characters of a title that are embedded before each chunk. Chosen; a change raises
`INDEX_VERSION`."""
NO_FIELDS = b"{}"
"""The payload of a chunk without fields of its own, as canonical JSON."""
_JOINER = "\u200d"
"""Zero width joiner: 👩‍👧 is 👩, a joiner and 👧."""


class Chunker(Protocol):
    """Splits documents into chunks. It is sent to the workers, so it pickles and is small."""

    @property
    def fingerprint(self) -> str:
        """Name everything that decides the chunks: when it changes, the index has to be rebuilt."""

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """Return the chunks of each document, or the error for a document that cannot be split.

        Equal documents give equal chunks.

        Raises:
            RagIndexError: If a service that the chunker needs is unavailable. The error is
                transient and concerns all documents.
        """

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """Return the document with chunk `number` split in two, as it is too long for the embedder.

        Returns None if the chunk cannot be split.
        """


@dataclass(frozen=True, slots=True)
class TextChunker:
    """Splits prose into chunks of at most `chars` characters.

    Each chunk repeats about `overlap` characters of the one before. An overlap of more than half a
    chunk counts as half a chunk.
    """

    chars: int
    overlap: int

    @property
    def fingerprint(self) -> str:
        return f"text/{self.chars}/{self.overlap}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        chunked: list[ChunkedDocument | RagIndexError] = []
        # A batch without any layout has an empty column of them.
        for text, layout in zip_longest(documents.texts, documents.layouts):
            if layout:
                chunked.append(self.chunk_parts(text, TextLayout.decode(layout)))
            else:
                chunked.append(ChunkedDocument(self.split(text)))
        return chunked

    def chunk_parts(self, text: str, layout: TextLayout) -> ChunkedDocument:
        """Split the document's own text and each of its parts separately.

        The title is the context of each chunk. A text that is nothing but the title has no context.
        """
        chunks = self.split(text[: layout.end])
        payloads = [NO_FIELDS] * len(chunks)
        for part in layout.parts:
            part_chunks = self.split(text[part.start : part.end])
            chunks += part_chunks
            payloads += [_part_payload(part)] * len(part_chunks)
        if not layout.parts:
            payloads = []
        title = shortened(layout.title)
        contexts: list[str] = []
        if title and chunks != [layout.title]:
            contexts = [title] * len(chunks)
        return ChunkedDocument(chunks, contexts, payloads, layout.lacks)

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        first, second = halves(document.chunks[number])
        if not first:
            return None
        return document.with_halves(number, (first, second))

    def split(self, text: str) -> list[str]:
        """Return the chunks of a text in order, without white space at their edges.

        Every character that is not white space is in at least one chunk, and each chunk has
        something that the one before lacks. A text of white space alone has no chunk.
        """
        text = text.strip()
        if len(text) <= self.chars:
            return [text] if text else []
        chunks: list[str] = []
        start = 0
        # Where the text begins that no chunk has yet. An overlap starts before it.
        covered = 0
        while covered < len(text):
            end = len(text)
            limit = start + self.chars
            if limit < end:
                # The second half of the new characters is searched: a chunk that ended earlier
                # would be small. With limit 100 and covered 20, it ends between 60 and 100.
                half = (limit - covered) // 2
                end = last_break(text, covered + max(half, 1), limit)
            chunks.append(text[start:end].strip())
            space = _SPACE.match(text, end)
            covered = space.end() if space else end
            start = self._next_start(text, start, end, covered)
        return chunks

    def _next_start(self, text: str, start: int, end: int, covered: int) -> int:
        """Return where the next chunk starts: at a word, about `overlap` characters before `end`.

        Returns `covered` if no overlap fits.

        Args:
            start: Where the last chunk starts.
            end: Where the last chunk ends.
            covered: Where the next character that is not white space is.
        """
        max_overlap = self.chars // 2
        overlap_start = end - min(self.overlap, max_overlap)
        # There is no overlap, or it would begin at or before the last chunk.
        if overlap_start == end or overlap_start <= start:
            return covered
        # A long gap follows: half of the next chunk would be overlap and white space.
        if covered - overlap_start > max_overlap:
            return covered
        space = _BREAKS[-1].search(text, overlap_start - 1, end)
        if space and space.end() < end:
            return space.end()
        # The overlap has no white space: 漢字 or one long word.
        boundary = character_boundary(text, start + 1, overlap_start)
        if covered - boundary > max_overlap:
            return covered
        return boundary


def _part_payload(part: TextPart) -> bytes:
    """Return the payload of the chunks of a part: its fields, and a description of the part."""
    fields: dict[str, Any] = {}
    if part.payload:
        fields[part.name] = part.payload
    described = {"name": part.name, "id": part.id, LINK: part.link, "page": part.page}
    known = {name: value for name, value in described.items() if value}
    fields[RESERVED_KEY] = {PART: known}
    return encode_payload(fields)


def shortened(title: str, chars: int = TITLE_CHARS) -> str:
    """Return a title of at most `chars` characters that ends at a word, if it has several."""
    if len(title) <= chars:
        return title
    end = character_boundary(title, 1, chars)
    words, _, _ = title[:end].rpartition(" ")
    return words or title[:chars]


def halves(text: str) -> tuple[str, str]:
    """Split a text at the best break near its middle.

    Returns ("", text) if the text cannot be split.
    """
    position = middle_break(text)
    if position is None:
        return "", text
    return text[:position].strip(), text[position:].strip()


def last_break(
    text: str, earliest: int, latest: int, breaks: Sequence[re.Pattern[str]] = _BREAKS
) -> int:
    """Return the best position between two others at which a chunk should end.

    It is the last break of the first kind that occurs there, else the last boundary between
    characters.
    """
    for pattern in breaks:
        ends = [match.end() for match in pattern.finditer(text, earliest, latest)]
        if ends:
            return ends[-1]
    return character_boundary(text, earliest, latest)


def middle_break(text: str, breaks: Sequence[re.Pattern[str]] = _BREAKS) -> int | None:
    """Return the break nearest to the middle, of the first kind that has text on both sides.

    Returns None if the text cannot be split: "a".
    """
    middle = len(text) // 2
    earliest = middle // 2
    latest = len(text) - earliest
    for pattern in breaks:
        ends = [match.end() for match in pattern.finditer(text, earliest, latest)]
        dividing = [end for end in ends if _is_between_text(text, end)]
        if dividing:
            return min(dividing, key=lambda end: abs(end - middle))
    # Without a break, "abcdef" is split into "abc" and "def".
    boundary = character_boundary(text, 1, middle)
    return boundary if _is_between_text(text, boundary) else None


def _is_between_text(text: str, position: int) -> bool:
    """Return whether both sides of a position have something that is not white space."""
    return bool(text[:position].strip() and text[position:].strip())


def character_boundary(text: str, earliest: int, position: int) -> int:
    """Return the last position up to `position` that splits no character as people see it.

    Returns `position` itself if there is none from `earliest` on.
    """
    latest = min(position, len(text) - 1)
    for candidate in range(latest, earliest - 1, -1):
        if not _splits_character(text, candidate):
            return candidate
    return position


def _splits_character(text: str, position: int) -> bool:
    """Return whether the code points before and at `position` are one character to people."""
    before, after = text[position - 1], text[position]
    # Below U+0300 are no combining marks; only a Windows line end is one character.
    if after < "\u0300":
        return before == "\r" and after == "\n"
    # "e" and U+0301 are é; a joiner joins what stands on both sides of it.
    is_mark = unicodedata.category(after)[0] == "M"
    return is_mark or _JOINER in (before, after)
