"""Cuts files of source code at their symbols. Parsing is done where chunks are embedded: on the workers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_index.chunking.code.languages import TEXT, VERSION
from rag_index.chunking.code.splitting import line_break, spans_of
from rag_index.chunking.code.symbols import symbols_of
from rag_index.documents.batches import ChunkedDocument
from rag_index.documents.canonical import decode_payload, encode_payload
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from rag_index.chunking.code.splitting import Span
    from rag_index.documents.batches import DocumentBatch

__all__ = ["CodeChunker"]

BETWEEN = "text"
"""The kind of what lies between symbols."""
_LINE = re.compile("\n")


@dataclass(frozen=True, slots=True)
class CodeChunker:
    """Chunks of at most about `chars` characters; a file that cannot be parsed in `seconds` has none, but an error.

    Each chunk's payload has lines ([first, last], from 1, of what is not white space in it), kind, and where it is of
    a symbol name, qualified_name, signature, parent and docstring.
    """

    chars: int
    seconds: float

    @property
    def fingerprint(self) -> str:
        """As `Cutter.fingerprint`."""
        return f"code-{VERSION}/{self.chars}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """As `Cutter.cut`; a document's payload says its language."""
        return [
            self._chunk(text, str(decode_payload(payload).get("language", TEXT)))
            for text, payload in zip(documents.texts, documents.payloads, strict=True)
        ]

    def halved(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """As `Cutter.halved`, at a line where there is one; nothing is lost, and lines are right."""
        chunk = document.chunks[number]
        at = _middle(chunk)
        if at is None:
            return None
        payload = decode_payload(document.payloads[number])
        first = int(payload["lines"][0]) - chunk[: len(chunk) - len(chunk.lstrip())].count("\n")
        parts = (chunk[:at], chunk[at:])
        starts = (first, first + parts[0].count("\n"))
        own = [
            encode_payload({**payload, "lines": _lines_of(part, line)})
            for part, line in zip(parts, starts, strict=True)
        ]
        contexts = document.contexts
        return replace(
            document,
            chunks=[*document.chunks[:number], *parts, *document.chunks[number + 1 :]],
            contexts=[*contexts[: number + 1], *contexts[number:]] if contexts else contexts,
            payloads=[*document.payloads[:number], *own, *document.payloads[number + 1 :]],
        )

    def _chunk(self, text: str, language: str) -> ChunkedDocument | RagIndexError:
        try:
            symbols = [] if language == TEXT else symbols_of(text.encode(), language, seconds=self.seconds)
        except RagIndexError as error:
            return error
        spans = spans_of(text, symbols, self.chars)
        ends = [match.start() for match in _LINE.finditer(text)]
        return ChunkedDocument(
            [text[span.start : span.end] for span in spans],
            payloads=[encode_payload(_payload(text, span, ends)) for span in spans],
            symbols=dict(Counter(symbol.kind for symbol in symbols)),
        )


def _payload(text: str, span: Span, ends: list[int]) -> dict[str, Any]:
    chunk = text[span.start : span.end]
    first = bisect_right(ends, span.start + len(chunk) - len(chunk.lstrip()) - 1) + 1
    lines = [first, bisect_right(ends, span.start + len(chunk.rstrip()) - 1) + 1]
    symbol = span.symbol
    if symbol is None:
        return {"lines": lines, "kind": BETWEEN}
    said = {"qualified_name": symbol.qualified_name, "signature": symbol.signature, "parent": symbol.parent}
    said = {name: value for name, value in {**said, "docstring": symbol.docstring}.items() if value}
    return {"lines": lines, "kind": symbol.kind, "name": symbol.name, **said}


def _lines_of(part: str, first: int) -> list[int]:
    """First and last line of what is not white space in a part that begins on line `first`."""
    begin = first + part[: len(part) - len(part.lstrip())].count("\n")
    return [begin, begin + part.strip().count("\n")]


def _middle(chunk: str) -> int | None:
    """Where to cut a chunk in two that both have more than white space; None where it cannot be."""
    begin, end = len(chunk) - len(chunk.lstrip()), len(chunk.rstrip())
    if end - begin < 2:
        return None
    middle = (begin + end) // 2
    at = line_break(chunk, max(begin, (begin + middle) // 2), middle)
    if not begin < at < end:
        at = line_break(chunk, begin, max(begin + 1, middle))
    return at if begin < at < end and chunk[:at].strip() and chunk[at:].strip() else None
