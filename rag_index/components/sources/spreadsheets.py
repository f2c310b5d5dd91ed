"""The sheets of spreadsheets, with their cells as texts.

The sheets of .xlsx and .ods are read while they are unpacked, those of .xls and .xlsb by calamine.
Cells without a value cost nothing.
"""

from __future__ import annotations

import io
import math
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from lxml import etree

from rag_index.components.sources.formulas import LOWERED, RAISED, in_line, marked
from rag_index.components.sources.office_package import (
    OfficePackage,
    TextStyles,
    values_of,
)
from rag_index.components.sources.sheet_lines import Merge, Row, Sheet, Texts
from rag_index.components.sources.text import NotText

MAX_ROWS, MAX_COLUMNS = 1_048_576, 16_384
"""The size of a sheet in Excel and LibreOffice. Cells are not repeated beyond it."""
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
"""A token of the format of a number. Characters that stand for themselves have no named group."""
_DATE_FORMATS = frozenset(["14", "15", "16", "17", "18", "19", "20", "21", "22", "45", "47"])
"""The numbers of Excel's own formats of dates and times."""
_ELAPSED_FORMATS = frozenset(["46"])
"""The number of Excel's own format `[h]:mm:ss`."""
_ISO_DURATION = re.compile(r"(-?)P(?:(\d+)D)?T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?")
_DAY_MILLISECONDS = 86_400_000
_EPOCH = datetime(1899, 12, 30)  # noqa: DTZ001 - cells have no time zone
"""The day 0 of Excel and LibreOffice."""
_DAYS_TO_1904 = 1462
"""The day on which workbooks of old versions for the Mac begin."""


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
    _, first_column = sheet.start or (0, 0)
    for number, values in enumerate(sheet.iter_rows()):
        cells = ((column, _text(value)) for column, value in enumerate(values, first_column))
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


@dataclass(frozen=True, slots=True)
class _Workbook:
    """What the cells of a workbook refer to."""

    strings: list[str | list[_Run]]
    formats: list[_CellFormat]
    is_1904: bool


def excel_sheets(package: OfficePackage, main: str) -> Iterator[Sheet]:
    """Yield the sheets of a workbook in Open XML that are not hidden."""
    root = package.xml(main)
    relations = package.relations(main)
    workbook = _read_workbook(package, main, root)
    for sheet in root.iter("{*}sheet"):
        values = values_of(sheet)
        found = relations.get(values.get("id", ""))
        is_visible = values.get("state", "visible") == "visible"
        if found is not None and found.kind == "worksheet" and is_visible:
            rows = _excel_rows(package, found.part, workbook)
            yield Sheet(values.get("name", ""), rows, _merges(package, found.part))


def _read_workbook(package: OfficePackage, main: str, root: Any) -> _Workbook:
    settings = root.find("{*}workbookPr")
    is_1904 = settings is not None and settings.get("date1904") in ("1", "true")
    strings = list[str | list[_Run]]()
    part = _part_of_kind(package, main, "sharedStrings")
    if package.has(part):
        strings += [_rich_text(item) for item in _elements(package, part, "si")]
    formats = list[_CellFormat]()
    part = _part_of_kind(package, main, "styles")
    if package.has(part):
        formats = _cell_formats(package.xml(part))
    return _Workbook(strings, formats, is_1904)


def _part_of_kind(package: OfficePackage, main: str, kind: str) -> str:
    """Return the name of the part of a kind; the usual one if the workbook names none."""
    for found in package.relations(main).values():
        if found.kind == kind:
            return found.part
    return posixpath.join(posixpath.dirname(main), f"{kind}.xml")


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
    """Return the text of a shared or inline string, or its runs if the font of a cell decides how
    they are read."""
    runs = list[_Run]()
    for inner in item:
        name = etree.QName(inner).localname
        if name == "t":
            runs.append(_Run(_string(inner), None))
        elif name == "r":
            text = "".join(map(_string, inner.iterfind("{*}t")))
            settings = inner.find("{*}rPr")
            runs.append(_Run(text, None if settings is None else _font_script(settings)))
    scripts = {run.script for run in runs}
    if None in scripts and len(scripts) > 1:
        return runs
    return _joined_runs(runs, "")


def _joined_runs(runs: list[_Run], script: str) -> str:
    """Return the text of runs in a cell whose font has a script."""
    text = ""
    for run in runs:
        text += marked(run.text, script if run.script is None else run.script)
    return " ".join(in_line(text).split())


def _string(element: Any) -> str:
    text: str = element.text or ""
    if element.get(_XML_SPACE) != "preserve":
        text = text.strip(" \t\r\n")
    # "_x000D_" is a character that XML cannot contain
    if "_x00" not in text:
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def _font_script(font: Any) -> str:
    """Return whether a font of Excel is RAISED or LOWERED, or neither ("")."""
    found = font.find("{*}vertAlign")
    if found is None:
        return ""
    value = values_of(found).get("val", "")
    return {"superscript": RAISED, "subscript": LOWERED}.get(value, "")


def _cell_formats(root: Any) -> list[_CellFormat]:
    """Return the formats of cells, by their numbers."""
    codes: dict[str, str] = {}
    for element in root.iterfind("{*}numFmts/{*}numFmt"):
        codes[element.get("numFmtId", "")] = element.get("formatCode", "")
    fonts = [_font_script(font) for font in root.iterfind("{*}fonts/{*}font")]
    found = list[_CellFormat]()
    for element in root.iterfind("{*}cellXfs/{*}xf"):
        font = element.get("fontId", "")
        script = fonts[int(font)] if font.isdecimal() and int(font) < len(fonts) else ""
        number = element.get("numFmtId", "")
        if number in codes:
            found.append(_format_of(codes[number], script))
        elif number in _ELAPSED_FORMATS:
            found.append(_CellFormat(is_elapsed=True, has_seconds=True, script=script))
        else:
            found.append(_CellFormat(is_date=number in _DATE_FORMATS, script=script))
    return found


def _format_of(code: str, script: str) -> _CellFormat:
    """Return what the code of a format shows: a date (`yyyy-mm-dd`), elapsed time (`[h]:mm`), or a
    number."""
    for token in _FORMAT.finditer(code):
        # the format of negative numbers follows
        if token["end"]:
            break
        if token["elapsed"]:
            shown = re.sub(r"\\.|\"[^\"]*\"", "", code.partition(";")[0])
            return _CellFormat(is_elapsed=True, has_seconds="s" in shown.lower(), script=script)
        if token["date"]:
            return _CellFormat(is_date=True, script=script)
        # "AM/PM" shows a time, and another word with an a does not.
        if token["noon"]:
            is_time = re.search("[pm/]", code[token.end() :], re.IGNORECASE) is not None
            return _CellFormat(is_date=is_time, script=script)
    return _CellFormat(script=script)


def _merges(package: OfficePackage, part: str) -> Iterator[Merge]:
    """Yield the merged cells of a worksheet, which it names behind its rows."""
    rest = b""
    with package.open(part) as member:
        while data := member.read(1 << 20):
            data = rest + data
            for place in _MERGED.finditer(data):
                left, top, right, bottom = (group.decode() for group in place.groups())
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
    """Return the number of a row from 0. A row without a number has that of its first cell, or
    follows the row before."""
    given = element.get("r", "")
    if given.isdecimal():
        return int(given) - 1
    # "B12"
    place = _PLACE.fullmatch(element[0].get("r", "")) if len(element) else None
    return int(place[2]) - 1 if place else following


def _excel_texts(element: Any, workbook: _Workbook) -> Texts:
    texts = Texts()
    column = -1
    is_sorted = True
    for cell in element:
        before = column
        place = cell.get("r")
        # "AB12"; a cell without a place follows the one before
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
    kind = cell.get("t", "n")
    value = ""
    for inner in cell:
        # an inline string
        if inner.tag.endswith("}is"):
            return _cell_string(_rich_text(inner), cell, workbook)
        if inner.tag.endswith("}v"):
            value = inner.text or ""
    if not value or kind in ("e", "inlineStr"):
        return ""
    # a shared string, by its number
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
    # the text of a formula
    if amount is None:
        return _text(value)
    return _text(_number_value(amount, _format_for(cell, workbook), workbook))


def _cell_string(found: str | list[_Run], cell: Any, workbook: _Workbook) -> str:
    if isinstance(found, str):
        return found
    return _joined_runs(found, _format_for(cell, workbook).script)


_NO_FORMAT = _CellFormat()


def _format_for(cell: Any, workbook: _Workbook) -> _CellFormat:
    style = cell.get("s", "")
    if not style.isdecimal():
        return _NO_FORMAT
    number = int(style)
    return workbook.formats[number] if number < len(workbook.formats) else _NO_FORMAT


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
_STYLE_OF_CELL, _STYLE_OF_TEXT = f"{_TABLE}style-name", f"{_TEXT}style-name"


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
                for repeated in range(number, last):
                    yield Row(repeated, texts)
            number = last


def _opendocument_texts(element: Any, styles: TextStyles) -> Texts:
    texts = Texts()
    column = 0
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
    values: dict[str, str] = {}
    for key, value in cell.items():
        if key.startswith(_OFFICE):
            values[key.removeprefix(_OFFICE)] = value
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
    if written != shown:
        return _text(written)
    return _text(values.get("string-value", written))


def _paragraphs(cell: Any, styles: TextStyles) -> str:
    """Return the paragraphs of a cell, with control characters around what is raised or lowered."""
    outer = styles.odf_script("table-cell", cell.get(_STYLE_OF_CELL, ""), "")
    found = list[str]()
    for paragraph in cell.iterchildren(f"{_TEXT}p", f"{_TEXT}h"):
        script = styles.odf_script("paragraph", paragraph.get(_STYLE_OF_TEXT, ""), outer)
        found.append(_span_text(paragraph, styles, script))
    return "\n".join(found)


def _span_text(element: Any, styles: TextStyles, script: str) -> str:
    """Return the text of a paragraph, or of a part of it."""
    pieces = [marked(element.text or "", script)]
    for inner in element:
        # several spaces
        if inner.tag == f"{_TEXT}s":
            count = inner.get(f"{_TEXT}c", "1")
            pieces.append(" " * min(int(count), 100) if count.isdecimal() else " ")
        elif inner.tag in (f"{_TEXT}tab", f"{_TEXT}line-break"):
            pieces.append(" ")
        # all but remarks
        elif inner.tag != f"{_OFFICE}annotation":
            inner_script = styles.odf_script("text", inner.get(_STYLE_OF_TEXT, ""), script)
            pieces.append(_span_text(inner, styles, inner_script))
        pieces.append(marked(inner.tail or "", script))
    return "".join(pieces)


def _iso_duration(value: str) -> Any:
    """Return a time of the day as ISO writes it ("PT08H30M00S").

    A time of more than a day, or a negative one, is returned as text ("25:30"), and another value
    as it is.
    """
    found = _ISO_DURATION.fullmatch(value)
    if found is None:
        return value
    sign, *parts = found.groups()
    days, hours, minutes, seconds = (float(part or 0) for part in parts)
    total_minutes = (days * 24 + hours) * 60 + minutes
    amount = round((total_minutes * 60 + seconds) * 1000)
    if not sign and amount < _DAY_MILLISECONDS:
        return (_EPOCH + timedelta(milliseconds=amount)).time()
    return _elapsed(-amount if sign else amount, has_seconds=amount % 60_000 != 0)


# ---- values


def _text(value: Any) -> str:
    """Return the value of a cell as text: dates in ISO's form, whole numbers without a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return str(value).removesuffix(" 00:00:00")
    if isinstance(value, timedelta):
        milliseconds = round(value / timedelta(milliseconds=1))
        return _elapsed(milliseconds, has_seconds=milliseconds % 60_000 != 0)
    if isinstance(value, float):
        # doubles have 15 exact digits
        is_integer = value.is_integer() and abs(value) < 1e15
        return str(int(value)) if is_integer else f"{value:.12g}"
    return " ".join(str(value).split())


def _elapsed(milliseconds: int, *, has_seconds: bool) -> str:
    """Return how much time has passed: "25:30", or "25:30:15" with seconds."""
    sign = "-" if milliseconds < 0 else ""
    minutes, rest = divmod(abs(milliseconds), 60_000)
    text = f"{sign}{minutes // 60}:{minutes % 60:02}"
    if not has_seconds:
        return text
    seconds, fraction = divmod(rest, 1000)
    text = f"{text}:{seconds:02}"
    # 1.25 s
    if fraction:
        text += f".{fraction:03}".rstrip("0")
    return text
