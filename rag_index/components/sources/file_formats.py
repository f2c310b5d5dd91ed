"""The text of files: PDF, office documents (Open XML, OpenDocument), e-mail, HTML, and what
plug-ins read. It runs in a child process. A plug-in is a function that takes the bytes of a file,
and returns its text or yields pairs of page and text."""

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

from rag_index.components.sources.markup import html_text, visible
from rag_index.components.sources.office_files import OfficeFile
from rag_index.components.sources.office_package import MAX_FILE_CHARS, Pages, reason_of
from rag_index.components.sources.spreadsheets import old_sheets, sheet_texts
from rag_index.components.sources.text import (
    BYTE_ORDER_MARKS,
    MAGIC,
    NotText,
    decode,
    decode_text,
    find_charset,
    find_codec,
    is_rtf,
    rtf_text,
)
from rag_index.core.settings.parts import FILE
from rag_index.core.settings.plugins import FORMATS, load_plugin
from rag_index.errors import install_command
from rag_index.quotes import without_values

MEMORY = 1_000_000_000  # bytes that the process may have, with Python and its libraries
OUT_OF_MEMORY = 77
MAX_FILES_WITHIN = 5  # such as e-mails that are attached to e-mails
MAIL_KINDS = ("message/rfc822", "message/global")
TEXT_KINDS = ("text/", "multipart/")  # a multipart without any boundary is a text
HEAD = ("Subject", "From", "To", "Cc", "Date")
_MAIL = re.compile(rb"(?:From .*\n)?(?:[A-Z][\w-]*+:.*\n(?:[ \t].*\n)*+){2,}+", re.IGNORECASE)
_MAIL_HEAD = re.compile(
    rb"(?mi)^(?:MIME-Version|Content-[\w-]+|Message-ID|Received|Return-Path|Delivered-To|X-[\w-]+|.*=\?[\w-]+\?[bq]\?)"
)
"""What only mail programs write. Other lines of a name and a value are a text, which is read with
all of them."""
_MAILBOX = re.compile(rb"(?:\A|\n\r?\n)From \S+\s+\w{3} \w{3} [ \d]?\d \d\d:\d\d.*\n")
_WORDS = re.compile(rb"^(?=[ \t]*\S+[ \t]+\S)", re.MULTILINE)
"""Where words begin in base64, such as those that a mailing list adds to what it took for plain
text."""
_BOUNDARY = re.compile(rb"^--(\S+)[ \t]*\r*$", re.MULTILINE)
_PART_HEAD = re.compile(rb"^Content-[\w-]+:", re.MULTILINE | re.IGNORECASE)
_ENVELOPE = re.compile(rb">?From .*\n")
_FIELD = re.compile(rb"(?!--)([!-9;-~]*):(.*(?:\n[ \t].*)*)(?:\n|\Z)")
"""A head of an e-mail, with the lines that go on with it. Its name may be missing."""
_BLANK_LINE = re.compile(rb"\r?\n")
_CHARSET = re.compile(rb"(?:charset\s*=\s*[\"']?|=\?)([\w.:-]+)", re.IGNORECASE)
_ENCODED_WORD = r"=\?[^?\s]+\?[bq]\?.*?\?="
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD}(?:\s*{_ENCODED_WORD})*", re.IGNORECASE)
_HTML = re.compile(r"\s*<(?:!doctype html|html|head|body|\?xml[^<]*<html|!--)", re.IGNORECASE)
_CALENDAR = re.compile(r"\s*BEGIN:(?:VCALENDAR|VCARD)\b", re.IGNORECASE)
_CALENDAR_LINE = re.compile(r"(?:[\w-]+\.)?([\w-]+)(|;(?:\"[^\"]*\"|[^\":])*):(.*)")
_NOT_SAID = re.compile(
    r"END|VERSION|PRODID|UID|REV|DTSTAMP|CREATED|LAST-MODIFIED|SEQUENCE|TRANSP|CLASS|PRIORITY|"
    r"CALSCALE|METHOD|PHOTO|LOGO|SOUND|KEY|ATTACH|X-.*",
    re.IGNORECASE,
)
"""The lines of calendars and address cards that are for programs."""
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)\d\d)?")
_PASSWORD = 1 << 13  # the flag of a field of a form
_ARABIC = re.compile(r"[\u0600-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")
_LIGATURES = re.compile(r"[\ufb00-\ufdff\ufe70-\ufefc]+")
_GLYPH = re.compile(r"/g\d+|\(cid:\d+\)")  # numbers that stand where letters should
_LOST = re.compile(
    r"^Error -|Impossible to decode|skipped"
)  # what pypdf logs where it leaves out a text


@dataclass(frozen=True, slots=True)
class MailPart:
    """An e-mail, or a part of one.

    The classes of the standard library hold text, from which the bytes of a body in eight bits
    cannot be had.

    Attributes:
        head: The heads, as text.
        body: The body, in the bytes in which it was sent.
        charset: The charset of heads in eight bits that are not UTF-8, "" if it is not known.
    """

    head: Message
    body: bytes
    charset: str


@dataclass(frozen=True, slots=True)
class MailPiece:
    """The bytes that stand behind a line of a boundary."""

    data: bytes
    is_behind_end: bool


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
    is_old = data.startswith(b"\xd0\xcf")
    try:
        if depth > MAX_FILES_WITHIN:
            raise NotText("has files within files within files")
        if data.startswith(tuple(BYTE_ORDER_MARKS)):
            if text := decode_text(data):
                data, charset = text.encode(), "utf-8"
            else:  # an e-mail whose parts are in other charsets
                data = data.removeprefix(BOM_UTF8)
        if b"%PDF-" in data[:1024]:
            yield from _pdf_text(data, depth)
        elif data.startswith(b"PK\x03\x04"):
            yield from OfficeFile(data, partial(_file_within, depth=depth)).texts()
        elif is_old:
            yield from ((None, text) for text in sheet_texts(old_sheets(data)))
        elif kind in MAIL_KINDS or (
            (head := _MAIL.match(data.lstrip())) and _MAIL_HEAD.search(head[0])
        ):
            yield from _mail_text(data.lstrip(), depth)
        else:
            yield None, _plain_text(data, charset, kind)
    except MemoryError:
        raise
    except ImportError as error:
        yield None, NotText(f"needs {error.name}: {install_command('files')}")
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is about the file
        yield None, NotText("is an old Office file, or encrypted" if is_old else reason_of(error))


def _plain_text(data: bytes, charset: str = "", kind: str = "") -> str:
    """Return the text of a file that is a text, such as HTML or a calendar. Raises NotText.

    Args:
        charset: The charset that an e-mail names for it, "" if it names none.
        kind: The content type that an e-mail names for it.
    """
    if kind.startswith(TEXT_KINDS):
        data = _without_zeros(data, charset)
    text = decode_text(data, charset) if charset else None
    try:
        text = (decode(data) if text is None else text).replace("\r\n", "\n").replace("\r", "\n")
    except NotText as error:
        found = next(
            (name for magic, name in MAGIC.items() if data.startswith(magic)),
            "no known kind of file",
        )
        raise NotText(f"is {found}") from error
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
    return html_text(text) if kind == "text/html" or _HTML.match(text) else text


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
    """Return what iCalendar or vCard says, a line for each property."""
    text = re.sub(r"(?ims)^BEGIN:(VTIMEZONE|VALARM)\n.*?^END:\1$", "", re.sub(r"\n[ \t]", "", text))
    said = list[str]()
    lines = (found for line in text.split("\n") if (found := _CALENDAR_LINE.match(line)))
    for name, more, value in (found.groups() for found in lines):
        told = re.sub(r"\\([,;\\])", r"\1", re.sub("(?i)^mailto:", "", value).replace("\\n", "\n"))
        if name.upper().startswith(("DT", "DUE", "RECURRENCE-ID", "EXDATE", "RDATE")):
            told = _TIME.sub(
                lambda at: "-".join(at.groups()[:3]) + (f" {at[4]}:{at[5]}" if at[4] else ""), told
            )
        if name.upper() == "BEGIN":
            said.append("")
        elif not _NOT_SAID.fullmatch(name):
            said.append(
                " ".join(
                    [f"{name.lower()}:", *re.findall(r"(?i);(?:CN|TZID)=\"?([^\";:]+)", more), told]
                )
            )
    return "\n".join(said).strip()


def _pdf_text(data: bytes, depth: int) -> Pages:
    """Yield the pages of a PDF file, with remarks and values of forms, and files that are
    attached."""
    from pypdf import PdfReader
    from pypdfium2 import PdfDocument

    document, log = PdfReader(io.BytesIO(data)), BufferingHandler(1000)
    if document.is_encrypted and not document.decrypt(""):
        raise NotText("is encrypted")
    shown = PdfDocument(data)
    logging.getLogger("pypdf").handlers = [log]
    for number, page in enumerate(document.pages):
        log.buffer.clear()
        texts, why = dict[str, None](), list[str]()
        try:
            letters = shown[number].get_textpage() if len(shown) == len(document.pages) else None
            texts.update((text, None) for text in _page_texts(page, letters))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other pages are worth reading
            said = without_values(str(error))  # a parser quotes what it cannot read
            why = [str(error) if isinstance(error, NotText) else f"{type(error).__name__}: {said}"]
        yield number + 1, "\n".join(texts)
        messages = [without_values(one.getMessage()) for one in log.buffer]
        why += [message for message in messages if _LOST.search(message) or not any(texts)]
        yield from (
            (None, NotText(f"is broken in page {number + 1} ({reason})")) for reason in why[:1]
        )
    if (pages := int(document.root_object["/Pages"].get("/Count", 0))) > len(document.pages):
        yield (
            None,
            NotText(
                f"is broken in {pages - len(document.pages)} of {pages} pages, which are not there"
            ),
        )
    yield (
        None,
        html_text(
            (document.xfa or {}).get("datasets", b"").decode("utf-8", "replace"), elements=None
        ),
    )
    for name, file in _files_of_pdf(document):
        yield from _file_within(name, file, depth)


def _files_of_pdf(document: Any) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the files that are attached to a PDF file, or to a place on one of
    its pages."""
    for name, files in document.attachments.items():
        yield from ((name, file) for file in files)
    for remark in (remark for page in document.pages for remark in _objects(page.get("/Annots"))):
        for file in _objects(remark.get("/FS")):
            if isinstance(file, dict) and "/EF" in file:
                yield str(file.get("/UF") or file.get("/F")), file["/EF"]["/F"].get_data()


def _page_texts(page: Any, letters: Any) -> Iterator[str]:
    """Yield the text of a page, and what readers wrote on it, or into the fields of its form.
    PDFium is faster than pypdf and sees which `letters` have no meaning; pypdf reads Arabic in its
    order, and says why it reads nothing."""
    from pypdfium2.raw import FPDFText_HasUnicodeMapError as has_no_meaning

    unknown = (
        sum(has_no_meaning(letters, at) == 1 for at in range(letters.count_chars()))
        if letters
        else 0
    )
    text = (
        letters.get_text_range().replace("\ufffe", "").replace("\r\n", "\n") if letters else ""
    )  # a divided word
    if not text.strip() or _ARABIC.search(text):
        text = _LIGATURES.sub(
            lambda found: unicodedata.normalize("NFKC", found[0]), page.extract_text()
        )
    if not (is_garbled := _is_garbled(text, unknown)):
        yield text
    for found in _objects(page.get("/Annots")):
        if _objects(found.get("/Subtype")) == ["/Widget"]:
            yield from _field_texts(found)
        else:
            yield from map(str, _objects(found.get("/Contents")))
    if is_garbled:
        raise NotText("the file does not say what its letters mean")


def _is_garbled(text: str, unknown: int) -> bool:
    """Return whether most signs of a page mean nothing, or hardly one is a letter, and many are
    marks."""
    signs = [sign for sign in _GLYPH.sub("\ufffd", text) if not sign.isspace()]
    kinds = Counter("C" if sign == "\ufffd" else unicodedata.category(sign)[0] for sign in signs)
    are_marks = (
        10 * kinds["L"] < len(signs) and kinds["P"] + kinds["S"] > kinds["N"] and len({*signs}) > 12
    )
    return 2 * max(kinds["C"], unknown) > len(signs) or are_marks


def _field_texts(field: Any) -> Iterator[str]:
    if any(int(flags) & _PASSWORD for flags in _objects(field.get_inherited("/Ff"))):
        return
    pairs = [
        _objects(pair) for pair in _objects(field.get_inherited("/Opt")) if isinstance(pair, list)
    ]
    shown = {str(pair[0]): str(pair[-1]) for pair in pairs if pair}
    for value in _objects(field.get_inherited("/V")):
        text = (
            value.get_data().decode("utf-8", "replace")
            if hasattr(value, "get_data")
            else str(value)
        )
        if text != "/Off":
            yield shown.get(text, text.removeprefix("/"))


def _objects(found: Any) -> list[Any]:
    """Return what a value of a PDF file has, which may be a list, without references."""
    found = found.get_object() if found is not None else []
    return [one.get_object() for one in found] if isinstance(found, list) else [found]


def _file_within(name: str, data: bytes, depth: int, charset: str = "", kind: str = "") -> Pages:
    """Yield the texts of a file within another, under its name, and what cannot be read."""
    found = [text for _, text in file_text(data, depth + 1, charset, kind) if str(text).strip()]
    if data.strip() and not found:
        found = [NotText("has no text, as where pages are pictures")]
    for text in found:
        is_text = isinstance(text, str)
        yield (
            None,
            f"{name}\n\n{text}"
            if is_text
            else NotText(f"has a file that cannot be read: {name} {text}"),
        )


def _mail_text(data: bytes, depth: int) -> Pages:
    """Yield what the e-mails of a file say, and what is attached to them, but pictures."""
    for mail in _MAILBOX.split(data) if data.startswith(b"From ") else [data]:
        part = _mail_part(mail, _charset_of_heads(mail))
        heads = [f"{name}: {_words(part.head[name])}" for name in HEAD if part.head[name]]
        found = _divided(part)
        yield None, "\n\n".join(["\n".join(heads), *found.texts])
        for file in found.attached:
            kind = _kind(file)
            charset = file.head.get_content_charset("")
            yield from _file_within(_file_name(file) or kind, _payload(file), depth, charset, kind)


def _charset_of_heads(mail: bytes) -> str:
    """Return the charset of heads in eight bits, which do not name theirs: the first one that the
    e-mail names, or the one that it looks like. "" if it has none."""
    if mail.isascii():
        return ""
    for named in _CHARSET.finditer(mail):
        charset = named[1].decode()
        if find_codec(charset):
            return charset
    # The heads alone are too short to show their charset. The first zero bytes in a row are those
    # of a file.
    text, _, _ = mail.partition(b"\0\0")
    lines = [line for line in text.replace(b"\0", b"").split(b"\n") if not line.isascii()]
    return find_charset(b"\n".join(lines)) or ""


def _mail_part(data: bytes, charset: str, default_kind: str = "text/plain") -> MailPart:
    """Divide an e-mail, or a part of one, into its heads and its body.

    Args:
        charset: The charset of heads in eight bits that are not UTF-8, "" if it is not known.
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
    # A body without an empty line before it begins at the first line that is no head.
    if blank := _BLANK_LINE.match(data, place):
        place = blank.end()
    return MailPart(head, data[place:], charset)


def _head_text(value: bytes, charset: str) -> str:
    """Return the value of a head, which may be in eight bits, or in those seven of ISO-2022."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode()
    value = value.replace(b"\0", b" ")
    text = decode_text(value, charset) or value.decode("utf-8", "replace")
    return text.encode("utf-8", "replace").decode()  # UTF-7 may have halves of characters


def _pieces(part: MailPart) -> list[MailPiece]:
    """Divide the body of a part at its boundary, or at the one that it has if it lacks the one it
    names. What stands before the first boundary is for programs that know no parts."""
    named = (part.head.get_boundary() or "").encode()
    for body in (
        part.body,
        _payload(part),
    ):  # some programs encode the whole, though only its parts should be
        if found := _cut(body, named):
            return found
        seen = _BOUNDARY.search(body)
        if seen and (found := _cut(body, seen[1].removesuffix(b"--"))):
            return found
    return []


def _cut(body: bytes, boundary: bytes) -> list[MailPiece]:
    """Return what stands behind each line of a boundary, without the line end before the next."""
    if not boundary:
        return []
    line = rb"(?m)^--%s(--)?[ \t]*\r*(?:\n|\Z)" % re.escape(boundary)
    before, *found = re.split(line, body)
    # The line before the first part is missing or damaged.
    first = _PART_HEAD.search(before)
    if found and (first or found[0] is not None):
        found = [None, before[first.start() :] if first else before, *found]
    pieces = zip(found[::2], found[1::2], strict=True)
    return [
        MailPiece(data.removesuffix(b"\n").removesuffix(b"\r"), end is not None)
        for end, data in pieces
    ]


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
    with suppress(NotText):  # of which the attempt to read it as a file says why
        return MailTexts([_plain_text(_payload(part), part.head.get_content_charset(""), kind)], [])
    return MailTexts([], [part])


def _divided_pieces(pieces: list[MailPiece], kind: str, charset: str) -> MailTexts:
    """Return the texts of a multipart of a kind, and what is attached to it."""
    default_kind = "message/rfc822" if kind == "multipart/digest" else "text/plain"
    texts, texts_behind, attached = list[str](), list[str](), list[MailPart]()
    for piece in pieces:
        # Two lines of a boundary in a row, or the line end behind the last.
        if not piece.data.strip():
            continue
        if piece.is_behind_end:
            # A footer that a mailing list or a virus scanner added: it has no heads.
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
    """Return the fullest of texts that ought to say the same, and those that are mostly missing
    from it."""
    said, found = set[str](), list[str]()
    spoken = [(set(re.findall(r"\w+|[^\w\s]", text.lower())), text) for text in texts]
    for words, text in sorted(spoken, key=lambda one: len(one[0]), reverse=True):
        if 2 * len(words - said) > len(words):
            found.append(text)
        said |= words
    return found


def _kind(part: MailPart) -> str:
    return part.head.get_content_type().split()[0]


def _payload(part: MailPart) -> bytes:
    """Return the bytes of a part as they were before they were encoded."""
    named = part.head.get("Content-Transfer-Encoding", "")
    encoding = f"{named} 7bit".split()[0].strip("\"';,").lower()
    if encoding == "base64":
        return _from_base64(part.body)
    return quopri.decodestring(part.body) if encoding == "quoted-printable" else part.body


def _from_base64(data: bytes) -> bytes:
    """Return what base64 holds, though other signs or padding stand in it, padding is missing, or
    words follow."""
    packed, *words = _WORDS.split(data, maxsplit=1)
    pieces = re.findall(rb"[^=]+", re.sub(rb"[^A-Za-z0-9+/=]", b"", packed))
    return b"".join(
        [*(a2b_base64(one[: len(one) - (len(one) % 4 == 1)] + b"==") for one in pieces), *words]
    )


def _file_name(part: MailPart) -> str:
    found = part.head.get_param("filename", None, "Content-Disposition") or part.head.get_param(
        "name", ""
    )
    if isinstance(found, tuple):  # RFC 2231
        charset, _, name = found
        with suppress(UnicodeEncodeError):  # a name in eight bits, which is decoded by now
            return decode_text(name.encode("latin-1"), charset or "") or name
        return name
    return _words(str(found))


def _words(head: str) -> str:
    """Return a head of an e-mail with encoded words (RFC 2047) as what they stand for."""
    return _ENCODED_WORDS.sub(_decoded_words, " ".join(head.split()))


def _decoded_words(found: re.Match[str]) -> str:
    """Return what encoded words stand for, which may divide a character; themselves if they are not
    valid."""
    with suppress(HeaderParseError, ValueError):
        pieces = list[str]()
        for piece, charset in decode_header(found[0]):
            data = piece.encode() if isinstance(piece, str) else piece
            pieces.append(decode_text(data, charset or "") or data.decode("utf-8", "replace"))
        return "".join(pieces)
    return found[0]


def _answers(form: str, data: bytes) -> Iterator[dict[str, str]]:
    """Yield what the parent is told of a file: its pages, and then a reason if there is more that
    cannot be read."""
    chars, reasons = 0, dict[str, None]()
    try:
        pages: str | Pages = file_text(data)
        if form != FILE:
            pages = load_plugin(FORMATS, form, f"format {form!r}")(data)
        for page, found in [(None, pages)] if isinstance(pages, str) else pages:
            if isinstance(found, NotText):
                reasons[str(found)] = None
                continue
            text = visible(found.encode("utf-8", "replace").decode().replace("\0", " ")).strip()
            if text:
                yield {
                    "page": "" if page is None else str(page),
                    "text": text[: MAX_FILE_CHARS - chars],
                }
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
    more = f" (and {len(reasons) - 3} more)" if len(reasons) > 3 else ""
    yield {"reason": "; ".join([*reasons][:3]) + more} if reasons else {}


def main() -> None:
    """Read files until the parent closes its end: the main function of the child."""
    connection: Any = Connection(int(sys.argv[1]))
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(
            limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )
    with suppress(EOFError, ConnectionError):
        while True:
            form, seconds = connection.recv()
            with os.fdopen(recv_handle(connection), "rb") as file:
                signal.setitimer(
                    signal.ITIMER_REAL, seconds
                )  # SIGALRM ends this process, whatever it is doing
                file.seek(0)
                data = file.read()
            for answer in _answers(form, data):
                connection.send_bytes(json.dumps(answer).encode())
            signal.setitimer(signal.ITIMER_REAL, 0)
