"""The text of office documents (Open XML, OpenDocument): the parts that the main part refers to, in its order, without
what is hidden in them; and the rows of spreadsheets."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import date, time
from itertools import chain, groupby, islice
from typing import Any
from urllib.parse import unquote

from lxml import etree

from rag_index.components.sources.markup import HtmlText
from rag_index.components.sources.text import MAX_BYTES, NotText
from rag_index.quotes import without_values

Pages = Iterable[tuple[int | None, str | NotText]]
"""The texts of a file with the numbers of pages or slides; and why something in it cannot be read."""

MAX_FILE_CHARS = 5_000_000
_MAIN = ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml", "content.xml", "styles.xml")
_TEXTS = frozenset([
    "officeDocument", "header", "footer", "slide", "worksheet", "chartsheet", "drawing", "chart", "chartEx",
    "chartUserShapes", "diagramData", "",
])  # fmt: skip
"""Kinds of parts with texts that another part refers to in its text."""
_FILES = frozenset(["package", "oleObject", "aFChunk"])
_UNNAMED = frozenset(["comments", "footnotes", "endnotes", "notesSlide", "threadedComment"])
"""Kinds of parts that belong to another although its text does not name them."""
_AS_HTML = {
    "p": "p", "h": "p", "text": "p", "annotation": "p", "tbl": "table", "table": "table", "tr": "tr", "tx": "td",
    "table-row": "tr", "tc": "td", "table-cell": "td", "pt": "td", "br": "br", "cr": "br", "line-break": "br",
    "list-item": "li",
}  # fmt: skip
_SIGNS = {"tab": " ", "ptab": " ", "s": " ", "noBreakHyphen": "-"}
_GONE = frozenset([
    "del", "moveFrom", "instrText", "tracked-changes", "Fallback", "note-citation", "sheet-name", "page-number",
    "page-count", "numCache", "numLit", "numDim", "rPr", "tabs",
])  # fmt: skip
"""Elements whose text is deleted, there a second time, a formula or a number; and formats, which have none."""
_OFF = ("0", "false", "off", "none", "hidden")
_NAME = re.compile(r"(?=.*[^\W\d_]).{0,99}[^:]|(?:19|20)\d\d(?:-\d\d){0,2}")
"""What a column is called: words, a year, or a date; but not what begins a line of a form, with a colon."""


class OfficeFile:
    """An office document. `within` reads a file that is embedded in it, by its name and bytes. Raises BadZipFile."""

    def __init__(self, data: bytes, within: Callable[[str, bytes], Pages]) -> None:
        self._archive, self._within, self._data = zipfile.ZipFile(io.BytesIO(data)), within, data
        self._names = self._archive.namelist()
        self._seen, self._references, self._has_rows = set[str](), list[str](), False
        self._hides = dict[str, bool | None]()  # whether a style hides text, or shows it

    def texts(self) -> Pages:
        """Yield the sheets of a spreadsheet, and the texts of the parts, with the numbers of slides. Raises NotText."""
        if "META-INF/manifest.xml" in self._names and b"encryption-data" in self._read("META-INF/manifest.xml"):
            raise NotText("is encrypted")
        main = [part for kind, part in self._relations("").values() if kind == "officeDocument"]
        if not (main := main or [name for name in _MAIN if name in self._names]):
            raise NotText("is a ZIP file, but no document of a known kind")
        kind = self._read("mimetype") if "mimetype" in self._names else b""
        relations = self._relations(main[0]).values()
        if b"spreadsheet" in kind or any(of == "worksheet" for of, _ in relations):
            yield from ((None, text) for text in sheet_texts(self._data))
            self._has_rows = True
        for name in [*(part for of, part in relations if of == "styles" and part.endswith(".xml")), *main[1:]]:
            self._add_styles(self._xml(name))
        for name in main:
            yield from self._part(name, "officeDocument")

    def _part(self, name: str, kind: str, page: int | None = None) -> Pages:
        """Yield the texts of a part, and of those that it refers to, or why it cannot be read."""
        if name in self._seen:
            return
        self._seen.add(name)
        try:
            if kind in _FILES:
                yield from self._within(name, self._read(name))
            if not name.endswith(".xml"):
                return
            relations = self._relations(name)
            targets, slides = [*relations.values()], 0
            if kind != "worksheet":  # its cells are read, and its relations are all its own
                root = self._xml(name)
                if root.get("show") in ("0", "false"):
                    return
                self._add_styles(root)
                self._references = []
                pages = root.findall("{*}body/*/{*}page")  # slides of OpenDocument
                for number, element in enumerate(pages or [root], start=1):
                    html = HtmlText(lines=False)
                    self._walk(element, html, in_text=False, in_cell=False)
                    yield number if pages else page, html.close()
                keys = [*self._references, *(key for key, (of, _) in relations.items() if of in _UNNAMED)]
                targets = [relations[key] for one in keys if (key := one.removeprefix("./").rstrip("/")) in relations]
            for of, target in targets:
                slides += of == "slide"
                is_link = of == "slide" and kind != "officeDocument"
                if of in _UNNAMED | _FILES or (of in _TEXTS and not is_link):
                    yield from self._part(target, of, slides if of == "slide" else page)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other parts are worth reading
            yield page, NotText(f"{name} {reason_of(error)}")

    def _relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Return the kinds and names of the parts that may be referred to in a part, by their ids there."""
        folder, name = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        found = {one.removesuffix("/content.xml"): ("", one) for one in self._names if one.endswith("/content.xml")}
        for one in self._xml(path).iter("{*}Relationship") if path in self._names else ():
            target = posixpath.normpath(posixpath.join("/", folder, unquote(one.get("Target", ""))))
            if one.get("TargetMode") != "External":
                found[one.get("Id", "")] = one.get("Type", "").rpartition("/")[2], target.lstrip("/")
        return found

    def _xml(self, name: str) -> Any:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
        return etree.XML(self._read(name), parser)  # which refuses more than 256 levels

    def _read(self, name: str) -> bytes:
        with self._archive.open(name) as member:
            data = member.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise NotText(f"unpacks to more than {MAX_BYTES:,} bytes")
        return data

    def _add_styles(self, root: Any) -> None:
        """Take the styles of a part. They are looked at twice, since one may precede what it is based on."""
        for style in [*root.iter("{*}style")] * 2:
            of = _values(style)
            hides = self._hides.get(of.get("parent-style-name", ""))
            for inner in style.iter("*"):
                values = _values(inner)
                if inner.tag.endswith("}basedOn"):
                    hides = self._hides.get(values.get("val", ""))
                elif inner.tag.endswith("}vanish"):
                    hides = values.get("val") not in _OFF
                elif shown := values.get("display") or values.get("visibility"):
                    hides = shown in _OFF
            self._hides[of.get("styleId") or of.get("name", "")] = hides

    def _walk(self, element: Any, html: HtmlText, *, in_text: bool, in_cell: bool) -> None:
        space, _, name = element.tag.rpartition("}")
        if self._is_hidden(element, name):
            return
        self._references += [at for key, at in element.items() if "relationships}" in key or "xlink}href" in key]
        in_text = in_text or name in (("p", "h") if "opendocument" in space else ("t", "text", "v", "pt"))
        tag = _AS_HTML.get(name, "")
        before, tag = _SIGNS.get(name, " " if tag == "p" else ""), "" if tag == "p" and in_cell else tag
        html.start(tag, {})
        html.data(before + ((element.text or "") if in_text else ""))
        for inner in element:
            self._walk(inner, html, in_text=in_text, in_cell=in_cell or name in ("tc", "table-cell"))
            html.data((inner.tail or "") if in_text else "")
        html.end(tag)

    def _is_hidden(self, element: Any, name: str) -> bool:
        values = _values(element)
        if name == "r":
            vanish, paragraph = element.find("{*}rPr/{*}vanish"), next(element.iterancestors("{*}p"), element)
            said = [None if vanish is None else _values(vanish).get("val") not in _OFF]
            for style in (element.find("{*}rPr/{*}rStyle"), paragraph.find("{*}pPr/{*}pStyle")):
                said.append(None if style is None else self._hides.get(_values(style).get("val", "")))
            return next((hides for hides in said if hides is not None), False)
        return (
            name in _GONE or "purl.org/dc/" in element.tag
            or "idden" in values.get("state", "") or self._hides.get(values.get("style-name", "")) is True
            or values.get("display") == "none" or values.get("is-hidden") == "true"
            or (self._has_rows and name == "p" and element.getparent().tag.endswith("}table-cell"))
            or any("true" in field.values() for field in element.iterfind("{*}hidden-paragraph"))
        )  # fmt: skip


def _values(element: Any) -> dict[str, str]:
    return {key.rpartition("}")[2]: value for key, value in element.items()}


def reason_of(error: Exception) -> str:
    """Return what is wrong with a file. Whatever a parser raises is about the file."""
    if isinstance(error, NotText):
        return str(error)
    # a parser quotes what it cannot read: "invalid literal for int() with base 10: 'measles'"
    return f"is broken ({type(error).__name__}: {without_values(str(error))[:200]})"


def sheet_texts(data: bytes) -> Iterator[str]:
    """Yield the sheets of a spreadsheet that are not hidden: the name, and a line for each row with the names of its
    columns. Raises CalamineError, or what else its parser raises."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum, load_workbook

    book = load_workbook(io.BytesIO(data))
    for sheet in book.sheets_metadata:
        if sheet.visible == SheetVisibleEnum.Visible and sheet.typ == SheetTypeEnum.WorkSheet:
            lines, chars = list[str](), 0
            for line in _lines(_rows(book.get_sheet_by_name(sheet.name))):
                lines.append(line)
                chars += len(line)
                if chars > MAX_FILE_CHARS:
                    break
            yield "\n\n".join([sheet.name, *lines]) if lines else ""


class _Again(str):
    """The value of merged cells in a row, but in the first of these."""

    __slots__ = ()


def _rows(sheet: Any) -> Iterator[list[str]]:
    """Yield the rows of a sheet, with the value of merged cells in each of these."""
    merges, first, merged = defaultdict[int, list[Any]](list), (sheet.start or (0, 0))[1], dict[int, tuple[int, str]]()
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        merges[top].append((bottom, left - first, right - first + 1))
    for number, values in enumerate(sheet.iter_rows()):
        row = [_value(value) for value in values]
        for bottom, left, right in merges[number]:
            if 0 <= left < len(row):
                merged.update(dict.fromkeys(range(left, min(right, len(row))), (bottom, _Again(row[left]))))
                merged[left] = bottom, row[left]
        for column, (bottom, text) in merged.items():
            row[column] = text if number <= bottom else row[column]
        yield row


def _value(value: Any) -> str:
    """Return a cell as text: dates in ISO's form, whole numbers as such, and others as people read them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, date | time):
        return str(value).removesuffix(" 00:00:00")
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    return " ".join(str(value).split())


def _lines(rows: Iterator[list[str]]) -> Iterator[str]:
    """Yield a line for each row: values with the names of their columns, which stand above a block of rows."""
    names = list[str]()
    for is_filled, block in groupby(rows, any):
        ahead = list(islice(block, 50)) if is_filled else []
        widest = max((sum(map(bool, row)) for row in ahead), default=0)
        while ahead[1:] and _is_title(ahead[0], widest):
            yield _joined(ahead.pop(0))
        if ahead and _are_names(ahead[0], ahead[1:], names):
            names = ahead.pop(0)
            yield _joined(names)
        for row in chain(ahead, block) if is_filled else ():
            if not names or (row[0] and len({*row} - {""}) == 1):
                yield _joined(row)
            elif row != names:  # which some repeat on each page
                pairs = zip(names, row, strict=True)
                yield " | ".join(f"{name}: {text}" if name else text for name, text in pairs if text)


def _joined(row: list[str]) -> str:
    return " | ".join(text for text in row if text and not isinstance(text, _Again))


def _is_title(row: list[str], widest: int) -> bool:
    """Return whether a row has less than half the values of others, or merged cells, which name groups of columns."""
    is_merged = any(text and isinstance(text, _Again) for text in row)
    return is_merged or 2 * sum(map(bool, row)) <= widest


def _are_names(row: list[str], below: list[list[str]], names: list[str]) -> bool:
    """Return whether a row names the columns of those below. If others have been named, it has to differ from these."""
    texts = [(number, text) for number, text in enumerate(row) if text]
    if len(texts) < 2 or not below or not all(_NAME.fullmatch(text) for _, text in texts):
        return False
    if any(other[number] == text for other in below for number, text in texts):
        return False
    are_others = [*map(bool, names)] != [*map(bool, row)]
    return are_others or any(below[0][number] and not _NAME.fullmatch(below[0][number]) for number, _ in texts)
