"""Text as people read it: HTML, Markdown, BBCode, JSON and RTF without their marks, and bytes as
text."""

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

from rag_index.components.sources.markup import BLOCK, html_text, is_html, without_data
from rag_index.components.sources.secret_values import said_in_words
from rag_index.core.documents.text_languages import language_of
from rag_index.core.settings.index import is_named_like_a_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it import MarkdownIt

MAX_BYTES = 64_000_000
"""What a compressed value may become at most."""
MAX_CONTROLS = 0.01
"""The share of control characters above which bytes are no text."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The charsets by their marks. That of UTF-32 begins with that of UTF-16."""
MIN_CONFIDENCE = 0.12
"""A guess below it is none where signs beyond ASCII stand alone or in pairs, as in western
Europe."""
LIKE_CODES = frozenset(["id", "no"])
"""Codes of languages (Indonesian, Norwegian) that are more often the names of numbers."""
MIN_SECRET = 100
"""A smaller number is no secret."""
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
_ANY_MARK = re.compile(
    r"<[^<>]*+>|&#?\w++;|\]\([^()\n]*+\)|^"
    r" {0,3}\[[^\[\]\n]*+\]:.*+|\[/?[a-z*]++(?:=[^\[\]\n]*+)?\](?!\()",
    re.IGNORECASE | re.MULTILINE,
)
"""What may be a mark of any format: the letters outside are those of its text."""
_ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
_MARKS = re.compile(rb"<[a-z/!][^<>\x80-\xff]*>", re.IGNORECASE)
"""Marks of HTML, whose letters look like another language than those of the text."""
_TWO_BEYOND_ASCII = re.compile(rb"[\x80-\xff]{2}")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]{3}")
_ESCAPES = re.compile(rb"\x1b(?:\$|\([BIJ])|~\{[!-}]")
_DECLARED = re.compile(
    rb"\s*(?:<[^\0]{0,4000}?)??<(?:\?xml|meta)\b[^<>]*?\b(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)",
    re.IGNORECASE,
)
"""The charset that HTML or XML names itself."""
_BBCODE_NAMES = frozenset(
    [
        "b",
        "i",
        "u",
        "s",
        "url",
        "img",
        "quote",
        "code",
        "list",
        "size",
        "color",
        "font",
        "email",
        "left",
        "right",
        "center",
        "spoiler",
        "youtube",
        "table",
        "tr",
        "td",
        "attachment",
        "indent",
        "hr",
        "sub",
        "sup",
        "*",
    ]
)
_BBCODE = re.compile(
    r"\[(?P<end>/?)(?P<name>\*|[a-z]++)(?P<value>(?:[=: ](?:[^\[\]\n]|\[[^\[\]\n]*+\])*+)?)\]",
    re.IGNORECASE,
)
_BBCODE_HTML = {
    "code": "<pre>",
    "/code": "</pre>",
    "quote": "<blockquote>",
    "/quote": "</blockquote>",
    "*": "<li>",
    "td": " | ",
    **{name: f"<{name}>" for name in ("sub", "/sub", "sup", "/sup")},
    **dict.fromkeys(
        ("tr", "/tr", "list", "/list", "hr", "center", "/center", "indent", "/indent"), "<br>"
    ),
}
_AUTHOR = re.compile(r"=\s*(?:&quot;|[\"'])?([^\"'&]+)")
_ELEMENTS_OF_BBCODE = re.compile(
    r"<(/?)(?:(CODE)|(LIST)|QUOTE)(?: author=\"([^\"]*)\")?(?:\s[^<>]*+)?>"
)
_MARKS_OF_ELEMENTS = re.compile(r"<([se])>[^<>]*+</\1>")
"""The marks themselves, as newer forums keep them."""
_MARKDOWN = re.compile(
    r"(?m)^#{1,6} \S|^```|^ {0,3}[-*+] \S|^>\s|\*\*[^*\n]++\*\*|\[[^\[\]\n]++\]\(\S|^\|[^\n]*\|$"
)
_DEFINITION = re.compile(
    r"\s*\[[^\[\]]*+\]:\s*<?(?:[a-z][a-z\d+.-]*:|[/#.?]|[\w-]+\.\w)", re.IGNORECASE
)
"""A definition of a link in Markdown. Other words in brackets with a colon are quoted speech."""
_SERIALISED = re.compile(
    r"(?:[aOC]:\d+:[{\"].*\}|s:\d+:\".*\";|[bi]:\d+;)\s*\Z|---"
    r" !ruby/|\{\"py/object\"|rO0AB[\w+/=\s]+\Z",
    re.DOTALL,
)
_PHP_TEXT, _PHP_OBJECT = re.compile(rb"s:(\d{1,9}):\""), re.compile(rb"[aOC]:\d+:[{\"]")
_SAID = re.compile(
    r"[^\W\d_][,;:.!?)\"']*\s+[(\"']?[^\W\d_]|\A\s*[A-Z][a-z]{2,}\s*\Z|[^\W\d_\x00-\x7f]"
)
"""Two words, one in capitals and small letters, or letters beyond ASCII."""

_RTF = re.compile(
    r"\\(?:\*\s*\\)?([a-z]{1,32})(-?\d{1,10})? ?|([{}])|((?:\\'[0-9a-f]{2}["
    r" -\[\]-z|~]*+)++|[^\\{}\r\n]+)|\\(\W)",
    re.IGNORECASE,
)
"""A control word, a brace, characters (the second byte of one may be a letter), or a control sign
of RTF."""
_RTF_FONT = re.compile(r"\\f(\d+)(?:\\(?!fcharset)[a-z]+-?\d* ?)*\\fcharset(\d+)")
_RTF_CHARSETS = {
    "77": "mac_roman",
    "128": "cp932",
    "129": "cp949",
    "134": "gbk",
    "136": "big5",
    "161": "cp1253",
    "162": "cp1254",
    "177": "cp1255",
    "178": "cp1256",
    "186": "cp1257",
    "204": "cp1251",
    "222": "cp874",
    "238": "cp1250",
}
_RTF_LEFT_OUT = frozenset(
    [
        "bkmkstart",
        "bkmkend",
        "colortbl",
        "datafield",
        "deleted",
        "fldinst",
        "filetbl",
        "fonttbl",
        "ftnsep",
        "info",
        "listtable",
        "mmathpict",
        "nonshppict",
        "objdata",
        "pict",
        "shprslt",
        "sp",
        "stylesheet",
        "tc",
        "v",
        "xe",
    ]
)
"""What begins text that nobody sees. Behind `\\*` all does but remarks, formulas and boxes of
text."""
_RTF_SIGNS = {
    **dict.fromkeys(
        ("par", "sect", "page", "line", "row", "nestrow", "header", "footer", "shptxt", "\n", "\r"),
        "\n",
    ),
    **dict.fromkeys(("tab", "emspace", "enspace", "footnote", "annotation", "~"), " "),
    "\\": "\\",
    "{": "{",
    "}": "}",
    "cell": " | ",
    "nestcell": " | ",
    "emdash": "\u2014",
    "endash": "\u2013",
    "bullet": "\u2022",
    "lquote": "\u2018",
    "rquote": "\u2019",
    "ldblquote": "\u201c",
    "rdblquote": "\u201d",
    "super": "^",
    "_": "-",
}


class NotText(ValueError):
    """A value has no text; the message says what it is instead."""


def read_text(value: Any, form: str = "plain") -> str:
    """Return the text of a value as people read it; "" for None, and for an object without text.
    `form` is one of `Format`: how the text is written. With "auto" the value itself decides. RTF is
    read in any of them. Bytes are unpacked (gzip, deflate) and decoded: UTF-8 and UTF-16, else the
    charset that they look like. Raises NotText if the value is, or holds, bytes that are no
    text."""
    if value is None:
        return ""
    if isinstance(value, dict | list):
        is_plain = isinstance(value, list) and not any(
            isinstance(item, dict) for item in value
        )  # an array
        with suppress(ValueError):
            if is_plain or form in ("json", "auto"):
                return flatten(value)
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    text = _characters(value)
    if is_rtf(text):
        return rtf_text(text)
    if form == "auto":
        form = find_format(text)
    readers = {"html": html_text, "markdown": markdown_text, "bbcode": bbcode_text}
    if form in readers:
        return readers[form](text)
    if form == "json":
        with suppress(ValueError, RecursionError):  # no JSON
            return flatten(json.loads(text))
    return serialised_text(text) if form == "serialised" else text


def is_rtf(text: str) -> bool:
    """Return whether a text is RTF, by its beginning."""
    return "{\\rtf" in text[:40] and text.lstrip("\ufeff\0 \t\r\n").startswith("{\\rtf")


def rtf_text(text: str) -> str:
    """Return the text of RTF without pictures and hidden text; text behind its end stays.
    `striprtf` takes the cube of the time for links without an end, raises for bytes that a code
    page lacks, and leaves notes out."""
    page = re.search(r"\\ansicpg(\d+)|\\(mac)\b", text[:1000])
    usual = (find_codec(f"cp{page[1]}") if page and page[1] else page and "mac_roman") or "cp1252"
    fonts = {name: _RTF_CHARSETS.get(charset, usual) for name, charset in _RTF_FONT.findall(text)}
    pieces, outer, ignored = list[str](), list[tuple[bool, str, int]](), 0
    unseen, codec, behind = False, usual, 1
    for token in _RTF.finditer(text):
        word, number, brace, run, sign = token.groups()
        word = (word or sign or "").lower()
        if brace == "{":
            outer.append((unseen, codec, behind))
        elif brace:
            unseen, codec, behind = outer.pop()
            if not outer:
                pieces.append(text[token.end() :])
                break
        elif word in _RTF_LEFT_OUT or (
            token[0].startswith("\\*") and word not in ("annotation", "momath", "shpinst")
        ):
            unseen = number != "0"
        elif word == "uc":
            behind = int(number or 1)
        elif word == "f":
            codec = fonts.get(number, usual)
        elif not unseen and run:
            run = re.sub(r"\\'..|.", "", run, count=ignored) if ignored else run
            byte = re.sub(r"\\'(..)", lambda code: chr(int(code[1], 16)), run)
            pieces.append(byte.encode("latin-1").decode(codec, "replace") if byte != run else run)
        elif not unseen and number != "0":
            pieces.append(
                chr(int(number) % 0x10000) if word == "u" and number else _RTF_SIGNS.get(word, "")
            )
        ignored = behind if word == "u" else 0
    whole = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "\n".join(line.strip(" ").removesuffix(" |") for line in whole.split("\n")).strip(
        "\0\n "
    )


def letters_left_out(value: Any, form: str) -> tuple[int, int]:
    """Return how many letters a value has outside of marks, and how many of them its text in a
    format lacks. Bytes, RTF and objects have none."""
    if form == "auto" and isinstance(value, str):
        form = find_format(value)
    whole = ""
    if form == "json" or isinstance(value, dict | list):
        with suppress(ValueError, RecursionError, NotText):
            whole = flatten(
                value if isinstance(value, dict | list) else json.loads(_characters(value)),
                secrets=True,
            )
    elif isinstance(value, str) and form != "serialised" and not is_rtf(value):
        whole = value if form == "plain" else _ANY_MARK.sub("", value)
    letters, read = (
        sum(map(str.isalpha, whole)),
        without_data(read_text(value, form)) if whole else "",
    )
    return letters, max(0, letters - sum(map(str.isalpha, read)))


def serialised_text(text: str) -> str:
    """Return what people read in an object that PHP serialised, a line each, without keys; "" for
    other objects."""
    found = [_scalar(one) for one in _php_texts(text.encode("utf-8", "replace"))]
    pairs = zip(["", *found], found, strict=False)
    texts = (said_in_words(key, one) if is_named_like_a_secret(key) else one for key, one in pairs)
    return "\n".join(one for one in texts if _SAID.search(one))


def _php_texts(value: bytes) -> Iterator[str]:
    """Yield the texts of an object, each as long as it says or, if another program changed it, up
    to the next `";`."""
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


def find_format(text: str) -> str:
    """Return the format of a text by its looks: one of `Format` but "auto", or "serialised" for an
    object. Marks that Markdown shows as code say nothing, and neither does what would rob a text of
    letters: `a[i]`, `<name>`."""
    start = text[:200].lstrip()
    if _SERIALISED.match(text.lstrip()):
        return "serialised"
    if start.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return "json"
    if start.startswith(("<r>", "<t>")):
        return "bbcode"
    has_html, is_bbcode = is_html(text), any(mark["end"] for mark in _bbcode_marks(text))
    if (has_html or is_bbcode) and _shows_marks(text, in_fences=start.startswith("<")):
        return "markdown"
    is_markdown = len(_MARKDOWN.findall(text)) >= 2
    if is_bbcode:
        return "bbcode"
    return (
        "html"
        if has_html and not (is_markdown and not BLOCK.search(text))
        else "markdown"
        if is_markdown
        else "plain"
    )


def _shows_marks(text: str, *, in_fences: bool) -> bool:
    """Return whether a text is Markdown with marks of another format in its code, or `in_fences` of
    code alone."""
    if "`" not in text and "~~~" not in text:
        return False
    blocks = _markdown().parse(text)
    code = [block for block in blocks if block.type == "fence"]
    if not in_fences:
        code += [
            one for block in blocks for one in block.children or () if one.type == "code_inline"
        ]
    return any(sign in one.content for one in code for sign in "<[&")


def markdown_text(text: str) -> str:
    """Return the text of Markdown without its marks; links without addresses, tables as lines, code
    as it is."""
    blocks = _markdown().parse(text)
    if any(block.level >= MAX_TEXT_LEVELS - 1 for block in blocks):
        return text
    return html_text(_markdown().renderer.render(blocks, _markdown().options, {}))


@functools.cache
def _markdown() -> MarkdownIt:
    """Return a reader of Markdown that takes every address, and no words in brackets with a colon
    for one."""
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock, reference

    def defines(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        text = state.src[state.bMarks[start] : state.eMarks[min(start + 2, end) - 1]]
        return _DEFINITION.match(text) is not None and reference(state, start, end, silent)

    reader = MarkdownIt("commonmark", {"maxNesting": MAX_TEXT_LEVELS}).enable(
        ["table", "strikethrough"]
    )
    reader.validateLink = lambda _: True  # type: ignore[method-assign, assignment]
    reader.block.ruler.at("reference", defines)
    return reader


def bbcode_text(text: str) -> str:
    """Return the text of BBCode, which may be mixed with HTML and entities. Code stays as it is."""
    if text.startswith(("<r>", "<t>")):
        text = _ELEMENTS_OF_BBCODE.sub(_element, _MARKS_OF_ELEMENTS.sub("", text))
        return html_text(text, lines=True, elements=None)
    is_mixed, pieces, done = is_html(text), list[str](), 0

    def add(part: str) -> None:
        pieces.append(part if is_mixed else part.replace("<", "&lt;"))

    for mark in _bbcode_marks(text):
        name, start = mark["name"].lower(), mark.start()
        if start < done:
            continue
        if (
            mark["end"]
            and name in ("img", "attachment", "youtube")
            and not re.search(r"\s", text[done:start])
        ):
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
    """Return the marks of a text in order, without those in code: each begins what another ends, or
    stands alone."""
    marks = [mark for mark in _BBCODE.finditer(text) if mark["name"].lower() in _BBCODE_NAMES]
    last_code = max(
        (n for n, mark in enumerate(marks) if mark["end"] and mark["name"].lower() == "code"),
        default=-1,
    )
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
    has_list = any(
        mark["name"].lower() == "list" for number, mark in enumerate(marks) if number in found
    )
    return [marks[number] for number in sorted(found) if has_list or marks[number]["name"] != "*"]


def flatten(value: Any, *, secrets: bool = False) -> str:
    """Return JSON as lines of key and value. What keys name as a secret is left out unless it is
    said in words, or all `secrets` are asked for."""
    return "\n".join(_lines("", value, None if secrets else ""))


def _lines(
    name: str, value: Any, secret: str | None, levels: int = MAX_TEXT_LEVELS
) -> Iterator[str]:
    """Yield the lines of a value with this key, which is below a key that is named like a `secret`,
    if any."""
    if not levels:
        raise ValueError("too many levels")
    label = f"{name}: " if name else ""
    if isinstance(value, dict):
        is_one = _is_by_language(value)
        for key, inner in value.items():
            named = (
                str(key)
                if secret is not None and not is_one and is_named_like_a_secret(str(key))
                else secret
            )
            yield from _lines(name if is_one else str(key), inner, named, levels - 1)
    elif isinstance(value, list) and any(isinstance(inner, dict | list) for inner in value):
        for inner in value:
            yield from _lines(name, inner, secret, levels - 1)
    else:
        values = value if isinstance(value, list) else [value]
        if texts := [
            text
            for inner in values
            if (text := _said(name, inner, secret) if secret else _scalar(inner))
        ]:
            yield f"{label}{', '.join(texts)}"


def _said(name: str, value: Any, secret: str) -> str:
    text = _scalar(value)
    if isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < MIN_SECRET):
        return text
    return said_in_words(secret, text, is_field=name != secret)


def _is_by_language(value: dict[Any, Any]) -> bool:
    """Return whether an object is one text in several languages, such as {"en_US": "Chair",
    "fr_FR": "Chaise"}. Keys that only look like codes, as in {"id": "7", "no": "A-12"}, are
    keys."""
    texts = all(one is None or isinstance(one, str) for one in value.values())
    return texts and not value.keys() <= LIKE_CODES and all(map(language_of, value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return html_text(value) if is_html(value) else value.strip()
    return (
        ""
        if value is None
        else json.dumps(value)
        if isinstance(value, bool | int | float)
        else str(value)
    )


def _characters(value: Any) -> str:
    if isinstance(value, str):
        if value.isascii() or not _ESCAPED_BYTES.search(value):
            return value
        value = value.encode(
            "utf-8", "surrogateescape"
        )  # bytes of a text column that are not UTF-8
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
    remedy = (
        "leave such rows out by `where`"
        if seen
        else "name another column, or give this one format file"
    )
    raise NotText(
        f"holds {len(value):,} bytes that are no text ({what or 'no known kind of file'}): {remedy}"
    )


def decode_text(value: bytes, charset: str = "") -> str | None:
    """Return the text of bytes in the charset that is given, or that they look like; None if they
    are no text. A mark at the beginning comes first, and then UTF-8: programs that name another
    charset for it are more frequent than texts that happen to be valid UTF-8, unless they are
    short, or have two bytes a character."""
    if mark := next(
        (codec for mark, codec in BYTE_ORDER_MARKS.items() if value.startswith(mark)), None
    ):
        return _decoded(value, mark)
    named = find_codec(charset) or (
        find_codec(found[1].decode()) if (found := _DECLARED.match(value)) else None
    )
    if named is not None and named.startswith(("utf-16", "utf-32")) and b"\0" not in value:
        named = None
    # "utf-16" without a mark, in either order: the zero bytes are the first ones of ASCII, or the
    # second ones.
    if named is not None and named.startswith("utf-16"):
        named = "utf-16-be" if value[::2].count(0) > value[1::2].count(0) else "utf-16-le"
    escaped = _ESCAPES.search(value)  # Japanese, Korean or Chinese in seven bits
    utf_8 = None if escaped else _decoded(value, "utf-8")
    signs = sum(sign > "\x7f" for sign in (utf_8 or "")[:1000])
    is_utf_8 = named is None or signs > 3 or (signs and _is_one_byte(named))
    text = utf_8 if named is None or is_utf_8 else _decoded(value, named)
    if text is None and not escaped:
        text = utf_8 or _repaired(value)
    # Odd bytes within Shift_JIS, GBK and others of two bytes a character: the other bytes show that
    # it is that.
    if text is None and named is not None and not _is_one_byte(named):
        text = _decoded(value, named, "replace")
    # "iso-8859-1" with a byte that it lacks: the other bytes are letters in it, whatever they stand
    # for.
    if text is None:
        text = _guessed(value)
    if text is None and named is not None:
        text = _decoded(value, named, "replace")
    return text


def text_in(value: bytes, codec: str) -> str | None:
    """Return the text of bytes that are said to be in a charset, with a mark for each invalid one.
    Return None if no letter beyond ASCII shows that they are in it, or if they are no text."""
    text = value.decode(codec, "replace")
    is_shown = any(sign > "\x7f" and sign != "\N{REPLACEMENT CHARACTER}" for sign in text)
    return text if is_shown and _has_no_controls(text) else None


def find_codec(charset: str) -> str | None:
    """Return the name of Python's codec for a charset, None if there is none. None for ASCII, too,
    which browsers read as Windows-1252: its name says nothing about bytes in eight bits."""
    if not charset:
        return None
    import webencodings

    charset = (
        charset.partition("*")[0].strip(" \t\r\n\"';,").lower()
    )  # a language may stand behind it
    for name in (charset, charset.removeprefix("x-"), charset.replace("-", "")):  # such as cp-850
        with suppress(LookupError, ValueError):
            if codecs.lookup(name).name == "ascii":
                return None
        if (found := webencodings.lookup(name)) is not None and found.name not in (
            "replacement",
            "x-user-defined",
        ):
            return str(found.codec_info.name)
        with suppress(LookupError, ValueError):
            b" ".decode(name)
            return codecs.lookup(name).name
    return None


def _is_one_byte(codec: str) -> bool:
    return len(bytes(range(128, 256)).decode(codec, "replace")) == 128


def _unpacked(value: bytes) -> bytes:
    """Return what gzip, zlib or deflate packed, the last as wikis keep it, without a header; other
    bytes as they are. Raises NotText."""
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
        raise NotText(
            f"is cut off, or unpacks to more than {MAX_BYTES:,} bytes: index another column"
        )
    return unpacked or value


def _decoded(value: bytes, charset: str, errors: str = "strict") -> str | None:
    """Return the text in a charset, None if it is none; with "replace", if nine of ten signs beyond
    ASCII are valid."""
    try:
        text = value.decode(charset, errors)
    except ValueError:
        return None
    if errors == "replace" and 10 * text.count("\ufffd") > sum(sign > "\x7f" for sign in text):
        return None
    return text if _has_no_controls(text) else None


def _has_no_controls(text: str) -> bool:
    sample = text[:4000]
    controls = sum(
        unicodedata.category(character) == "Cc" and character not in "\t\n\r\f"
        for character in sample
    )
    return controls <= len(sample) * MAX_CONTROLS


def _repaired(value: bytes) -> str | None:
    """Return UTF-8 with odd bytes, which were cut off or are of another program; None if more than
    half are odd."""
    text = value.decode("utf-8", "surrogateescape")
    odd = len(_ESCAPED_BYTES.findall(text))
    if not 0 < 2 * odd <= sum(sign > "\x7f" for sign in text) or not _has_no_controls(text):
        return None
    return _ESCAPED_BYTES.sub(
        lambda byte: bytes([ord(byte[0]) - 0xDC00]).decode("cp1252", "replace"), text
    )


def find_charset(value: bytes) -> str | None:
    """Return the name of Python's codec for the charset that bytes look like; None if they look
    like none."""
    import chardet

    sample = value
    if b"\0" not in value and not value.isascii():  # neither UTF-16 nor ISO-2022
        sample = _MARKS.sub(b" ", value)
    found = chardet.detect(sample, encoding_era=~chardet.EncodingEra.MAINFRAME, compat_names=False)
    if found["encoding"] is None:
        return None
    is_weak = found["confidence"] < MIN_CONFIDENCE and not _BEYOND_ASCII.search(value)
    if is_weak and _decoded(value, "cp1252"):
        return "cp1252"
    return find_codec(found["encoding"]) or str(found["encoding"])


def _guessed(value: bytes) -> str | None:
    codec = find_charset(value)
    if codec is None:
        return None
    text = _decoded(value, codec) or _decoded(value, codec, "replace")
    # "5 €": a letter alone is of no script that has no other letter here.
    is_alone = not value.isascii() and not _TWO_BEYOND_ASCII.search(value)
    if text is None or (is_alone and _has_other_scripts(text)):
        text = _decoded(value, "cp1252") or text
    return text


def _has_other_scripts(text: str) -> bool:
    """Return whether a text has letters that are not Latin ones."""
    letters = {sign for sign in text if sign > "\x7f" and sign.isalpha()}
    return any(not unicodedata.name(sign, "LATIN").startswith("LATIN") for sign in letters)
