"""The rows of a sheet as lines of text, with the names of their columns."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, groupby, islice
from typing import TypeVar

from rag_index.components.sources.office_package import MAX_FILE_CHARS, reason_of
from rag_index.components.sources.text import NotText

MAX_MERGED, MAX_MERGED_ROWS = 1_000_000, 1_000
"""The most cells of a sheet that take the value of merged ones, and the most rows that have only
such values (chosen). More of them would only repeat a value."""
_AHEAD = 200_000
"""The number of cells that are read to find the first and last column of a sheet (chosen)."""
_NAME = re.compile(r"(?=.*[^\W\d_]).{0,99}[^:]|(?:19|20)\d\d(?:-\d\d){0,2}")
"""The name of a column: words, a year, or a date; but not the beginning of a line of a form, which
ends with a colon."""
_Found = TypeVar("_Found")
Texts = dict[int, str]
"""The cells of a row that have a text, by their columns from 0, in order."""


@dataclass(frozen=True, slots=True)
class Row:
    """The texts of a row of a sheet, whose number counts from 0."""

    number: int
    texts: Texts


@dataclass(frozen=True, slots=True)
class Merge:
    """Cells that are merged, both ends included. They have the value of the first."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet that is not hidden. Its rows are those with a text, in order."""

    name: str
    rows: Iterator[Row]
    merges: Iterable[Merge] = ()


class _Again(str):
    """The value of merged cells in a row, but in the first of these."""

    __slots__ = ()


def sheet_texts(sheets: Iterable[Sheet]) -> Iterator[str | NotText]:
    """Yield the text of each sheet: its name, and a line for each row with the names of its
    columns. Yield a NotText for what cannot be read, behind the lines before it."""
    for sheet in sheets:
        lines = list[str]()
        reasons = list[str]()
        rows = _while_readable(sheet.rows, reasons)
        merges = _while_readable(sheet.merges, reasons)
        chars = 0
        for line in _lines(Sheet(sheet.name, rows, merges)):
            lines.append(line)
            chars += len(line)
            if chars > MAX_FILE_CHARS:
                break
        yield "\n\n".join([sheet.name, *lines]) if lines else ""
        if reasons:
            yield NotText(f"sheet {sheet.name} {reasons[0]}")


def _while_readable(found: Iterable[_Found], reasons: list[str]) -> Iterator[_Found]:
    """Yield what is found until an error ends it, and add the error to the reasons."""
    try:
        yield from found
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - what was read before, and other sheets, are worth reading
        reasons.append(reason_of(error))


def _lines(sheet: Sheet) -> Iterator[str]:
    """Yield a line for each row: values with the names of their columns, which stand above a block
    of rows."""
    beginning = list[Row]()
    cells = 0
    for row in sheet.rows:
        beginning.append(row)
        cells += len(row.texts)
        if cells > _AHEAD:
            break
    first = min((min(row.texts) for row in beginning), default=0)
    last = max((max(row.texts) for row in beginning), default=0)
    rows = _with_merges(sheet, chain(beginning, sheet.rows), first, last)
    names = Texts()
    for is_filled, block in groupby(rows, bool):
        # empty rows between two blocks
        if not is_filled:
            continue
        ahead = list(islice(block, 50))
        widest = max(map(len, ahead))
        while len(ahead) > 1 and _is_title(ahead[0], widest):
            yield _joined(ahead.pop(0))
        if _are_names(ahead[0], ahead[1:], names):
            names = ahead.pop(0)
            yield _joined(names)
        for texts in chain(ahead, block):
            # A row whose only value is in the first column is the title of those below.
            if not names or (first in texts and len({*texts.values()}) == 1):
                yield _joined(texts)
            # some sheets repeat the names on each page
            elif texts != names:
                yield _named(texts, names)


def _named(texts: Texts, names: Texts) -> str:
    """Return the line of a row: "Name: Ann | Age: 30"."""
    pieces = list[str]()
    for column, text in texts.items():
        name = names.get(column)
        pieces.append(f"{name}: {text}" if name else text)
    return " | ".join(pieces)


def _with_merges(sheet: Sheet, rows: Iterator[Row], first: int, last: int) -> Iterator[Texts]:
    """Yield the texts of rows, with the value of merged cells in each of these between two columns.

    Where rows without a value are left out, an empty row is yielded.
    """
    in_columns = [merge for merge in sheet.merges if first <= merge.left <= last]
    waiting = deque(sorted(in_columns, key=_top))
    merges = dict[Merge, str]()
    budget, rows_left = MAX_MERGED, MAX_MERGED_ROWS
    following = 0
    for row in rows:
        # Rows that have only the value of merged cells, or none.
        while following < row.number:
            merges = _reaching(merges, following)
            texts = _merged_texts({}, merges, last) if budget > 0 and rows_left > 0 else {}
            budget -= len(texts)
            rows_left -= 1
            yield texts
            following = following + 1 if texts else row.number
        while waiting and waiting[0].top <= row.number:
            merge = waiting.popleft()
            merges[merge] = row.texts.get(merge.left, "") if merge.top == row.number else ""
        merges = _reaching(merges, row.number)
        texts = _merged_texts(row.texts, merges, last) if merges and budget > 0 else row.texts
        budget -= len(texts) - len(row.texts)
        yield texts
        following = row.number + 1


def _reaching(merges: dict[Merge, str], row: int) -> dict[Merge, str]:
    """Return the merged cells that do not end above a row."""
    return {merge: text for merge, text in merges.items() if merge.bottom >= row}


def _top(merge: Merge) -> int:
    return merge.top


def _merged_texts(texts: Texts, merges: dict[Merge, str], last: int) -> Texts:
    """Return the texts of a row with those of merged cells, which hide what is behind them."""
    found = dict(texts)
    for merge, text in merges.items():
        right = min(merge.right, last)
        if text:
            found.update(dict.fromkeys(range(merge.left, right + 1), _Again(text)))
            found[merge.left] = text
        else:
            hidden = [column for column in found if merge.left <= column <= right]
            for column in hidden:
                del found[column]
    return dict(sorted(found.items()))


def _joined(texts: Texts) -> str:
    return " | ".join(text for text in texts.values() if not isinstance(text, _Again))


def _is_title(texts: Texts, widest: int) -> bool:
    """Return whether a row names a sheet or groups of columns: it has merged cells, or less than
    half the values of other rows."""
    if any(isinstance(text, _Again) for text in texts.values()):
        return True
    return 2 * len(texts) <= widest


def _are_names(texts: Texts, below: list[Texts], names: Texts) -> bool:
    """Return whether a row names the columns of those below.

    Args:
        names: The names of the columns above, from which the new ones have to differ.
    """
    if len(texts) < 2 or not below:
        return False
    if not all(_NAME.fullmatch(text) for text in texts.values()):
        return False
    # the rows below have other values in each column
    if any(not texts.items().isdisjoint(other.items()) for other in below):
        return False
    if names.keys() != texts.keys():
        return True
    # "Name | Age" and then "Ann | 30": a number is not a name
    values = [below[0][column] for column in texts if column in below[0]]
    return not all(_NAME.fullmatch(value) for value in values)
