"""A file split at its symbols, with the text between them. A symbol that is too large is split at its inner symbols,
then at lines, then inside a line. All parts joined are the file, character by character."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.chunking.text import character_boundary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.chunking.code.symbols import Symbol

MAX_WORDLESS_CHARS = 100
"""A span of at most this length that has no word, such as the brace that closes a class, is merged into a neighbour."""
_WORD = re.compile(r"\w")
_BLANK = re.compile(r"\n[ \t\f\r]*\n")


@dataclass(frozen=True, slots=True)
class Span:
    """The characters `start` to `end` of a text, and the symbol that they belong to, if any."""

    start: int
    end: int
    symbol: Symbol | None


def split_at_symbols(text: str, symbols: Sequence[Symbol], max_chars: int) -> list[Span]:
    """Return consecutive spans that cover the text, each of at most about `max_chars` characters.

    White space and braces that are merged into a span may make it a little longer. `symbols` are in the order in which
    they begin, an outer one before those within it. A text of white space alone has no span.
    """
    if not text.strip():
        return []
    positions = _character_positions(text, symbols)
    return _merge_wordless(text, list(_iterate_spans(text, symbols, positions, max_chars)))


def find_break(text: str, earliest: int, latest: int) -> int:
    """Return where a chunk should end between two positions: after a blank line, a line, a word, or a character."""
    if latest >= len(text):
        return len(text)
    blank = [match.end() for match in _BLANK.finditer(text, earliest, latest)]
    if blank:
        return blank[-1]
    line = text.rfind("\n", earliest, latest)
    if line >= 0:
        return line + 1
    space = max(text.rfind(" ", earliest, latest), text.rfind("\t", earliest, latest))
    if space >= 0:
        return space + 1
    position = character_boundary(text, earliest + 1, latest)
    return position - 1 if text[position - 1 : position + 1] == "\r\n" and position - 1 > earliest else position


def _character_positions(text: str, symbols: Sequence[Symbol]) -> dict[int, int]:
    """Map each byte offset at which a symbol begins or ends to its position in characters."""
    offsets = sorted({offset for symbol in symbols for offset in (symbol.start, symbol.end)})
    if text.isascii():
        return {offset: offset for offset in offsets}
    data = text.encode()
    positions: dict[int, int] = {}
    previous = characters = 0
    for offset in offsets:
        characters += len(data[previous:offset].decode())
        positions[offset] = characters
        previous = offset
    return positions


def _iterate_spans(text: str, symbols: Sequence[Symbol], positions: dict[int, int], max_chars: int) -> Iterator[Span]:
    """Yield spans, some of which may be white space alone. A stack of the symbols being split replaces recursion."""
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
        position = min(end, find_break(text, start + max_chars // 2, start + max_chars))
        yield Span(start, position, symbol)
        start = position
    if start < end:
        yield Span(start, end, symbol)


def _merge_wordless(text: str, spans: list[Span]) -> list[Span]:
    """Merge spans of white space or of a few signs into the span before them, or at the beginning into the next."""
    merged: list[Span] = []
    leading: Span | None = None
    for span in spans:
        start = leading.start if leading else span.start
        if _has_words(text, span):
            merged.append(Span(start, span.end, span.symbol))
            leading = None
        elif merged:
            merged[-1] = Span(merged[-1].start, span.end, merged[-1].symbol)
        else:
            leading = Span(start, span.end, span.symbol)
    return merged or ([leading] if leading else [])


def _has_words(text: str, span: Span) -> bool:
    if _WORD.search(text, span.start, span.end):
        return True
    return span.end - span.start > MAX_WORDLESS_CHARS and bool(text[span.start : span.end].strip())
