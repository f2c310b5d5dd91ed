"""Text as people read it: HTML, Markdown, BBCode and JSON without their marks, and bytes as the text that they are."""

from __future__ import annotations

import codecs
import functools
import html
import json
import re
import unicodedata
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lxml import etree
from lxml.html.defs import tags

from rag_index.core.documents.text_languages import language_of
from rag_index.core.settings.index import is_named_like_a_secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from markdown_it import MarkdownIt

PARAGRAPHS = frozenset([
    "address", "article", "aside", "blockquote", "details", "dl", "figure", "footer", "form", "h1", "h2", "h3",
    "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul",
])  # fmt: skip
"""HTML elements with an empty line before and after them."""
LINES = frozenset([
    "br", "caption", "center", "dd", "div", "dt", "fieldset", "figcaption", "li", "option", "summary", "tbody",
    "tfoot", "thead", "tr",
])  # fmt: skip
"""HTML elements that begin a line."""
LEFT_OUT = frozenset([
    "head", "iframe", "noembed", "noframes", "object", "script", "select", "style", "svg", "template",
])  # fmt: skip
CODE_TAGS = frozenset(["code", "kbd", "pre", "samp", "tt"])
MAX_BYTES = 64_000_000
"""What a compressed value may become at most."""
MAX_CONTROLS = 0.01
"""The share of control characters above which bytes are no text."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",
}  # fmt: skip
"""The charsets by their marks. That of UTF-32 begins with that of UTF-16."""
MIN_CONFIDENCE = 0.12
"""A guess below it is none where signs beyond ASCII stand alone or in pairs, as in western Europe."""
LIKE_CODES = frozenset(["id", "no"])
"""Codes of languages (Indonesian, Norwegian) that are more often the names of numbers."""
MAX_TEXT_LEVELS = 100
"""JSON of more levels, and Markdown whose lists and quotes are nested deeper, stay as they are."""
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
    b"\x78\x9f\x3e\x22": "an attachment of Outlook (TNEF)",
}
_KNOWN = tags | {
    "bdi", "bgsound", "data", "dialog", "frame", "listing", "main", "nobr", "noembed", "noframes", "picture", "search",
    "slot", "template", "xmp",
}  # fmt: skip
"""The elements of HTML. A browser drops the names of others; here they are words of the text, as `<String>` is."""
_COMMON = _KNOWN - {"address", "data", "label", "map", "object", "output", "source", "template", "time", "title", "var"}
"""Elements whose marks make a text HTML: the others are more often words in angle brackets."""
_VALUE = r"=(?:\s*+\"[^\"]*+\"|\s*+'[^']*+'|(?![\"'\s]))"
_MARK = re.compile(
    r"<(?:(?P<end>/?)(?P<name>[a-z][\w.:-]*+)"
    r"(?P<more>(?:\s++(?:nowrap|disabled|checked|selected|hidden|controls|noshade|compact|allowfullscreen)\b)*+"
    r"(?:\s++[^<>=\"']*+" + _VALUE + r"(?:[^<>=]|" + _VALUE + r")*+)?+)\s*+(?P<close>/?)>"
    r"|(?:!doctype|!\[|\?[a-z])[^<>]*+>)?+",
    re.IGNORECASE,
)
"""A mark of HTML, which is more than its name only if attributes follow; or a `<` that begins none."""
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_BLOCK = re.compile(r"<(?:p|div|li|tr|h[1-6]|pre|blockquote|table)\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,8}|#\d{1,6}|#x[0-9a-fA-F]{1,5});")
_STORED_MARKS = re.compile(r"\s*&(?:lt|#60|#x3c);(?=.*?&(?:lt|#60|#x3c);/)", re.IGNORECASE | re.DOTALL)
_SHORTCODE = re.compile(
    r"\[/?(?:(?:vc|wpb|et_pb|fusion|bt_bb|mk|nectar|tatsu)_[a-z_\d]++|elementor-template)(?:\s[^\[\]]*+)?\]"
    r"|\[(audio|caption|embed|gallery|playlist|video)(?:\s[^\[\]=]*+=[^\[\]]*+\]|\](?=[^\[\]]*+\[/\1\]))"
    r"|\[/(?:audio|caption|embed|gallery|playlist|video)\]"
)
"""The marks of WordPress and of its page builders."""
_INVISIBLE = re.compile("[\u00ad\u2060\ufeff]|\u200b(?![\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff])")
"""Invisible signs within words; but in Thai, Lao, Burmese and Khmer U+200B divides words."""
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]{3}")
_ESCAPES = re.compile(rb"\x1b(?:\$|\([BIJ])|~\{[!-}]")
_DECLARED = re.compile(
    rb"\s*(?:<[^\0]{0,4000}?)??<(?:\?xml|meta)\b[^<>]*?\b(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE
)
"""The charset that HTML or XML names itself."""
_SPACE = re.compile(r"[ \t\r\n\f\v\u00a0]+")
_PARAGRAPH = re.compile(r"\n[ \t\r]*\n\s*")
_BBCODE_NAMES = frozenset([
    "b", "i", "u", "s", "url", "img", "quote", "code", "list", "size", "color", "font", "email", "left", "right",
    "center", "spoiler", "youtube", "table", "tr", "td", "attachment", "indent", "hr", "sub", "sup", "*",
])  # fmt: skip
_BBCODE = re.compile(
    r"\[(?P<end>/?)(?P<name>\*|[a-z]++)(?P<value>(?:[=: ](?:[^\[\]\n]|\[[^\[\]\n]*+\])*+)?)\]", re.IGNORECASE
)
_BBCODE_HTML = {
    "code": "<pre>", "/code": "</pre>", "quote": "<blockquote>", "/quote": "</blockquote>", "*": "<li>", "td": " | ",
    **dict.fromkeys(("tr", "/tr", "list", "/list", "hr", "center", "/center", "indent", "/indent"), "<br>"),
}  # fmt: skip
_AUTHOR = re.compile(r"=\s*(?:&quot;|[\"'])?([^\"'&]+)")
_ELEMENTS_OF_BBCODE = re.compile(r"<(/?)(?:(CODE)|(LIST)|QUOTE)(?: author=\"([^\"]*)\")?(?:\s[^<>]*+)?>")
_MARKS_OF_ELEMENTS = re.compile(r"<([se])>[^<>]*+</\1>")
"""The marks themselves, as newer forums keep them."""
_MARKDOWN = re.compile(r"(?m)^#{1,6} \S|^```|^ {0,3}[-*+] \S|^>\s|\*\*[^*\n]++\*\*|\[[^\[\]\n]++\]\(\S|^\|[^\n]*\|$")
_DEFINITION = re.compile(r"\s*\[[^\[\]]*+\]:\s*<?(?:[a-z][a-z\d+.-]*:|[/#.?]|[\w-]+\.\w)", re.IGNORECASE)
"""A definition of a link in Markdown. Other words in brackets with a colon are quoted speech."""
_SERIALISED = re.compile(
    r"(?:[aOC]:\d+:[{\"].*\}|s:\d+:\".*\";|[bi]:\d+;)\s*\Z|--- !ruby/|\{\"py/object\"|rO0AB[\w+/=\s]+\Z", re.DOTALL
)
_PHP_TEXT, _PHP_OBJECT = re.compile(rb"s:(\d{1,9}):\""), re.compile(rb"[aOC]:\d+:[{\"]")
_SAID = re.compile(r"[^\W\d_][,;:.!?)\"']*\s+[(\"']?[^\W\d_]|\A\s*[A-Z][a-z]{2,}\s*\Z|[^\W\d_\x00-\x7f]")
"""Two words, one in capitals and small letters, or letters beyond ASCII."""


class NotText(ValueError):
    """A value has no text; the message says what it is instead."""


def read_text(value: Any, form: str = "plain") -> str:
    """Return the text of a value as people read it; "" for None, and for an object without text. `form` is one of
    `Format`: how the text is written. With "auto" the value itself decides. Bytes are unpacked (gzip, deflate) and
    decoded: UTF-8 and UTF-16, else the charset that they look like. Raises NotText if the value is, or holds, bytes
    that are no text."""
    if value is None:
        return ""
    if isinstance(value, dict | list):
        with suppress(ValueError):
            if form in ("json", "auto"):
                return flatten(value)
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    text = _characters(value)
    if form == "auto":
        form = find_format(text)
    readers = {"html": html_text, "markdown": markdown_text, "bbcode": bbcode_text}
    if form in readers:
        return readers[form](text)
    if form == "json":
        with suppress(ValueError, RecursionError):  # no JSON
            return flatten(json.loads(text))
    return serialised_text(text) if form == "serialised" else text


def serialised_text(text: str) -> str:
    """Return what people read in an object that PHP serialised, a line each, without keys; "" for other objects."""
    found = [_scalar(one) for one in _php_texts(text.encode("utf-8", "replace"))]
    pairs = zip(["", *found], found, strict=False)
    return "\n".join(one for key, one in pairs if _SAID.search(one) and not is_named_like_a_secret(key))


def _php_texts(value: bytes) -> Iterator[str]:
    """Yield the texts of an object, each as long as it says or, if another program changed it, up to the next `";`."""
    place = 0
    while found := _PHP_TEXT.search(value, place):
        start, end = found.end(), found.end() + int(found[1])
        if not value.startswith(b'";', end):
            end = value.find(b'";', start)
        if end < 0:
            return
        place = end
        if _PHP_OBJECT.match(value, start):
            place = start  # an object within the object
        else:
            yield value[start:end].decode("utf-8", "replace")


def visible(text: str) -> str:
    """Return a text without soft hyphens and other invisible signs within words."""
    return text if text.isascii() else _INVISIBLE.sub("", text)


def find_format(text: str) -> str:
    """Return the format of a text by its looks: one of `Format` but "auto", or "serialised" for an object. Marks that
    Markdown shows as code say nothing, and neither does what would rob a text of letters: `a[i]`, `<name>`."""
    start = text[:200].lstrip()
    if _SERIALISED.match(text.lstrip()):
        return "serialised"
    if start.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return "json"
    if start.startswith(("<r>", "<t>")):
        return "bbcode"
    is_html, is_bbcode = _is_html(text), any(mark["end"] for mark in _bbcode_marks(text))
    if (is_html or is_bbcode) and _shows_marks(text, is_html=start.startswith("<")):
        return "markdown"
    is_markdown = len(_MARKDOWN.findall(text)) >= 2
    if is_bbcode:
        return "bbcode"
    return (
        "html" if is_html and not (is_markdown and not _BLOCK.search(text)) else "markdown" if is_markdown else "plain"
    )


def _is_html(text: str) -> bool:
    """Return whether a text has an entity, a mark that ends an element or has attributes, or two of blocks."""
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


def _shows_marks(text: str, *, is_html: bool) -> bool:
    """Return whether a text is Markdown with marks of another format in its code; in fences alone if it `is_html`."""
    if "`" not in text and "~~~" not in text:
        return False
    blocks = _markdown().parse(text)
    code = [block for block in blocks if block.type == "fence"]
    if not is_html:
        code += [one for block in blocks for one in block.children or () if one.type == "code_inline"]
    return any(sign in one.content for one in code for sign in "<[&")


def html_text(text: str, *, lines: bool | None = None, elements: Set[str] | None = _KNOWN) -> str:
    """Return the text of HTML: entities as characters, tables and lists as lines, and code as it is. `lines` says
    whether line breaks count; if it does not, they do in a text without blocks. What is no mark of one of the
    `elements` is text; None for XML, where each is."""
    if "<" not in text:
        if "&" not in text:
            return text
        if _STORED_MARKS.match(text):  # some programs store the marks as entities, too
            text = html.unescape(text)
    if elements is not None and "<" in text:
        text = _only_marks(text, elements)
    target = HtmlText(lines=not (_BLOCK.search(text) or "<br" in text.lower()) if lines is None else lines)
    parser = etree.HTMLParser(target=target, huge_tree=True, remove_comments=True, remove_pis=True)
    parser.feed("<div>" + text.replace("\0", " ").encode("utf-8", "replace").decode("utf-8"))
    return str(parser.close())


def _only_marks(text: str, elements: Set[str]) -> str:
    """Return HTML without comments, in which each `<` begins a mark of one of the elements, or of one that it ends."""
    commented, end, rest = text.rpartition("-->")
    text = _COMMENT.sub("", commented + end) + rest
    ended = {mark["name"].lower() for mark in _MARK.finditer(text) if mark["name"] and (mark["end"] or mark["close"])}
    elements = elements | {name for name in ended if ":" in name or "-" in name}

    def checked(mark: re.Match[str]) -> str:
        is_mark = mark["name"].lower() in elements if mark["name"] else len(mark[0]) > 1
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
        if tag in LEFT_OUT:
            self._left_out += 1
        if self._left_out:
            return
        self._verbatim += tag == "pre"
        self._code += tag in CODE_TAGS
        self._break(tag)
        if tag == "li":
            self._add("- ")
        elif tag in ("td", "th") and not self._newlines:
            self._add(" | ")
        elif tag == "img" and (described := attributes.get("alt", "").strip()):
            self._add(described)

    def end(self, tag: str) -> None:
        self._flush()
        if tag in LEFT_OUT:
            self._left_out = max(0, self._left_out - 1)
        elif not self._left_out and tag != "br":
            self._verbatim -= tag == "pre"
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
                self._add(piece.lstrip() if self._newlines or self._pieces[-1:] == [" | "] else piece)

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


def markdown_text(text: str) -> str:
    """Return the text of Markdown without its marks; links without addresses, tables as lines, code as it is."""
    blocks = _markdown().parse(text)
    if any(block.level >= MAX_TEXT_LEVELS - 1 for block in blocks):
        return text
    return html_text(_markdown().renderer.render(blocks, _markdown().options, {}))


@functools.cache
def _markdown() -> MarkdownIt:
    """Return a reader of Markdown that takes every address, and no words in brackets with a colon for one."""
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock, reference

    def defines(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        text = state.src[state.bMarks[start] : state.eMarks[min(start + 2, end) - 1]]
        return _DEFINITION.match(text) is not None and reference(state, start, end, silent)

    reader = MarkdownIt("commonmark", {"maxNesting": MAX_TEXT_LEVELS}).enable(["table", "strikethrough"])
    reader.validateLink = lambda _: True  # type: ignore[method-assign, assignment]
    reader.block.ruler.at("reference", defines)
    return reader


def bbcode_text(text: str) -> str:
    """Return the text of BBCode, which may be mixed with HTML and entities. Code stays as it is."""
    if text.startswith(("<r>", "<t>")):
        text = _ELEMENTS_OF_BBCODE.sub(_element, _MARKS_OF_ELEMENTS.sub("", text))
        return html_text(text, lines=True, elements=None)
    is_mixed, pieces, done = _is_html(text), list[str](), 0

    def add(part: str) -> None:
        pieces.append(part if is_mixed else part.replace("<", "&lt;"))

    for mark in _bbcode_marks(text):
        name, start = mark["name"].lower(), mark.start()
        if start < done:
            continue
        if mark["end"] and name in ("img", "attachment", "youtube") and not re.search(r"\s", text[done:start]):
            done = mark.end()
            continue
        add(text[done:start])
        pieces.append(_BBCODE_HTML.get(f"{mark['end']}{name}", ""))
        if name == "quote" and not mark["end"] and (author := _AUTHOR.match(mark["value"])):
            add(f"{author[1]}: ")
        done = mark.end()
    add(text[done:])
    text = "".join(pieces)
    return html_text(text, lines=True) if "<" in text else html.unescape(text)


def _element(mark: re.Match[str]) -> str:
    name = "pre" if mark[2] else "ul" if mark[3] else "blockquote"
    return f"<{mark[1]}{name}>{mark[4] + ': ' if mark[4] else ''}"


def _bbcode_marks(text: str) -> list[re.Match[str]]:
    """Return the marks of a text in order, without those in code: each begins what another ends, or stands alone."""
    marks = [mark for mark in _BBCODE.finditer(text) if mark["name"].lower() in _BBCODE_NAMES]
    last_code = max((n for n, mark in enumerate(marks) if mark["end"] and mark["name"].lower() == "code"), default=-1)
    opened: dict[str, list[int]] = {}
    found, in_code = set[int](), False
    for number, mark in enumerate(marks):
        name = mark["name"].lower()
        if in_code and not (mark["end"] and name == "code"):
            continue
        if name in ("*", "hr"):
            found.add(number)
        elif not mark["end"]:
            in_code = name == "code" and number < last_code
            opened.setdefault(name, []).append(number)
        elif opened.get(name):
            in_code = False
            found |= {opened[name].pop(), number}
    has_list = any(mark["name"].lower() == "list" for number, mark in enumerate(marks) if number in found)
    return [marks[number] for number in sorted(found) if has_list or marks[number]["name"] != "*"]


def flatten(value: Any) -> str:
    """Return JSON as lines of key and value. Keys that are named like secrets are left out."""
    return "\n".join(_lines("", value))


def _lines(name: str, value: Any, levels: int = MAX_TEXT_LEVELS) -> Iterator[str]:
    if not levels:
        raise ValueError("too many levels")
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
    """Return whether an object is one text in several languages, such as {"en_US": "Chair", "fr_FR": "Chaise"}. Keys
    that only look like codes, as in {"id": "7", "no": "A-12"}, are keys."""
    texts = all(one is None or isinstance(one, str) for one in value.values())
    return texts and not value.keys() <= LIKE_CODES and all(map(language_of, value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return html_text(value) if _is_html(value) else value.strip()
    return "" if value is None else json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def _characters(value: Any) -> str:
    if isinstance(value, str):
        if value.isascii() or not _ESCAPED_BYTES.search(value):
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
    if not what and (text := decode_text(_unpacked(value))):
        return text
    seen = "picture" in what or "video" in what
    remedy = "leave such rows out by `where`" if seen else "name another column, or give this one format file"
    raise NotText(f"holds {len(value):,} bytes that are no text ({what or 'no known kind of file'}): {remedy}")


def decode_text(value: bytes, charset: str = "") -> str | None:
    """Return the text of bytes in the charset that is given, or that they look like; None if they are no text. A mark
    at the beginning comes first, and then UTF-8: programs that name another charset for it are more frequent than texts
    that happen to be valid UTF-8, unless they are short, or have two bytes a character."""
    if mark := next((codec for mark, codec in BYTE_ORDER_MARKS.items() if value.startswith(mark)), None):
        return _decoded(value, mark)
    named = _codec(charset) or (_codec(found[1].decode()) if (found := _DECLARED.match(value)) else None)
    if named is not None and named.startswith(("utf-16", "utf-32")) and b"\0" not in value:
        named = None
    escaped = _ESCAPES.search(value)  # Japanese, Korean or Chinese in seven bits
    utf_8 = None if escaped else _decoded(value, "utf-8")
    signs = sum(sign > "\x7f" for sign in (utf_8 or "")[:1000])
    is_utf_8 = named is None or signs > 3 or (signs and _is_one_byte(named))
    text = utf_8 if named is None or is_utf_8 else _decoded(value, named)
    if text is None and not escaped:
        text = utf_8 or _repaired(value)
    if text is None and named is not None:
        text = _decoded(value, named, "replace")
    return _guessed(value) if text is None else text


def _codec(charset: str) -> str | None:
    if not charset:
        return None
    import webencodings

    charset = charset.partition("*")[0].strip(" \t\r\n\"';,").lower()  # a language may stand behind it
    for name in (charset, charset.removeprefix("x-"), charset.replace("-", "")):  # such as cp-850
        if (found := webencodings.lookup(name)) is not None and found.name not in ("replacement", "x-user-defined"):
            return str(found.codec_info.name)
        with suppress(LookupError, ValueError):
            b" ".decode(name)
            return codecs.lookup(name).name
    return None


def _is_one_byte(codec: str) -> bool:
    return len(bytes(range(128, 256)).decode(codec, "replace")) == 128


def _unpacked(value: bytes) -> bytes:
    """Return what gzip, zlib or deflate packed, the last as wikis keep it, without a header; other bytes as they are.
    Raises NotText."""
    has_head = value.startswith((b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"))
    if value.isascii() and not has_head:
        return value
    unpacker = zlib.decompressobj(47 if has_head else -15)  # 47 finds out which of the two it is
    try:
        unpacked = unpacker.decompress(value, MAX_BYTES)
    except zlib.error:
        return value
    if not has_head:
        is_whole = unpacker.eof and not unpacker.unused_data
        return unpacked if is_whole and _decoded(unpacked, "utf-8") else value
    if unpacked and not unpacker.eof and not value.endswith(b"\0\0\xff\xff"):  # a flush
        raise NotText(f"is cut off, or unpacks to more than {MAX_BYTES:,} bytes: index another column")
    return unpacked or value


def _decoded(value: bytes, charset: str, errors: str = "strict") -> str | None:
    """Return the text in a charset, None if it is none; with "replace", if nine of ten signs beyond ASCII are valid."""
    try:
        text = value.decode(charset, errors)
    except ValueError:
        return None
    if errors == "replace" and 10 * text.count("\ufffd") > sum(sign > "\x7f" for sign in text):
        return None
    return text if _has_no_controls(text) else None


def _has_no_controls(text: str) -> bool:
    sample = text[:4000]
    controls = sum(unicodedata.category(character) == "Cc" and character not in "\t\n\r\f" for character in sample)
    return controls <= len(sample) * MAX_CONTROLS


def _repaired(value: bytes) -> str | None:
    """Return UTF-8 with odd bytes, which were cut off or are of another program; None if more than half are odd."""
    text = value.decode("utf-8", "surrogateescape")
    odd = len(_ESCAPED_BYTES.findall(text))
    if not 0 < 2 * odd <= sum(sign > "\x7f" for sign in text) or not _has_no_controls(text):
        return None
    return _ESCAPED_BYTES.sub(lambda byte: bytes([ord(byte[0]) - 0xDC00]).decode("cp1252", "replace"), text)


def _guessed(value: bytes) -> str | None:
    import chardet

    found = chardet.detect(value, encoding_era=~chardet.EncodingEra.MAINFRAME, compat_names=False)
    if found["encoding"] is None:
        return None
    western = _decoded(value, "cp1252")
    if western and found["confidence"] < MIN_CONFIDENCE and not _BEYOND_ASCII.search(value):
        return western
    codec = _codec(found["encoding"]) or found["encoding"]
    return _decoded(value, codec) or _decoded(value, codec, "replace") or western
