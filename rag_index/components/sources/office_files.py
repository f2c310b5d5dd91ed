"""The text of office documents (Open XML, OpenDocument): the parts that the main part refers to, in
its order, without what is hidden in them; and the rows of spreadsheets."""

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
    TextStyles,
    reason_of,
    slide_script,
    values_of,
)
from rag_index.components.sources.spreadsheets import (
    Sheet,
    excel_sheets,
    old_sheets,
    opendocument_sheets,
    sheet_texts,
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
"""Elements whose text is deleted, there a second time, a formula or a number; and formats, which
have none."""
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
    """An office document. `within` reads a file that is embedded in it, by its name and bytes.
    Raises BadZipFile."""

    def __init__(self, data: bytes, within: Callable[[str, bytes], Pages]) -> None:
        self._package, self._within, self._data = OfficePackage(data), within, data
        self._seen, self._references, self._has_rows = set[str](), list[str](), False
        self._needed = dict[str, str]()
        """The elements of a part that need another, by their references to it."""
        self._styles = TextStyles()

    def texts(self) -> Pages:
        """Yield the sheets of a spreadsheet, and the texts of the parts, with the numbers of
        slides. Raises NotText."""
        package, names = self._package, self._package.names
        if "META-INF/manifest.xml" in names and b"encryption-data" in package.read(
            "META-INF/manifest.xml"
        ):
            raise NotText("is encrypted")
        main = [part for kind, part in package.relations("").values() if kind == "officeDocument"]
        if not (main := main or [name for name in _MAIN if name in names]):
            raise NotText("is a ZIP file, but no document of a known kind")
        relations = package.relations(main[0]).values()
        for name in [
            *(part for of, part in relations if of == "styles" and part.endswith(".xml")),
            *main[1:],
        ]:
            self._styles.add(package.xml(name))
        kind = package.read("mimetype") if "mimetype" in names else b""
        if b"spreadsheet" in kind:
            yield from self._sheets(opendocument_sheets(package, main[0], self._styles))
        elif any(of == "worksheet" for of, _ in relations):
            is_xml = main[0].endswith(".xml")
            yield from self._sheets(
                excel_sheets(package, main[0]) if is_xml else old_sheets(self._data)
            )
        for name in main:
            yield from self._part(name, "officeDocument")

    def _sheets(self, sheets: Iterable[Sheet]) -> Pages:
        self._has_rows = True
        yield from ((None, text) for text in sheet_texts(sheets))

    def _part(self, name: str, kind: str, page: int | None = None) -> Pages:
        """Yield the texts of a part, and of those that it refers to, or why it cannot be read."""
        if name in self._seen:
            return
        self._seen.add(name)
        try:
            if kind in _FILES:
                yield from self._within(name, self._package.read(name))
            if not name.endswith(".xml"):
                return
            relations = self._package.relations(name)
            targets, slides = [*relations.values()], 0
            if kind != "worksheet":  # its cells are read, and its relations are all its own
                root = self._package.xml(name)
                if root.get("show") in ("0", "false"):
                    return
                yield from self._root_texts(root, page)
                keys = [
                    *self._references,
                    *(key for key, (of, _) in relations.items() if of in _UNNAMED),
                ]
                targets = [relations[key] for one in keys if (key := _part_key(one)) in relations]
                for key, element in self._needed.items():
                    if _part_key(key) not in relations:
                        yield (
                            page,
                            NotText(f"{name} refers to a part that is missing ({element} {key})"),
                        )
            for of, target in targets:
                slides += of == "slide"
                is_link = of == "slide" and kind != "officeDocument"
                if of in _UNNAMED | _FILES or (of in _TEXTS and not is_link):
                    yield from self._part(target, of, slides if of == "slide" else page)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other parts are worth reading
            yield page, NotText(f"{name} {reason_of(error)}")

    def _root_texts(self, root: Any, page: int | None) -> Pages:
        """Yield the text of a part, or those of its slides, and note the references in it."""
        self._styles.add(root)
        self._references, self._needed = [], {}
        pages = root.findall("{*}body/*/{*}page")  # slides of OpenDocument
        for number, element in enumerate(pages or [root], start=1):
            html = HtmlText(lines=False)
            self._walk(element, html, in_text=False, in_cell=False, script="")
            yield number if pages else page, in_line(html.close())

    def _walk(
        self, element: Any, html: HtmlText, *, in_text: bool, in_cell: bool, script: str
    ) -> None:
        space, _, name = element.tag.rpartition("}")
        if self._is_hidden(element, name):
            return
        self._add_references(element, name)
        formula = self._formula(element, space, name)
        if formula:
            html.data(marked(formula, FORMULA))
            return
        in_text = in_text or name in (
            ("p", "h") if "opendocument" in space else ("t", "text", "v", "pt")
        )
        script = self._script(element, space, name, script)
        tag = _AS_HTML.get(name, "")
        before, tag = (
            _SIGNS.get(name, " " if tag == "p" else ""),
            "" if tag == "p" and in_cell else tag,
        )
        html.start(tag, {})
        html.data(before + (marked(element.text or "", script) if in_text else ""))
        for inner in element:
            if inner.tag.endswith(("}footnoteReference", "}endnoteReference")) and _is_custom_mark(
                inner
            ):
                # What follows in the run is the mark of a note, and no text.
                break
            self._walk(
                inner,
                html,
                in_text=in_text,
                in_cell=in_cell or name in ("tc", "table-cell"),
                script=script,
            )
            html.data(marked(inner.tail or "", script) if in_text else "")
        html.end(tag)

    def _add_references(self, element: Any, name: str) -> None:
        """Note the other parts that an element refers to, and those that it needs."""
        for key, value in element.items():
            if "relationships}" in key:
                self._references.append(value)
                if name in _NEEDED and value and key.endswith(("}id", "}dm")):
                    self._needed[value] = name
            elif "xlink}href" in key:
                self._references.append(value)
                if name == "object" and value.startswith("./"):
                    self._needed[value] = name

    def _formula(self, element: Any, space: str, name: str) -> str:
        """Return a formula as text, "" if the element is none. OpenDocument has formulas in parts
        of their own."""
        if name == "oMath":
            return office_formula_text(element, self._is_hidden_in_formula)
        if name == "math" and space.endswith("/MathML"):
            return mathml_text(element)
        key = (
            _part_key(element.get("{http://www.w3.org/1999/xlink}href", ""))
            if name == "object"
            else ""
        )
        part = f"{key}/content.xml"
        if (
            not key
            or part not in self._package.names
            or b"/MathML" not in self._package.read(part)[:2000]
        ):
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
            family = {"p": "paragraph", "h": "paragraph", "span": "text", "a": "text"}.get(name)
            if name == "note-ref" and outer == RAISED:
                return NOTE
            if family is None:
                return outer
            style = values_of(element).get("style-name", "")
            return self._styles.odf_script(family, style, "" if family == "paragraph" else outer)
        if "drawingml" in space:
            return slide_script(element) if name in ("r", "fld") else outer
        return self._styles.run_script(element) if name == "r" else outer

    def _is_hidden_in_formula(self, element: Any) -> bool:
        return self._is_hidden(element, etree.QName(element).localname)

    def _is_hidden(self, element: Any, name: str) -> bool:
        values = values_of(element)
        if name == "r":
            return _is_placeholder(element) or self._styles.is_hidden_run(element)
        return (
            name in _GONE
            or "purl.org/dc/" in element.tag
            or "idden" in values.get("state", "")
            or self._styles.hides(values.get("style-name", "")) is True
            or values.get("display") == "none"
            or values.get("is-hidden") == "true"
            or (self._has_rows and name == "p" and element.getparent().tag.endswith("}table-cell"))
            or any("true" in field.values() for field in element.iterfind("{*}hidden-paragraph"))
        )


def _part_key(reference: str) -> str:
    """Return the key in the relations of a part for a reference in it: that of "./Object 1/" is
    "Object 1"."""
    return reference.removeprefix("./").rstrip("/")


def _is_custom_mark(reference: Any) -> bool:
    """Return whether the author chose the mark of a note, which stands behind the reference."""
    follows = values_of(reference).get("customMarkFollows")
    return follows is not None and follows not in OFF


def _is_placeholder(run: Any) -> bool:
    """Return whether a run is what Word shows in a field that is not filled in: "Click here to
    enter text"."""
    control = next(run.iterancestors("{*}sdt"), None)
    shows = None if control is None else control.find("{*}sdtPr/{*}showingPlcHdr")
    return shows is not None and values_of(shows).get("val") not in OFF
