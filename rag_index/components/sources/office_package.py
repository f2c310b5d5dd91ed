"""What the parts of an office document (Open XML, OpenDocument) have in common: its ZIP file, and
its styles."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, TypeVar
from urllib.parse import unquote

from lxml import etree

from rag_index.components.sources.formulas import LOWERED, NOTE, RAISED
from rag_index.components.sources.text import MAX_BYTES, NotText
from rag_index.quotes import without_values

Pages = Iterable[tuple[int | None, str | NotText]]
"""The texts of a file, each with the number of its page or slide; and the reasons why something in
it cannot be read."""

MAX_FILE_CHARS = 5_000_000
"""The characters of a file that are indexed (chosen; docs/sources.md names it)."""
OFF = ("0", "false", "off", "none", "hidden")
"""The values of a setting that is off."""
EXTERNAL = "external"
"""The kind of a relation to something outside of the file."""
_MIN_RAISE = 4
"""The half-points by which Word raises a text that is an exponent. A smaller move only sets a
character into its place."""
_NOTE_STYLES = ("footnote reference", "endnote reference")
_Value = TypeVar("_Value")


def reason_of(error: Exception) -> str:
    """Return what is wrong with a file. Whatever a parser raises is about the file."""
    if isinstance(error, NotText):
        return str(error)
    # a parser quotes what it cannot read: "invalid literal for int() with base 10: 'measles'"
    details = without_values(str(error))[:200]
    return f"is broken ({type(error).__name__}: {details})"


def values_of(element: Any) -> dict[str, str]:
    """Return the attributes of an element by their names without namespaces."""
    values: dict[str, str] = {}
    for key, value in element.items():
        _, _, name = key.rpartition("}")
        values[name] = value
    return values


@dataclass(frozen=True, slots=True)
class PartRelation:
    """What an id in a part of Open XML refers to."""

    kind: str
    """The last word of its type, such as "slide"; "" for a part of OpenDocument."""
    part: str
    """The name of the part, "" for something outside of the file."""


class OfficePackage:
    """The ZIP file of an office document. Raises BadZipFile."""

    def __init__(self, data: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self.names = self._archive.namelist()
        self._by_lower = {name.lower(): name for name in self.names}

    def has(self, name: str) -> bool:
        """Return whether there is a part of a name."""
        return name.lower() in self._by_lower

    def open(self, name: str) -> IO[bytes]:
        """Open a part. Raises KeyError if there is none."""
        # Some programs write "SharedStrings.xml" and refer to "sharedStrings.xml".
        actual = self._by_lower.get(name.lower(), name)
        return self._archive.open(actual)

    def read(self, name: str) -> bytes:
        """Return the bytes of a part. Raises KeyError, and NotText if there are too many."""
        with self.open(name) as member:
            data = member.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise NotText(f"unpacks to more than {MAX_BYTES:,} bytes")
        return data

    def xml(self, name: str) -> Any:
        """Return the root of a part that is XML."""
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, remove_comments=True, remove_pis=True
        )
        # The parser refuses more than 256 levels.
        return etree.XML(self.read(name), parser)

    def events(self, name: str, tags: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """Yield "start" and "end" with each element of a part that has one of the names, while the
        part is read."""
        with self.open(name) as member:
            yield from etree.iterparse(
                member,
                events=("start", "end"),
                tag=[f"{{*}}{tag}" for tag in tags],
                resolve_entities=False,
                no_network=True,
                remove_comments=True,
                remove_pis=True,
            )

    def relations(self, part: str) -> dict[str, PartRelation]:
        """Return what a part may refer to, by the ids that it uses."""
        found: dict[str, PartRelation] = {}
        # OpenDocument: "Object 1" stands for "Object 1/content.xml"
        for name in self.names:
            if name.endswith("/content.xml"):
                found[name.removesuffix("/content.xml")] = PartRelation("", name)
        folder, base = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{base}.rels")
        if path not in self.names:
            return found
        # Open XML: "rId1" is in word/_rels/document.xml.rels
        for element in self.xml(path).iter("{*}Relationship"):
            key = element.get("Id", "")
            if element.get("TargetMode") == "External":
                found[key] = PartRelation(EXTERNAL, "")
                continue
            _, _, kind = element.get("Type", "").rpartition("/")
            target = unquote(element.get("Target", ""))
            absolute = posixpath.normpath(posixpath.join("/", folder, target))
            found[key] = PartRelation(kind, absolute.lstrip("/"))
        return found


@dataclass(frozen=True, slots=True)
class _Style:
    """What a style sets for a text. None stands for what it takes from the style that it is based
    on."""

    base: str
    """The key of the style that it is based on, "" if there is none."""
    hides: bool | None = None
    script: str | None = None
    is_raised: bool | None = None
    """Whether Word moves the text up (True) or down, besides its script."""
    is_note: bool | None = None


class TextStyles:
    """The styles of an office document that hide, raise or lower text."""

    def __init__(self) -> None:
        self._styles = dict[str, _Style]()

    def add(self, root: Any) -> None:
        """Add the styles of a part. One with the name of an earlier one replaces it."""
        for element in root.iter("{*}style"):
            style = _style(element)
            values = values_of(element)
            name = values.get("styleId") or values.get("name", "")
            self._styles[name] = style
            # In OpenDocument, a style of paragraphs may have the name of a style of characters.
            self._styles[_key(values.get("family", ""), name)] = style

    def hides(self, name: str) -> bool | None:
        """Return whether a style hides its text, None if it does not set that."""
        return _first_set(style.hides for style in self._chain(name))

    def is_hidden_run(self, run: Any) -> bool:
        """Return whether a run of Word is hidden, by itself, or by its style or that of its
        paragraph."""
        vanish = run.find("{*}rPr/{*}vanish")
        if vanish is not None:
            return values_of(vanish).get("val") not in OFF
        hides = _first_set(self.hides(name) for name in _styles_of_run(run))
        return hides is True

    def run_script(self, run: Any) -> str:
        """Return whether a run of Word or Excel is RAISED, LOWERED, the number of a NOTE, or none
        of these ("")."""
        styles = [_run_style(run.find("{*}rPr"))]
        for name in _styles_of_run(run):
            styles += self._chain(name)
        script = _first_set(style.script for style in styles)
        if not script:
            is_raised = _first_set(style.is_raised for style in styles)
            if is_raised is None:
                return ""
            script = RAISED if is_raised else LOWERED
        is_note = script == RAISED and any(style.is_note for style in styles)
        return NOTE if is_note else script

    def odf_script(self, family: str, name: str, outer: str) -> str:
        """Return whether a style of OpenDocument raises or lowers its text. If it sets neither,
        return `outer`."""
        key = _key(family, name)
        chain = self._chain(key if key in self._styles else name)
        script = _first_set(style.script for style in chain)
        return outer if script is None else script

    def _chain(self, name: str) -> Iterator[_Style]:
        """Yield a style, and those that it is based on."""
        seen = set[str]()
        while name in self._styles and name not in seen:
            seen.add(name)
            yield self._styles[name]
            name = self._styles[name].base


def _first_set(values: Iterable[_Value | None]) -> _Value | None:
    """Return the first value that is not None, None if all are."""
    return next((value for value in values if value is not None), None)


def slide_script(run: Any) -> str:
    """Return whether a run of a slide is RAISED or LOWERED, by itself or by the list style of its
    text box."""
    baseline = _baseline(run.find("{*}rPr"))
    if baseline is None:
        baseline = _list_baseline(run)
    return _script_of(baseline or 0)


def _list_baseline(run: Any) -> float | None:
    """Return by how much the list style of a text box raises a run; None if it does not set
    that."""
    body = next(run.iterancestors("{*}txBody"), None)
    paragraph = next(run.iterancestors("{*}p"), None)
    if body is None or paragraph is None:
        return None
    settings = paragraph.find("{*}pPr")
    level = "0" if settings is None else settings.get("lvl", "0")
    number = int(level) + 1 if level.isdecimal() else 1
    # the settings of this level of the list, then those of all levels
    of_level = _baseline(body.find(f"{{*}}lstStyle/{{*}}lvl{number}pPr/{{*}}defRPr"))
    if of_level is not None:
        return of_level
    return _baseline(body.find("{*}lstStyle/{*}defPPr/{*}defRPr"))


def _baseline(settings: Any) -> float | None:
    """Return by how much the settings of a run on a slide raise it: "30000", or "30%"; None if they
    do not set that."""
    if settings is None:
        return None
    return _number(settings.get("baseline", "").removesuffix("%"))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _script_of(raised_by: float) -> str:
    if raised_by == 0:
        return ""
    return RAISED if raised_by > 0 else LOWERED


def _key(family: str, name: str) -> str:
    return f"{family}\0{name}"


def _styles_of_run(run: Any) -> Iterator[str]:
    """Yield the names of the style of a run of Word, and of its paragraph."""
    paragraph = next(run.iterancestors("{*}p"), run)
    for style in (run.find("{*}rPr/{*}rStyle"), paragraph.find("{*}pPr/{*}pStyle")):
        if style is not None:
            yield values_of(style).get("val", "")


def _run_style(settings: Any) -> _Style:
    """Return what the settings of a run of Word or Excel set."""
    script = None
    is_raised = None
    for setting in settings if settings is not None else ():
        name = etree.QName(setting).localname
        value = values_of(setting).get("val", "")
        if name == "vertAlign":
            script = {"superscript": RAISED, "subscript": LOWERED}.get(value, "")
        elif name == "position":
            moved = _number(value.removesuffix("pt")) or 0
            is_raised = moved > 0 if abs(moved) >= _MIN_RAISE else None
    return _Style("", script=script, is_raised=is_raised)


def _style(element: Any) -> _Style:
    """Return what a style of Word or OpenDocument sets."""
    values = values_of(element)
    # OpenDocument names the style that it is based on in an attribute, Word in an element.
    parent = values.get("parent-style-name", "")
    base = _key(values.get("family", ""), parent) if parent else ""
    name = ""
    hides = None
    script = None
    for inner in element.iter("*"):
        tag = etree.QName(inner).localname
        inner_values = values_of(inner)
        shown = inner_values.get("display") or inner_values.get("visibility")
        if tag == "basedOn":
            base = inner_values.get("val", "")
        elif tag == "name":
            name = inner_values.get("val", "")
        elif tag == "vanish":
            hides = inner_values.get("val") not in OFF
        elif shown:
            hides = shown in OFF
        # raised, in letters of 58%: "super 58%"
        position = inner_values.get("text-position", "").split()
        if position:
            script = _odf_position(position[0])
    run = _run_style(element.find("{*}rPr"))
    if script is None:
        script = run.script
    is_note = True if name.lower() in _NOTE_STYLES else None
    return _Style(base, hides, script, run.is_raised, is_note)


def _odf_position(value: str) -> str:
    """Return whether a position of OpenDocument is RAISED or LOWERED: "super", "sub", or a share of
    the height of the text, "33%"."""
    if value == "super":
        return RAISED
    if value == "sub":
        return LOWERED
    return _script_of(_number(value.removesuffix("%")) or 0)
