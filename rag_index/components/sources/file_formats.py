"""The text of files: PDF, office documents (Open XML, OpenDocument), e-mail, HTML, and what
plug-ins read.

All of it runs in a child process, which a file may crash (`attachments`). A plug-in is a function
that takes the bytes of a file. It returns the text of the file, or yields pairs of page and text.
"""

from __future__ import annotations

import io
import json
import logging
import os
import quopri
import re
import resource
import signal
import sys
import unicodedata
from binascii import a2b_base64
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from functools import partial
from logging.handlers import BufferingHandler
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from rag_index.components.sources.charsets import (
    BYTE_ORDER_MARKS,
    decode_text,
    find_charset,
    find_codec,
)
from rag_index.components.sources.markup import html_text, visible
from rag_index.components.sources.office_files import OfficeFile
from rag_index.components.sources.office_package import MAX_FILE_CHARS, Pages, reason_of
from rag_index.components.sources.sheet_lines import sheet_texts
from rag_index.components.sources.spreadsheets import old_sheets
from rag_index.components.sources.text import NotText, decode, is_rtf, known_kind, rtf_text
from rag_index.core.settings.parts import FILE
from rag_index.core.settings.plugins import FORMATS, load_plugin
from rag_index.errors import install_command
from rag_index.quotes import without_values

MEMORY = 1_000_000_000
"""The bytes of memory that the child may have, with Python and its libraries (chosen)."""
OUT_OF_MEMORY = 77
"""The exit code of a child that lacks memory. Python and signals use other codes."""
MAX_FILES_WITHIN = 5
"""The levels of files within files, such as e-mails that are attached to e-mails (chosen)."""
_OLD_OFFICE = b"\xd0\xcf"
"""The beginning of files of old Office versions, and of encrypted ones of new versions."""
MAIL_KINDS = ("message/rfc822", "message/global")
TEXT_KINDS = ("text/", "multipart/")  # a multipart without any boundary is a text
HEAD = ("Subject", "From", "To", "Cc", "Date")
_MAIL = re.compile(rb"(?:From .*\n)?(?:[A-Z][\w-]*+:.*\n(?:[ \t].*\n)*+){2,}+", re.IGNORECASE)
_MAIL_HEAD = re.compile(
    rb"(?mi)^(?:MIME-Version|Content-[\w-]+|Message-ID|Received|Return-Path|Delivered-To|X-[\w-]+|.*=\?[\w-]+\?[bq]\?)"
)
"""Headers that only mail programs write. Other lines of a name and a value belong to a text, which
is read with all of them."""
_MAILBOX = re.compile(rb"(?:\A|\n\r?\n)From \S+\s+\w{3} \w{3} [ \d]?\d \d\d:\d\d.*\n")
_WORDS = re.compile(rb"^(?=[ \t]*\S+[ \t]+\S)", re.MULTILINE)
"""Where words begin behind base64, such as those that a mailing list adds to what it takes for
plain text."""
_BOUNDARY = re.compile(rb"^--(\S+)[ \t]*\r*$", re.MULTILINE)
_PART_HEAD = re.compile(rb"^Content-[\w-]+:", re.MULTILINE | re.IGNORECASE)
_ENVELOPE = re.compile(rb">?From .*\n")
_FIELD = re.compile(rb"(?!--)([!-9;-~]*):(.*(?:\n[ \t].*)*)(?:\n|\Z)")
"""A header of an e-mail, with its continuation lines. Its name may be missing."""
_BLANK_LINE = re.compile(rb"\r?\n")
_CHARSET = re.compile(rb"(?:charset\s*=\s*[\"']?|=\?)([\w.:-]+)", re.IGNORECASE)
_ENCODED_WORD = r"=\?[^?\s]+\?[bq]\?.*?\?="
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD}(?:\s*{_ENCODED_WORD})*", re.IGNORECASE)
_HTML = re.compile(r"\s*<(?:!doctype html|html|head|body|\?xml[^<]*<html|!--)", re.IGNORECASE)
_CALENDAR = re.compile(r"\s*BEGIN:(?:VCALENDAR|VCARD)\b", re.IGNORECASE)
_CALENDAR_LINE = re.compile(r"(?:[\w-]+\.)?([\w-]+)(|;(?:\"[^\"]*\"|[^\":])*):(.*)")
_NOT_SHOWN = re.compile(
    r"END|VERSION|PRODID|UID|REV|DTSTAMP|CREATED|LAST-MODIFIED|SEQUENCE|TRANSP|CLASS|PRIORITY|"
    r"CALSCALE|METHOD|PHOTO|LOGO|SOUND|KEY|ATTACH|X-.*",
    re.IGNORECASE,
)
"""The properties of calendars and address cards that are for programs."""
_TIMES = ("DT", "DUE", "RECURRENCE-ID", "EXDATE", "RDATE")
"""The beginnings of the properties that are dates."""
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)\d\d)?")
_PASSWORD = 1 << 13
"""The flag of a field for a password in a form of PDF."""
_ARABIC = re.compile(r"[\u0600-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")
_LIGATURES = re.compile(r"[\ufb00-\ufdff\ufe70-\ufefc]+")
_GLYPH = re.compile(r"/g\d+|\(cid:\d+\)")
"""Numbers of glyphs, where letters should stand."""
_LOST = re.compile(r"^Error -|Impossible to decode|skipped")
"""What pypdf logs where it leaves out a text."""


@dataclass(frozen=True, slots=True)
class MailPart:
    """An e-mail, or a part of one.

    The classes of the standard library hold text, which loses the bytes of a body in eight bits.

    Attributes:
        head: The headers, as text.
        body: The body, in the bytes in which it was sent.
        charset: The charset of headers in eight bits that are not UTF-8, "" if it is not known.
    """

    head: Message
    body: bytes
    charset: str


@dataclass(frozen=True, slots=True)
class MailPiece:
    """The bytes behind a line of a boundary."""

    data: bytes
    is_behind_end: bool
    """Whether the boundary is the last one, which ends with `--`."""


@dataclass(frozen=True, slots=True)
class MailTexts:
    """The texts of a part of an e-mail, and the parts that are attached to it."""

    texts: list[str]
    attached: list[MailPart]


def file_text(data: bytes, depth: int = 0, charset: str = "", kind: str = "") -> Pages:
    """Yield the pages of a file with their text, and what cannot be read.

    Args:
        depth: The number of files that the file is within.
        charset: The charset that an e-mail names for the file.
        kind: The content type that an e-mail names for the file.
    """
    try:
        yield from _file_pages(data, depth, charset, kind)
    except MemoryError:
        raise
    except ImportError as error:
        yield None, NotText(f"needs {error.name}: {install_command('files')}")
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is about the file
        is_old = data.startswith(_OLD_OFFICE)
        yield None, NotText("is an old Office file, or encrypted" if is_old else reason_of(error))


def _file_pages(data: bytes, depth: int, charset: str, kind: str) -> Pages:
    """Yield the pages of a file of any kind. Raises what its parser raises."""
    if depth > MAX_FILES_WITHIN:
        raise NotText("has files within files within files")
    if data.startswith(tuple(BYTE_ORDER_MARKS)):
        text = decode_text(data)
        if text:
            data, charset = text.encode(), "utf-8"
        else:  # an e-mail whose parts are in other charsets
            data = data.removeprefix(BOM_UTF8)
    if b"%PDF-" in data[:1024]:
        yield from _pdf_text(data, depth)
    elif data.startswith(b"PK\x03\x04"):
        yield from OfficeFile(data, partial(_file_within, depth=depth)).texts()
    elif data.startswith(_OLD_OFFICE):
        for sheet in sheet_texts(old_sheets(data)):
            yield None, sheet
    elif kind in MAIL_KINDS or _is_mail(data):
        yield from _mail_text(data.lstrip(), depth)
    else:
        yield None, _plain_text(data, charset, kind)


def _is_mail(data: bytes) -> bool:
    """Return whether a file begins with headers, and a mail program wrote one of them."""
    head = _MAIL.match(data.lstrip())
    if head is None:
        return False
    return _MAIL_HEAD.search(head[0]) is not None


def _plain_text(data: bytes, charset: str = "", kind: str = "") -> str:
    """Return the text of a file that is a text, such as HTML or a calendar. Raises NotText.

    Args:
        charset: The charset that an e-mail names for it, "" if it names none.
        kind: The content type that an e-mail names for it.
    """
    if kind.startswith(TEXT_KINDS):
        data = _without_zeros(data, charset)
    text = decode_text(data, charset) if charset else None
    if text is None:
        try:
            text = decode(data)
        except NotText as error:
            raise NotText(f"is {known_kind(data) or 'no known kind of file'}") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if is_rtf(text):
        return rtf_text(text)
    if text.lstrip().startswith("-----BEGIN PGP MESSAGE"):
        raise NotText("is encrypted")
    if _CALENDAR.match(text):
        return _calendar_text(text)
    if text.startswith("<?xml") and "opendocument" in text[:4000]:
        raise NotText("is an OpenDocument file in one piece of XML: save it as an ordinary one")
    if kind in ("text/enriched", "text/richtext"):
        return html_text(text, elements=None)
    if kind == "text/html" or _HTML.match(text):
        return html_text(text)
    return text


def _without_zeros(data: bytes, charset: str) -> bytes:
    """Return the bytes of a text without zero bytes that are no part of a character."""
    zeros = data.count(b"\0")
    if not zeros:
        return data
    # UTF-16, behind which the line end of the e-mail or half a character may stand.
    two_bytes_each = data.removesuffix(b"\r\n")
    two_bytes_each = two_bytes_each[: len(two_bytes_each) // 2 * 2]
    codec = find_codec(charset) or ""
    if codec.startswith(("utf-16", "utf-32")):
        return two_bytes_each
    # The charset that it names, in which the other bytes are valid.
    without_zeros = data.replace(b"\0", b"")
    if codec:
        with suppress(UnicodeDecodeError):
            without_zeros.decode(codec)
            return without_zeros
    # No charset, or a wrong one, and as many zero bytes as in UTF-16, whose spaces and line ends
    # have one each.
    has_many = zeros >= data.count(b" ") + data.count(b"\n")
    return two_bytes_each if has_many and decode_text(two_bytes_each) else without_zeros


def _calendar_text(text: str) -> str:
    """Return what iCalendar or vCard contains, a line for each property."""
    unfolded = re.sub(r"\n[ \t]", "", text)
    shown = re.sub(r"(?ims)^BEGIN:(VTIMEZONE|VALARM)\n.*?^END:\1$", "", unfolded)
    lines = list[str]()
    for line in shown.split("\n"):
        found = _CALENDAR_LINE.match(line)
        if found is None:
            continue
        name, parameters, value = found.groups()
        if name.upper() == "BEGIN":
            lines.append("")
        elif not _NOT_SHOWN.fullmatch(name):
            # ATTENDEE;CN="Ann":mailto:ann@example.com
            named = re.findall(r"(?i);(?:CN|TZID)=\"?([^\";:]+)", parameters)
            lines.append(" ".join([f"{name.lower()}:", *named, _calendar_value(name, value)]))
    return "\n".join(lines).strip()


def _calendar_value(name: str, value: str) -> str:
    """Return the value of a property of iCalendar or vCard."""
    without_scheme = re.sub("(?i)^mailto:", "", value)
    with_lines = without_scheme.replace("\\n", "\n")
    # "Oak Street 5\, Berlin"
    text = re.sub(r"\\([,;\\])", r"\1", with_lines)
    if name.upper().startswith(_TIMES):
        return _TIME.sub(_iso_time, text)
    return text


def _iso_time(found: re.Match[str]) -> str:
    """Return 20240305T101500 as "2024-03-05 10:15"."""
    year, month, day, hour, minute = found.groups()
    date = f"{year}-{month}-{day}"
    return f"{date} {hour}:{minute}" if hour else date


def _pdf_text(data: bytes, depth: int) -> Pages:
    """Yield the pages of a PDF file, with remarks and values of forms, and files that are
    attached."""
    from pypdf import PdfReader
    from pypdfium2 import PdfDocument

    document = PdfReader(io.BytesIO(data))
    if document.is_encrypted and not document.decrypt(""):
        raise NotText("is encrypted")
    shown = PdfDocument(data)
    log = BufferingHandler(1000)
    logging.getLogger("pypdf").handlers = [log]
    for number, page in enumerate(document.pages):
        log.buffer.clear()
        texts = dict[str, None]()
        reasons = list[str]()
        try:
            is_complete = len(shown) == len(document.pages)
            letters = shown[number].get_textpage() if is_complete else None
            for text in _page_texts(page, letters):
                texts[text] = None
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other pages are worth reading
            reasons.append(_page_reason(error))
        yield number + 1, "\n".join(texts)
        for record in log.buffer:
            message = without_values(record.getMessage())
            if _LOST.search(message) or not any(texts):
                reasons.append(message)
        if reasons:
            yield None, NotText(f"is broken in page {number + 1} ({reasons[0]})")
    yield from _behind_pages(document, depth)


def _behind_pages(document: Any, depth: int) -> Pages:
    """Yield what a PDF file has besides its pages, and whether it lacks some."""
    counted = int(document.root_object["/Pages"].get("/Count", 0))
    lacking = counted - len(document.pages)
    if lacking > 0:
        reason = f"is broken in {lacking} of {counted} pages, which are not there"
        yield None, NotText(reason)
    # a form of Adobe's XML
    values = (document.xfa or {}).get("datasets", b"")
    yield None, html_text(values.decode("utf-8", "replace"), elements=None)
    for name, file in _files_of_pdf(document):
        yield from _file_within(name, file, depth)


def _page_reason(error: Exception) -> str:
    if isinstance(error, NotText):
        return str(error)
    # a parser quotes what it cannot read
    return f"{type(error).__name__}: {without_values(str(error))}"


def _files_of_pdf(document: Any) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the files that are attached to a PDF file, or to a place on one of
    its pages."""
    for name, files in document.attachments.items():
        for data in files:
            yield name, data
    for page in document.pages:
        for remark in _objects(page.get("/Annots")):
            for file in _objects(remark.get("/FS")):
                if isinstance(file, dict) and "/EF" in file:
                    name = file.get("/UF") or file.get("/F")
                    yield str(name), file["/EF"]["/F"].get_data()


def _page_texts(page: Any, letters: Any) -> Iterator[str]:
    """Yield the text of a page, and what readers wrote on it, or into the fields of its form.

    PDFium is faster than pypdf, and detects letters that have no meaning. pypdf reads Arabic in its
    order, and reports why it reads nothing.

    Args:
        page: The page as pypdf reads it.
        letters: The text of the page as PDFium reads it; None if it finds other pages.
    """
    from pypdfium2.raw import FPDFText_HasUnicodeMapError as has_no_meaning

    text = ""
    unknown = 0
    if letters:
        places = range(letters.count_chars())
        unknown = sum(has_no_meaning(letters, place) == 1 for place in places)
        # U+FFFE divides a word at the end of a line
        text = letters.get_text_range().replace("\ufffe", "").replace("\r\n", "\n")
    if not text.strip() or _ARABIC.search(text):
        text = _LIGATURES.sub(_as_letters, page.extract_text())
    is_garbled = _is_garbled(text, unknown)
    if not is_garbled:
        yield text
    for remark in _objects(page.get("/Annots")):
        if _objects(remark.get("/Subtype")) == ["/Widget"]:
            yield from _field_texts(remark)
        else:
            yield from map(str, _objects(remark.get("/Contents")))
    if is_garbled:
        raise NotText("the file does not say what its letters mean")


def _as_letters(ligatures: re.Match[str]) -> str:
    return unicodedata.normalize("NFKC", ligatures[0])


def _is_garbled(text: str, unknown: int) -> bool:
    """Return whether most characters of a page have no meaning, or look like no language.

    Args:
        unknown: The number of characters for which PDFium knows no meaning.
    """
    signs = [sign for sign in _GLYPH.sub("\ufffd", text) if not sign.isspace()]
    kinds = Counter(map(_kind_of_sign, signs))
    if 2 * max(kinds["C"], unknown) > len(signs):
        return True
    # hardly a letter, more punctuation and symbols than digits, and not only a line of one sign
    has_letters = 10 * kinds["L"] >= len(signs)
    has_marks = kinds["P"] + kinds["S"] > kinds["N"]
    return not has_letters and has_marks and len(set(signs)) > 12


def _kind_of_sign(sign: str) -> str:
    """Return the first letter of a category of Unicode, "C" for a character without a meaning."""
    return "C" if sign == "\ufffd" else unicodedata.category(sign)[0]


def _field_texts(field: Any) -> Iterator[str]:
    """Yield the values of a field of a form, as they are shown, unless it is for a password."""
    if any(int(flags) & _PASSWORD for flags in _objects(field.get_inherited("/Ff"))):
        return
    # the options of a list, some of them as pairs of a value and what is shown for it
    shown: dict[str, str] = {}
    for option in _objects(field.get_inherited("/Opt")):
        pair = _objects(option) if isinstance(option, list) else []
        if pair:
            shown[str(pair[0])] = str(pair[-1])
    for value in _objects(field.get_inherited("/V")):
        text = str(value)
        # a long text is a stream
        if hasattr(value, "get_data"):
            text = value.get_data().decode("utf-8", "replace")
        # a box that is not checked
        if text != "/Off":
            yield shown.get(text, text.removeprefix("/"))


def _objects(found: Any) -> list[Any]:
    """Return what a value of a PDF file has, which may be a list, with references resolved."""
    resolved = found.get_object() if found is not None else []
    if not isinstance(resolved, list):
        return [resolved]
    return [item.get_object() for item in resolved]


def _file_within(name: str, data: bytes, depth: int, charset: str = "", kind: str = "") -> Pages:
    """Yield the texts of a file within another, under its name, and what cannot be read."""
    found = [text for _, text in file_text(data, depth + 1, charset, kind) if str(text).strip()]
    if data.strip() and not found:
        found = [NotText("has no text, as where pages are pictures")]
    for text in found:
        if isinstance(text, str):
            yield None, f"{name}\n\n{text}"
        else:
            yield None, NotText(f"has a file that cannot be read: {name} {text}")


def _mail_text(data: bytes, depth: int) -> Pages:
    """Yield the texts of the e-mails of a file, and of what is attached to them, but pictures."""
    mails = _MAILBOX.split(data) if data.startswith(b"From ") else [data]
    for mail in mails:
        part = _mail_part(mail, _charset_of_heads(mail))
        head = [f"{name}: {_words(part.head[name])}" for name in HEAD if part.head[name]]
        found = _divided(part)
        yield None, "\n\n".join(["\n".join(head), *found.texts])
        for file in found.attached:
            kind = _kind(file)
            charset = file.head.get_content_charset("")
            yield from _file_within(_file_name(file) or kind, _payload(file), depth, charset, kind)


def _charset_of_heads(mail: bytes) -> str:
    """Return the charset of headers in eight bits, which do not name theirs: the first one that the
    e-mail names, or the one that it looks like. "" if it has none."""
    if mail.isascii():
        return ""
    for named in _CHARSET.finditer(mail):
        charset = named[1].decode()
        if find_codec(charset):
            return charset
    # The headers alone are too short to show their charset. The first zero bytes in a row are those
    # of a file.
    text, _, _ = mail.partition(b"\0\0")
    lines = [line for line in text.replace(b"\0", b"").split(b"\n") if not line.isascii()]
    return find_charset(b"\n".join(lines)) or ""


def _mail_part(data: bytes, charset: str, default_kind: str = "text/plain") -> MailPart:
    """Divide an e-mail, or a part of one, into its headers and its body.

    Args:
        charset: The charset of headers in eight bits that are not UTF-8, "" if it is not known.
        default_kind: The content type of a part that names none.
    """
    head = Message()
    head.set_default_type(default_kind)
    envelope = _ENVELOPE.match(data)
    place = envelope.end() if envelope else 0
    while field := _FIELD.match(data, place):
        place = field.end()
        name, value = field.groups()
        if name:
            head[name.decode()] = _head_text(value.strip(), charset)
    # A body without an empty line before it begins at the first line that is no header.
    if blank := _BLANK_LINE.match(data, place):
        place = blank.end()
    return MailPart(head, data[place:], charset)


def _head_text(value: bytes, charset: str) -> str:
    """Return the value of a header, which may be in eight bits, or in those seven of ISO-2022."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode()
    value = value.replace(b"\0", b" ")
    text = decode_text(value, charset) or value.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode()  # UTF-7 may have halves of characters


def _pieces(part: MailPart) -> list[MailPiece]:
    """Divide the body of a part at its boundary, or at the one that is found if the part lacks the
    one that it names. What stands before the first boundary is for programs that know no parts."""
    named = (part.head.get_boundary() or "").encode()
    # Some programs encode the body, though only its parts should be encoded.
    for body in (part.body, _payload(part)):
        if found := _split(body, named):
            return found
        seen = _BOUNDARY.search(body)
        if seen and (found := _split(body, seen[1].removesuffix(b"--"))):
            return found
    return []


def _split(body: bytes, boundary: bytes) -> list[MailPiece]:
    """Return what stands behind each line of a boundary, without the line end before the next."""
    if not boundary:
        return []
    line = rb"(?m)^--%s(--)?[ \t]*\r*(?:\n|\Z)" % re.escape(boundary)
    before, *found = re.split(line, body)
    first = _PART_HEAD.search(before)
    # The line before the first part is missing or damaged.
    if found and (first or found[0] is not None):
        found = [None, before[first.start() :] if first else before, *found]
    pieces = list[MailPiece]()
    for end, data in zip(found[::2], found[1::2], strict=True):
        without_line_end = data.removesuffix(b"\n").removesuffix(b"\r")
        pieces.append(MailPiece(without_line_end, end is not None))
    return pieces


def _divided(part: MailPart) -> MailTexts:
    """Return the texts of a part of an e-mail, and what is attached to it."""
    kind = _kind(part)
    if kind.startswith("image/") or kind.endswith("-signature"):
        return MailTexts([], [])
    if kind.startswith("multipart/") and (pieces := _pieces(part)):
        return _divided_pieces(pieces, kind, part.charset)
    is_text = kind.startswith(TEXT_KINDS) and kind != "text/calendar"
    if not is_text or part.head.get_content_disposition() == "attachment" or _file_name(part):
        return MailTexts([], [part])
    with suppress(NotText):  # reading it as an attached file will report the reason
        return MailTexts([_plain_text(_payload(part), part.head.get_content_charset(""), kind)], [])
    return MailTexts([], [part])


def _divided_pieces(pieces: list[MailPiece], kind: str, charset: str) -> MailTexts:
    """Return the texts of a multipart of a kind, and what is attached to it."""
    default_kind = "message/rfc822" if kind == "multipart/digest" else "text/plain"
    texts = list[str]()
    texts_behind = list[str]()
    attached = list[MailPart]()
    for piece in pieces:
        # Two lines of a boundary in a row, or the line end behind the last.
        if not piece.data.strip():
            continue
        if piece.is_behind_end:
            # A footer that a mailing list or a virus scanner added: it has no headers.
            found = _divided(MailPart(Message(), piece.data.strip(), charset))
            texts_behind += found.texts
        else:
            found = _divided(_mail_part(piece.data, charset, default_kind))
            texts.append("\n\n".join(found.texts))
        attached += found.attached
    if kind == "multipart/alternative":
        texts = _different(texts)
    return MailTexts([text for text in [*texts, *texts_behind] if text.strip()], attached)


def _different(texts: list[str]) -> list[str]:
    """Return the fullest of texts that ought to be the same, and those that are mostly missing from
    it."""
    by_words = [(set(re.findall(r"\w+|[^\w\s]", text.lower())), text) for text in texts]
    by_words.sort(key=lambda pair: len(pair[0]), reverse=True)
    seen = set[str]()
    found = list[str]()
    for words, text in by_words:
        new = words - seen
        if 2 * len(new) > len(words):
            found.append(text)
        seen |= words
    return found


def _kind(part: MailPart) -> str:
    return part.head.get_content_type().split()[0]


def _payload(part: MailPart) -> bytes:
    """Return the bytes of a part as they were before they were encoded."""
    named = part.head.get("Content-Transfer-Encoding", "")
    encoding = f"{named} 7bit".split()[0].strip("\"';,").lower()
    if encoding == "base64":
        return _from_base64(part.body)
    if encoding == "quoted-printable":
        return quopri.decodestring(part.body)
    return part.body


def _from_base64(data: bytes) -> bytes:
    """Return what base64 holds, though other characters or padding stand in it, padding is missing,
    or words follow."""
    packed, *words = _WORDS.split(data, maxsplit=1)
    digits = re.sub(rb"[^A-Za-z0-9+/=]", b"", packed)
    pieces = list[bytes]()
    for piece in re.findall(rb"[^=]+", digits):
        # four digits are three bytes, and one digit behind them is less than a byte
        is_odd = len(piece) % 4 == 1
        pieces.append(a2b_base64((piece[:-1] if is_odd else piece) + b"=="))
    return b"".join(pieces + words)


def _file_name(part: MailPart) -> str:
    """Return the name of an attached file, "" if it has none."""
    found = part.head.get_param("filename", None, "Content-Disposition")
    found = found or part.head.get_param("name", "")
    if isinstance(found, tuple):  # RFC 2231
        charset, _, name = found
        with suppress(UnicodeEncodeError):  # a name in eight bits, which is decoded by now
            return decode_text(name.encode("latin-1"), charset or "") or name
        return name
    return _words(str(found))


def _words(head: str) -> str:
    """Return a header of an e-mail with its encoded words (RFC 2047) decoded."""
    return _ENCODED_WORDS.sub(_decoded_words, " ".join(head.split()))


def _decoded_words(found: re.Match[str]) -> str:
    """Decode encoded words in a row, which may divide a character. Return them as they are if they
    are not valid."""
    with suppress(HeaderParseError, ValueError):
        pieces = list[str]()
        for piece, charset in decode_header(found[0]):
            data = piece.encode() if isinstance(piece, str) else piece
            pieces.append(decode_text(data, charset or "") or data.decode("utf-8", "replace"))
        return "".join(pieces)
    return found[0]


def _answers(form: str, data: bytes) -> Iterator[dict[str, str]]:
    """Yield the messages to the parent about a file: `page` and `text` of each page, and then a
    `reason` if something cannot be read, else an empty one."""
    chars = 0
    reasons = dict[str, None]()
    try:
        for page, found in _read_as(form, data):
            if isinstance(found, NotText):
                reasons[str(found)] = None
                continue
            text = visible(found.encode("utf-8", "replace").decode().replace("\0", " ")).strip()
            if text:
                shown = text[: MAX_FILE_CHARS - chars]
                yield {"page": "" if page is None else str(page), "text": shown}
            chars += len(text)
            if chars > MAX_FILE_CHARS:
                raise NotText(
                    f"has more than {MAX_FILE_CHARS:,} characters; the first ones are indexed"
                )
        if not chars and not reasons:
            raise NotText("has no text, as where pages are pictures")
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises is about the file
        reasons[reason_of(error)] = None
    if not reasons:
        yield {}
        return
    more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
    yield {"reason": "; ".join([*reasons][:3]) + more}


def _read_as(form: str, data: bytes) -> Pages:
    """Return the pages of a file of a format: FILE, or the name of a plug-in."""
    if form == FILE:
        return file_text(data)
    found: str | Pages = load_plugin(FORMATS, form, f"format {form!r}")(data)
    return [(None, found)] if isinstance(found, str) else found


def main() -> None:
    """Read files until the parent closes its end: the main function of the child."""
    connection: Any = Connection(int(sys.argv[1]))
    _set_limit(resource.RLIMIT_AS, MEMORY)
    _set_limit(resource.RLIMIT_FSIZE, 0)
    _set_limit(resource.RLIMIT_CORE, 0)
    with suppress(EOFError, ConnectionError):
        while True:
            form, seconds = connection.recv()
            with os.fdopen(recv_handle(connection), "rb") as file:
                # SIGALRM ends this process, whatever it is doing
                signal.setitimer(signal.ITIMER_REAL, seconds)
                file.seek(0)
                data = file.read()
            for answer in _answers(form, data):
                connection.send_bytes(json.dumps(answer).encode())
            signal.setitimer(signal.ITIMER_REAL, 0)


def _set_limit(limit: int, most: int) -> None:
    """Set a resource limit of this process, or keep it if it is lower."""
    _, hard = resource.getrlimit(limit)
    soft = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(limit, (soft, hard))
