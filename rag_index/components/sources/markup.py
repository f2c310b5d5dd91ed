"""HTML as people read it: text without marks, with formulas in a line, and without what a browser
does not show."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from lxml import etree
from lxml.html.defs import tags

from rag_index.components.sources.formulas import (
    LOWERED,
    RAISED,
    formula_text,
    mathml_text,
    script_text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

PARAGRAPHS = frozenset(
    [
        "ac:plain-text-body",
        "address",
        "article",
        "aside",
        "blockquote",
        "details",
        "dl",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "ul",
    ]
)
"""Elements with an empty line before and after them."""
LINES = frozenset(
    [
        "ac:parameter",
        "ac:rich-text-body",
        "ac:task",
        "br",
        "caption",
        "center",
        "dd",
        "desc",
        "div",
        "dt",
        "fieldset",
        "figcaption",
        "li",
        "option",
        "summary",
        "tbody",
        "text",
        "tfoot",
        "thead",
        "title",
        "tr",
    ]
)
"""Elements that begin a line, those of drawings too."""
LEFT_OUT = frozenset(
    [
        "ac:task-id",
        "ac:task-status",
        "ac:task-uuid",
        "annotation",
        "annotation-xml",
        "head",
        "iframe",
        "noembed",
        "noframes",
        "object",
        "script",
        "select",
        "style",
        "template",
        "xml",
    ]
)
"""Elements whose text is for programs. `xml` is what Word puts into pages beside their text."""
PREFORMATTED = frozenset(["ac:plain-text-body", "pre"])
CODE_TAGS = PREFORMATTED | {"code", "kbd", "samp", "tt"}
_KNOWN = tags | {
    "bdi",
    "bgsound",
    "data",
    "dialog",
    "frame",
    "listing",
    "main",
    "nobr",
    "noembed",
    "noframes",
    "picture",
    "search",
    "slot",
    "template",
    "xmp",
}
"""The elements of HTML. Another name in angle brackets is a word, such as `<String>`, unless a mark
ends it, it ends itself, or it has attributes."""
_COMMON = (
    _KNOWN
    - {
        "address",
        "data",
        "label",
        "map",
        "object",
        "output",
        "source",
        "template",
        "time",
        "title",
        "var",
    }
) | {"math", "svg"}
"""Elements whose marks make a text HTML: the others are more often words in angle brackets."""
_VALUE = r"=(?:\s*+\"[^\"]*+\"|\s*+'[^']*+'|(?![\"'\s]))"
_MARK = re.compile(
    r"<(?:(?P<end>/?)(?P<name>[a-z][\w.:-]*+)"
    r"(?P<more>(?:\s++(?:nowrap|disabled|checked|selected|hidden|controls|noshade|compact|allowfullscreen|open)(?![\w-]|\s*+=))*+"
    r"(?:\s++[^<>=\"']*+" + _VALUE + r"(?:[^<>=]|" + _VALUE + r")*+)?+)\s*+/?>"
    r"|(?:!doctype|!\[|\?[a-z])[^<>]*+>)?+",
    re.IGNORECASE,
)
"""A mark of HTML, which is more than its name only if attributes follow; or a `<` that begins
none."""
_CDATA = re.compile(r"<!\[CDATA\[((?:(?!<!\[CDATA\[).)*?)\]\]>", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
BLOCK = re.compile(r"<(?:p|div|li|tr|h[1-6]|pre|blockquote|table)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_STORED_MARKS = re.compile(
    r"\s*&(?:lt|#60|#x3c);(?=.*?&(?:lt|#60|#x3c);/)", re.IGNORECASE | re.DOTALL
)
_SHORTCODE = re.compile(
    r"\[/?(?:(?:vc|wpb|et_pb|fusion|bt_bb|mk|nectar|tatsu)_[a-z_\d]++|elementor-template)(?:\s[^\[\]]*+)?\]"
    r"|\[(audio|caption|embed|gallery|playlist|video)(?:\s[^\[\]=]*+=[^\[\]]*+\]|\](?=[^\[\]]*+\[/\1\]))"
    r"|\[/(?:audio|caption|embed|gallery|playlist|video)\]"
)
"""The marks of WordPress and of its page builders."""
_INVISIBLE = re.compile("[\u00ad\u2060\ufeff]|\u200b(?![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])")
"""Invisible signs within words; but in Thai, Lao, Burmese and Khmer U+200B divides words."""
_DATA = re.compile(
    r"(?<!\w)data:[\w+.\\/-]*+(?:;[\w.=\"+-]+)*?;base64,[\w+/%\\-]*+={0,2}(?:\s+[\w+/]{50,}={0,2})*+(?:\s+[\w+/]++={1,2})?"
)
"""A file as an address. Its base64 may be in lines, of which a shorter one is the last if its end
shows it."""
_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0]+")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_UNSEEN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden|max-height\s*:\s*0(?![.\d]))",
    re.IGNORECASE,
)
_SCRIPT = re.compile(
    r"<(?i:su([bp])(?:\s[^<>]*)?>((?:(?!</?su[bp]\b).){1,200}?)</su\1\s*>)", re.DOTALL
)
_MATH = re.compile(
    r"<(?i:((?:m\w*:)?math)(?![\w.:-])[^<>]*(?<!/)>(?:(?!<(?:m\w*:)?math\b).)*?</\1\s*>)", re.DOTALL
)


def visible(text: str) -> str:
    """Return a text without soft hyphens and other invisible signs within words."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def without_data(text: str) -> str:
    """Return a text without the addresses that are files themselves
    (`data:image/png;base64,...`)."""
    return _DATA.sub("", text) if ";" in text and ";base64," in text else text


def is_html(text: str) -> bool:
    """Return whether a text has an entity, a mark that ends an element or has attributes, or two of
    blocks."""
    if _ENTITY.search(text):
        return True
    blocks = 0
    for mark in _MARK.finditer(text) if "<" in text else ():
        name = (mark["name"] or "").lower()
        if name in _COMMON:
            blocks += name in PARAGRAPHS or name in LINES
            if mark["end"] or mark["more"] or name in ("br", "hr") or blocks > 1:
                return True
    return False


def html_text(text: str, *, lines: bool | None = None, elements: Set[str] | None = _KNOWN) -> str:
    """Return the text of HTML: entities as characters, tables and lists as lines, and code as it
    is. `lines` says whether line breaks count; if it does not, they do in a text without blocks.
    What is no mark of one of the `elements` is text, unless it shows that it is one; None for XML,
    where each is."""
    if "<" not in text:
        if "&" not in text:
            return text
        if _STORED_MARKS.match(text):  # some programs store the marks as entities, too
            text = html.unescape(text)
    if elements is not None and "<" in text:
        text = _only_marks(text, elements)
    target = HtmlText(
        lines=not (BLOCK.search(text) or "<br" in text.lower()) if lines is None else lines
    )
    parser = etree.HTMLParser(target=target, huge_tree=True, remove_comments=True, remove_pis=True)
    parser.feed("<div>" + text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8"))
    return str(parser.close())


def _only_marks(text: str, elements: Set[str]) -> str:
    """Return HTML without comments, with formulas as text, in which each `<` begins a mark: one of
    the elements, or of another that a mark ends, or that has attributes."""
    text = _CDATA.sub(lambda section: html.escape(section[1], quote=False), text)
    commented, end, rest = text.rpartition("-->")
    text = _COMMENT.sub("", commented + end) + rest
    text = _SCRIPT.sub(_script, _MATH.sub(_formula, text))
    marks = (mark for mark in _MARK.finditer(text) if mark["name"])
    elements = elements | {
        mark["name"].lower() for mark in marks if mark["end"] or mark[0][-2] == "/"
    }

    def checked(mark: re.Match[str]) -> str:
        name, more = mark["name"], mark["more"]
        is_mark = (
            name.lower() in elements or '"' in more or "'" in more if name else len(mark[0]) > 1
        )
        return mark[0] if is_mark else html.escape(mark[0], quote=False)

    return _MARK.sub(checked, text)


class HtmlText:
    """What lxml tells of an HTML text, as a person reads it."""

    def __init__(self, *, lines: bool) -> None:
        self._pieces: list[str] = []
        self._heard: list[str] = []
        self._newlines = 2
        """The line breaks at the end of the text so far. There is none before its beginning."""
        self._left_out = self._verbatim = self._code = 0
        self._lines = lines

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._flush()
        is_unseen = attributes and (
            "hidden" in attributes or _UNSEEN.search(attributes.get("style", ""))
        )
        if self._left_out or is_unseen or tag in LEFT_OUT:
            self._left_out += 1  # and so do the elements within
            return
        self._verbatim += tag in PREFORMATTED
        self._code += tag in CODE_TAGS
        self._break(tag)
        if tag in ("ac:task", "li"):
            self._add("- ")
        elif tag in ("td", "th") and not self._newlines:
            self._add(" | ")
        elif tag == "img" and (described := attributes.get("alt", "").strip()):
            self._add(described)

    def end(self, tag: str) -> None:
        self._flush()
        if self._left_out:
            self._left_out -= 1
        elif tag != "br":
            self._verbatim -= tag in PREFORMATTED
            self._code -= tag in CODE_TAGS
            self._break(tag)

    def data(self, text: str) -> None:
        """Add text, unless it is invisible."""
        if not self._left_out:
            self._heard.append(text)

    def close(self) -> str:
        self._flush()
        text = visible("".join(self._pieces)).replace("\u00a0", " ")
        return "\n".join(line.rstrip(" \t") for line in text.split("\n")).strip()

    def _flush(self) -> None:
        text = "".join(self._heard)
        self._heard.clear()
        if self._verbatim:
            self._add(text)
            return
        if not self._code:
            text = _SHORTCODE.sub("", text)
        for number, paragraph in enumerate(_PARAGRAPH.split(text)):
            if number:
                self._break("p")
            for later, line in enumerate(paragraph.split("\n") if self._lines else [paragraph]):
                if later:
                    self._break("br")
                piece = _SPACE.sub(" ", line)
                self._add(
                    piece.lstrip() if self._newlines or self._pieces[-1:] == [" | "] else piece
                )

    def _add(self, text: str) -> None:
        if text == " | " and self._pieces:
            self._pieces[-1] = self._pieces[-1].rstrip(" ")
        if text:
            self._pieces.append(text)
            self._newlines = len(text) - len(text.rstrip("\n"))

    def _break(self, tag: str) -> None:
        wanted = 2 if tag in PARAGRAPHS else 1 if tag in LINES else 0
        if self._newlines < wanted:
            self._pieces.append("\n" * (wanted - self._newlines))
            self._newlines = wanted


def _script(mark: re.Match[str]) -> str:
    """Return what is raised or lowered as it is, unless numbers would change their value: `10^6`,
    but H2O and 1st."""
    before, after = (
        mark.string[max(0, mark.start() - 1) : mark.start()],
        mark.string[mark.end() : mark.end() + 1],
    )
    inner = html.unescape(re.sub("<[^<>]*>", "", mark[2])).strip()
    written = script_text(RAISED if mark[1] in "pP" else LOWERED, inner, before, after)
    return mark[0] if written is None else html.escape(written, quote=False)


def _formula(mark: re.Match[str]) -> str:
    """Return a formula in MathML as text: `1/2`, and `2 1/2` behind a 2."""
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    root = etree.fromstring(mark[0].encode("utf-8", "replace"), parser)
    before, after = (
        mark.string[max(0, mark.start() - 2) : mark.start()],
        mark.string[mark.end() : mark.end() + 1],
    )
    return html.escape(formula_text(mathml_text(root), before, after), quote=False)
