"""The text of files: PDF, office documents (Open XML, OpenDocument), e-mail, HTML, and what plug-ins read. It runs in a
child process. A plug-in is a function that takes the bytes of a file, and returns its text or yields pairs of page and
text."""

from __future__ import annotations

import email
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
import zipfile
from binascii import a2b_base64
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from logging.handlers import BufferingHandler
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

from rag_index.components.sources.office_files import (
    MAX_FILE_CHARS,
    OfficeFile,
    OfficeText,
    Pages,
    reason_of,
    sheet_texts,
)
from rag_index.components.sources.text import (
    BYTE_ORDER_MARKS,
    MAGIC,
    NotText,
    decode,
    decode_text,
    html_text,
    visible,
)
from rag_index.core.extras import install_command
from rag_index.core.settings.parts import FILE
from rag_index.core.settings.plugins import FORMATS, load_plugin

MEMORY = 1_000_000_000
"""Bytes that the process may have, with Python and its libraries."""
OUT_OF_MEMORY = 77
MAX_FILES_WITHIN = 5
"""Files within files, such as e-mails that are attached to e-mails."""
HEAD = ("Subject", "From", "To", "Cc", "Date")
_MAIL = re.compile(rb"(?:From .*\n)?(?:[A-Z][\w-]*+:.*\n(?:[ \t].*\n)*+){2,}+", re.IGNORECASE)
_MAIL_HEAD = re.compile(
    rb"^(?:MIME-Version|Content-[\w-]+|Message-ID|Received|Return-Path|Delivered-To|X-[\w-]+|.*=\?[\w-]+\?[bq]\?)",
    re.MULTILINE | re.IGNORECASE,
)
"""What only mail programs write. Other lines of a name and a value are a text, which is read with all of them."""
_MAILBOX = re.compile(rb"(?:\A|\n\r?\n)From \S+\s+\w{3} \w{3} [ \d]?\d \d\d:\d\d.*\n")
_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+")
_WORDS = re.compile(rb"^[ \t]*\S+[ \t]+\S", re.MULTILINE)
"""Where words begin, such as those that a mailing list adds to what it took for plain text."""
_BOUNDARY = re.compile(rb"^--(\S+)[ \t]*\r?$", re.MULTILINE)
_HTML = re.compile(r"\s*<(?:!doctype html|html|head|body|\?xml[^<]*<html|!--)", re.IGNORECASE)
_CALENDAR = re.compile(r"\s*BEGIN:(?:VCALENDAR|VCARD)\b", re.IGNORECASE)
_CALENDAR_LINE = re.compile(r"(?:[\w-]+\.)?([\w-]+)(|;(?:\"[^\"]*\"|[^\":])*):(.*)")
_NOT_SAID = re.compile(r"END|VERSION|PRODID|UID|REV|DTSTAMP|CREATED|LAST-MODIFIED|SEQUENCE|TRANSP|CLASS|PRIORITY|"
                       r"CALSCALE|METHOD|PHOTO|LOGO|SOUND|KEY|ATTACH|X-.*", re.IGNORECASE)  # fmt: skip
"""The lines of calendars and address cards that are for programs."""
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)(?:T(\d\d)(\d\d)\d\d)?")
PASSWORD = 1 << 13
"""The flag of a field of a PDF form that holds a password."""
_ARABIC = re.compile(r"[\u0600-\u08ff\ufb50-\ufdff\ufe70-\ufefc]")
_LIGATURES = re.compile(r"[\ufb00-\ufdff\ufe70-\ufefc]+")
_GLYPH = re.compile(r"/g\d+|\(cid:\d+\)")
"""Numbers of glyphs that stand where letters should."""
_LOST = re.compile(r"^Error -|Impossible to decode|skipped")
"""What pypdf writes into its log where it leaves out a text."""
MAILS = frozenset(["message/rfc822", "message/global", "message/news", "message/partial"])


def file_text(data: bytes, depth: int = 0, charset: str = "") -> Pages:
    """Yield the pages of a file with their text. Raises NotText if there is more that cannot be read."""
    if depth > MAX_FILES_WITHIN:
        raise NotText("has files within files within files")
    try:
        if data.startswith(tuple(BYTE_ORDER_MARKS)) and (text := decode_text(data)):
            data = text.encode()
        if b"%PDF-" in data[:1024]:
            yield from pdf_text(data, depth)
        elif data.startswith(b"PK\x03\x04"):
            yield from office_text(data, depth)
        elif data.startswith(b"\xd0\xcf") and (sheets := _old_sheets(data)) is not None:
            yield from ((None, text) for text in sheets)
        elif (head := _MAIL.match(data.lstrip())) and _MAIL_HEAD.search(head[0]):
            yield from mail_text(data.lstrip(), depth)
        else:
            yield None, plain_text(data, charset)
    except (NotText, MemoryError):
        raise
    except Exception as error:  # whatever a parser raises is about the file
        raise NotText(reason_of(error)) from error


def plain_text(data: bytes, charset: str = "", kind: str = "") -> str:
    """Return the text of a file that is a text, such as HTML or a calendar. Raises NotText."""
    text = decode_text(data, charset) if charset else None
    try:
        text = (decode(data) if text is None else text).replace("\r\n", "\n").replace("\r", "\n")
    except NotText as error:
        found = next((name for magic, name in MAGIC.items() if data.startswith(magic)), "no known kind of file")
        raise NotText(f"is {found}, or encrypted" if data.startswith(b"\xd0\xcf") else f"is {found}") from error
    if text.startswith("{\\rtf"):
        raise NotText("is an RTF file")
    if text.lstrip().startswith("-----BEGIN PGP MESSAGE"):
        raise NotText("is encrypted")
    if kind in ("text/enriched", "text/richtext"):
        return html_text(text, elements=None)
    if _CALENDAR.match(text):
        return calendar_text(text)
    if text.startswith("<?xml") and "opendocument" in text[:4000]:  # in one file, without a ZIP file around it
        return "\n\n".join(text for _, text in OfficeText(re.sub(r"\A<\?xml[^>]*>", "", text).encode(), {}).pages)
    return html_text(text) if kind == "text/html" or _HTML.match(text) else text


def calendar_text(text: str) -> str:
    """Return what iCalendar or vCard says, a line for each property."""
    text = re.sub(r"\n[ \t]", "", text)
    text = re.sub(r"(?ims)^BEGIN:(VTIMEZONE|VALARM)\n.*?^END:\1$", "", text)
    said = list[str]()
    for line in text.split("\n"):
        if (found := _CALENDAR_LINE.match(line)) is None:
            continue
        name, more, value = found.groups()
        if name.upper() == "BEGIN":
            said.append("")
        elif not _NOT_SAID.fullmatch(name):
            named = re.findall(r";(?:CN|TZID)=\"?([^\";:]+)", more, re.IGNORECASE)
            is_time = name.upper().startswith(("DT", "DUE", "RECURRENCE-ID", "EXDATE", "RDATE"))
            told = _TIME.sub(_time, value) if is_time else re.sub(r"\\([,;\\])", r"\1", value.replace("\\n", "\n"))
            said.append(" ".join([f"{name.lower()}:", *named, re.sub("(?i)^mailto:", "", told)]))
    return "\n".join(said).strip()


def _time(found: re.Match[str]) -> str:
    year, month, day, hour, minute = found.groups()
    return f"{year}-{month}-{day}" + (f" {hour}:{minute}" if hour else "")


def _old_sheets(data: bytes) -> Iterator[str] | None:
    """Return the sheets of an old Excel file, None for another old file."""
    from python_calamine import CalamineError

    try:
        return iter([*sheet_texts(data)])
    except CalamineError:
        return None


def pdf_text(data: bytes, depth: int = 0) -> Pages:
    """Yield the pages of a PDF file, with remarks and values of forms, and files that are attached. Raises NotText."""
    try:
        from pypdf import PdfReader
        from pypdfium2 import PdfDocument, PdfiumError
    except ImportError as error:
        raise NotText(f"needs pypdf and pypdfium2: {install_command('files')}") from error
    document, shown, wrong, missing = PdfReader(io.BytesIO(data)), None, list[str](), list[str]()
    if document.is_encrypted and not document.decrypt(""):
        raise NotText("is encrypted")
    with suppress(PdfiumError):
        shown = PdfDocument(data)
    log = BufferingHandler(MAX_FILE_CHARS)
    logging.getLogger("pypdf").addHandler(log)
    for number in range(1, len(document.pages) + 1):
        log.buffer.clear()
        texts, why = dict[str, None](), list[str]()
        try:
            texts.update((text, None) for text in _page_texts(document, shown, number - 1))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other pages are worth reading
            why = [str(error) if isinstance(error, NotText) else f"{type(error).__name__}: {error}"]
        yield number, "\n".join(texts)
        why += [said for one in log.buffer if _LOST.search(said := one.getMessage()) or not any(texts)]
        wrong += [f"page {number} ({why[0]})"] if why else []
    logging.getLogger("pypdf").removeHandler(log)
    if (pages := int(document.root_object["/Pages"].get("/Count", 0))) > len(document.pages):
        wrong.append(f"{pages - len(document.pages)} of {pages} pages, which are not there")
    yield None, html_text((document.xfa or {}).get("datasets", b"").decode("utf-8", "replace"), elements=None)
    for name, one in _files_of_pdf(document):
        yield from _file_within(name, one, depth, missing)
    broken = [f"is broken in {', '.join(wrong[:3])}"] if wrong else []
    if broken or missing:
        raise NotText("; ".join([*broken, *_missing(missing)]))


def _files_of_pdf(document: Any) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of the files that are attached to a PDF file, or to a place on one of its pages."""
    for name, files in document.attachments.items():
        yield from ((name, one) for one in files)
    for page in document.pages:
        for remark in _objects(page.get("/Annots")):
            for file in _objects(remark.get("/FS")):
                if isinstance(file, dict) and "/EF" in file:
                    yield str(file.get("/UF") or file.get("/F")), file["/EF"]["/F"].get_data()


def _page_texts(document: Any, shown: Any, number: int) -> Iterator[str]:
    """Yield the text of a page, and what readers wrote on it, or into the fields of its form. PDFium is faster than
    pypdf and sees which letters have no meaning; pypdf reads Arabic in its order, and says why it reads nothing."""
    page, text, unknown = document.pages[number], "", 0
    if shown is not None and len(shown) == len(document.pages):
        text, unknown = _shown_text(shown, number)
    if not text.strip() or _ARABIC.search(text):
        text = _LIGATURES.sub(lambda found: unicodedata.normalize("NFKC", found[0]), page.extract_text())
    is_garbled = _is_garbled(text, unknown)
    if not is_garbled:
        yield text
    for found in _objects(page.get("/Annots")):
        if _objects(found.get("/Subtype")) == ["/Widget"]:
            yield from _field_texts(found)
        else:
            yield from map(str, _objects(found.get("/Contents")))
    if is_garbled:
        raise NotText("the file does not say what its letters mean")


def _shown_text(document: Any, number: int) -> tuple[str, int]:
    """Return the text of a page, and how many of its letters have no meaning. Its words are not divided by lines."""
    from pypdfium2 import PdfiumError
    from pypdfium2.raw import FPDFText_HasUnicodeMapError as has_no_meaning

    try:
        letters = document[number].get_textpage()
    except PdfiumError:
        return "", 0
    unknown = sum(has_no_meaning(letters, at) == 1 for at in range(letters.count_chars()))
    return letters.get_text_range().replace("\ufffe", "").replace("\r\n", "\n"), unknown


def _is_garbled(text: str, unknown: int) -> bool:
    """Return whether most signs of a page mean nothing, or hardly one is a letter, and many are marks."""
    signs = [sign for sign in _GLYPH.sub("\ufffd", text) if sign not in " \t\r\n\f\u00a0"]
    kinds = Counter("C" if sign == "\ufffd" else unicodedata.category(sign)[0] for sign in signs)
    marks = kinds["P"] + kinds["S"]
    is_code = 10 * kinds["L"] < len(signs) and marks > kinds["N"] and len({*signs}) > 12
    return 2 * max(kinds["C"], unknown) > len(signs) or is_code


def _field_texts(field: Any) -> Iterator[str]:
    if any(int(flags) & PASSWORD for flags in _objects(field.get_inherited("/Ff"))):
        return
    pairs = [_objects(pair) for pair in _objects(field.get_inherited("/Opt")) if isinstance(pair, list)]
    shown = {str(pair[0]): str(pair[-1]) for pair in pairs if pair}
    for value in _objects(field.get_inherited("/V")):
        text = value.get_data().decode("utf-8", "replace") if hasattr(value, "get_data") else str(value)
        if text != "/Off":
            yield shown.get(text, text.removeprefix("/"))


def _objects(found: Any) -> list[Any]:
    """Return what a value of a PDF file has, which may be a list, without references."""
    found = found.get_object() if found is not None else []
    return [one.get_object() for one in found] if isinstance(found, list) else [found]


def _file_within(name: str, data: bytes, depth: int, missing: list[str], charset: str = "") -> Pages:
    """Yield the texts of a file within another, under its name. What cannot be read is added to `missing`."""
    said = False
    try:
        for _, text in file_text(data, depth + 1, charset):
            if text.strip():
                said = True
                yield None, f"{name}\n\n{text}"
        if data.strip() and not said:
            raise NotText("has no text, as where pages are pictures")
    except NotText as error:
        missing.append(f"{name} {error}")


def _missing(names: list[str]) -> list[str]:
    return [f"has attachments that cannot be read: {', '.join(names)}"] if names else []


def office_text(data: bytes, depth: int = 0) -> Pages:
    """Yield the text of a document of Word, PowerPoint, Excel or LibreOffice. Raises NotText."""
    missing = list[str]()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        yield from OfficeFile(archive, lambda name, inner: _file_within(name, inner, depth, missing), missing).texts(
            data
        )
    if missing:
        raise NotText(", ".join(dict.fromkeys(missing)))


def mail_text(data: bytes, depth: int = 0) -> Pages:
    """Yield what the e-mails of a file say, and what is attached to them, but pictures. Raises NotText."""
    missing = list[str]()
    for one in _MAILBOX.split(data) if data.startswith(b"From ") else [data]:
        message = email.message_from_bytes(one)
        for part in message.walk():
            _mend(part)
        heads = [f"{name}: {_words(message[name])}" for name in HEAD if message[name]]
        texts, attached = _divided(message, missing)
        yield None, "\n\n".join(["\n".join(heads), *texts])
        for part in attached:
            yield from _attachment_text(part, depth, missing)
    if missing:
        raise NotText(*_missing(missing))


def _mend(part: Message) -> None:
    """Decode heads in eight bits, and divide a part by the boundary that it has, if that is not the one it names."""
    for name, value in set(part.raw_items()):
        if not value.isascii():
            part.replace_header(name, decode_text(value.encode("utf-8", "surrogateescape")) or "")
    if _kind(part).startswith("multipart/") and not part.is_multipart():
        data = _payload(part)
        if found := _BOUNDARY.search(data):
            head = b'Content-Type: multipart/mixed; boundary="%s"\n\n' % found[1]
            part.set_payload(email.message_from_bytes(head + data).get_payload())


def _divided(part: Any, missing: list[str]) -> tuple[list[str], list[Message]]:
    """Return the texts of a part of an e-mail, and what is attached to it."""
    if not (part.is_multipart() and _kind(part).startswith("multipart/")):
        return ([_body_text(part, missing)], []) if _is_body(part) else ([], [part])
    inner = [_divided(one, missing) for one in part.get_payload()]
    texts = ["\n\n".join(some) for some, _ in inner]
    if _kind(part) == "multipart/alternative":
        texts = _different(texts)
    behind = decode_text((part.epilogue or "").encode("utf-8", "surrogateescape")) or ""
    return [text for text in [*texts, behind] if text.strip()], [one for _, attached in inner for one in attached]


def _different(texts: list[str]) -> list[str]:
    """Return the fullest of texts that ought to say the same, and those that are mostly missing from it."""
    said, found = set[str](), list[str]()
    spoken = [(set(re.findall(r"\w+|[^\w\s]", text.lower())), text) for text in texts]
    for words, text in sorted(spoken, key=lambda one: len(one[0]), reverse=True):
        if 2 * len(words - said) > len(words):
            found.append(text)
        said |= words
    return found


def _is_body(part: Message) -> bool:
    is_text = _kind(part).startswith(("text/", "multipart/")) and _kind(part) != "text/calendar"
    return is_text and part.get_content_disposition() != "attachment" and not _file_name(part)


def _attachment_text(part: Any, depth: int, missing: list[str]) -> Pages:
    kind = _kind(part)
    name = _file_name(part) or kind
    if kind.startswith("image/") or kind.endswith("-signature"):
        return
    if not part.is_multipart():
        yield from _file_within(name, _payload(part), depth, missing, _parameter(part, "charset", "Content-Type"))
        return
    data = b"\n\n".join(one.as_bytes() for one in part.get_payload())
    if kind not in MAILS:  # such as a report on a delivery
        yield None, f"{name}\n\n{plain_text(data)}"
        return
    if _encoding(part) in ("base64", "quoted-printable"):  # which is forbidden, and done
        data = _from_base64(data) if _encoding(part) == "base64" else quopri.decodestring(data)
    yield from _file_within(name, data, depth, missing)


def _kind(part: Message) -> str:
    found = _TYPE.match(part.get_content_type())
    return found[0] if found else "text/plain"


def _encoding(part: Message) -> str:
    return re.sub(
        r"[^\w-].*", "", str(part.get("Content-Transfer-Encoding", "")).strip(" \t\"'"), flags=re.DOTALL
    ).lower()


def _parameter(part: Message, name: str, header: str) -> str:
    found = part.get_param(name, "", header)
    if isinstance(found, tuple):  # RFC 2231
        return decode_text(found[2].encode("latin-1", "replace"), found[0] or "") or found[2]
    return _words(str(found))


def _file_name(part: Message) -> str:
    return _parameter(part, "filename", "Content-Disposition") or _parameter(part, "name", "Content-Type")


def _words(head: str) -> str:
    """Return a head of an e-mail with encoded words (RFC 2047) as what they stand for."""
    head, found = " ".join(head.split()), ""
    try:
        pieces = decode_header(head)
    except HeaderParseError:
        return head
    for piece, charset in pieces:
        if isinstance(piece, str):
            found += piece
        elif charset is None:
            found += piece.decode("raw-unicode-escape", "replace")
        else:
            found += decode_text(piece, charset) or piece.decode("utf-8", "replace")
    return found


def _payload(part: Message) -> bytes:
    """Return the bytes of a part as they were before they were encoded, or as they are if they were not."""
    encoding = _encoding(part)
    if encoding:
        part.replace_header("Content-Transfer-Encoding", encoding)
    if encoding != "base64":
        return bytes(part.get_payload(decode=True) or b"")
    packed = str(part.get_payload() or "").encode("utf-8", "surrogateescape")
    is_text = _kind(part).startswith("text/")
    words = _WORDS.search(packed) if is_text else None
    end = words.start() if words else len(packed)
    data = _from_base64(packed[:end])
    if not data or (is_text and decode_text(data, _parameter(part, "charset", "Content-Type")) is None):
        return packed
    return data + packed[end:]


def _from_base64(data: bytes) -> bytes:
    """Return what base64 holds, though other signs or padding stand in it, or padding is missing."""
    pieces = re.findall(rb"[^=]+", re.sub(rb"[^A-Za-z0-9+/=]", b"", data))
    return b"".join(a2b_base64(one[: len(one) - (len(one) % 4 == 1)] + b"==") for one in pieces)


def _body_text(part: Message, missing: list[str]) -> str:
    try:
        return plain_text(_payload(part), _parameter(part, "charset", "Content-Type"), _kind(part))
    except NotText as error:
        missing.append(f"{_kind(part)} {error}")
        return ""


def _answers(form: str, data: bytes) -> Iterator[dict[str, str]]:
    """Yield what the parent is told of a file: its pages, and then a reason if there is more that cannot be read."""
    chars = 0
    try:
        for page, found in _pages(form, data):
            text = visible(found.encode("utf-8", "replace").decode().replace("\0", " ")).strip()
            if text:
                yield {"page": "" if page is None else str(page), "text": text[: MAX_FILE_CHARS - chars]}
            chars += len(text)
            if chars > MAX_FILE_CHARS:
                raise NotText(f"has more than {MAX_FILE_CHARS:,} characters; the first ones are indexed")
        if not chars:
            raise NotText("has no text, as where pages are pictures")
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises is about the file
        yield {"reason": reason_of(error)}
    else:
        yield {}


def _pages(form: str, data: bytes) -> Pages:
    if form == FILE:
        return file_text(data)
    found: str | Pages = load_plugin(FORMATS, form, f"format {form!r}")(data)
    return [(None, found)] if isinstance(found, str) else found


def main() -> None:
    """Read files until the parent closes its end: the main function of the child."""
    connection: Any = Connection(int(sys.argv[1]))
    for limit, most in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    with suppress(EOFError, ConnectionError):
        while True:
            form, seconds = connection.recv()
            with os.fdopen(recv_handle(connection), "rb") as file:
                signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends this process, whatever it is doing
                file.seek(0)
                data = file.read()
            for answer in _answers(form, data):
                connection.send_bytes(json.dumps(answer).encode())
            signal.setitimer(signal.ITIMER_REAL, 0)
