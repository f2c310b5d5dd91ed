"""Bytes as text: the charset that somebody names for them, or that they look like."""

from __future__ import annotations

import codecs
import re
import unicodedata
from contextlib import suppress

MAX_CONTROLS = 0.01
"""The share of control characters above which bytes are not text (chosen)."""
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""The codec of each byte order mark. UTF-32 is before UTF-16, whose mark begins that of UTF-32."""
MIN_CONFIDENCE = 0.12
"""The confidence of chardet (0 to 1) below which its guess is dropped, if characters beyond ASCII
stand alone or in pairs, as in western Europe."""
ESCAPED_BYTES = re.compile("[\udc80-\udcff]")
_TAGS = re.compile(rb"<[a-z/!][^<>\x80-\xff]*>", re.IGNORECASE)
"""Tags of HTML, whose letters look like another language than those of the text."""
_CONTROLS = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f-\x9f]")
"""Control characters, except tab, line feed, form feed and carriage return."""
_TWO_BEYOND_ASCII = re.compile(rb"[\x80-\xff]{2}")
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]{3}")
_ESCAPES = re.compile(rb"\x1b(?:\$|\([BIJ])|~\{[!-}]")
_DECLARED = re.compile(
    rb"\s*(?:<[^\0]{0,4000}?)??<(?:\?xml|meta)\b[^<>]*?\b(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)",
    re.IGNORECASE,
)
"""The charset that HTML or XML names itself."""


def decode_text(value: bytes, charset: str = "") -> str | None:
    """Return the text of bytes, None if they are not text.

    A byte order mark decides first, and UTF-8 next: texts in UTF-8 with the name of another charset
    are more frequent than other texts that happen to be valid UTF-8. Exceptions are short texts,
    and charsets with two bytes per character.

    Args:
        charset: The charset that somebody names for the bytes, "" if nobody does.
    """
    for mark, codec in BYTE_ORDER_MARKS.items():
        if value.startswith(mark):
            return decoded(value, codec)
    named = _named_codec(value, charset)
    # Japanese, Korean or Chinese in seven bits, which is valid UTF-8, too
    is_escaped = _ESCAPES.search(value) is not None
    utf_8 = None if is_escaped else decoded(value, "utf-8")
    text = utf_8
    if named is not None and not _is_rather_utf_8(utf_8, named):
        text = decoded(value, named)
    if text is None and not is_escaped:
        text = utf_8 or _repaired(value)
    # Odd bytes within Shift_JIS, GBK and others of two bytes a character: the other bytes show that
    # it is that.
    if text is None and named is not None and not _is_one_byte(named):
        text = decoded(value, named, "replace")
    # "iso-8859-1" with a byte that it lacks: the other bytes are letters in it, whatever they stand
    # for.
    if text is None:
        text = _guessed(value)
    if text is None and named is not None:
        text = decoded(value, named, "replace")
    return text


def _named_codec(value: bytes, charset: str) -> str | None:
    """Return the codec of the charset that is named for bytes, by others or by HTML or XML itself;
    None if none is, or it cannot be that."""
    named = find_codec(charset)
    if named is None:
        declared = _DECLARED.match(value)
        named = find_codec(declared[1].decode()) if declared else None
    if named is None or not named.startswith(("utf-16", "utf-32")):
        return named
    # "utf-16" is wrong: even one ASCII character in it has a zero byte
    if b"\0" not in value:
        return None
    # "utf-16" without a byte order mark: the zero bytes of ASCII are its first or its second bytes
    if named.startswith("utf-16"):
        is_big_endian = value[::2].count(0) > value[1::2].count(0)
        return "utf-16-be" if is_big_endian else "utf-16-le"
    return named


def _is_rather_utf_8(utf_8: str | None, named: str) -> bool:
    """Return whether bytes are UTF-8 rather than what is named for them.

    Args:
        utf_8: The text of the bytes in UTF-8, None if they are not valid.
    """
    if utf_8 is None:
        return False
    beyond_ascii = _count_beyond_ascii(utf_8[:1000])
    # So many characters are not valid by chance.
    if beyond_ascii > 3:
        return True
    # "café" in UTF-8 and not "cafÃ©" in Latin-1; but two Chinese characters of GBK may be valid.
    return beyond_ascii > 0 and _is_one_byte(named)


def text_in(value: bytes, codec: str) -> str | None:
    """Return the text of bytes in a charset, with U+FFFD for each invalid one.

    Return None if no character beyond ASCII shows that they are in this charset, or if they are not
    text.
    """
    text = value.decode(codec, "replace")
    is_shown = any(sign > "\x7f" and sign != "\N{REPLACEMENT CHARACTER}" for sign in text)
    return text if is_shown and _has_no_controls(text) else None


def find_codec(charset: str) -> str | None:
    """Return the name of Python's codec for a charset, None if there is none.

    ASCII has none: browsers read it as Windows-1252, and the name says nothing about bytes in eight
    bits.
    """
    if not charset:
        return None
    import webencodings

    # "utf-8*en": a language may stand behind the charset
    charset = charset.partition("*")[0].strip(" \t\r\n\"';,").lower()
    # "x-gbk", "cp-850"
    for name in (charset, charset.removeprefix("x-"), charset.replace("-", "")):
        with suppress(LookupError, ValueError):
            if codecs.lookup(name).name == "ascii":
                return None
        found = webencodings.lookup(name)
        if found is not None and found.name not in ("replacement", "x-user-defined"):
            return str(found.codec_info.name)
        with suppress(LookupError, ValueError):
            b" ".decode(name)  # raises LookupError for codecs of other things, such as "base64"
            return codecs.lookup(name).name
    return None


def _count_beyond_ascii(text: str) -> int:
    return sum(sign > "\x7f" for sign in text)


def _is_one_byte(codec: str) -> bool:
    """Return whether each byte is a character in a charset."""
    beyond_ascii = bytes(range(128, 256))
    return len(beyond_ascii.decode(codec, "replace")) == len(beyond_ascii)


def decoded(value: bytes, charset: str, errors: str = "strict") -> str | None:
    """Return the text of bytes in a charset, None if they are not valid in it, or are no text.

    With "replace" for `errors`, one of ten characters beyond ASCII may be invalid.
    """
    try:
        text = value.decode(charset, errors)
    except ValueError:
        return None
    if errors == "replace" and 10 * text.count("\ufffd") > _count_beyond_ascii(text):
        return None
    return text if _has_no_controls(text) else None


def _has_no_controls(text: str) -> bool:
    """Return whether the beginning of a text has at most a few control characters."""
    sample = text[:4000]
    return len(_CONTROLS.findall(sample)) <= len(sample) * MAX_CONTROLS


def _repaired(value: bytes) -> str | None:
    """Return UTF-8 with odd bytes, which were cut off or are from another program.

    Return None if there are none, or if more than half of the characters beyond ASCII are odd.
    """
    text = value.decode("utf-8", "surrogateescape")
    odd = len(ESCAPED_BYTES.findall(text))
    if odd == 0 or 2 * odd > _count_beyond_ascii(text) or not _has_no_controls(text):
        return None
    return ESCAPED_BYTES.sub(_western, text)


def _western(escaped: re.Match[str]) -> str:
    """Return an escaped byte as Windows-1252 shows it."""
    byte = ord(escaped[0]) - 0xDC00
    return bytes([byte]).decode("cp1252", "replace")


def find_charset(value: bytes) -> str | None:
    """Return the name of Python's codec for the charset that bytes look like; None if they look
    like none."""
    import chardet

    sample = value
    # neither UTF-16 nor ISO-2022, in which a tag may be a part of other characters
    if b"\0" not in value and not value.isascii():
        sample = _TAGS.sub(b" ", value)
    found = chardet.detect(sample, encoding_era=~chardet.EncodingEra.MAINFRAME, compat_names=False)
    if found["encoding"] is None:
        return None
    is_weak = found["confidence"] < MIN_CONFIDENCE and not _BEYOND_ASCII.search(value)
    if is_weak and decoded(value, "cp1252"):
        return "cp1252"
    return find_codec(found["encoding"]) or str(found["encoding"])


def _guessed(value: bytes) -> str | None:
    codec = find_charset(value)
    if codec is None:
        return None
    text = decoded(value, codec) or decoded(value, codec, "replace")
    # "5 €": a letter alone is of no script that has no other letter here.
    is_alone = not value.isascii() and not _TWO_BEYOND_ASCII.search(value)
    if text is None or (is_alone and _has_other_scripts(text)):
        text = decoded(value, "cp1252") or text
    return text


def _has_other_scripts(text: str) -> bool:
    """Return whether a text has letters that are not Latin ones."""
    for sign in set(text):
        is_letter = sign > "\x7f" and sign.isalpha()
        if is_letter and not unicodedata.name(sign, "LATIN").startswith("LATIN"):
            return True
    return False
