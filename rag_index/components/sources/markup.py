"""HTML as people read it: text without tags, with formulas in a line, and without what a browser
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
"""The elements of HTML. Another name in angle brackets is a word, such as `<String>`, unless there
is an end tag for it, it ends itself, or it has attributes."""
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
"""Elements whose tags make a text HTML: the others are more often words in angle brackets."""
_VALUE = r"=(?:\s*+\"[^\"]*+\"|\s*+'[^']*+'|(?![\"'\s]))"
_TAG = re.compile(
    r"<(?:(?P<end>/?)(?P<name>[a-z][\w.:-]*+)"
    r"(?P<more>(?:\s++(?:nowrap|disabled|checked|selected|hidden|controls|noshade|compact|allowfullscreen|open)(?![\w-]|\s*+=))*+"
    r"(?:\s++[^<>=\"']*+" + _VALUE + r"(?:[^<>=]|" + _VALUE + r")*+)?+)\s*+/?>"
    r"|(?:!doctype|!\[|\?[a-z])[^<>]*+>)?+",
    re.IGNORECASE,
)
"""A tag of HTML, which is more than its name only if attributes follow; or a `<` that begins
none."""
_CDATA = re.compile(r"<!\[CDATA\[((?:(?!<!\[CDATA\[).)*?)\]\]>", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
BLOCK = re.compile(r"<(?:p|div|li|tr|h[1-6]|pre|blockquote|table)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_STORED_TAGS = re.compile(
    r"\s*&(?:lt|#60|#x3c);(?=.*?&(?:lt|#60|#x3c);/)", re.IGNORECASE | re.DOTALL
)
_SHORTCODE = re.compile(
    r"\[/?(?:(?:vc|wpb|et_pb|fusion|bt_bb|mk|nectar|tatsu)_[a-z_\d]++|elementor-template)(?:\s[^\[\]]*+)?\]"
    r"|\[(audio|caption|embed|gallery|playlist|video)(?:\s[^\[\]=]*+=[^\[\]]*+\]|\](?=[^\[\]]*+\[/\1\]))"
    r"|\[/(?:audio|caption|embed|gallery|playlist|video)\]"
)
"""The shortcodes of WordPress and of its page builders."""
_INVISIBLE = re.compile("[\u00ad\u2060\ufeff]|\u200b(?![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])")
"""Invisible characters within words; but in Thai, Lao, Burmese and Khmer U+200B divides words."""
_DATA = re.compile(
    r"(?<!\w)data:[\w+.\\/-]*+(?:;[\w.=\"+-]+)*?;base64,[\w+/%\\-]*+={0,2}(?:\s+[\w+/]{50,}={0,2})*+(?:\s+[\w+/]++={1,2})?"
)
"""A file as an address. Its base64 may be in lines. A shorter line is the last one if it ends with
`=`."""
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
    """Return a text without soft hyphens and other invisible characters within words."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", text)


def without_data(text: str) -> str:
    """Return a text without addresses that are files themselves
    (`data:image/png;base64,...`)."""
    # a quick look first: most texts have no semicolon
    if ";" not in text or ";base64," not in text:
        return text
    return _DATA.sub("", text)


def is_html(text: str) -> bool:
    """Return whether a text has an entity, an end tag, a tag with attributes, or two of blocks."""
    if _ENTITY.search(text):
        return True
    if "<" not in text:
        return False
    blocks = 0
    for tag in _TAG.finditer(text):
        name = (tag["name"] or "").lower()
        if name not in _COMMON:
            continue
        if tag["end"] or tag["more"] or name in ("br", "hr"):
            return True
        blocks += name in PARAGRAPHS or name in LINES
        if blocks > 1:
            return True
    return False


def html_text(text: str, *, lines: bool | None = None, elements: Set[str] | None = _KNOWN) -> str:
    """Return the text of HTML: entities as characters, tables and lists as lines, and code as it
    is.

    Args:
        lines: Whether line breaks count. With None, they do in a text without blocks.
        elements: The names of elements. Another name in angle brackets is text, unless it shows
            that it is an element. None stands for XML, where each name is one.
    """
    if "<" not in text:
        if "&" not in text:
            return text
        # "&lt;p&gt;": some programs store tags as entities
        if _STORED_TAGS.match(text):
            text = html.unescape(text)
    if elements is not None and "<" in text:
        text = _only_tags(text, elements)
    if lines is None:
        lines = not BLOCK.search(text) and "<br" not in text.lower()
    target = HtmlText(lines=lines)
    parser = etree.HTMLParser(target=target, huge_tree=True, remove_comments=True, remove_pis=True)
    valid = text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8")
    parser.feed(f"<div>{valid}")
    return str(parser.close())


def _only_tags(text: str, elements: Set[str]) -> str:
    """Return HTML without comments, with formulas as text, in which each `<` begins a tag.

    These are tags of the elements, and of others that have an end tag, end themselves, or have
    attributes.
    """
    text = _CDATA.sub(lambda section: html.escape(section[1], quote=False), text)
    # behind the last end of a comment, "<!--" is text
    commented, end, rest = text.rpartition("-->")
    text = _COMMENT.sub("", commented + end) + rest
    text = _MATH.sub(_formula, text)
    text = _SCRIPT.sub(_script, text)
    ended = set[str]()
    for tag in _TAG.finditer(text):
        name = tag["name"]
        # "</note>", or "<note/>"
        if name and (tag["end"] or tag[0].endswith("/>")):
            ended.add(name.lower())
    known = elements | ended

    def checked(tag: re.Match[str]) -> str:
        """Return a tag, or the text as which angle brackets are read."""
        name = tag["name"]
        # "<!doctype html>", unlike a `<` alone
        is_tag = len(tag[0]) > 1
        if name:
            is_tag = name.lower() in known or re.search("[\"']", tag["more"]) is not None
        if is_tag:
            return tag[0]
        return html.escape(tag[0], quote=False)

    return _TAG.sub(checked, text)


class HtmlText:
    """A target of lxml's parser that collects the text as a person reads it."""

    def __init__(self, *, lines: bool) -> None:
        self._pieces: list[str] = []
        self._data: list[str] = []
        """The text since the last tag."""
        self._newlines = 2
        """The line breaks at the end of the text so far. There is none before its beginning."""
        self._left_out = 0
        """How many elements that are left out are open, with those within them; so the next ones
        count elements of their kind."""
        self._verbatim = 0
        self._code = 0
        self._lines = lines

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._flush()
        # elements within one that is left out count, too
        if self._left_out or tag in LEFT_OUT or (attributes and _is_unseen(attributes)):
            self._left_out += 1
            return
        self._verbatim += tag in PREFORMATTED
        self._code += tag in CODE_TAGS
        self._break(tag)
        if tag in ("ac:task", "li"):
            self._add("- ")
        # a cell that is not the first of its row
        elif tag in ("td", "th") and not self._newlines:
            self._add(" | ")
        elif tag == "img":
            self._add(attributes.get("alt", "").strip())

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
            self._data.append(text)

    def close(self) -> str:
        self._flush()
        text = visible("".join(self._pieces))
        lines = text.replace("\u00a0", " ").split("\n")
        return "\n".join(line.rstrip(" \t") for line in lines).strip()

    def _flush(self) -> None:
        """Add the text since the last tag, with the spaces that a browser shows."""
        text = "".join(self._data)
        self._data.clear()
        if self._verbatim:
            self._add(text)
            return
        if not self._code:
            text = _SHORTCODE.sub("", text)
        for number, paragraph in enumerate(_PARAGRAPH.split(text)):
            if number:
                self._break("p")
            lines = paragraph.split("\n") if self._lines else [paragraph]
            for line_number, line in enumerate(lines):
                if line_number:
                    self._break("br")
                piece = _SPACE.sub(" ", line)
                begins = self._newlines or self._pieces[-1:] == [" | "]
                self._add(piece.lstrip() if begins else piece)

    def _add(self, text: str) -> None:
        if text == " | " and self._pieces:
            self._pieces[-1] = self._pieces[-1].rstrip(" ")
        if text:
            self._pieces.append(text)
            self._newlines = len(text) - len(text.rstrip("\n"))

    def _break(self, tag: str) -> None:
        """Add the line breaks before and behind an element that the text does not have yet."""
        wanted = 0
        if tag in PARAGRAPHS:
            wanted = 2
        elif tag in LINES:
            wanted = 1
        if self._newlines < wanted:
            self._pieces.append("\n" * (wanted - self._newlines))
            self._newlines = wanted


def _is_unseen(attributes: Mapping[str, str]) -> bool:
    """Return whether a browser does not show an element with these attributes."""
    if "hidden" in attributes:
        return True
    # an attribute of style: "display: none"
    return _UNSEEN.search(attributes.get("style", "")) is not None


def _script(tag: re.Match[str]) -> str:
    """Return a raised or lowered text as it is, unless numbers would change their value: `10^6`,
    but H2O and 1st."""
    # "<sup><b>6</b></sup>"
    without_tags = re.sub("<[^<>]*>", "", tag[2])
    inner = html.unescape(without_tags).strip()
    kind = RAISED if tag[1] in "pP" else LOWERED
    written = script_text(kind, inner, _before(tag, 1), _after(tag))
    if written is None:
        return tag[0]
    return html.escape(written, quote=False)


def _formula(tag: re.Match[str]) -> str:
    """Return a formula in MathML as text: `1/2`, and `2 1/2` behind a 2."""
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    root = etree.fromstring(tag[0].encode("utf-8", "replace"), parser)
    formula = mathml_text(root)
    written = formula_text(formula, _before(tag, 2), _after(tag))
    return html.escape(written, quote=False)


def _before(tag: re.Match[str], length: int) -> str:
    """Return the last characters before an element, at most `length`."""
    end = tag.start()
    return tag.string[max(0, end - length) : end]


def _after(tag: re.Match[str]) -> str:
    """Return the character behind an element, "" at the end of the text."""
    start = tag.end()
    return tag.string[start : start + 1]
