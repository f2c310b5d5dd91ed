"""Text as people read it: HTML, Markdown, BBCode, JSON, RTF and serialised objects without their
markup; and bytes as text."""

from __future__ import annotations

import functools
import json
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.bbcode import bbcode_tags, bbcode_text
from rag_index.components.sources.charsets import (
    ESCAPED_BYTES,
    decode_text,
    decoded,
    find_codec,
)
from rag_index.components.sources.markup import BLOCK, html_text, is_html, without_data
from rag_index.components.sources.secret_values import masked_prose
from rag_index.core.documents.text_languages import language_of
from rag_index.core.settings.index import is_named_like_a_secret

if TYPE_CHECKING:
    from collections.abc import Iterator

    from markdown_it import MarkdownIt

MAX_BYTES = 64_000_000
"""The most bytes to which a compressed value is unpacked (chosen; nothing depends on it)."""
LIKE_CODES = frozenset(["id", "no"])
"""Codes of languages (Indonesian, Norwegian) that are more often the names of numbers."""
MIN_SECRET = 100
"""A number with a smaller absolute value is not treated as a secret: it is a count or a switch."""
MAX_TEXT_LEVELS = 100
"""JSON, and the lists and quotes of Markdown, with more levels are not converted. Far below the
limit of Python's recursion."""
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
_ANY_MARKUP = re.compile(
    r"<[^<>]*+>|&#?\w++;|\]\([^()\n]*+\)|^"
    r" {0,3}\[[^\[\]\n]*+\]:.*+|\[/?[a-z*]++(?:=[^\[\]\n]*+)?\](?!\()",
    re.IGNORECASE | re.MULTILINE,
)
"""What may be markup of any format: the letters outside of it are those of the text."""
_MARKDOWN = re.compile(
    r"(?m)^#{1,6} \S|^```|^ {0,3}[-*+] \S|^>\s|\*\*[^*\n]++\*\*|\[[^\[\]\n]++\]\(\S|^\|[^\n]*\|$"
)
_DEFINITION = re.compile(
    r"\s*\[[^\[\]]*+\]:\s*<?(?:[a-z][a-z\d+.-]*:|[/#.?]|[\w-]+\.\w)", re.IGNORECASE
)
"""A definition of a link in Markdown. Other words in brackets with a colon are quoted speech:
`[Ann]: yes`."""
_SERIALISED = re.compile(
    r"(?:[aOC]:\d+:[{\"].*\}|s:\d+:\".*\";|[bi]:\d+;)\s*\Z|---"
    r" !ruby/|\{\"py/object\"|rO0AB[\w+/=\s]+\Z",
    re.DOTALL,
)
_PHP_TEXT, _PHP_OBJECT = re.compile(rb"s:(\d{1,9}):\""), re.compile(rb"[aOC]:\d+:[{\"]")
_HAS_WORDS = re.compile(
    r"[^\W\d_][,;:.!?)\"']*\s+[(\"']?[^\W\d_]|\A\s*[A-Z][a-z]{2,}\s*\Z|[^\W\d_\x00-\x7f]"
)
"""Words for people in a serialised object: two words, a single word with a capital, or letters
beyond ASCII."""

_RTF = re.compile(
    r"\\(?:\*\s*\\)?([a-z]{1,32})(-?\d{1,10})? ?|([{}])|((?:\\'[0-9a-f]{2}["
    r" -\[\]-z|~]*+)++|[^\\{}\r\n]+)|\\(\W)",
    re.IGNORECASE,
)
"""A token of RTF: a control word with its number, a brace, characters (the second byte of a
character may be a letter), or a control symbol."""
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
"""Control words behind which text is hidden, up to the end of their group."""
_RTF_SHOWN = frozenset(["annotation", "momath", "shpinst"])
"""Control words behind `\\*` whose text is shown: remarks, formulas and text boxes. Behind `\\*`
and any other word, text is hidden."""
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


@dataclass(slots=True)
class _RtfGroup:
    """The state of a group of RTF, which is what stands between braces."""

    is_hidden: bool
    codec: str
    """Python's name for the charset of the font."""
    substitutes: int
    """The number of characters that stand behind each `\\u` for programs without Unicode."""


def read_text(value: Any, form: str = "plain") -> str:
    """Return the text of a value as people read it.

    The text of None, and of an object without text, is empty. RTF is detected in every format.
    Bytes are unpacked (gzip, deflate) and decoded: as UTF-8 or UTF-16, otherwise in the charset
    that they look like.

    Args:
        form: How the text is written: one of `Format`. With "auto", `find_format` decides.

    Raises:
        NotText: If the value is, or holds, bytes that are not text.
    """
    if value is None:
        return ""
    if isinstance(value, dict | list):
        return _object_text(value, form)
    text = _characters(value)
    if is_rtf(text):
        return rtf_text(text)
    if form == "auto":
        form = find_format(text)
    readers = {
        "html": html_text,
        "markdown": markdown_text,
        "bbcode": bbcode_text,
        "serialised": serialised_text,
    }
    if form in readers:
        return readers[form](text)
    if form == "json":
        with suppress(ValueError, RecursionError):  # not JSON, or of too many levels
            return flatten(json.loads(text))
    return text


def _object_text(value: dict[Any, Any] | list[Any], form: str) -> str:
    """Return the text of a value of a JSON column, or of an array."""
    is_array = isinstance(value, list) and not any(isinstance(item, dict) for item in value)
    with suppress(ValueError):
        if is_array or form in ("json", "auto"):
            return flatten(value)
    # another format, or too many levels
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def is_rtf(text: str) -> bool:
    """Return whether a text is RTF, by its beginning."""
    # most texts are not: only the others are stripped, which copies them
    if "{\\rtf" not in text[:40]:
        return False
    return text.lstrip("\ufeff\0 \t\r\n").startswith("{\\rtf")


def rtf_text(text: str) -> str:
    """Return the text of RTF without pictures and hidden text. Text behind its end stays.

    `striprtf` is not used: it needs cubic time for links without an end, raises for bytes that a
    code page lacks, and leaves notes out.
    """
    usual = _rtf_codec(text)
    fonts = {name: _RTF_CHARSETS.get(charset, usual) for name, charset in _RTF_FONT.findall(text)}
    pieces = list[str]()
    outer = list[_RtfGroup]()
    group = _RtfGroup(is_hidden=False, codec=usual, substitutes=1)
    ignored = 0
    for token in _RTF.finditer(text):
        word, number, brace, run, sign = token.groups()
        word = (word or sign or "").lower()
        if brace == "{":
            outer.append(group)
            group = _RtfGroup(group.is_hidden, group.codec, group.substitutes)
        elif brace:
            group = outer.pop()
            # the end of the document
            if not outer:
                pieces.append(text[token.end() :])
                break
        # \pict, or \*\generator; \v0 shows again what \v hides
        elif word in _RTF_LEFT_OUT or (token[0].startswith("\\*") and word not in _RTF_SHOWN):
            group.is_hidden = number != "0"
        # \uc2
        elif word == "uc":
            group.substitutes = int(number or 1)
        # \f1
        elif word == "f":
            group.codec = fonts.get(number, usual)
        elif run and not group.is_hidden:
            pieces.append(_rtf_run(run, ignored, group.codec))
        # \par, \u8364; \super0 ends what \super begins
        elif number != "0" and not group.is_hidden:
            pieces.append(_rtf_sign(word, number))
        ignored = group.substitutes if word == "u" else 0
    # \u55357\u56832: a character beyond the first 65,536 is written as two surrogates
    joined = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    lines = [line.strip(" ").removesuffix(" |") for line in joined.split("\n")]
    return "\n".join(lines).strip("\0\n ")


def _rtf_codec(text: str) -> str:
    """Return Python's name for the charset that the head of an RTF text names."""
    named = re.search(r"\\ansicpg(\d+)|\\(mac)\b", text[:1000])
    if named is None:
        return "cp1252"
    # \mac
    if named[2]:
        return "mac_roman"
    # \ansicpg1250
    return find_codec(f"cp{named[1]}") or "cp1252"


def _rtf_run(run: str, ignored: int, codec: str) -> str:
    """Return the text of a run of characters, without the first `ignored` ones."""
    if ignored:
        run = re.sub(r"\\'..|.", "", run, count=ignored)
    # most runs have no byte in hexadecimal: caf\'e9
    if "\\'" not in run:
        return run
    characters = re.sub(r"\\'(..)", lambda code: chr(int(code[1], 16)), run)
    return characters.encode("latin-1").decode(codec, "replace")


def _rtf_sign(word: str, number: str | None) -> str:
    """Return the text for which a control word stands."""
    # \u-3913: numbers above 32,767 are written as negative ones
    if word == "u" and number:
        return chr(int(number) % 0x10000)
    return _RTF_SIGNS.get(word, "")


def letters_left_out(value: Any, form: str) -> tuple[int, int]:
    """Count the letters that reading a value in a format leaves out.

    Return the number of letters outside of markup, and how many of them the text lacks. Both are 0
    for bytes, RTF and serialised objects.
    """
    if form == "auto" and isinstance(value, str):
        form = find_format(value)
    outside = _outside_markup(value, form)
    if not outside:
        return 0, 0
    letters = sum(map(str.isalpha, outside))
    shown = without_data(read_text(value, form))
    lacking = letters - sum(map(str.isalpha, shown))
    return letters, max(0, lacking)


def _outside_markup(value: Any, form: str) -> str:
    """Return everything in a value that is not markup, including secrets in JSON."""
    is_object = isinstance(value, dict | list)
    if is_object or form == "json":
        with suppress(ValueError, RecursionError, NotText):
            parsed = value if is_object else json.loads(_characters(value))
            return flatten(parsed, secrets=True)
        return ""
    if not isinstance(value, str) or form == "serialised" or is_rtf(value):
        return ""
    if form == "plain":
        return value
    return _ANY_MARKUP.sub("", value)


def serialised_text(text: str) -> str:
    """Return the words for people in an object that PHP serialised, a line for each text.

    Keys are left out. The result is empty for objects of other languages.
    """
    lines = list[str]()
    # in an object, the name of an attribute stands before its value
    name = ""
    for found in _php_texts(text.encode("utf-8", "replace")):
        value = _scalar(found)
        line = masked_prose(name, value) if is_named_like_a_secret(name) else value
        if _HAS_WORDS.search(line):
            lines.append(line)
        name = value
    return "\n".join(lines)


def _php_texts(value: bytes) -> Iterator[str]:
    """Yield the texts of an object that PHP serialised: `s:5:"Chair";`.

    A text has the length that is written before it. If another program changed the text, it ends at
    the next `";`.
    """
    place = 0
    while found := _PHP_TEXT.search(value, place):
        start = found.end()
        end = start + int(found[1])
        if not value.startswith(b'";', end):
            end = value.find(b'";', start)
        if end < 0:
            return
        # s:20:"a:1:{i:0;s:3:"abc";}": an object within the object
        if _PHP_OBJECT.match(value, start):
            place = start
        else:
            place = end
            yield value[start:end].decode("utf-8", "replace")


def find_format(text: str) -> str:
    """Return the format of a text by its looks: one of `Format` but "auto", or "serialised".

    Tags that Markdown shows as code are ignored, and so is what would cost a text letters: `a[i]`,
    `<name>`.
    """
    start = text[:200].lstrip()
    if _SERIALISED.match(text.lstrip()):
        return "serialised"
    if start.startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            json.loads(text)
            return "json"
    # "<r>See <URL url=...>": posts of newer forums
    if start.startswith(("<r>", "<t>")):
        return "bbcode"
    has_html = is_html(text)
    has_bbcode = any(tag["end"] for tag in bbcode_tags(text))
    # Markdown about HTML: "Use `<br>` to ..."
    has_tags = has_html or has_bbcode
    if has_tags and _shows_tags(text, only_fences=start.startswith("<")):
        return "markdown"
    if has_bbcode:
        return "bbcode"
    is_markdown = len(_MARKDOWN.findall(text)) >= 2
    # "# Notes\n\n- one<br>two": a few tags within Markdown
    if is_markdown and not (has_html and BLOCK.search(text)):
        return "markdown"
    return "html" if has_html else "plain"


def _shows_tags(text: str, *, only_fences: bool) -> bool:
    """Return whether a text is Markdown with tags of another format in its code.

    Args:
        only_fences: Whether only blocks between fences are searched, not code within a line.
    """
    if "`" not in text and "~~~" not in text:
        return False
    blocks = _markdown().parse(text)
    code = [block.content for block in blocks if block.type == "fence"]
    if not only_fences:
        for block in blocks:
            inline = block.children or ()
            code += [child.content for child in inline if child.type == "code_inline"]
    return re.search(r"[<\[&]", "".join(code)) is not None


def markdown_text(text: str) -> str:
    """Return the text of Markdown without its markup: links without addresses, tables as lines,
    code as it is."""
    blocks = _markdown().parse(text)
    if any(block.level >= MAX_TEXT_LEVELS - 1 for block in blocks):
        return text
    return html_text(_markdown().renderer.render(blocks, _markdown().options, {}))


@functools.cache
def _markdown() -> MarkdownIt:
    """Return a parser of Markdown.

    It accepts every address, and does not take words in brackets with a colon for a link.
    """
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock, reference

    def defines(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        last = min(start + 2, end) - 1
        text = state.src[state.bMarks[start] : state.eMarks[last]]
        if _DEFINITION.match(text) is None:
            return False
        return reference(state, start, end, silent)

    parser = MarkdownIt("commonmark", {"maxNesting": MAX_TEXT_LEVELS})
    parser.enable(["table", "strikethrough"])
    parser.validateLink = lambda _: True  # type: ignore[method-assign, assignment]
    parser.block.ruler.at("reference", defines)
    return parser


def flatten(value: Any, *, secrets: bool = False) -> str:
    """Return JSON as lines of key and value.

    A value below a key that is named like a secret is left out unless it is words. With `secrets`,
    nothing is left out.
    """
    secret = None if secrets else ""
    return "\n".join(_lines("", value, secret))


def _lines(
    name: str, value: Any, secret: str | None, levels: int = MAX_TEXT_LEVELS
) -> Iterator[str]:
    """Yield the lines of a value.

    Args:
        name: The key of the value, "" if it has none.
        secret: The key around the value that is named like a secret; "" if there is none, and None
            if such keys do not matter.
        levels: The number of levels that the value may have.

    Raises:
        ValueError: If the value has more levels.
    """
    if not levels:
        raise ValueError("too many levels")
    if isinstance(value, dict):
        # {"en_US": "Chair", "fr_FR": "Chaise"}: both lines have the key of the object
        is_by_language = _is_by_language(value)
        for key, inner in value.items():
            label = name if is_by_language else str(key)
            inner_secret = secret
            if secret is not None and not is_by_language and is_named_like_a_secret(label):
                inner_secret = label
            yield from _lines(label, inner, inner_secret, levels - 1)
        return
    values = value if isinstance(value, list) else [value]
    # an array of objects: [{"name": "Ann"}, {"name": "Bob"}]
    if any(isinstance(inner, dict | list) for inner in values):
        for inner in values:
            yield from _lines(name, inner, secret, levels - 1)
        return
    # "red", or ["red", "green"]
    texts = list[str]()
    for inner in values:
        text = _text_below_secret(name, inner, secret) if secret else _scalar(inner)
        if text:
            texts.append(text)
    if texts:
        label = f"{name}: " if name else ""
        yield label + ", ".join(texts)


def _text_below_secret(name: str, value: Any, secret: str) -> str:
    """Return the words of a value below a key that is named like a secret."""
    text = _scalar(value)
    # a switch or a count: {"password_expired": true, "password_length": 12}
    if isinstance(value, bool):
        return text
    if isinstance(value, int | float) and abs(value) < MIN_SECRET:
        return text
    return masked_prose(secret, text, is_field=name != secret)


def _is_by_language(value: dict[Any, Any]) -> bool:
    """Return whether an object is the same text in several languages.

    An example is {"en_US": "Chair", "fr_FR": "Chaise"}. {"id": "7", "no": "A-12"} is not one: these
    keys only look like codes of languages.
    """
    has_other_values = any(not isinstance(text, str | None) for text in value.values())
    if has_other_values or value.keys() <= LIKE_CODES:
        return False
    return all(map(language_of, value))


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return html_text(value) if is_html(value) else value.strip()
    if value is None:
        return ""
    # true, not True
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return str(value)


def _characters(value: Any) -> str:
    if isinstance(value, str):
        if value.isascii() or not ESCAPED_BYTES.search(value):
            return value
        # "caf\udce9": bytes of a text column that are not UTF-8
        value = value.encode("utf-8", "surrogateescape")
    if isinstance(value, bytearray | memoryview):
        value = bytes(value)
    return decode(value) if isinstance(value, bytes) else str(value)


def known_kind(data: bytes) -> str:
    """Return the kind of file that bytes are by their beginning ("a PDF file"); "" if unknown."""
    for magic, kind in MAGIC.items():
        if data.startswith(magic):
            return kind
    return ""


def decode(value: bytes) -> str:
    """Return the text of bytes, which may be packed. Raises NotText."""
    if not value:
        return ""
    kind = known_kind(value)
    if not kind:
        text = decode_text(_unpacked(value))
        if text:
            return text
    if "picture" in kind or "video" in kind:
        remedy = "leave such rows out by `where`"
    else:
        remedy = "name another column, or give this one format file"
    found = kind or "no known kind of file"
    raise NotText(f"holds {len(value):,} bytes that are no text ({found}): {remedy}")


def _unpacked(value: bytes) -> bytes:
    """Return what gzip, zlib or deflate packed, and other bytes as they are.

    Deflate has no header; wikis store texts like that. Raises NotText.
    """
    has_header = value.startswith((b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"))
    if value.isascii() and not has_header:
        return value
    # zlib's number for gzip or zlib, whichever it is; and for deflate
    unpacker = zlib.decompressobj(47 if has_header else -15)
    try:
        unpacked = unpacker.decompress(value, MAX_BYTES)
    except zlib.error:
        return value
    # Other bytes may unpack by chance, but not to their end, or to no text.
    if not has_header:
        is_complete = unpacker.eof and not unpacker.unused_data
        return unpacked if is_complete and decoded(unpacked, "utf-8") else value
    is_flushed = value.endswith(b"\0\0\xff\xff")
    if unpacked and not unpacker.eof and not is_flushed:
        raise NotText(
            f"is cut off, or unpacks to more than {MAX_BYTES:,} bytes: index another column"
        )
    return unpacked or value
