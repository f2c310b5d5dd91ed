"""The text of office documents (Open XML, OpenDocument).

It consists of the parts that the main part refers to, in its order, without what is hidden in them,
and of the rows of spreadsheets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from lxml import etree

from rag_index.components.sources.formulas import (
    FORMULA,
    NOTE,
    RAISED,
    in_line,
    marked,
    mathml_text,
    office_formula_text,
)
from rag_index.components.sources.markup import HtmlText
from rag_index.components.sources.office_package import (
    OFF,
    OfficePackage,
    Pages,
    PartRelation,
    TextStyles,
    reason_of,
    slide_script,
    values_of,
)
from rag_index.components.sources.sheet_lines import Sheet, sheet_texts
from rag_index.components.sources.spreadsheets import (
    excel_sheets,
    old_sheets,
    opendocument_sheets,
)
from rag_index.components.sources.text import NotText

_MAIN = (
    "word/document.xml",
    "ppt/presentation.xml",
    "xl/workbook.xml",
    "content.xml",
    "styles.xml",
)
_TEXTS = frozenset(
    [
        "officeDocument",
        "header",
        "footer",
        "slide",
        "worksheet",
        "chartsheet",
        "drawing",
        "chart",
        "chartEx",
        "chartUserShapes",
        "diagramData",
        "",
    ]
)
"""Kinds of parts with texts that another part refers to in its text."""
_FILES = frozenset(["package", "oleObject", "aFChunk"])
"""Kinds of parts that are files of their own."""
_UNNAMED = frozenset(["comments", "footnotes", "endnotes", "notesSlide", "threadedComment"])
"""Kinds of parts that belong to another although its text does not name them."""
_AS_HTML = {
    "p": "p",
    "h": "p",
    "text": "p",
    "annotation": "p",
    "tbl": "table",
    "table": "table",
    "tr": "tr",
    "tx": "td",
    "table-row": "tr",
    "tc": "td",
    "table-cell": "td",
    "pt": "td",
    "br": "br",
    "cr": "br",
    "line-break": "br",
    "list-item": "li",
}
_SIGNS = {"tab": " ", "ptab": " ", "s": " ", "noBreakHyphen": "-"}
_GONE = frozenset(
    [
        "del",
        "moveFrom",
        "instrText",
        "tracked-changes",
        "Fallback",
        "note-citation",
        "sheet-name",
        "page-number",
        "page-count",
        "numCache",
        "numLit",
        "numDim",
        "rPr",
        "tabs",
    ]
)
"""Elements that are left out: their text is deleted, repeated, a formula or a number, or they are
formats, which have no text."""
_MANIFEST = "META-INF/manifest.xml"
_NEEDED = frozenset(
    [
        "OLEObject",
        "altChunk",
        "chart",
        "externalData",
        "footerReference",
        "headerReference",
        "oleObj",
        "relIds",
        "sldId",
        "userShapes",
    ]
)
"""Elements that show a part with texts or a file, to which `r:id` refers (`r:dm` in a diagram)."""


class OfficeFile:
    """An office document.

    Args:
        data: Its bytes.
        within: A function that reads a file embedded in it, by its name and bytes.

    Raises:
        BadZipFile: The bytes are not a ZIP file.
    """

    def __init__(self, data: bytes, within: Callable[[str, bytes], Pages]) -> None:
        self._package = OfficePackage(data)
        self._within = within
        self._data = data
        self._styles = TextStyles()
        self._seen = set[str]()
        """The parts that were read."""
        self._has_rows = False
        """Whether it is a spreadsheet, whose cells are read as rows."""
        self._references = list[str]()
        """The references to other parts in the part that was read last."""
        self._needed = dict[str, str]()
        """The elements of this part that show another, by their references to it."""

    def texts(self) -> Pages:
        """Yield the sheets of a spreadsheet, and the texts of the parts, with the numbers of
        slides. Raises NotText."""
        package = self._package
        if _MANIFEST in package.names and b"encryption-data" in package.read(_MANIFEST):
            raise NotText("is encrypted")
        main = self._main_parts()
        relations = package.relations(main[0]).values()
        styles = [found.part for found in relations if found.kind == "styles"]
        for name in [part for part in styles if part.endswith(".xml")] + main[1:]:
            self._styles.add(package.xml(name))
        kind = package.read("mimetype") if "mimetype" in package.names else b""
        if b"spreadsheet" in kind:
            yield from self._sheets(opendocument_sheets(package, main[0], self._styles))
        elif any(found.kind == "worksheet" for found in relations):
            # .xlsx, or .xlsb, whose parts are in a binary form
            is_xml = main[0].endswith(".xml")
            sheets = excel_sheets(package, main[0]) if is_xml else old_sheets(self._data)
            yield from self._sheets(sheets)
        for name in main:
            yield from self._part(name, "officeDocument")

    def _main_parts(self) -> list[str]:
        """Return the names of the main part, and of the one with the styles in OpenDocument."""
        relations = self._package.relations("").values()
        main = [found.part for found in relations if found.kind == "officeDocument"]
        if main:
            return main
        main = [name for name in _MAIN if name in self._package.names]
        if not main:
            raise NotText("is a ZIP file, but no document of a known kind")
        return main

    def _sheets(self, sheets: Iterable[Sheet]) -> Pages:
        self._has_rows = True
        for text in sheet_texts(sheets):
            yield None, text

    def _part(self, name: str, kind: str, page: int | None = None) -> Pages:
        """Yield the texts of a part, and of those that it refers to, or why it cannot be read."""
        if name in self._seen:
            return
        self._seen.add(name)
        try:
            if kind in _FILES:
                yield from self._within(name, self._package.read(name))
            if name.endswith(".xml"):
                yield from self._xml_part(name, kind, page)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other parts are worth reading
            yield page, NotText(f"{name} {reason_of(error)}")

    def _xml_part(self, name: str, kind: str, page: int | None) -> Pages:
        relations = self._package.relations(name)
        if kind == "worksheet":
            # its cells are read as rows, and its relations are all its own
            targets = list(relations.values())
        else:
            root = self._package.xml(name)
            # a slide that is hidden
            if root.get("show") in ("0", "false"):
                return
            yield from self._root_texts(root, page)
            targets = self._targets(relations)
            for key, element in self._needed.items():
                if _part_key(key) not in relations:
                    reason = f"{name} refers to a part that is missing ({element} {key})"
                    yield page, NotText(reason)
        slides = 0
        for target in targets:
            is_slide = target.kind == "slide"
            slides += is_slide
            # a link from one slide to another
            if is_slide and kind != "officeDocument":
                continue
            if target.kind in _UNNAMED | _FILES | _TEXTS:
                yield from self._part(target.part, target.kind, slides if is_slide else page)

    def _targets(self, relations: dict[str, PartRelation]) -> list[PartRelation]:
        """Return the parts that the part just read refers to, and those that belong to it."""
        keys = [_part_key(reference) for reference in self._references]
        targets = [relations[key] for key in keys if key in relations]
        unnamed = [found for found in relations.values() if found.kind in _UNNAMED]
        return targets + unnamed

    def _root_texts(self, root: Any, page: int | None) -> Pages:
        """Yield the text of a part, or those of its slides, and record the references in it."""
        self._styles.add(root)
        self._references = []
        self._needed = {}
        pages = root.findall("{*}body/*/{*}page")  # slides of OpenDocument
        for number, element in enumerate(pages or [root], start=1):
            html = HtmlText(lines=False)
            self._walk(element, html, in_text=False, in_cell=False, script="")
            yield number if pages else page, in_line(html.close())

    def _walk(
        self, element: Any, html: HtmlText, *, in_text: bool, in_cell: bool, script: str
    ) -> None:
        """Add the text of an element to `html`.

        Args:
            in_text: Whether the text of the elements around it is shown.
            in_cell: Whether it is in the cell of a table.
            script: Whether the text around it is RAISED, LOWERED, or neither ("").
        """
        space, _, name = element.tag.rpartition("}")
        if self._is_hidden(element, name):
            return
        self._add_references(element, name)
        formula = self._formula(element, space, name)
        if formula:
            html.data(marked(formula, FORMULA))
            return
        holders = ("p", "h") if "opendocument" in space else ("t", "text", "v", "pt")
        in_text = in_text or name in holders
        script = self._script(element, space, name, script)
        tag = _AS_HTML.get(name, "")
        before = _SIGNS.get(name, " " if tag == "p" else "")
        # The paragraphs of a cell are in one line.
        if tag == "p" and in_cell:
            tag = ""
        in_cell = in_cell or name in ("tc", "table-cell")
        html.start(tag, {})
        text = marked(element.text or "", script) if in_text else ""
        html.data(before + text)
        for inner in element:
            # Behind the reference to a note, the run may have the mark that the author chose for
            # it. That is no text.
            is_note = inner.tag.endswith(("}footnoteReference", "}endnoteReference"))
            if is_note and _has_custom_mark(inner):
                break
            self._walk(inner, html, in_text=in_text, in_cell=in_cell, script=script)
            html.data(marked(inner.tail or "", script) if in_text else "")
        html.end(tag)

    def _add_references(self, element: Any, name: str) -> None:
        """Record the other parts that an element refers to, and those that it shows."""
        for key, value in element.items():
            # Open XML: r:id="rId3"
            if "relationships}" in key:
                self._references.append(value)
                if name in _NEEDED and value and key.endswith(("}id", "}dm")):
                    self._needed[value] = name
            # OpenDocument: xlink:href="./Object 1"
            elif "xlink}href" in key:
                self._references.append(value)
                if name == "object" and value.startswith("./"):
                    self._needed[value] = name

    def _formula(self, element: Any, space: str, name: str) -> str:
        """Return a formula as text, "" if the element is none."""
        if name == "oMath":
            return office_formula_text(element, self._is_hidden_in_formula)
        if name == "math" and space.endswith("/MathML"):
            return mathml_text(element)
        if name != "object":
            return ""
        # OpenDocument has formulas in parts of their own.
        key = _part_key(element.get("{http://www.w3.org/1999/xlink}href", ""))
        part = f"{key}/content.xml"
        if not key or part not in self._package.names:
            return ""
        if b"/MathML" not in self._package.read(part)[:2000]:
            return ""
        root = self._package.xml(part)
        if etree.QName(root).localname != "math":
            return ""
        self._seen.add(part)
        return mathml_text(root)

    def _script(self, element: Any, space: str, name: str, outer: str) -> str:
        """Return whether the text in an element is raised or lowered, or what it is around the
        element."""
        if "opendocument" in space:
            return self._odf_script(element, name, outer)
        # a run or a field of a slide
        if "drawingml" in space:
            return slide_script(element) if name in ("r", "fld") else outer
        return self._styles.run_script(element) if name == "r" else outer

    def _odf_script(self, element: Any, name: str, outer: str) -> str:
        if name == "note-ref" and outer == RAISED:
            return NOTE
        style = values_of(element).get("style-name", "")
        if name in ("p", "h"):
            return self._styles.odf_script("paragraph", style, "")
        if name in ("span", "a"):
            return self._styles.odf_script("text", style, outer)
        return outer

    def _is_hidden_in_formula(self, element: Any) -> bool:
        return self._is_hidden(element, etree.QName(element).localname)

    def _is_hidden(self, element: Any, name: str) -> bool:
        """Return whether the text of an element is not shown, or is no text of the document."""
        if name == "r":
            return _is_placeholder(element) or self._styles.is_hidden_run(element)
        # the title and the author of the document are metadata
        if name in _GONE or "purl.org/dc/" in element.tag:
            return True
        values = values_of(element)
        # "hidden", "veryHidden"
        if "idden" in values.get("state", ""):
            return True
        if values.get("display") == "none" or values.get("is-hidden") == "true":
            return True
        if self._styles.hides(values.get("style-name", "")) is True:
            return True
        # its row has been read
        if self._has_rows and name == "p" and element.getparent().tag.endswith("}table-cell"):
            return True
        return any("true" in field.values() for field in element.iterfind("{*}hidden-paragraph"))


def _part_key(reference: str) -> str:
    """Return the key of a reference among the relations of a part: "Object 1" for "./Object 1/"."""
    return reference.removeprefix("./").rstrip("/")


def _has_custom_mark(reference: Any) -> bool:
    """Return whether the author chose the mark of a note, such as `*`, which stands behind the
    reference."""
    follows = values_of(reference).get("customMarkFollows")
    return follows is not None and follows not in OFF


def _is_placeholder(run: Any) -> bool:
    """Return whether a run is what Word shows in a field that is not filled in: "Click here to
    enter text"."""
    control = next(run.iterancestors("{*}sdt"), None)
    if control is None:
        return False
    shows = control.find("{*}sdtPr/{*}showingPlcHdr")
    return shows is not None and values_of(shows).get("val") not in OFF
