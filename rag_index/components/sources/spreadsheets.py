"""The rows of spreadsheets as lines of text. Cells without a value cost nothing: the sheets of
.xlsx and .ods are read while they are unpacked, and those of .xls and .xlsb by calamine."""

from __future__ import annotations

import io
import math
import posixpath
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import chain, groupby, islice
from typing import Any, TypeVar

from lxml import etree

from rag_index.components.sources.formulas import LOWERED, RAISED, in_line, marked
from rag_index.components.sources.office_package import (
    MAX_FILE_CHARS,
    OfficePackage,
    TextStyles,
    reason_of,
    values_of,
)
from rag_index.components.sources.text import NotText

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
"""The size of a sheet, to which repeated cells are repeated."""
MAX_MERGED, MAX_MERGED_ROWS = 1_000_000, 1_000
"""The cells of a sheet that take the value of merged ones, and the rows that have no value but
these. More of them would only repeat a value."""
_AHEAD = 200_000
"""The cells that are read to know the first and last column of a sheet."""
_NAME = re.compile(r"(?=.*[^\W\d_]).{0,99}[^:]|(?:19|20)\d\d(?:-\d\d){0,2}")
"""What a column is called: words, a year, or a date; but not what begins a line of a form, with a
colon."""
_PLACE = re.compile("([A-Z]{1,3})([0-9]{1,7})", re.IGNORECASE)
_MERGED = re.compile(
    rb"<(?:\w+:)?mergeCell\s[^<>]*?\bref\s*=\s*[\"']([A-Za-z]{1,3})(\d{1,7}):([A-Za-z]{1,3})(\d{1,7})[\"'][^<>]*>"
)
"""Merged cells of a worksheet: the places of the first and the last, "A1:C2"."""
_ESCAPED = re.compile("_x00([0-9A-Fa-f]{2})_")
_XML_SPACE = "{http://www.w3.org/XML/1998/namespace}space"
_FORMAT = re.compile(
    r"[\\_*].|\"[^\"]*\"?|\[(?P<elapsed>h+|m+|s+)\]|\[[^\];]*\]?|(?P<end>;)|(?P<date>[dmhys])|(?P<noon>a)",
    re.IGNORECASE | re.DOTALL,
)
"""What counts in the format of a number: signs that stand for themselves do not."""
_DATE_FORMATS = frozenset(["14", "15", "16", "17", "18", "19", "20", "21", "22", "45", "47"])
_ELAPSED_FORMATS = frozenset(["46"])
_ISO_DURATION = re.compile(r"(-?)P(?:(\d+)D)?T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_DAY_MILLISECONDS = 86_400_000
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - cells have no time zone
_DAYS_TO_1904 = 1462

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
        lines, chars, reasons = list[str](), 0, list[str]()
        rows, merges = _while_readable(sheet.rows, reasons), _while_readable(sheet.merges, reasons)
        for line in _lines(Sheet(sheet.name, rows, merges)):
            lines.append(line)
            chars += len(line)
            if chars > MAX_FILE_CHARS:
                break
        yield "\n\n".join([sheet.name, *lines]) if lines else ""
        if reasons:
            yield NotText(f"sheet {sheet.name} {reasons[0]}")


def _while_readable(found: Iterable[_Found], reasons: list[str]) -> Iterator[_Found]:
    """Yield what is found until an error ends it, and add the reason."""
    try:
        yield from found
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - what was read before, and other sheets, are worth reading
        reasons.append(reason_of(error))


def old_sheets(data: bytes) -> Iterator[Sheet]:
    """Yield the sheets of .xls and .xlsb that are not hidden. Raises CalamineError, or what else
    its parser raises."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum, load_workbook

    book = load_workbook(io.BytesIO(data))
    for about in book.sheets_metadata:
        if about.visible == SheetVisibleEnum.Visible and about.typ == SheetTypeEnum.WorkSheet:
            sheet = book.get_sheet_by_name(about.name)
            ranges = sheet.merged_cell_ranges or ()
            merges = (Merge(top, left, bottom, right) for (top, left), (bottom, right) in ranges)
            yield Sheet(about.name, _old_rows(sheet), merges)


def _old_rows(sheet: Any) -> Iterator[Row]:
    first = (sheet.start or (0, 0))[1]
    for number, values in enumerate(sheet.iter_rows()):
        cells = ((column, _text(value)) for column, value in enumerate(values, start=first))
        texts = {column: text for column, text in cells if text}
        if texts:
            yield Row(number, texts)


# ---- Excel


@dataclass(frozen=True, slots=True)
class _Run:
    """A part of a text. Its script is None if the font of the cell decides it."""

    text: str
    script: str | None


@dataclass(frozen=True, slots=True)
class _CellFormat:
    """How a cell shows its number, and the script of its font."""

    is_date: bool = False
    is_elapsed: bool = False
    has_seconds: bool = False
    script: str = ""


@dataclass(slots=True)
class _Workbook:
    """What the cells of a workbook refer to."""

    strings: list[str | list[_Run]]
    formats: list[_CellFormat]
    is_1904: bool


def excel_sheets(package: OfficePackage, main: str) -> Iterator[Sheet]:
    """Yield the sheets of a workbook in Open XML that are not hidden."""
    root, relations = package.xml(main), package.relations(main)
    settings = root.find("{*}workbookPr")
    is_1904 = settings is not None and settings.get("date1904") in ("1", "true")
    workbook = _Workbook([], [], is_1904)
    for kind, default in (("sharedStrings", "sharedStrings.xml"), ("styles", "styles.xml")):
        named = [part for of, part in relations.values() if of == kind]
        part = next(iter(named), posixpath.join(posixpath.dirname(main), default))
        if package.has(part):
            if kind == "styles":
                workbook.formats = _cell_formats(package.xml(part))
            else:
                workbook.strings = [_rich_text(item) for item in _elements(package, part, "si")]
    for sheet in root.iter("{*}sheet"):
        values = values_of(sheet)
        kind, part = relations.get(values.get("id", ""), ("", ""))
        if kind == "worksheet" and values.get("state", "visible") == "visible":
            yield Sheet(
                values.get("name", ""), _excel_rows(package, part, workbook), _merges(package, part)
            )


def _elements(package: OfficePackage, part: str, tag: str) -> Iterator[Any]:
    """Yield the elements of a part that have a name, and forget them."""
    for event, element in package.events(part, [tag]):
        if event == "end":
            yield element
            _forget(element)


def _forget(element: Any) -> None:
    """Free the memory of an element that has been read, and of those before it."""
    element.clear(keep_tail=False)
    while element.getprevious() is not None:
        del element.getparent()[0]


def _rich_text(item: Any) -> str | list[_Run]:
    """Return the text of a shared or inline string; its runs if the font of a cell decides how they
    are read."""
    runs = list[_Run]()
    for inner in item:
        name = etree.QName(inner).localname
        if name == "t":
            runs.append(_Run(_string(inner), None))
        elif name == "r":
            settings, text = inner.find("{*}rPr"), "".join(map(_string, inner.iterfind("{*}t")))
            runs.append(_Run(text, None if settings is None else _font_script(settings)))
    scripts = {run.script for run in runs}
    if None in scripts and len(scripts) > 1:
        return runs
    return _joined_runs(runs, "")


def _joined_runs(runs: list[_Run], script: str) -> str:
    """Return the text of runs in a cell whose font has a script."""
    texts = [marked(run.text, script if run.script is None else run.script) for run in runs]
    return " ".join(in_line("".join(texts)).split())


def _string(element: Any) -> str:
    text = element.text or ""
    if element.get(_XML_SPACE) != "preserve":
        text = text.strip(" \t\r\n")
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x00" in text else text


def _font_script(font: Any) -> str:
    """Return whether a font of Excel is RAISED or LOWERED."""
    found = font.find("{*}vertAlign")
    value = "" if found is None else values_of(found).get("val", "")
    return {"superscript": RAISED, "subscript": LOWERED}.get(value, "")


def _cell_formats(root: Any) -> list[_CellFormat]:
    """Return the formats of cells, by their numbers."""
    codes = {
        one.get("numFmtId", ""): one.get("formatCode", "")
        for one in root.iterfind("{*}numFmts/{*}numFmt")
    }
    fonts = [_font_script(font) for font in root.iterfind("{*}fonts/{*}font")]
    found = list[_CellFormat]()
    for cell_format in root.iterfind("{*}cellXfs/{*}xf"):
        number, font = cell_format.get("numFmtId", ""), cell_format.get("fontId", "")
        script = fonts[int(font)] if font.isdecimal() and int(font) < len(fonts) else ""
        if number in codes:
            found.append(_format_of(codes[number], script))
        else:
            is_elapsed = number in _ELAPSED_FORMATS
            found.append(
                _CellFormat(
                    number in _DATE_FORMATS, is_elapsed, has_seconds=is_elapsed, script=script
                )
            )
    return found


def _format_of(code: str, script: str) -> _CellFormat:
    """Return what the code of a format shows: a date (`yyyy-mm-dd`), elapsed time (`[h]:mm`), or a
    number."""
    for token in _FORMAT.finditer(code):
        if token["end"]:
            break
        if token["elapsed"]:
            shown = re.sub(r"\\.|\"[^\"]*\"", "", code.partition(";")[0])
            return _CellFormat(is_elapsed=True, has_seconds="s" in shown.lower(), script=script)
        # "AM/PM" shows a time, and another word with an a does not.
        if token["date"] or (
            token["noon"] and re.search("[pm/]", code[token.end() :], re.IGNORECASE)
        ):
            return _CellFormat(is_date=True, script=script)
        if token["noon"]:
            break
    return _CellFormat(script=script)


def _merges(package: OfficePackage, part: str) -> Iterator[Merge]:
    """Yield the merged cells of a worksheet, which it names behind its rows."""
    rest = b""
    with package.open(part) as member:
        while data := member.read(1 << 20):
            data = rest + data
            for place in _MERGED.finditer(data):
                left, top, right, bottom = (part.decode() for part in place.groups())
                yield Merge(int(top) - 1, _column(left), int(bottom) - 1, _column(right))
            # An element may go on in the next bytes.
            start = data.rfind(b"<", -1000)
            rest = data[start:] if start >= 0 else b""


def _excel_rows(package: OfficePackage, part: str, workbook: _Workbook) -> Iterator[Row]:
    """Yield the rows of a worksheet that have a text."""
    number = -1
    for event, element in package.events(part, ["row", "sheetData"]):
        if event == "start":
            continue
        if element.tag.endswith("}sheetData"):
            return
        number = _row_number(element, number + 1)
        texts = _excel_texts(element, workbook)
        _forget(element)
        if texts:
            yield Row(number, texts)


def _row_number(element: Any, following: int) -> int:
    """Return the number of a row from 0. A row without one has that of its first cell, or follows
    the row before."""
    given = element.get("r", "")
    if given.isdecimal():
        return int(given) - 1
    place = _PLACE.fullmatch(element[0].get("r", "")) if len(element) else None
    return int(place[2]) - 1 if place else following


def _excel_texts(element: Any, workbook: _Workbook) -> Texts:
    texts, column, is_sorted = Texts(), -1, True
    for cell in element:
        before = column
        place = cell.get("r")
        column = before + 1 if place is None else _column(place.rstrip("0123456789"))
        is_sorted = is_sorted and column > before
        # A cell without anything in it has a format alone.
        text = _excel_text(cell, workbook) if len(cell) else ""
        if text:
            texts[column] = text
        elif not is_sorted:
            texts.pop(column, None)
    return texts if is_sorted else dict(sorted(texts.items()))


_COLUMNS = dict[str, int]()


def _column(letters: str) -> int:
    """Return the number of a column from 0: that of "A" is 0, of "AA" 26."""
    found = _COLUMNS.get(letters)
    if found is None:
        found = 0
        for letter in letters.upper():
            found = found * 26 + ord(letter) - ord("A") + 1
        found -= 1
        if len(_COLUMNS) < MAX_COLUMNS:
            _COLUMNS[letters] = found
    return found


def _excel_text(cell: Any, workbook: _Workbook) -> str:
    """Return the text of a cell, "" if it has no value, or an error (`#N/A`)."""
    kind, value = cell.get("t", "n"), ""
    for inner in cell:
        if inner.tag.endswith("}is"):
            return _cell_string(_rich_text(inner), cell, workbook)
        if inner.tag.endswith("}v"):
            value = inner.text or ""
    if not value or kind in ("e", "inlineStr"):
        return ""
    if kind == "s":
        number = int(value) if value.isdecimal() else 0
        if number >= len(workbook.strings):
            raise NotText("refers to a text that is missing")
        return _cell_string(workbook.strings[number], cell, workbook)
    if kind == "b":
        return _text(value != "0")
    if kind == "d":
        return _text(_iso_moment(value))
    amount = _amount(value) if kind == "n" else None
    return _text(
        value if amount is None else _number_value(amount, _format_for(cell, workbook), workbook)
    )


def _cell_string(found: str | list[_Run], cell: Any, workbook: _Workbook) -> str:
    return (
        found if isinstance(found, str) else _joined_runs(found, _format_for(cell, workbook).script)
    )


_NO_FORMAT = _CellFormat()


def _format_for(cell: Any, workbook: _Workbook) -> _CellFormat:
    style = cell.get("s", "")
    number = int(style) if style.isdecimal() else -1
    return workbook.formats[number] if 0 <= number < len(workbook.formats) else _NO_FORMAT


def _amount(value: str) -> float | None:
    """Return a number as XML writes it, None for another text."""
    try:
        return None if "_" in value else float(value)
    except ValueError:
        return None


def _number_value(amount: float, shown: _CellFormat, workbook: _Workbook) -> Any:
    """Return the number of a cell as what its format shows."""
    if not math.isfinite(amount):
        return amount
    if shown.is_elapsed:
        return _elapsed(round(amount * _DAY_MILLISECONDS), has_seconds=shown.has_seconds)
    if not shown.is_date:
        return amount
    # Excel takes 1900 for a leap year: days before its 60 are a day later.
    days = amount + _DAYS_TO_1904 if workbook.is_1904 else amount
    days = days if days >= 60 else days + 1
    try:
        moment = _EPOCH + timedelta(milliseconds=round(days * _DAY_MILLISECONDS))
    except OverflowError:
        return amount
    if amount < 1:
        return moment.time()
    return moment.date() if amount.is_integer() else moment


def _iso_moment(value: str) -> Any:
    """Return a date, a time or both as ISO writes them, another text as it is."""
    read: Any = date.fromisoformat
    if "T" in value:
        read = datetime.fromisoformat
    elif ":" in value:
        read = time.fromisoformat
    try:
        found = read(value)
    except ValueError:
        return value
    return value if getattr(found, "tzinfo", None) else found


# ---- OpenDocument

_OFFICE = "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}"
_TABLE = "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}"
_TEXT = "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}"


def opendocument_sheets(package: OfficePackage, main: str, styles: TextStyles) -> Iterator[Sheet]:
    """Yield the sheets of an OpenDocument spreadsheet that are not hidden, one after another."""
    events = package.events(main, ["automatic-styles", "table", "table-row"])
    for event, element in events:
        if event == "end" and element.tag.endswith("}automatic-styles"):
            styles.add(element)
        elif event == "start" and element.tag == f"{_TABLE}table":
            name = element.get(f"{_TABLE}name", "")
            rows = _opendocument_rows(events, styles)
            if name and not styles.hides(element.get(f"{_TABLE}style-name", "")):
                yield Sheet(name, rows)
        elif event == "end" and element.tag == f"{_TABLE}table-row":
            # A row of a sheet that is hidden, or has too many characters.
            _forget(element)


def _opendocument_rows(events: Iterator[tuple[str, Any]], styles: TextStyles) -> Iterator[Row]:
    """Yield the rows of a sheet that have a text, and those that are repeated."""
    number = 0
    for event, element in events:
        if event == "start":
            continue
        if element.tag == f"{_TABLE}table":
            return
        if element.tag == f"{_TABLE}table-row":
            repeats = _repeats(element, "number-rows-repeated")
            texts = _opendocument_texts(element, styles)
            _forget(element)
            last = min(number + repeats, MAX_ROWS)
            if texts:
                yield from (Row(at, texts) for at in range(number, last))
            number = last


def _opendocument_texts(element: Any, styles: TextStyles) -> Texts:
    texts, column = Texts(), 0
    for cell in element.iterchildren(f"{_TABLE}table-cell", f"{_TABLE}covered-table-cell"):
        last = column + _repeats(cell, "number-columns-repeated")
        text = _opendocument_text(cell, styles)
        if text:
            texts.update(dict.fromkeys(range(column, min(last, MAX_COLUMNS)), text))
        column = last
    return texts


def _repeats(element: Any, name: str) -> int:
    value = element.get(_TABLE + name, "1")
    return int(value) if value.isdecimal() else 1


def _opendocument_text(cell: Any, styles: TextStyles) -> str:
    """Return the text of a cell, "" if it has no value."""
    values = {
        key.removeprefix(_OFFICE): value for key, value in cell.items() if key.startswith(_OFFICE)
    }
    if "value" in values:
        amount = _amount(values["value"])
        return _text(values["value"] if amount is None else amount)
    if "date-value" in values:
        return _text(_iso_moment(values["date-value"]))
    if "time-value" in values:
        return _text(_iso_duration(values["time-value"]))
    if "boolean-value" in values:
        return _text(values["boolean-value"].lower() == "true")
    shown = _paragraphs(cell, styles)
    written = in_line(shown)
    # The value of 10 and a raised 6 is 106.
    return _text(values.get("string-value", written) if written == shown else written)


def _paragraphs(cell: Any, styles: TextStyles) -> str:
    """Return the paragraphs of a cell, with marks around what is raised or lowered."""
    outer = styles.odf_script("table-cell", cell.get(f"{_TABLE}style-name", ""), "")
    found = list[str]()
    for paragraph in cell.iterchildren(f"{_TEXT}p", f"{_TEXT}h"):
        script = styles.odf_script("paragraph", paragraph.get(f"{_TEXT}style-name", ""), outer)
        found.append(_span_text(paragraph, styles, script))
    return "\n".join(found)


def _span_text(element: Any, styles: TextStyles, script: str) -> str:
    pieces = [marked(element.text or "", script)]
    for inner in element:
        if inner.tag == f"{_TEXT}s":
            count = inner.get(f"{_TEXT}c", "1")
            pieces.append(" " * min(int(count), 100) if count.isdecimal() else " ")
        elif inner.tag in (f"{_TEXT}tab", f"{_TEXT}line-break"):
            pieces.append(" ")
        elif inner.tag != f"{_OFFICE}annotation":
            of = styles.odf_script("text", inner.get(f"{_TEXT}style-name", ""), script)
            pieces.append(_span_text(inner, styles, of))
        pieces.append(marked(inner.tail or "", script))
    return "".join(pieces)


def _iso_duration(value: str) -> Any:
    """Return a time as ISO writes it ("PT08H30M00S"), or how much time has passed if that is more
    than a day."""
    found = _ISO_DURATION.fullmatch(value)
    if found is None:
        return value
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups()[1:])
    amount = round((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000)
    if not found[1] and amount < _DAY_MILLISECONDS:
        return (_EPOCH + timedelta(milliseconds=amount)).time()
    return _elapsed(-amount if found[1] else amount, has_seconds=amount % 60_000 != 0)


# ---- lines


def _text(value: Any) -> str:
    """Return a cell as text: dates in ISO's form, whole numbers as such, and others as people read
    them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return str(value).removesuffix(" 00:00:00")
    if isinstance(value, timedelta):
        milliseconds = round(value / timedelta(milliseconds=1))
        return _elapsed(milliseconds, has_seconds=milliseconds % 60_000 != 0)
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    return " ".join(str(value).split())


def _elapsed(milliseconds: int, *, has_seconds: bool) -> str:
    """Return how much time has passed: "25:30", or "25:30:15" with seconds."""
    sign, amount = "-" if milliseconds < 0 else "", abs(milliseconds)
    minutes, rest = divmod(amount, 60_000)
    text = f"{sign}{minutes // 60}:{minutes % 60:02}"
    if not has_seconds:
        return text
    seconds, fraction = divmod(rest, 1000)
    return f"{text}:{seconds:02}" + (f".{fraction:03}".rstrip("0") if fraction else "")


def _lines(sheet: Sheet) -> Iterator[str]:
    """Yield a line for each row: values with the names of their columns, which stand above a block
    of rows."""
    beginning, cells = list[Row](), 0
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
        ahead = list(islice(block, 50)) if is_filled else []
        widest = max(map(len, ahead), default=0)
        while ahead[1:] and _is_title(ahead[0], widest):
            yield _joined(ahead.pop(0))
        if ahead and _are_names(ahead[0], ahead[1:], names):
            names = ahead.pop(0)
            yield _joined(names)
        for texts in chain(ahead, block) if is_filled else ():
            # A row whose only value is in the first column is the title of those below.
            if not names or (first in texts and len({*texts.values()}) == 1):
                yield _joined(texts)
            elif texts != names:  # which some repeat on each page
                pairs = ((names.get(column), text) for column, text in texts.items())
                yield " | ".join(f"{name}: {text}" if name else text for name, text in pairs)


def _with_merges(sheet: Sheet, rows: Iterator[Row], first: int, last: int) -> Iterator[Texts]:
    """Yield the texts of rows, with the value of merged cells in each of these between two columns,
    and an empty row where rows without a value are left out."""
    waiting = deque(
        sorted((merge for merge in sheet.merges if first <= merge.left <= last), key=_top)
    )
    merges, following = dict[Merge, str](), 0
    budget, rows_left = MAX_MERGED, MAX_MERGED_ROWS
    for row in rows:
        # Rows that have nothing but the value of merged cells.
        while following < row.number:
            merges = {merge: text for merge, text in merges.items() if merge.bottom >= following}
            texts = _merged_texts({}, merges, last) if budget > 0 and rows_left > 0 else {}
            budget -= len(texts)
            rows_left -= 1
            yield texts
            following = following + 1 if texts else row.number
        while waiting and waiting[0].top <= row.number:
            merge = waiting.popleft()
            merges[merge] = row.texts.get(merge.left, "") if merge.top == row.number else ""
        merges = {merge: text for merge, text in merges.items() if merge.bottom >= row.number}
        texts = _merged_texts(row.texts, merges, last) if merges and budget > 0 else row.texts
        budget -= len(texts) - len(row.texts)
        yield texts
        following = row.number + 1


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
    """Return whether a row has less than half the values of others, or merged cells, which name
    groups of columns."""
    is_merged = any(isinstance(text, _Again) for text in texts.values())
    return is_merged or 2 * len(texts) <= widest


def _are_names(texts: Texts, below: list[Texts], names: Texts) -> bool:
    """Return whether a row names the columns of those below. If others have been named, it has to
    differ from these."""
    if len(texts) < 2 or not below or not all(_NAME.fullmatch(text) for text in texts.values()):
        return False
    if any(not texts.items().isdisjoint(other.items()) for other in below):
        return False
    is_other = names.keys() != texts.keys()
    return is_other or any(
        column in below[0] and not _NAME.fullmatch(below[0][column]) for column in texts
    )
