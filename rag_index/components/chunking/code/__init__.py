"""Chunks of source code, split at symbols. Files are parsed where their chunks are embedded: on the workers.

The grammars, and the queries that say what defines a symbol, come from tree-sitter's own packages (the extra `code`).
What these queries leave out, such as enums of TypeScript, is beside each language in `symbols`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from rag_index.components.chunking.code.symbols import TEXT, Symbol, symbols_of
from rag_index.components.chunking.text_chunker import last_break, middle_break
from rag_index.core.documents.batches import ChunkedDocument, DocumentBatch
from rag_index.core.documents.canonical import decode_payload, encode_payload
from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import RagIndexError

MAX_WORDLESS_CHARS = 100
"""A span of at most this length that has no word, such as the brace that closes a class, is merged into a neighbour."""

_WORD = re.compile(r"\w")
_BREAKS = re.compile(r"\n[ \t\f\r]*\n"), re.compile(r"\n"), re.compile(r"[ \t]")
"""What a chunk ends with at best: a blank line, a line, a blank."""
PARSE_SECONDS = 30.0
TEXT_BETWEEN = "text"
"""The kind of chunks that lie between symbols."""


@shows_sizes("start", "end", "symbol")
class Span(NamedTuple):
    """The characters `start` to `end` of a text, and the symbol that they belong to, if any."""

    start: int
    end: int
    symbol: Symbol | None


def _character_positions(text: str, symbols: Sequence[Symbol]) -> dict[int, int]:
    """Map each byte offset at which a symbol begins or ends to its position in characters."""
    offsets, data = sorted({offset for symbol in symbols for offset in (symbol.start, symbol.end)}), text.encode()
    counts = (len(data[before:offset].decode()) for before, offset in pairwise([0, *offsets]))
    return dict(zip(offsets, accumulate(counts), strict=True))


def _split_at_symbols(text: str, symbols: Sequence[Symbol], max_chars: int) -> Iterator[Span]:
    """Yield consecutive spans of at most `max_chars` characters that cover the text; some may be white space alone.
    `symbols` are in the order in which they begin, an outer one before those within it. A stack of the symbols being
    split replaces recursion."""
    positions = _character_positions(text, symbols)
    enclosing: list[Symbol] = []
    done = 0

    def advance(end: int) -> Iterator[Span]:
        """Yield the text between symbols up to `end`, and leave the enclosing symbols that end before it."""
        nonlocal done
        while enclosing and positions[enclosing[-1].end] <= end:
            closing = positions[enclosing[-1].end]
            yield from _split_at_lines(text, done, closing, enclosing[-1], max_chars)
            done = max(done, closing)
            enclosing.pop()
        yield from _split_at_lines(text, done, end, enclosing[-1] if enclosing else None, max_chars)
        done = max(done, end)

    for symbol in symbols:
        start, end = positions[symbol.start], positions[symbol.end]
        if start < done:  # it lies inside a symbol that is a span as a whole
            continue
        yield from advance(start)
        if end - start <= max_chars:
            yield Span(start, end, symbol)
            done = end
        else:
            enclosing.append(symbol)
    yield from advance(len(text))


def _split_at_lines(text: str, start: int, end: int, symbol: Symbol | None, max_chars: int) -> Iterator[Span]:
    while end - start > max_chars:
        position = min(end, last_break(text, start + max_chars // 2, start + max_chars, _BREAKS))
        yield Span(start, position, symbol)
        start = position
    if start < end:
        yield Span(start, end, symbol)


def _merge_wordless(text: str, spans: Iterable[Span]) -> list[Span]:
    """Merge spans of white space or of a few signs into the span before them, or at the beginning into the next."""
    merged: list[Span] = []
    leading: Span | None = None
    for span in spans:
        is_long = span.end - span.start > MAX_WORDLESS_CHARS and bool(text[span.start : span.end].strip())
        if is_long or _WORD.search(text, span.start, span.end):
            merged.append(span if leading is None else span._replace(start=leading.start))
            leading = None
        elif merged:
            merged[-1] = merged[-1]._replace(end=span.end)
        else:
            leading = span if leading is None else span._replace(start=leading.start)
    return merged or ([leading] if leading else [])


@dataclass(frozen=True, slots=True)
class CodeChunker:
    """Chunks of at most about `chars` characters. A file that cannot be parsed in `seconds` gets an error instead. Each
    chunk's payload has `lines` (the first and last line of what is not white space in it, from 1) and `kind`. A chunk
    of a symbol also has its name, qualified_name, signature, parent and docstring."""

    chars: int
    seconds: float = PARSE_SECONDS

    @property
    def fingerprint(self) -> str:
        return f"code/{self.chars}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """Split each document at its symbols. The payload of a document names its language."""
        return [
            self._chunk(text, str(decode_payload(payload).get("language", TEXT)))
            for text, payload in zip(documents.texts, documents.payloads, strict=True)
        ]

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """Split a chunk in two, at a line if the chunk has several. No character is lost; `lines` stay right."""
        chunk = document.chunks[number]
        if (middle := middle_break(chunk.strip(), _BREAKS)) is None:
            return None
        middle += len(chunk) - len(chunk.lstrip())
        payload = decode_payload(document.payloads[number])
        first_line = int(payload["lines"][0]) - chunk[: len(chunk) - len(chunk.lstrip())].count("\n")
        parts = (chunk[:middle], chunk[middle:])
        ranges = _line_range(parts[0], first_line), _line_range(parts[1], first_line + parts[0].count("\n"))
        payloads = [encode_payload({**payload, "lines": lines}) for lines in ranges]
        return document.with_halves(number, parts, payloads)

    def _chunk(self, text: str, language: str) -> ChunkedDocument | RagIndexError:
        try:
            symbols = [] if language == TEXT else symbols_of(text.encode(), language, seconds=self.seconds)
        except RagIndexError as error:
            return error
        spans = _merge_wordless(text, _split_at_symbols(text, symbols, self.chars)) if text.strip() else []
        chunks = [text[span.start : span.end] for span in spans]
        payloads, line = [], 1
        for chunk, span in zip(chunks, spans, strict=True):
            fields = {"kind": span.symbol.kind if span.symbol else TEXT_BETWEEN, "lines": _line_range(chunk, line)}
            for name in ("name", "qualified_name", "signature", "parent", "docstring") if span.symbol else ():
                if (value := getattr(span.symbol, name)) or name == "name":
                    fields[name] = value
            payloads.append(encode_payload(fields))
            line += chunk.count("\n")
        return ChunkedDocument(chunks, payloads=payloads)


def _line_range(part: str, first_line: int) -> list[int]:
    """Return the first and last line of what is not white space in a part that begins on `first_line`."""
    first = first_line + part[: len(part) - len(part.lstrip())].count("\n")
    return [first, first + part.strip().count("\n")]
