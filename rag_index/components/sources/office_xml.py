"""The text in the XML of office documents: Office Open XML, also the strict one, and OpenDocument."""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections.abc import Mapping
from typing import IO

from lxml import etree

from rag_index.components.sources.text import MAX_BYTES, HtmlText

_ROOTS = frozenset([
    "document", "footnotes", "endnotes", "comments", "hdr", "ftr", "sst", "worksheet", "ThreadedComments", "wsDr",
    "userShapes", "chartSpace", "dataModel", "sld", "notes", "cmLst", "document-content", "document-styles",
])  # fmt: skip
"""Elements of the XML of office documents that texts are in, whatever the file with them is called."""
_OFFICE = re.compile(r"openxmlformats|purl\.oclc\.org/ooxml|schemas\.microsoft\.com/office|opendocument")
_SLIDE = re.compile(r"(.*?/)(_rels/)?slide(\d+)\.xml(?:\.rels)?")
_AS_HTML = {
    "p": "p", "h": "p", "si": "p", "text": "p", "annotation": "p", "tbl": "table", "table": "table", "tr": "tr",
    "table-row": "tr", "row": "tr", "tc": "td", "table-cell": "td", "is": "td", "br": "br", "cr": "br",
    "line-break": "br", "list-item": "li", "tx": "td",
}  # fmt: skip
_HIDDEN = frozenset(["delText", "moveFrom", "instrText", "tracked-changes", "Fallback", "note-citation", "rPh"])
"""Elements of office documents whose text is deleted, a formula, or there a second time, as where it was moved to."""


def is_office(data: IO[bytes]) -> bool:
    """Return whether texts are in XML files of this kind, by their root: their names are free."""
    _, root = next(etree.iterparse(data, events=("start",), resolve_entities=False, no_network=True))
    name = etree.QName(root)
    return name.localname in _ROOTS and _OFFICE.search(name.namespace or "") is not None


def office_xml_text(data: bytes) -> str:
    """Return the text of an XML file of an office document."""
    return str(etree.XML(data, etree.XMLParser(target=_OfficeText(), resolve_entities=False, no_network=True)))


class _OfficeText(HtmlText):
    """What lxml tells of the XML of an office document, read as HTML."""

    def __init__(self) -> None:
        super().__init__(lines=False)
        self._hidden = self._cells = self._texts = 0
        self._is_string = False
        """Whether a value of a table or diagram is a text, and no number."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        name, has_text, is_hidden = self._look_at(tag)
        if name == "c":
            self._is_string = attributes.get("t") == "str"
        elif name.startswith(("str", "num", "multiLvlStr")) or name == "tx":  # in `tx` a name, or a reference to one
            self._is_string = not name.startswith("num")
        self._hidden += is_hidden
        if name in ("tab", "ptab", "s"):
            super().data(" ")
        elif name == "noBreakHyphen":
            super().data("-")
        elif name in ("tc", "table-cell"):
            self._cells += 1
        if element := self._element(tag):
            super().start(element, {})
        self._texts += has_text

    def end(self, tag: str) -> None:
        name, has_text, is_hidden = self._look_at(tag)
        self._hidden -= is_hidden
        self._texts -= has_text
        self._cells -= name in ("tc", "table-cell")
        if element := self._element(tag):
            super().end(element)

    def data(self, text: str) -> None:
        if self._texts and not self._hidden:
            super().data(text)

    def _look_at(self, tag: str) -> tuple[str, bool, bool]:
        """Return the name of an element, whether it has text, and whether it is invisible."""
        space, _, name = tag.rpartition("}")
        texts = (
            ("p", "h") if "opendocument" in space else ("t", "text", "v", "pt") if self._is_string else ("t", "text")
        )
        return name, name in texts, name in _HIDDEN or "purl.org/dc/" in space

    def _element(self, tag: str) -> str | None:
        """Return the element of HTML. Paragraphs of a cell stay in its line."""
        space, _, name = tag.rpartition("}")
        is_cell = name == "pt" or (name == "v" and "spreadsheet" in space)
        element = "td" if is_cell and self._is_string else _AS_HTML.get(name)
        if element == "p" and self._cells:
            super().data(" ")
            return None
        return element


def slide_numbers(archive: zipfile.ZipFile) -> dict[str, int]:
    """Return the slides of a presentation, and their notes, comments, charts and diagrams, with the slide's number."""
    found = dict[str, int]()
    for name in archive.namelist():
        if (slide := _SLIDE.fullmatch(name)) and not slide[2]:
            found[name] = int(slide[3])
        elif slide:
            with archive.open(name) as relations:
                targets = re.findall(rb'Target="([^"]+)"', relations.read(MAX_BYTES))
            for target in targets:
                path = posixpath.normpath(posixpath.join(slide[1], target.decode("utf-8", "replace")))
                found.setdefault(path.lstrip("/"), int(slide[3]))
    return found
