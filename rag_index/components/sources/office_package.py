"""What the parts of an office document (Open XML, OpenDocument) have in common: its ZIP file, and
its styles."""

from __future__ import annotations

import io
import posixpath
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote

from lxml import etree

from rag_index.components.sources.formulas import LOWERED, NOTE, RAISED
from rag_index.components.sources.text import MAX_BYTES, NotText
from rag_index.quotes import without_values

Pages = Iterable[tuple[int | None, str | NotText]]
"""The texts of a file with the numbers of pages or slides; and why something in it cannot be
read."""

MAX_FILE_CHARS = 5_000_000
OFF = ("0", "false", "off", "none", "hidden")
"""The values of a setting that is off."""
EXTERNAL = "external"
"""The kind of a relation to something outside of the file."""
_MIN_RAISE = 4
"""The half-points by which Word raises a text that is an exponent. Smaller ones set a sign into its
place."""
_NOTE_STYLES = ("footnote reference", "endnote reference")


def reason_of(error: Exception) -> str:
    """Return what is wrong with a file. Whatever a parser raises is about the file."""
    if isinstance(error, NotText):
        return str(error)
    # a parser quotes what it cannot read: "invalid literal for int() with base 10: 'measles'"
    return f"is broken ({type(error).__name__}: {without_values(str(error))[:200]})"


def values_of(element: Any) -> dict[str, str]:
    """Return the attributes of an element by their names without namespaces."""
    return {key.rpartition("}")[2]: value for key, value in element.items()}


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
        return self._archive.open(self._by_lower.get(name.lower(), name))

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
        return etree.XML(self.read(name), parser)  # which refuses more than 256 levels

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

    def relations(self, part: str) -> dict[str, tuple[str, str]]:
        """Return the kinds and names of the parts that may be referred to in a part, by their ids
        there."""
        folder, name = posixpath.split(part)
        path = posixpath.join(folder, "_rels", f"{name}.rels")
        found = {
            one.removesuffix("/content.xml"): ("", one)
            for one in self.names
            if one.endswith("/content.xml")
        }
        for one in self.xml(path).iter("{*}Relationship") if path in self.names else ():
            target = posixpath.normpath(posixpath.join("/", folder, unquote(one.get("Target", ""))))
            kind = one.get("Type", "").rpartition("/")[2]
            is_external = one.get("TargetMode") == "External"
            found[one.get("Id", "")] = (EXTERNAL, "") if is_external else (kind, target.lstrip("/"))
        return found


@dataclass(frozen=True, slots=True)
class _Style:
    """What a style sets for a text. None stands for what it takes from the style that it is based
    on."""

    base: str
    hides: bool | None = None
    script: str | None = None
    is_raised: bool | None = None
    """Whether Word moves the text up, and not down, beside its script."""
    is_note: bool | None = None


class TextStyles:
    """The styles of an office document that hide, raise or lower text. Those that are added later
    count."""

    def __init__(self) -> None:
        self._styles = dict[str, _Style]()

    def add(self, root: Any) -> None:
        """Take the styles of a part."""
        for element in root.iter("{*}style"):
            values, style = values_of(element), _style(element)
            name = values.get("styleId") or values.get("name", "")
            self._styles[name] = style
            # In OpenDocument, a style of paragraphs may have the name of a style of signs.
            self._styles[_key(values.get("family", ""), name)] = style

    def hides(self, name: str) -> bool | None:
        """Return whether a style hides its text, None if it does not set that."""
        return next((style.hides for style in self._chain(name) if style.hides is not None), None)

    def is_hidden_run(self, run: Any) -> bool:
        """Return whether a run of Word is hidden, by itself, or by its style or that of its
        paragraph."""
        vanish = run.find("{*}rPr/{*}vanish")
        if vanish is not None:
            return values_of(vanish).get("val") not in OFF
        hidden = (self.hides(name) for name in _styles_of_run(run))
        return next((hides for hides in hidden if hides is not None), False)

    def run_script(self, run: Any) -> str:
        """Return whether a run of Word or Excel is RAISED, LOWERED, a NOTE's number, or none of
        these."""
        styles = [_run_style(run.find("{*}rPr"))]
        for name in _styles_of_run(run):
            styles += self._chain(name)
        script = next((style.script for style in styles if style.script is not None), "")
        if not script:
            is_raised = next(
                (style.is_raised for style in styles if style.is_raised is not None), None
            )
            script = {True: RAISED, False: LOWERED, None: ""}[is_raised]
        is_note = script == RAISED and any(style.is_note for style in styles)
        return NOTE if is_note else script

    def odf_script(self, family: str, name: str, outer: str) -> str:
        """Return whether a style of OpenDocument raises or lowers its text. If it sets neither,
        return `outer`."""
        key = _key(family, name)
        chain = self._chain(key if key in self._styles else name)
        return next((style.script for style in chain if style.script is not None), outer)

    def _chain(self, name: str) -> Iterator[_Style]:
        """Yield a style, and those that it is based on."""
        seen = set[str]()
        while name in self._styles and name not in seen:
            seen.add(name)
            yield self._styles[name]
            name = self._styles[name].base


def slide_script(run: Any) -> str:
    """Return whether a run of a slide is RAISED or LOWERED, by itself or by the list style of its
    text box."""
    baseline = _baseline(run.find("{*}rPr"))
    body = next(run.iterancestors("{*}txBody"), None)
    paragraph = next(run.iterancestors("{*}p"), None)
    if baseline is None and body is not None and paragraph is not None:
        settings = paragraph.find("{*}pPr")
        level = settings.get("lvl", "0") if settings is not None else "0"
        number = int(level) + 1 if level.isdecimal() else 1
        for path in (
            f"{{*}}lstStyle/{{*}}lvl{number}pPr/{{*}}defRPr",
            "{*}lstStyle/{*}defPPr/{*}defRPr",
        ):
            baseline = _baseline(body.find(path)) if baseline is None else baseline
    return _script_of(baseline or 0)


def _baseline(settings: Any) -> float | None:
    """Return by how much the settings of a run on a slide raise it: "30000", or "30%"; None if they
    do not set that."""
    value = settings.get("baseline", "").removesuffix("%") if settings is not None else ""
    return _number(value)


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
    """Return the script that the settings of a run of Word or Excel set."""
    script, is_raised = None, None
    for setting in settings if settings is not None else ():
        name, value = etree.QName(setting).localname, values_of(setting).get("val", "")
        if name == "vertAlign":
            script = {"superscript": RAISED, "subscript": LOWERED}.get(value, "")
        elif name == "position":
            moved = _number(value.removesuffix("pt")) or 0
            is_raised = moved > 0 if abs(moved) >= _MIN_RAISE else None
    return _Style("", script=script, is_raised=is_raised)


def _style(element: Any) -> _Style:
    """Return what a style of Word or OpenDocument sets."""
    values = values_of(element)
    parent, family = values.get("parent-style-name", ""), values.get("family", "")
    base = _key(family, parent) if parent else ""
    hides, script = None, None
    name = ""
    for inner in element.iter("*"):
        inner_values, tag = values_of(inner), etree.QName(inner).localname
        if tag == "basedOn":
            base = inner_values.get("val", "")
        elif tag == "name":
            name = inner_values.get("val", "")
        elif tag == "vanish":
            hides = inner_values.get("val") not in OFF
        elif shown := inner_values.get("display") or inner_values.get("visibility"):
            hides = shown in OFF
        if position := inner_values.get("text-position", "").split():
            script = _odf_position(position[0])
    run = _run_style(element.find("{*}rPr"))
    is_note = True if name.lower() in _NOTE_STYLES else None
    return _Style(base, hides, run.script if script is None else script, run.is_raised, is_note)


def _odf_position(value: str) -> str:
    """Return what a position of OpenDocument is: "super", "sub", or by how much the text is raised,
    "33%"."""
    if value in ("super", "sub"):
        return RAISED if value == "super" else LOWERED
    return _script_of(_number(value.removesuffix("%")) or 0)
