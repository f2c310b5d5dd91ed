"""The text of office documents (Open XML, OpenDocument): the parts that the main part refers to, in its order, without
what is hidden in them; and the rows of spreadsheets."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import date, datetime, time
from functools import cache, reduce
from itertools import islice, takewhile, zip_longest
from typing import Any
from urllib.parse import unquote

from lxml import etree

from rag_index.components.sources.text import MAX_BYTES, HtmlText, NotText

Pages = Iterable[tuple[int | None, str]]

MAX_FILE_CHARS = 5_000_000
"""Characters of text that one file may have."""
MAX_CELLS = 10_000_000
"""Cells that a sheet may have. Its texts are read without their rows if there are more."""
_CELL = re.compile(rb'<(?:\w+:)?c [^>]*?\br="([A-Z]{1,3})(\d{1,7})"[^>]*(?<!/)>')
_ROOTS = frozenset([
    "document", "footnotes", "endnotes", "comments", "hdr", "ftr", "sst", "worksheet", "chartsheet", "ThreadedComments",
    "wsDr", "userShapes", "chartSpace", "dataModel", "sld", "notes", "cmLst", "document-content", "document-styles",
])  # fmt: skip
"""Elements of the XML of office documents that texts are in, whatever the file with them is called."""
_OFFICE = re.compile(r"openxmlformats|purl\.oclc\.org/ooxml|schemas\.microsoft\.com/office|opendocument")
_UNNAMED = frozenset(["comments", "footnotes", "endnotes", "notesSlide", "threadedComment", "sharedStrings"])
"""Kinds of parts that belong to another although its text does not name them."""
_EMBEDDED = re.compile(r".*/embeddings/.+|.*\.(?:docx|xlsx|pptx|od[tsp]|mht|html?|rtf|txt|eml|pdf)", re.IGNORECASE)
"""Files within office documents that are read like those of e-mails."""
_AS_HTML = {
    "p": "p", "h": "p", "si": "p", "text": "p", "annotation": "p", "tbl": "table", "table": "table", "tr": "tr",
    "table-row": "tr", "row": "tr", "tc": "td", "table-cell": "td", "is": "td", "br": "br", "cr": "br",
    "line-break": "br", "list-item": "li", "tx": "td",
}  # fmt: skip
_GONE = frozenset([
    "del", "delText", "moveFrom", "instrText", "tracked-changes", "Fallback", "note-citation", "rPh", "sheet-name",
    "page-number", "page-count",
])  # fmt: skip
"""Elements whose text is deleted, there a second time as where it was moved to, a formula, or a number of a page."""
_NO_TEXT = frozenset(["rPr", "tblPr", "trPr", "tcPr", "spPr", "bodyPr", "tblGrid"])
_OFF = ("0", "false", "off", "none", "hidden")
_NAME = re.compile(r"(?=.*[^\W\d_]).*[^:]|(?:19|20)\d\d(?:-\d\d){0,2}")
"""What a column is called: words, a year, or a date; but not what begins a line of a form, with a colon."""


class OfficeText(HtmlText):
    """The XML of an office document, read as HTML, without what is hidden. `styles` has the styles of the document:
    which one each is based on, and whether it hides text. With `has_rows`, the cells of a spreadsheet are left out."""

    def __init__(self, data: bytes, styles: dict[str, tuple[str, bool | None]], *, has_rows: bool = False) -> None:
        super().__init__(lines=False)
        parser = etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True)
        root = etree.XML(data, parser)
        space, name = _named(root.tag)
        is_left_out = root.get("show") in _OFF or (has_rows and name in ("sst", "worksheet"))  # a hidden slide
        self.is_text = name in _ROOTS and _OFFICE.search(space) is not None and not is_left_out
        self.pages, self.references, self._styles = list[tuple[int | None, str]](), list[str](), styles
        self._cells = self._texts = 0
        self._has_sheets, self._is_string = self.is_text and not has_rows, False
        """Whether a value of a table or diagram is a text, and no number."""
        self._add_styles(root)
        self._has_hidden = any(hides for _, hides in styles.values())
        if has_rows and "opendocument" in space:
            for text in root.iterfind(".//{*}table-cell/{*}p"):
                text.clear()
        self._read(root)
        self.pages.append((len(self.pages) or None, self.close()))

    def _read(self, root: Any) -> None:
        walk, hidden = etree.iterwalk(root, events=("start", "end")), None
        for event, element in walk:
            space, name = _named(element.tag)
            if event == "start" and name == "page" and "drawing" in space:  # a slide of OpenDocument
                self.pages.append((len(self.pages) or None, self.close()))
                self._pieces, self._newlines = [], 2
            if event == "start" and (name in _NO_TEXT or self._is_hidden(element, space, name)):
                hidden = element
                walk.skip_subtree()
            elif event == "start":
                self._begin(element, space, name)
            else:
                if element is not hidden:
                    self._finish(space, name)
                self._say(element.tail)

    def _begin(self, element: Any, space: str, name: str) -> None:
        self.references += [at for key, at in element.items() if "relationships}" in key or "xlink}href" in key]
        if name == "c":
            self._is_string = element.get("t") == "str"
        elif name.startswith(("str", "num", "multiLvlStr")) or name == "tx":  # in `tx` a name, or a reference to one
            self._is_string = not name.startswith("num")
        self._cells += name in ("tc", "table-cell")
        if tag := self._tag(space, name):
            self.start(tag, {})
        if self._has_sheets and name == "table" and element.getparent().tag.endswith("}spreadsheet"):
            self.data(_values(element).get("name", ""))
            self.end("p")
        self._texts += self._is_said(space, name)
        if name in ("tab", "ptab", "s", "noBreakHyphen") and self.is_text:
            self.data("-" if name == "noBreakHyphen" else " ")
        self._say(element.text)

    def _finish(self, space: str, name: str) -> None:
        self._texts -= self._is_said(space, name)
        self._cells -= name in ("tc", "table-cell")
        if tag := self._tag(space, name):
            self.end(tag)

    def _say(self, text: str | None) -> None:
        if text and self._texts and self.is_text:
            self.data(text)

    def _is_said(self, space: str, name: str) -> bool:
        return name in (("p", "h") if "opendocument" in space else ("t", "text", *(("v", "pt") * self._is_string)))

    def _tag(self, space: str, name: str) -> str | None:
        is_cell = name == "pt" or (name == "v" and "spreadsheet" in space)
        tag = "td" if is_cell and self._is_string else _AS_HTML.get(name)
        if tag == "p" and self._cells:
            self.data(" ")
            return None
        return tag if self.is_text else None

    def _add_styles(self, root: Any) -> None:
        for style in root.iter("{*}style"):
            of, hides = _values(style), None
            base = of.get("parent-style-name", "")
            for inner in style.iter("*"):
                name, values = _named(inner.tag)[1], _values(inner)
                shown = values.get("display", values.get("visibility"))
                if name == "basedOn":
                    base = values.get("val", "")
                elif name == "vanish":
                    hides = values.get("val") not in _OFF
                elif name.endswith("-properties") and shown in (*_OFF, "true"):
                    hides = shown in _OFF
            self._styles[of.get("styleId") or of.get("name", "")] = base, hides

    def _hides(self, style: str) -> bool | None:
        """Return whether a style, or one that it is based on, hides text or shows it; None if none says so."""
        for _ in range(20):
            style, hides = self._styles.get(style, ("", None))
            if hides is not None or not style:
                return hides
        return None

    def _is_hidden(self, element: Any, space: str, name: str) -> bool:
        if name in _GONE or "purl.org/dc/" in space:
            return True
        if name == "r":
            return self._is_hidden_run(element)
        if name == "pPr":
            return element.find("{*}sectPr") is None
        values = _values(element)
        if name in ("p", "h") and "opendocument" in space:
            for field in element.iterfind(".//{*}hidden-paragraph"):
                values.update(_values(field))
        return bool(values) and (
            "idden" in values.get("state", "") or values.get("display") == "none" or values.get("is-hidden") == "true"
            or self._hides(values.get("style-name", "")) is True
        )  # fmt: skip

    def _is_hidden_run(self, run: Any) -> bool:
        for mark in run.iterfind("{*}rPr/{*}vanish"):
            return _values(mark).get("val") not in _OFF
        if not self._has_hidden:
            return False
        paragraph = next(run.iterancestors("{*}p"), run)
        styles = [*run.iterfind("{*}rPr/{*}rStyle"), *paragraph.iterfind("{*}pPr/{*}pStyle")]
        said = [self._hides(_values(style).get("val", "")) for style in styles]
        return next((hides for hides in said if hides is not None), False)


@cache
def _named(tag: str) -> tuple[str, str]:
    """Return the namespace and the name of an element."""
    space, _, name = tag.rpartition("}")
    return space, name


def _values(element: Any) -> dict[str, str]:
    return {key.rpartition("}")[2]: value for key, value in element.items()}


class OfficeFile:
    """An office document. `within` reads a file that is embedded in it, by its name and bytes; `missing` gets what
    cannot be read."""

    def __init__(self, archive: zipfile.ZipFile, within: Callable[[str, bytes], Pages], missing: list[str]) -> None:
        self._archive, self._within, self._missing = archive, within, missing
        self._names = {name.lower(): name for name in archive.namelist()}
        self._styles, self._seen = dict[str, tuple[str, bool | None]](), set[str]()
        self._found = self._has_rows = self._is_broken = False

    def texts(self, data: bytes) -> Pages:
        """Yield the sheets of a spreadsheet, and the texts of the parts, with the numbers of slides. Raises NotText."""
        if "meta-inf/manifest.xml" in self._names and b"encryption-data" in self._read("META-INF/manifest.xml"):
            raise NotText("is encrypted")
        main = [part for kind, part in self._relations("").values() if kind == "officeDocument"]
        self._found = bool(main)
        if not main or main[0].lower() not in self._names:
            main = [name for name in ("content.xml", "styles.xml") if name in self._names]  # OpenDocument
        kind = self._read("mimetype") if "mimetype" in self._names else b""
        if b"spreadsheet" in kind or (main and main[0].startswith("xl/")):
            yield from ((None, text) for text in self._sheets(data))
        styles = [part for name in main for kind, part in self._relations(name).values() if kind == "styles"]
        for name in [*styles, *main[1:]]:
            if name.endswith(".xml"):
                self._xml(name)
        for name in main:
            yield from self._part(name, "officeDocument")
        if not main or self._is_broken:
            for name in sorted(self._names.values(), key=lambda name: not name.endswith(".xml")):
                yield from self._part(name, "")
        if not self._found and not self._missing:
            raise NotText("is a ZIP file, but no document of a known kind")

    def _sheets(self, data: bytes) -> Iterator[str]:
        try:
            for name in self._names:
                if "/worksheets/" in name and name.endswith(".xml") and _area(self._read(name)) > MAX_CELLS:
                    raise NotText(f"has a sheet with more than {MAX_CELLS:,} cells between the first and the last")
            for text in sheet_texts(data):
                self._found = self._has_rows = True
                yield text
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - texts, comments and charts are worth reading
            self._missing.append(f"spreadsheet {reason_of(error)}")

    def _part(self, name: str, kind: str, page: int | None = None) -> Pages:
        """Yield the text of a part, and of those that it refers to, in its order."""
        if name in self._seen:
            return
        self._seen.add(name)
        if not name.endswith(".xml"):
            if self._found and _EMBEDDED.fullmatch(name):
                yield from self._within(name, self._read(name))
            return
        part = None
        if kind != "worksheet" or not self._has_rows:
            if (part := self._xml(name)) is None:
                return
            self._found = self._found or part.is_text
            yield from ((number or page, text) for number, text in part.pages)
        slides = 0
        for of_kind, target in self._referred(name, kind, part):
            slides += of_kind == "slide"
            yield from self._part(target, of_kind, slides if of_kind == "slide" else page)

    def _referred(self, name: str, kind: str, part: OfficeText | None) -> Iterator[tuple[str, str]]:
        """Yield the kinds and names of the parts that a part refers to. Slides belong to a presentation, and not to a
        slide with a link to one."""
        relations = self._relations(name)
        if part is None:
            yield from relations.values()
        elif part.is_text or kind == "officeDocument":
            for key in [*part.references, *(key for key, (kind_of, _) in relations.items() if kind_of in _UNNAMED)]:
                folder = posixpath.join(posixpath.dirname(name), unquote(key), "content.xml")
                of_kind, target = relations.get(key, ("", posixpath.normpath(folder)))
                is_known = key in relations or target.lower() in self._names
                if is_known and (of_kind != "slide" or kind == "officeDocument"):
                    yield of_kind, target

    def _relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Return the kinds and names of the parts that may be referred to in a part, by their ids there."""
        folder, name = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        found = dict[str, tuple[str, str]]()
        if path.lower() not in self._names:
            return found
        try:
            root = etree.XML(self._read(path), etree.XMLParser(resolve_entities=False, no_network=True))
        except Exception as error:  # noqa: BLE001 - all parts are read then
            self._missing.append(f"{path} {reason_of(error)}")
            self._is_broken = True
            return found
        for one in root.iter("{*}Relationship"):
            target = posixpath.normpath(posixpath.join("/", folder, unquote(one.get("Target", ""))))
            if one.get("TargetMode") != "External":
                found[one.get("Id", "")] = one.get("Type", "").rpartition("/")[2], target.lstrip("/")
        return found

    def _xml(self, name: str) -> OfficeText | None:
        """Return an XML file that was read, None if it cannot be, which is noted."""
        try:
            return OfficeText(self._read(name), self._styles, has_rows=self._has_rows)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the others are worth reading
            self._missing.append(f"{name} {reason_of(error)}")
            return None

    def _read(self, name: str) -> bytes:
        with self._archive.open(self._names.get(name.lower(), name)) as member:
            data = member.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise NotText(f"unpacks to more than {MAX_BYTES:,} bytes")
        return data


def reason_of(error: Exception) -> str:
    """Return what is wrong with a file. Whatever a parser raises is about the file."""
    return str(error) if isinstance(error, NotText) else f"is broken ({type(error).__name__}: {str(error)[:200]})"


def _area(sheet: bytes) -> int:
    """Return how many cells the rectangle around those of a sheet has, which calamine needs memory for."""
    columns, rows = set[int](), set[int]()
    for cell in _CELL.finditer(sheet):
        columns.add(reduce(lambda number, letter: 26 * number + letter - 64, cell[1], 0))
        rows.add(int(cell[2]))
    return (max(columns) - min(columns) + 1) * (max(rows) - min(rows) + 1) if rows else 0


def sheet_texts(data: bytes) -> Iterator[str]:
    """Yield the sheets of a spreadsheet that are not hidden: the name, and a line for each row with the names of its
    columns. Raises CalamineError, or what else its parser raises."""
    from python_calamine import SheetTypeEnum, SheetVisibleEnum, load_workbook

    book = load_workbook(io.BytesIO(data))
    for sheet in book.sheets_metadata:
        if sheet.visible == SheetVisibleEnum.Visible and sheet.typ == SheetTypeEnum.WorkSheet:
            chars, lines = 0, [sheet.name]
            for line in _lines(_rows(book.get_sheet_by_name(sheet.name))):
                lines.append(line)
                chars += len(line)
                if chars > MAX_FILE_CHARS:
                    break
            yield "\n\n".join(lines) if chars else ""


def _rows(sheet: Any) -> Iterator[tuple[list[str], list[str]]]:
    """Yield rows as they are seen, and with the value of merged cells in each of these."""
    merges, first = defaultdict[int, list[tuple[int, int, int]]](list), (sheet.start or (0, 0))[1]
    for (top, left), (bottom, right) in sheet.merged_cell_ranges or ():
        merges[top].append((bottom, left - first, right - first + 1))
    merged = list[tuple[int, int, int, str]]()
    for number, values in enumerate(sheet.iter_rows()):
        seen = [_value(one) for one in values]
        merged = [one for one in merged if one[0] >= number]
        merged += [(bottom, left, right, seen[left]) for bottom, left, right in merges[number] if 0 <= left < len(seen)]
        filled = seen.copy()
        for _, left, right, value in merged:
            seen[left] = value
            filled[left:right] = [value] * (min(right, len(seen)) - left)
        yield seen, filled


def _value(value: Any) -> str:
    """Return a cell as text: dates in ISO's form, whole numbers as such, and others as people read them."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    return " ".join(str(value).split())


def _lines(rows: Iterator[tuple[list[str], list[str]]]) -> Iterator[str]:
    """Yield a line for each row: values with the names of their columns, which stand in a row above the first ones."""
    ahead, names, above, is_open = deque(islice(rows, 50)), list[str](), list[str](), True
    while ahead:
        seen, filled = ahead.popleft()
        ahead.extend(islice(rows, 1))
        said = [text for text in seen if text]
        if not said:
            is_open, above = True, []
            continue
        are_names = False
        if is_open and len(said) > 1:
            below = list(takewhile(any, (one for _, one in ahead)))
            is_open = _are_above_names(filled, len(said), below)
            are_names = not is_open and _are_names(filled, below, names)
        if are_names:
            names = [own or over for own, over in zip_longest(filled, above, fillvalue="")]
        if are_names or not names or (seen[0] and len(said) == 1):
            yield " | ".join(said)
        elif filled != names:
            pairs = zip(names, filled, strict=True)
            yield " | ".join(f"{name}: {text}" if name else text for name, text in pairs if text)
        above = filled if len({*filled}) > 2 else []


def _are_above_names(row: list[str], values: int, below: list[list[str]]) -> bool:
    """Return whether a row is a title, or names groups of columns, so that the names of these may follow."""
    is_merged = values < sum(map(bool, row))
    return 2 * values <= max((sum(map(bool, one)) for one in below), default=0) or (
        is_merged and bool(below) and _are_names(below[0], below[1:], [])
    )


def _are_names(row: list[str], below: list[list[str]], names: list[str]) -> bool:
    """Return whether a row names the columns of those below. Behind a gap, it has to differ from the `names` before."""
    texts = [(number, text) for number, text in enumerate(row) if text]
    if not below or any(len(text) > 100 or not _NAME.fullmatch(text) for _, text in texts):
        return False
    if any(other[number] == text for other in below for number, text in texts):
        return False
    are_others = [*map(bool, names)] != [*map(bool, row)]
    return are_others or any(below[0][number] and not _NAME.fullmatch(below[0][number]) for number, _ in texts)
