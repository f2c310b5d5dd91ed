"""Numbers that are raised or lowered, and formulas, in a line of text: `10^6` and `(a+1)/2`, but
H2O and 1st."""

from __future__ import annotations

import html
import itertools
import re
from typing import TYPE_CHECKING, Any

from lxml import etree

if TYPE_CHECKING:
    from collections.abc import Callable

RAISED, LOWERED, NOTE, FORMULA, END = "\x01", "\x02", "\x03", "\x04", "\x05"
"""The signs before and behind a text that is raised, lowered, the number of a note, or a formula.
XML has no such signs, so that a text from XML is not mistaken for one of them."""
_MARKED = re.compile(f"([{RAISED}-{FORMULA}])[^{END}]*{END}(?:\\1[^{END}]*{END})*")
"""Marked texts, those of one kind together if nothing stands between them."""
_SIGNS = re.compile(f"[{RAISED}-{END}]")
_EXPONENT = re.compile(r"(?=.*[\d=+\u2212-]|[^\W_aeor]$)[^\s\[(].{0,19}")
"""What is raised behind a number or a letter, and no note and no end of a word (1st, 2e, 3a, 4o,
Dr)."""
_FORMULAS = {
    "mfrac": "{0}/{1}",
    "msup": "{0}^{1}",
    "mover": "{0}^{1}",
    "msub": "{0}_{1}",
    "munder": "{0}_{1}",
    "msubsup": "{0}_{1}^{2}",
    "munderover": "{0}_{1}^{2}",
    "mroot": "\u221a[{1}]{0}",
}
_BETWEEN = {"mtable": "; ", "mtr": " ", "mlabeledtr": " ", "apply": " ", "mfenced": ", "}
"""How elements of MathML are written, and what stands between the parts of others."""
_SIMPLE = re.compile(r"[+\u2212-]?[\w.,\u221e]*[+\u2212\u2032-]?|\([^()]*\)")
"""What needs no brackets in a fraction, or as an exponent."""
_NO_SCRIPT = re.compile(r"\^(?![\w(+\u2212-])|_(?=\^)|(?<=[^\W\d_])_(?=\d)")
"""The sign for an accent, a prime, nothing at all, or a number below a letter: H2O, x1."""
_APART = re.compile(r"\d\0\d|(?:[_^]\w{1,40}|[^\W\d_]{2})\0\w|\w\0[^\W\d_]{2}")
"""Where two parts of a formula would become one number or word."""
_OFFICE_PARTS = {
    "f": ("mfrac", ("num", "den")),
    "sSup": ("msup", ("e", "sup")),
    "sSub": ("msub", ("e", "sub")),
    "sSubSup": ("msubsup", ("e", "sub", "sup")),
    "limLow": ("munder", ("e", "lim")),
    "limUpp": ("mover", ("e", "lim")),
}
"""The elements of MathML for those of Office formulas, with the names of their parts in MathML's
order."""


def marked(text: str, kind: str) -> str:
    """Return a text between the signs of its kind, but not the spaces around it. Without a kind, it
    stays."""
    core = text.strip()
    if not kind or not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{kind}{core}{END}{text[start + len(core) :]}"


def in_line(text: str) -> str:
    """Return a text whose marked texts are written in a line: 10 and a raised 6 are `10^6`."""
    if not _SIGNS.search(text):
        return text
    return _MARKED.sub(_in_line, text)


def _in_line(found: re.Match[str]) -> str:
    """Return a marked text as it is written behind and before the texts beside it."""
    whole, end = found.string, found.end()
    start = found.start()
    while start and _SIGNS.match(whole[start - 1]):
        start -= 1
    before, after = whole[max(0, start - 2) : start], whole[end : end + 1]
    kind, texts = found[1], _SIGNS.sub("", found[0].replace(END + found[1], "\0")).split("\0")
    if kind == FORMULA:
        return formula_text(" ".join(texts), before, after)
    inner = "".join(texts)
    if kind == NOTE:
        # Behind a word: "clause 1[2]". At the start of the note itself: "2 See there".
        return f"[{inner}]" if inner[:1].isalnum() and before[-1:].strip() else inner
    written = script_text(kind, inner, before[-1:], after)
    return inner if written is None else written


def script_text(kind: str, inner: str, before: str, after: str) -> str | None:
    """Return a raised or lowered text if numbers would change their value without it: `^6` behind
    10. Return None if it stays as it is, as in H2O and 1st. `before` and `after` are the signs
    beside it."""
    sign = ""
    if kind == RAISED and before.strip() and _EXPONENT.fullmatch(inner):
        sign, inner = "^", bracketed(inner)
    elif kind == LOWERED and before.isdigit() and inner[:1].isdigit():
        sign = "_"
    # The number would go on with the digits behind it: 10 and a raised 6, then 25.
    runs_on = inner[-1:].isdigit() and after.isdigit()
    if not sign and not runs_on:
        return None
    return f"{sign}{inner}{' ' if runs_on else ''}"


def formula_text(formula: str, before: str, after: str) -> str:
    """Return a formula with spaces where it would become one number or word with the texts beside
    it: `2 1/2`."""
    space_before = " " if _APART.search(f"{before}\0{formula}") else ""
    space_after = " " if _APART.search(f"{formula}\0{after}") else ""
    return f"{space_before}{formula}{space_after}"


def mathml_text(element: Any) -> str:
    """Return a formula in MathML as people write it in a line: `(a+1)/2`."""
    return " ".join(_written(element).split())


def office_formula_text(element: Any, is_hidden: Callable[[Any], bool]) -> str:
    """Return a formula of Word or PowerPoint as people write it in a line, without elements that
    are hidden."""
    return mathml_text(_mathml(element, is_hidden))


def bracketed(text: str) -> str:
    """Return a text in brackets, unless it is a number, a word, or in brackets already."""
    return text if len(text) == 1 or _SIMPLE.fullmatch(text) else f"({text})"


def _written(element: Any) -> str:
    """Return an element of MathML with the spaces that it has."""
    name = re.split("[:}]", str(element.tag))[-1]
    if name.startswith("annotation"):
        return ""
    pieces = [element.text or ""]
    for inner in element:
        pieces += [_written(inner), inner.tail or ""]
    parts = [
        html.unescape(piece).strip().translate(dict.fromkeys(range(0x2061, 0x2065)))
        for piece in pieces
    ]
    if name in _FORMULAS:
        return _NO_SCRIPT.sub(
            "", _FORMULAS[name].format(*map(bracketed, [*parts[1::2], "", "", ""]))
        )
    parts = list(filter(None, parts))
    if name in _BETWEEN:
        text = _BETWEEN[name].join(parts)
        return (
            f"{element.get('open', '(')}{text}{element.get('close', ')')}"
            if name == "mfenced"
            else text
        )
    pairs = itertools.pairwise(["", *parts])
    text = "".join(
        " " + part if _APART.search(f"{before}\0{part}") else part for before, part in pairs
    )
    return f"\u221a{bracketed(text)}" if name == "msqrt" else text


def _mathml(element: Any, is_hidden: Callable[[Any], bool]) -> Any:
    """Return an element of an Office formula as one of MathML."""
    name = etree.QName(element).localname
    settings = {
        etree.QName(inner).localname: inner for inner in element.iterfind(f"{{*}}{name}Pr/*")
    }
    parts = {etree.QName(inner).localname: inner for inner in element}

    def part(of: str) -> Any:
        return _mathml(parts[of], is_hidden) if of in parts else etree.Element("mrow")

    if name == "f" and _setting(settings, "type", "bar") == "noBar":
        # A binomial coefficient is no fraction: "n; k".
        return _element("mtable", [part("num"), part("den")])
    if name in _OFFICE_PARTS:
        tag, order = _OFFICE_PARTS[name]
        return _element(tag, [part(of) for of in order])
    if name == "rad":
        degree = part("deg")
        has_degree = bool(_written(degree).strip()) and _setting(settings, "degHide", "0") in (
            "0",
            "false",
            "off",
        )
        return (
            _element("mroot", [part("e"), degree]) if has_degree else _element("msqrt", [part("e")])
        )
    if name == "sPre":
        return _element(
            "mrow",
            [_element("msubsup", [etree.Element("mrow"), part("sub"), part("sup")]), part("e")],
        )
    if name == "nary":
        sign = _element("mo", text=_setting(settings, "chr", "\u222b"))
        return _element("mrow", [_element("msubsup", [sign, part("sub"), part("sup")]), part("e")])
    if name == "acc":
        return _element(
            "mover", [part("e"), _element("mo", text=_setting(settings, "chr", "\u0302"))]
        )
    inner = _inner(element, is_hidden)
    if name == "d":
        return _fenced(inner, settings)
    tag = {"m": "mtable", "eqArr": "mtable", "mr": "mtr"}.get(name, "mrow")
    return _element(tag, inner)


def _inner(element: Any, is_hidden: Callable[[Any], bool]) -> list[Any]:
    """Return what is in an element of an Office formula, as MathML. Texts that follow each other
    are one number."""
    found, texts = list[Any](), list[str]()
    for inner in element:
        name = etree.QName(inner).localname
        if name.endswith("Pr") or is_hidden(inner):
            continue
        if name == "r":
            texts += [one.text or " " for one in inner if etree.QName(one).localname in ("t", "br")]
            continue
        if texts:
            found.append(_element("mtext", text="".join(texts)))
            texts.clear()
        found.append(_mathml(inner, is_hidden))
    if texts:
        found.append(_element("mtext", text="".join(texts)))
    if element.tag.endswith("}e") and element.getparent().tag.endswith("}eqArr"):
        # An ampersand shows where the lines of an equation are aligned.
        for text in found:
            text.text = (text.text or "").replace("&", "")
    return found


def _fenced(inner: list[Any], settings: dict[str, Any]) -> Any:
    """Return parts in the brackets that a formula sets, with its signs between them."""
    between = _setting(settings, "sepChr", "|")
    parts = [_element("mo", text=_setting(settings, "begChr", "("))]
    for number, one in enumerate(inner):
        if number:
            parts.append(_element("mo", text=between))
        parts.append(one)
    parts.append(_element("mo", text=_setting(settings, "endChr", ")")))
    return _element("mrow", parts)


def _setting(settings: dict[str, Any], name: str, default: str) -> str:
    """Return what an element of an Office formula sets, "" if its value is empty."""
    if name not in settings:
        return default
    values = [value for key, value in settings[name].items() if key.endswith("}val")]
    return values[0] if values else ""


def _element(tag: str, inner: list[Any] | None = None, text: str = "") -> Any:
    found = etree.Element(tag)
    found.text = text
    found.extend(inner or [])
    return found
