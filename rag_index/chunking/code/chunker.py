"""Chunks of source code, split at symbols. Files are parsed where their chunks are embedded: on the workers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_index.chunking.code.languages import TEXT, VERSION
from rag_index.chunking.code.splitting import find_break, split_at_symbols
from rag_index.chunking.code.symbols import symbols_of
from rag_index.documents.batches import ChunkedDocument
from rag_index.documents.canonical import decode_payload, encode_payload
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from rag_index.chunking.code.splitting import Span
    from rag_index.documents.batches import DocumentBatch

BETWEEN = "text"
"""The kind of chunks that lie between symbols."""
_LINE = re.compile("\n")


@dataclass(frozen=True, slots=True)
class CodeChunker:
    """Chunks of at most about `chars` characters. A file that cannot be parsed in `seconds` gets an error instead.

    Each chunk's payload has `lines` (the first and last line of what is not white space in it, from 1) and `kind`. A
    chunk of a symbol also has its name, qualified_name, signature, parent and docstring.
    """

    chars: int
    seconds: float

    @property
    def fingerprint(self) -> str:
        """As `Chunker.fingerprint`."""
        return f"code-{VERSION}/{self.chars}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """As `Chunker.chunk`; the payload of a document names its language."""
        return [
            self._chunk(text, str(decode_payload(payload).get("language", TEXT)))
            for text, payload in zip(documents.texts, documents.payloads, strict=True)
        ]

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """As `Chunker.split_chunk`, at a line if the chunk has several. No character is lost; `lines` stay right."""
        chunk = document.chunks[number]
        middle = _find_middle(chunk)
        if middle is None:
            return None
        payload = decode_payload(document.payloads[number])
        first_line = int(payload["lines"][0]) - chunk[: len(chunk) - len(chunk.lstrip())].count("\n")
        parts = (chunk[:middle], chunk[middle:])
        lines = (first_line, first_line + parts[0].count("\n"))
        payloads = [
            encode_payload({**payload, "lines": _line_range(part, line)})
            for part, line in zip(parts, lines, strict=True)
        ]
        contexts = document.contexts
        return replace(
            document,
            chunks=[*document.chunks[:number], *parts, *document.chunks[number + 1 :]],
            contexts=[*contexts[: number + 1], *contexts[number:]] if contexts else contexts,
            payloads=[*document.payloads[:number], *payloads, *document.payloads[number + 1 :]],
        )

    def _chunk(self, text: str, language: str) -> ChunkedDocument | RagIndexError:
        try:
            symbols = [] if language == TEXT else symbols_of(text.encode(), language, seconds=self.seconds)
        except RagIndexError as error:
            return error
        spans = split_at_symbols(text, symbols, self.chars)
        line_ends = [match.start() for match in _LINE.finditer(text)]
        return ChunkedDocument(
            [text[span.start : span.end] for span in spans],
            payloads=[encode_payload(_payload(text, span, line_ends)) for span in spans],
            symbols=dict(Counter(symbol.kind for symbol in symbols)),
        )


def _payload(text: str, span: Span, line_ends: list[int]) -> dict[str, Any]:
    chunk = text[span.start : span.end]
    first = bisect_right(line_ends, span.start + len(chunk) - len(chunk.lstrip()) - 1) + 1
    lines = [first, bisect_right(line_ends, span.start + len(chunk.rstrip()) - 1) + 1]
    symbol = span.symbol
    if symbol is None:
        return {"lines": lines, "kind": BETWEEN}
    optional = {
        "qualified_name": symbol.qualified_name,
        "signature": symbol.signature,
        "parent": symbol.parent,
        "docstring": symbol.docstring,
    }
    fields = {name: value for name, value in optional.items() if value}
    return {"lines": lines, "kind": symbol.kind, "name": symbol.name, **fields}


def _line_range(part: str, first_line: int) -> list[int]:
    """Return the first and last line of what is not white space in a part that begins on `first_line`."""
    first = first_line + part[: len(part) - len(part.lstrip())].count("\n")
    return [first, first + part.strip().count("\n")]


def _find_middle(chunk: str) -> int | None:
    """Return where to split a chunk so that both parts have more than white space; None if that cannot be."""
    begin, end = len(chunk) - len(chunk.lstrip()), len(chunk.rstrip())
    if end - begin < 2:
        return None
    middle = (begin + end) // 2
    position = find_break(chunk, max(begin, (begin + middle) // 2), middle)
    if not begin < position < end:
        position = find_break(chunk, begin, max(begin + 1, middle))
    return position if begin < position < end and chunk[:position].strip() and chunk[position:].strip() else None
