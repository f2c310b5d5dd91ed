"""A file in pieces: a symbol each, what lies between them as text; a symbol that is too large at its inner symbols,
then at lines, then inside a line. The pieces put together are the file, character by character."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.chunking.text import whole_character

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.chunking.code.symbols import Symbol

__all__ = ["Span", "line_break", "spans_of"]

MAX_SIGNS = 100
"""So long a piece without a word goes to a neighbour: a brace that closes a class."""
_WORD = re.compile(r"\w")
_BLANK = re.compile(r"\n[ \t\f\r]*\n")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` of a text, of a symbol or of none."""

    start: int
    end: int
    symbol: Symbol | None


def spans_of(text: str, symbols: Sequence[Symbol], chars: int) -> list[Span]:
    """The text in pieces of about `chars` characters at most: white space and braces may make one a little longer.

    `symbols` are in the order in which they begin, an outer one before those within. A text of white space alone
    gives no piece.
    """
    if not text.strip():
        return []
    places = _characters(text, symbols)
    raw = list(_spans(text, symbols, places, chars))
    return _joined(text, raw)


def line_break(text: str, earliest: int, latest: int) -> int:
    """Where to end a piece of `text` between two positions: after a blank line, a line, a word, else where it must."""
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
    at = whole_character(text, earliest + 1, latest)
    return at - 1 if text[at - 1 : at + 1] == "\r\n" and at - 1 > earliest else at


def _characters(text: str, symbols: Sequence[Symbol]) -> dict[int, int]:
    """Which character each byte is at which a symbol begins or ends."""
    offsets = sorted({offset for symbol in symbols for offset in (symbol.start, symbol.end)})
    if text.isascii():
        return {offset: offset for offset in offsets}
    data = text.encode()
    places: dict[int, int] = {}
    before = characters = 0
    for offset in offsets:
        characters += len(data[before:offset].decode())
        places[offset] = characters
        before = offset
    return places


def _spans(text: str, symbols: Sequence[Symbol], places: dict[int, int], chars: int) -> Iterator[Span]:
    """Pieces that may be white space alone. A stack of the symbols that are being split stands for recursion."""
    around: list[Symbol] = []
    done = 0

    def until(end: int) -> Iterator[Span]:
        """What lies between, up to `end`, closing what ends before it."""
        nonlocal done
        while around and places[around[-1].end] <= end:
            closing = places[around[-1].end]
            yield from _lines(text, done, closing, around[-1], chars)
            done = max(done, closing)
            around.pop()
        yield from _lines(text, done, end, around[-1] if around else None, chars)
        done = max(done, end)

    for symbol in symbols:
        start, end = places[symbol.start], places[symbol.end]
        if start < done:  # inside one that is whole
            continue
        yield from until(start)
        if end - start <= chars:
            yield Span(start, end, symbol)
            done = end
        else:
            around.append(symbol)
    yield from until(len(text))


def _lines(text: str, start: int, end: int, symbol: Symbol | None, chars: int) -> Iterator[Span]:
    """A stretch cut at lines."""
    while end - start > chars:
        at = min(end, line_break(text, start + chars // 2, start + chars))
        yield Span(start, at, symbol)
        start = at
    if start < end:
        yield Span(start, end, symbol)


def _joined(text: str, raw: list[Span]) -> list[Span]:
    """Without pieces of white space, or of a few signs: they go to the piece before, the first ones to the next."""
    joined: list[Span] = []
    leading: Span | None = None
    for span in raw:
        start = leading.start if leading else span.start
        if _has_words(text, span):
            joined.append(Span(start, span.end, span.symbol))
            leading = None
        elif joined:
            joined[-1] = Span(joined[-1].start, span.end, joined[-1].symbol)
        else:
            leading = Span(start, span.end, span.symbol)
    return joined or ([leading] if leading else [])


def _has_words(text: str, span: Span) -> bool:
    if _WORD.search(text, span.start, span.end):
        return True
    return span.end - span.start > MAX_SIGNS and bool(text[span.start : span.end].strip())
