"""Raised and lowered numbers, and formulas, in a line of text: `10^6` and `(a+1)/2`, but H2O and
1st."""

from __future__ import annotations

import html
import itertools
import re
from typing import TYPE_CHECKING, Any

from lxml import etree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RAISED, LOWERED, NOTE, FORMULA, END = "\x01", "\x02", "\x03", "\x04", "\x05"
"""Control characters around a text: it begins with the one of its kind (raised, lowered, number of
a note, formula) and stops at `END`. XML cannot contain them, so a text from XML is never mistaken
for one of them."""
_MARKED = re.compile(f"([{RAISED}-{FORMULA}])[^{END}]*{END}(?:\\1[^{END}]*{END})*")
"""Texts between these characters. Those of one kind are taken together if nothing stands between
them."""
_SIGNS = re.compile(f"[{RAISED}-{END}]")
_EXPONENT = re.compile(r"(?=.*[\d=+\u2212-]|[^\W_aeor]$)[^\s\[(].{0,19}")
"""A raised text that is an exponent if a number or a letter stands before it. It is not the number
of a note, and not the end of a word (1st, 2e, 3a, 4o, Dr)."""
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
"""How elements of MathML are written in a line, with their parts by number."""
_BETWEEN = {"mtable": "; ", "mtr": " ", "mlabeledtr": " ", "apply": " ", "mfenced": ", "}
"""What stands between the parts of other elements of MathML."""
_INVISIBLE_OPERATORS = dict.fromkeys(range(0x2061, 0x2065))
"""The characters that MathML has for a function, a multiplication, a comma and a plus that nobody
writes; to `str.translate`, without a replacement."""
_SIMPLE = re.compile(r"[+\u2212-]?[\w.,\u221e]*[+\u2212\u2032-]?|\([^()]*\)")
"""What needs no brackets in a fraction, or as an exponent."""
_NO_SCRIPT = re.compile(r"\^(?![\w(+\u2212-])|_(?=\^)|(?<=[^\W\d_])_(?=\d)")
"""A `^` or `_` that is left out: before an accent, a prime or nothing at all, and before a number
below a letter, as in H2O and x1."""
_APART = re.compile(r"\d\0\d|(?:[_^]\w{1,40}|[^\W\d_]{2})\0\w|\w\0[^\W\d_]{2}")
"""Where two parts of a formula, with a NUL between them, would become one number or word."""
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
    """Put the control characters of a kind around a text, but not around the spaces at its ends.

    Without a kind ("") the text stays as it is.
    """
    core = text.strip()
    if not kind or not core:
        return text
    start = text.index(core)
    return f"{text[:start]}{kind}{core}{END}{text[start + len(core) :]}"


def in_line(text: str) -> str:
    """Write the marked texts of a text in a line: 10 and a raised 6 become `10^6`."""
    if not _SIGNS.search(text):
        return text
    return _MARKED.sub(_in_line, text)


def _in_line(found: re.Match[str]) -> str:
    """Return a marked text as it is written between the texts beside it."""
    text = found.string
    start = found.start()
    while start and _SIGNS.match(text[start - 1]):
        start -= 1
    end = found.end()
    before = text[max(0, start - 2) : start]
    after = text[end : end + 1]
    kind = found[1]
    # several of a kind in a row, with a NUL between them
    joined = found[0].replace(END + kind, "\0")
    texts = _SIGNS.sub("", joined).split("\0")
    if kind == FORMULA:
        return formula_text(" ".join(texts), before, after)
    inner = "".join(texts)
    if kind == NOTE:
        # Behind a word: "clause 1[2]". At the start of the note itself: "2 See there".
        is_behind_word = inner[:1].isalnum() and before[-1:].strip()
        return f"[{inner}]" if is_behind_word else inner
    written = script_text(kind, inner, before[-1:], after)
    return inner if written is None else written


def script_text(kind: str, inner: str, before: str, after: str) -> str | None:
    """Return a raised or lowered text if numbers would change their value without it: `^6` behind
    10.

    Return None if it is written as it is, as in H2O and 1st.

    Args:
        kind: RAISED or LOWERED.
        inner: The text.
        before: The character before it, "" if there is none.
        after: The character behind it, "" if there is none.
    """
    sign = ""
    # 10 and a raised 6
    if kind == RAISED and before.strip() and _EXPONENT.fullmatch(inner):
        sign = "^"
        inner = bracketed(inner)
    # 1010 and a lowered 2
    elif kind == LOWERED and before.isdigit() and inner[:1].isdigit():
        sign = "_"
    # The number would go on with the digits behind it: 10 and a raised 6, then 25.
    runs_on = inner[-1:].isdigit() and after.isdigit()
    if not sign and not runs_on:
        return None
    return f"{sign}{inner}{' ' if runs_on else ''}"


def formula_text(formula: str, before: str, after: str) -> str:
    """Return a formula, with spaces where it would become one number or word with the texts beside
    it: `2 1/2`."""
    space_before = " " if _is_apart(before, formula) else ""
    space_after = " " if _is_apart(formula, after) else ""
    return f"{space_before}{formula}{space_after}"


def _is_apart(before: str, after: str) -> bool:
    """Return whether two texts would become one number or word."""
    return _APART.search(f"{before}\0{after}") is not None


def mathml_text(element: Any) -> str:
    """Return a formula in MathML as people write it in a line: `(a+1)/2`."""
    return " ".join(_written(element).split())


def office_formula_text(element: Any, is_hidden: Callable[[Any], bool]) -> str:
    """Return a formula of Word or PowerPoint as people write it in a line, without elements that
    are hidden."""
    return mathml_text(_mathml(element, is_hidden))


def bracketed(text: str) -> str:
    """Return a text in brackets, unless it is a number, a word, or in brackets already."""
    if len(text) == 1 or _SIMPLE.fullmatch(text):
        return text
    return f"({text})"


def _written(element: Any) -> str:
    """Return an element of MathML as text, with the spaces that it has."""
    name = re.split("[:}]", str(element.tag))[-1]
    if name.startswith("annotation"):
        return ""
    # the text before the first inner element, then each of these and the text behind it
    parts = [_clean(element.text)]
    for inner in element:
        parts.append(_clean(_written(inner)))
        parts.append(_clean(inner.tail))
    if name in _FORMULAS:
        # formulas that are not finished lack parts
        operands = map(bracketed, [*parts[1::2], "", "", ""])
        return _NO_SCRIPT.sub("", _FORMULAS[name].format(*operands))
    parts = [part for part in parts if part]
    if name in _BETWEEN:
        text = _BETWEEN[name].join(parts)
        if name == "mfenced":
            return f"{element.get('open', '(')}{text}{element.get('close', ')')}"
        return text
    text = ""
    for before, part in itertools.pairwise(["", *parts]):
        text += f" {part}" if _is_apart(before, part) else part
    return f"\u221a{bracketed(text)}" if name == "msqrt" else text


def _clean(text: str | None) -> str:
    """Return a text of MathML without the spaces around it, entities and operators that nobody
    writes."""
    return html.unescape(text or "").strip().translate(_INVISIBLE_OPERATORS)


def _mathml(element: Any, is_hidden: Callable[[Any], bool]) -> Any:
    """Return an element of an Office formula as one of MathML."""
    name = etree.QName(element).localname
    settings = _by_name(element.iterfind(f"{{*}}{name}Pr/*"))
    parts = _by_name(element)

    def part(of: str) -> Any:
        if of not in parts:
            return etree.Element("mrow")
        return _mathml(parts[of], is_hidden)

    def symbol(default: str) -> Any:
        return _element("mo", text=_setting(settings, "chr", default))

    # A binomial coefficient is not a fraction: "n; k".
    if name == "f" and _setting(settings, "type", "bar") == "noBar":
        return _element("mtable", [part("num"), part("den")])
    if name in _OFFICE_PARTS:
        tag, order = _OFFICE_PARTS[name]
        return _element(tag, [part(of) for of in order])
    # a root
    if name == "rad":
        degree = part("deg")
        is_shown = _setting(settings, "degHide", "0") in ("0", "false", "off")
        if is_shown and _written(degree).strip():
            return _element("mroot", [part("e"), degree])
        return _element("msqrt", [part("e")])
    # signs before a symbol, as of isotopes
    if name == "sPre":
        scripts = _element("msubsup", [etree.Element("mrow"), part("sub"), part("sup")])
        return _element("mrow", [scripts, part("e")])
    # an integral or a sum, with its limits
    if name == "nary":
        scripts = _element("msubsup", [symbol("\u222b"), part("sub"), part("sup")])
        return _element("mrow", [scripts, part("e")])
    # an accent
    if name == "acc":
        return _element("mover", [part("e"), symbol("\u0302")])
    inner = _inner(element, is_hidden)
    if name == "d":
        return _fenced(inner, settings)
    tag = {"m": "mtable", "eqArr": "mtable", "mr": "mtr"}.get(name, "mrow")
    return _element(tag, inner)


def _by_name(elements: Iterable[Any]) -> dict[str, Any]:
    """Return elements by their names without namespaces; the last one of each name."""
    return {etree.QName(element).localname: element for element in elements}


def _inner(element: Any, is_hidden: Callable[[Any], bool]) -> list[Any]:
    """Return the elements within an element of an Office formula, as MathML.

    Texts that follow each other are joined: "1" and "0" are one number.
    """
    found = list[Any]()
    texts = list[str]()
    for inner in element:
        name = etree.QName(inner).localname
        # settings
        if name.endswith("Pr") or is_hidden(inner):
            continue
        # a run of text
        if name == "r":
            texts += [
                part.text or " " for part in inner if etree.QName(part).localname in ("t", "br")
            ]
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
    """Return elements in the brackets that a formula sets, with its separators between them."""
    separator = _setting(settings, "sepChr", "|")
    parts = [_element("mo", text=_setting(settings, "begChr", "("))]
    for number, element in enumerate(inner):
        if number:
            parts.append(_element("mo", text=separator))
        parts.append(element)
    parts.append(_element("mo", text=_setting(settings, "endChr", ")")))
    return _element("mrow", parts)


def _setting(settings: dict[str, Any], name: str, default: str) -> str:
    """Return what an element of an Office formula sets; "" for a setting without a value."""
    if name not in settings:
        return default
    for key, value in settings[name].items():
        if key.endswith("}val"):
            return str(value)
    return ""


def _element(tag: str, inner: list[Any] | None = None, text: str = "") -> Any:
    found = etree.Element(tag)
    found.text = text
    found.extend(inner or [])
    return found
