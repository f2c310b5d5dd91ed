"""Text as people read it: HTML, Markdown, BBCode and JSON without their marks, and bytes as the text that they are."""

from __future__ import annotations

import codecs
import html
import json
import re
import unicodedata
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lxml import etree

from rag_index.documents.languages import language_of
from rag_index.settings.index import is_named_like_a_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PARAGRAPHS = frozenset(
    [
        "address", "article", "aside", "blockquote", "details", "dl", "figure", "footer", "form", "h1", "h2", "h3",
        "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul",
    ]
)  # fmt: skip
"""HTML elements with an empty line before and after them."""
LINES = frozenset(
    [
        "br", "caption", "center", "dd", "div", "dt", "fieldset", "figcaption", "li", "option", "summary", "tbody",
        "tfoot", "thead", "tr",
    ]
)  # fmt: skip
"""HTML elements that begin a line."""
LEFT_OUT = frozenset(
    ["head", "iframe", "noembed", "noframes", "object", "script", "select", "style", "svg", "template"]
)
"""HTML elements whose content nobody reads."""
MAX_BYTES = 64_000_000
"""What a compressed value may become at most."""
MAX_CONTROLS = 0.01
"""The share of control characters above which bytes are no text."""
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
LIKE_CODES = frozenset(["id", "no"])
"""Codes of languages (Indonesian, Norwegian) that are more often the names of numbers."""
MAX_LEVELS = 50
"""Deeper levels of JSON are left out."""
MAGIC = {
    b"%PDF": "a PDF file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"GIF8": "a GIF picture",
    b"RIFF": "a sound, video or WebP file",
    b"PK\x03\x04": "a ZIP or Office file",
    b"\xd0\xcf\x11\xe0": "an old Office file",
    b"\xac\xed\x00\x05": "a serialised Java object",
    b"7z\xbc\xaf": "a 7z file",
    b"SQLite format 3": "an SQLite file",
}
"""How files begin that are often kept in databases."""
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|caption|center|code|dd|div|dl|dt|em|figure|font|h[1-6]|head|hr|html|i|iframe|"
    r"img|ins|kbd|li|link|meta|object|ol|p|pre|q|s|samp|script|section|small|span|strike|strong|style|sub|sup|table|tbody|"
    r"td|th|thead|tr|tt|u|ul|var)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"<(?:p|div|br|li|tr|h[1-6]|pre|blockquote|table)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_STORED_MARKS = re.compile(r"\s*&(?:lt|#60|#x3c);(?=.*?&(?:lt|#60|#x3c);/)", re.IGNORECASE | re.DOTALL)
_SHORTCODE = re.compile(r"\[/?(?:[a-z]+_[a-z_]+|audio|caption|embed|gallery|playlist|video)\b[^\]\n]*\]")
_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0]+")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_ROW_END = re.compile(r"[ \t]+(\n| \| )")
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u2060\ufeff"))
_BBCODE = re.compile(
    r"\[/?(?:b|i|u|s|url|img|quote|code|list|size|color|font|email|left|right|center|spoiler|youtube|table|tr|td|"
    r"attachment|indent|hr|sub|sup)(?:[=: ][^\]\n]*)?\]",
    re.IGNORECASE,
)
_BBCODE_HTML = (
    (re.compile(r"<([se])>.*?</\1>", re.DOTALL), ""),  # the marks themselves, as newer forums keep them
    (re.compile(r"\[(img|attachment|youtube)[^\]]*\].*?\[/\1[^\]]*\]", re.IGNORECASE | re.DOTALL), ""),
    (re.compile(r"\[code[^\]]*\]", re.IGNORECASE), "<pre>"),
    (re.compile(r"\[/code[^\]]*\]", re.IGNORECASE), "</pre>"),
    (re.compile(r"\[quote=(?:&quot;|[\"'])?([^\]\"'&]+)[^\]]*\]", re.IGNORECASE), r"<blockquote>\1: "),
    (re.compile(r"\[quote[^\]]*\]", re.IGNORECASE), "<blockquote>"),
    (re.compile(r"\[/quote[^\]]*\]", re.IGNORECASE), "</blockquote>"),
    (re.compile(r"\[\*(?::[^\]]*)?\]"), "<li>"),
    (re.compile(r"\[/?(?:tr|list|hr|center|indent)[^\]]*\]", re.IGNORECASE), "<br>"),
    (re.compile(r"\[td[^\]]*\]", re.IGNORECASE), " | "),
)
_MARKDOWN = re.compile(r"(?m)^#{1,6} \S|^```|^ {0,3}[-*+] \S|^>\s|\*\*[^*\n]+\*\*|\[[^\]\n]+\]\(\S+\)|^\|.*\|$")
_SERIALISED = re.compile(r"(?:[aOC]:\d+:[{\"]|s:\d+:\"|[bi]:\d+;|--- !ruby/|\{\"py/object\"|rO0AB)")


class NotText(ValueError):
    """A value has no text; the message says what it is instead."""


def read_text(value: Any, form: str = "plain") -> str:
    """Return the text of a value as people read it; "" for None, and for a serialised object.

    `form` is one of `Format`: how the text is written. With "auto" the value itself decides. Bytes are unpacked (gzip,
    deflate) and decoded: UTF-8 and UTF-16, else the charset that they look like. Raises NotText if the value is, or
    holds, bytes that are no text.
    """
    if value is None:
        return ""
    if isinstance(value, dict | list):
        flat = form in ("json", "auto")
        return flatten(value) if flat else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    text = _characters(value)
    if form == "auto":
        form = find_format(text)
    readers = {"html": html_text, "markdown": markdown_text, "bbcode": bbcode_text}
    if form in readers:
        return readers[form](text)
    if form == "json":
        with suppress(ValueError, RecursionError):  # no JSON
            return flatten(json.loads(text))
    return "" if form == "serialised" else text


def find_format(text: str) -> str:
    """Return the format of a text by its looks: one of `Format` but "auto", or "serialised" for an object."""
    start = text[:200].lstrip()
    if _SERIALISED.match(start):
        return "serialised"
    if start.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return "json"
    if len(_BBCODE.findall(text)) >= 2 or start.startswith(("<r>", "<t>")):
        return "bbcode"
    if _TAG.search(text) or _ENTITY.search(text):
        return "html"
    return "markdown" if len(_MARKDOWN.findall(text)) >= 2 else "plain"


def html_text(text: str) -> str:
    """Return the text of HTML: entities as characters, tables and lists as lines, and code as it is."""
    if "<" not in text:
        if "&" not in text:
            return text
        if _STORED_MARKS.match(text):  # some programs store the marks as entities, too
            text = html.unescape(text)
    text = _SHORTCODE.sub("", text)
    if not _BLOCK.search(text):  # some programs write line breaks where others write tags
        text = _PARAGRAPH.sub("<p>", text).replace("\n", "<br>")
    target = _HtmlText()
    parser = etree.HTMLParser(target=target, huge_tree=True, remove_comments=True, remove_pis=True)
    parser.feed("<div>" + text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8"))
    return str(parser.close())


class _HtmlText:
    """What lxml tells of an HTML text: `close` returns the text as a person reads it."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._newlines = 2
        """The line breaks at the end of the text so far. There is none before its beginning."""
        self._left_out = self._verbatim = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in LEFT_OUT:
            self._left_out += 1
        if self._left_out:
            return
        self._verbatim += tag == "pre"
        self._break(tag)
        if tag == "li":
            self._add("- ")
        elif tag in ("td", "th") and not self._newlines:
            self._add(" | ")
        elif tag == "img" and (described := attributes.get("alt", "").strip()):
            self._add(described)

    def end(self, tag: str) -> None:
        if tag in LEFT_OUT:
            self._left_out = max(0, self._left_out - 1)
        elif not self._left_out and tag != "br":
            self._verbatim -= tag == "pre"
            self._break(tag)

    def data(self, text: str) -> None:
        if self._left_out:
            return
        if self._verbatim:
            self._add(text)
            return
        for number, paragraph in enumerate(_PARAGRAPH.split(text)):
            if number:
                self._break("p")
            piece = _SPACE.sub(" ", paragraph)
            self._add(piece.lstrip() if self._newlines else piece)

    def close(self) -> str:
        text = "".join(self._pieces).translate(_INVISIBLE).replace("\u00a0", " ")
        return _ROW_END.sub(r"\1", text).strip()

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(text)
            self._newlines = len(text) - len(text.rstrip("\n"))

    def _break(self, tag: str) -> None:
        wanted = 2 if tag in PARAGRAPHS else 1 if tag in LINES else 0
        if self._newlines < wanted:
            self._pieces.append("\n" * (wanted - self._newlines))
            self._newlines = wanted


def markdown_text(text: str) -> str:
    """Return the text of Markdown without its marks; links without addresses, tables as lines, code as it is."""
    from markdown_it import MarkdownIt

    return html_text(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def bbcode_text(text: str) -> str:
    """Return the text of BBCode, which may be mixed with HTML and entities."""
    if not _TAG.search(text) and not text.startswith(("<r>", "<t>")):
        text = text.replace("<", "&lt;")
    for pattern, replacement in _BBCODE_HTML:
        text = pattern.sub(replacement, text)
    text = _BBCODE.sub("", text)
    return html_text(text.replace("\n", "<br>")) if "<" in text else html.unescape(text)


def flatten(value: Any) -> str:
    """Return JSON as lines of key and value. Keys that are named like secrets are left out."""
    return "\n".join(_lines("", value))


def _lines(name: str, value: Any, levels: int = MAX_LEVELS) -> Iterator[str]:
    if not levels:
        return
    label = f"{name}: " if name else ""
    if isinstance(value, dict) and _is_by_language(value):
        for inner in value.values():
            yield from _lines(name, inner, levels - 1)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if not is_named_like_a_secret(str(key)):
                yield from _lines(str(key), inner, levels - 1)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for inner in value:
            yield from _lines(name, inner, levels - 1)
    elif isinstance(value, list):
        texts = [text for inner in value if (text := _scalar(inner))]
        if texts:
            yield f"{label}{', '.join(texts)}"
    elif text := _scalar(value):
        yield f"{label}{text}"


def _is_by_language(value: dict[Any, Any]) -> bool:
    """Return whether an object is one text in several languages, such as {"en_US": "Chair", "fr_FR": "Chaise"}.

    Keys that only look like codes, as in {"id": "7", "no": "A-12"}, are keys.
    """
    texts = all(one is None or isinstance(one, str) for one in value.values())
    return texts and not value.keys() <= LIKE_CODES and all(map(language_of, value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return html_text(value) if _TAG.search(value) else value.strip()
    return "" if value is None else json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def _characters(value: Any) -> str:
    if isinstance(value, str):
        if value.isascii() or not any("\udc80" <= character <= "\udcff" for character in value):
            return value
        value = value.encode("utf-8", "surrogateescape")  # bytes of a text column that are not UTF-8
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    return decode(value) if isinstance(value, bytes) else str(value)


def decode(value: bytes) -> str:
    """Return the text of bytes, which may be packed. Raises NotText."""
    if not value:
        return ""
    what = next((kind for magic, kind in MAGIC.items() if value.startswith(magic)), "")
    if not what:
        unpacked = value
        if value.startswith((b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")):
            with suppress(zlib.error):
                unpacked = zlib.decompressobj(47).decompress(value, MAX_BYTES)  # finds out which of the two it is
        mark = next((charset for mark, charset in BYTE_ORDER_MARKS.items() if unpacked.startswith(mark)), None)
        text = _decoded(unpacked, mark or _wide_charset(unpacked) or "utf-8")
        if text is None and mark is None:
            text = (_inflated(value) if unpacked is value else None) or _guessed(unpacked)
        if text:
            return text
    what = what or "no known kind of file"
    raise NotText(f"holds {len(value):,} bytes that are no text ({what}): name another column, or leave such rows out")


def _wide_charset(value: bytes) -> str | None:
    """Return the charset of two bytes a character that a text in Latin letters looks like."""
    odd, even = value[1::2].count(0), value[::2].count(0)
    wide = len(value) % 2 == 0 and max(odd, even) * 2 > len(value) * 0.7
    return ("utf-16-le" if odd > even else "utf-16-be") if wide else None


def _inflated(value: bytes) -> str | None:
    """Return the text that deflate packed, without a header, as wikis keep it; None if there is none."""
    unpacker = zlib.decompressobj(-15)
    try:
        unpacked = unpacker.decompress(value, MAX_BYTES)
    except zlib.error:
        return None
    return _decoded(unpacked, "utf-8") if unpacker.eof and not unpacker.unused_data else None


def _decoded(value: bytes, charset: str) -> str | None:
    try:
        text = value.decode(charset)
    except ValueError:
        return None
    sample = text[:4000]
    controls = sum(unicodedata.category(character) == "Cc" and character not in "\t\n\r\f" for character in sample)
    return text if controls <= len(sample) * MAX_CONTROLS else None


def _guessed(value: bytes) -> str | None:
    """Return the text in the charset that the bytes look like: mostly letters beyond ASCII are not western Europe's."""
    if sum(byte > 127 for byte in value[:4000]) * 2 < min(len(value), 4000):
        return _decoded(value, "cp1252")
    from charset_normalizer import from_bytes

    found = from_bytes(value[:100_000]).best()
    return None if found is None else _decoded(value, found.encoding)
