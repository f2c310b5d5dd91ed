"""Chunks of source code, split at symbols.

`languages` opens the grammars, `symbols` finds the symbols of a file, and this module splits the
file at them. Files are parsed where their chunks are embedded: on the workers. The grammars, and
the queries for what defines a symbol, come from tree-sitter's own packages (the extra `code`).

It imports `text_chunker` and `core`. Orders that must hold, and the test
(tests/components/chunking/code/test_symbols.py) that fails if one does not:
- The chunks of a file join to the file, in order and without overlap, and each is on its `lines`:
  test_chunks_of_damaged_files_join_to_the_file.
- This remains so when a chunk is split: test_splitting_a_chunk_loses_nothing.
- The time limit covers everything that is done with a file:
  test_no_file_takes_longer_than_its_limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rag_index.components.chunking.code.languages import TEXT
from rag_index.components.chunking.code.symbols import Symbol, symbols_of
from rag_index.components.chunking.text_chunker import last_break, middle_break
from rag_index.core.documents.batches import ChunkedDocument, DocumentBatch
from rag_index.core.documents.canonical import decode_payload, encode_payload
from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import RagIndexError

MAX_WORDLESS_CHARS = 100
"""Characters. A shorter span without a word, such as the brace that closes a class, is merged into
its neighbour. Chosen; a change raises `INDEX_VERSION`."""

_WORD = re.compile(r"\w")
_BREAKS = re.compile(r"\n[ \t\f\r]*\n"), re.compile(r"\n"), re.compile(r"[ \t]")
"""Where a chunk may end, best first: after a blank line, a line, a blank."""
PARSE_SECONDS = 30.0
"""Seconds in which a file must be parsed (docs/sources.md). Chosen: the shard's other files
wait."""
TEXT_BETWEEN = "text"
"""The kind of chunks that lie between symbols."""
_OPTIONAL_FIELDS = ("qualified_name", "signature", "parent", "docstring")
"""Fields of a symbol that a chunk's payload has unless they are empty."""


@shows_sizes("start", "end", "symbol")
class Span(NamedTuple):
    """The characters `start` to `end` of a text, and the symbol that they belong to, if any."""

    start: int
    end: int
    symbol: Symbol | None


def _character_positions(text: str, symbols: Sequence[Symbol]) -> dict[int, int]:
    """Map each byte offset at which a symbol begins or ends to its position in characters."""
    offsets: set[int] = set()
    for symbol in symbols:
        offsets.add(symbol.start)
        offsets.add(symbol.end)
    data = text.encode()
    positions: dict[int, int] = {}
    before = position = 0
    for offset in sorted(offsets):
        # "é = 1": bytes 0 to 2 are one character.
        position += len(data[before:offset].decode())
        positions[offset] = position
        before = offset
    return positions


class _SymbolSplitter:
    """Splits one text at its symbols. A stack of the symbols being split replaces recursion."""

    def __init__(self, text: str, symbols: Sequence[Symbol], max_chars: int) -> None:
        self._text = text
        self._symbols = symbols
        self._max_chars = max_chars
        self._positions = _character_positions(text, symbols)
        self._enclosing: list[Symbol] = []
        """The symbols around the current position that are too long for one span, outermost
        first."""
        self._done = 0
        """Where the last span ends."""

    def split(self) -> Iterator[Span]:
        """Yield consecutive spans of at most `max_chars` characters that cover the text.

        Some may be white space alone. The symbols are in the order in which they begin, an outer
        one before those within it.
        """
        for symbol in self._symbols:
            start, end = self._positions[symbol.start], self._positions[symbol.end]
            # The symbol lies inside another that is one span: a method of a short class.
            if start < self._done:
                continue
            yield from self._advance(start)
            if end - start <= self._max_chars:
                yield Span(start, end, symbol)
                self._done = end
            else:
                # A long class is split at its methods, which follow.
                self._enclosing.append(symbol)
        yield from self._advance(len(self._text))

    def _advance(self, end: int) -> Iterator[Span]:
        """Yield the text between symbols up to `end`. Leave the symbols that end before it."""
        while self._enclosing:
            innermost = self._enclosing[-1]
            closing = self._positions[innermost.end]
            if closing > end:
                break
            # What follows the last method of a class belongs to the class.
            yield from self._split_rest(closing, innermost)
            self._enclosing.pop()
        symbol = self._enclosing[-1] if self._enclosing else None
        yield from self._split_rest(end, symbol)

    def _split_rest(self, end: int, symbol: Symbol | None) -> Iterator[Span]:
        """Yield what is not yet split before `end`, in spans that end at lines."""
        yield from _split_at_lines(self._text, Span(self._done, end, symbol), self._max_chars)
        self._done = max(self._done, end)


def _split_at_lines(text: str, span: Span, max_chars: int) -> Iterator[Span]:
    start, end, symbol = span
    while end - start > max_chars:
        # The last good break in the second half of the longest span that is allowed.
        position = last_break(text, start + max_chars // 2, start + max_chars, _BREAKS)
        position = min(end, position)
        yield Span(start, position, symbol)
        start = position
    if start < end:
        yield Span(start, end, symbol)


def _merge_wordless(text: str, spans: Iterable[Span]) -> list[Span]:
    """Merge spans without a word into the span before them, or at the beginning into the next."""
    merged: list[Span] = []
    leading: Span | None = None
    for span in spans:
        if _is_chunk(text, span):
            if leading is None:
                merged.append(span)
            else:
                merged.append(span._replace(start=leading.start))
                leading = None
        elif merged:
            # "}\n" after the last method of a class
            merged[-1] = merged[-1]._replace(end=span.end)
        elif leading is None:
            # blank lines at the beginning of the file
            leading = span
        else:
            leading = span._replace(start=leading.start)
    # The text has no word at all: "{}\n".
    if not merged and leading is not None:
        return [leading]
    return merged


def _is_chunk(text: str, span: Span) -> bool:
    """Return whether a span is a chunk of its own: it has a word, or many other characters."""
    if span.end - span.start > MAX_WORDLESS_CHARS and text[span.start : span.end].strip():
        return True
    return _WORD.search(text, span.start, span.end) is not None


@dataclass(frozen=True, slots=True)
class CodeChunker:
    """Splits source code into chunks of at most about `chars` characters.

    A file that cannot be parsed in `seconds` gets an error instead. Each chunk's payload has
    `lines` (the first and last line of its text without white space at the edges, from 1) and
    `kind`. A chunk of a symbol also has its name, qualified_name, signature, parent and docstring.
    """

    chars: int
    seconds: float = PARSE_SECONDS

    @property
    def fingerprint(self) -> str:
        return f"code/{self.chars}"

    def chunk(self, documents: DocumentBatch) -> list[ChunkedDocument | RagIndexError]:
        """Split each document at its symbols. The payload of a document names its language."""
        chunked: list[ChunkedDocument | RagIndexError] = []
        for text, payload in zip(documents.texts, documents.payloads, strict=True):
            language = decode_payload(payload).get("language", TEXT)
            chunked.append(self._chunk(text, str(language)))
        return chunked

    def split_chunk(self, document: ChunkedDocument, number: int) -> ChunkedDocument | None:
        """Split a chunk in two, at a line if the chunk has several.

        No character is lost, and `lines` stay right.
        """
        chunk = document.chunks[number]
        middle = middle_break(chunk.strip(), _BREAKS)
        if middle is None:
            return None
        leading = _leading_space(chunk)
        middle += len(leading)
        first, second = chunk[:middle], chunk[middle:]
        payload = decode_payload(document.payloads[number])
        # `lines` count from the first character that is not white space.
        first_line = int(payload["lines"][0]) - leading.count("\n")
        second_line = first_line + first.count("\n")
        payloads: list[bytes] = []
        for lines in (_line_range(first, first_line), _line_range(second, second_line)):
            payloads.append(encode_payload({**payload, "lines": lines}))
        return document.with_halves(number, (first, second), payloads)

    def _chunk(self, text: str, language: str) -> ChunkedDocument | RagIndexError:
        symbols: list[Symbol] = []
        if language != TEXT:
            try:
                symbols = symbols_of(text.encode(), language, seconds=self.seconds)
            except RagIndexError as error:
                return error
        if not text.strip():
            return ChunkedDocument([])
        splitter = _SymbolSplitter(text, symbols, self.chars)
        chunks: list[str] = []
        payloads: list[bytes] = []
        line = 1
        for span in _merge_wordless(text, splitter.split()):
            chunk = text[span.start : span.end]
            chunks.append(chunk)
            payloads.append(_chunk_payload(span.symbol, _line_range(chunk, line)))
            line += chunk.count("\n")
        return ChunkedDocument(chunks, payloads=payloads)


def _chunk_payload(symbol: Symbol | None, lines: list[int]) -> bytes:
    """Return the payload of a chunk that lies on these lines."""
    if symbol is None:
        return encode_payload({"kind": TEXT_BETWEEN, "lines": lines})
    fields: dict[str, Any] = {"kind": symbol.kind, "lines": lines, "name": symbol.name}
    for name in _OPTIONAL_FIELDS:
        value = getattr(symbol, name)
        if value:
            fields[name] = value
    return encode_payload(fields)


def _line_range(part: str, first_line: int) -> list[int]:
    """Return the first and last line of a part without white space at its edges.

    Args:
        first_line: The line on which the part begins.
    """
    first = first_line + _leading_space(part).count("\n")
    last = first + part.strip().count("\n")
    return [first, last]


def _leading_space(text: str) -> str:
    """Return the white space at the beginning of a text."""
    return text[: len(text) - len(text.lstrip())]
