"""The text of files: PDF, office documents, e-mail, HTML, and what plug-ins read. It runs in a child process.

A plug-in is a function that takes the bytes of a file, and returns its text or yields pairs of page and text.
"""

from __future__ import annotations

import email
import email.policy
import io
import json
import os
import re
import resource
import signal
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import TYPE_CHECKING, Any

from lxml import etree

from rag_index.settings.parts import FILE
from rag_index.settings.plugins import FORMATS, load_plugin
from rag_index.sources.text import MAGIC, MAX_BYTES, HtmlText, NotText, decode, html_text, visible

if TYPE_CHECKING:
    Pages = Iterable[tuple[int | None, str]]

MEMORY = 1_000_000_000
"""Bytes that the process may have, with Python and its libraries."""
OUT_OF_MEMORY = 77
MAX_CHARS = 5_000_000
"""Characters of text that one file may have."""
MAX_DEPTH = 5
"""E-mails within e-mails."""
HEAD = ("Subject", "From", "To", "Cc", "Date")
_MAIL = re.compile(r"(?:From .*\n)?(?:(?:X-|ARC-|DKIM-)?[A-Z][\w-]*+:.*\n(?:[ \t].*\n)*+){2}")
_MAIL_HEAD = re.compile(r"^(?:From|Date|Subject|Message-ID|Received):", re.MULTILINE | re.IGNORECASE)
_HTML = re.compile(r"\s*<(?:!doctype html|html|head|body|\?xml[^<]*<html|!--)", re.IGNORECASE)
_MEMBER = re.compile(
    r"content\.xml|word/(?:document|footnotes|endnotes)\.xml|xl/sharedStrings\.xml|ppt/slides/slide(\d+)\.xml"
)
"""The members of an office document that have its text; a slide of PowerPoint is a page."""
_AS_HTML = {
    "p": "p", "h": "p", "si": "p", "tbl": "table", "table": "table", "tr": "tr", "table-row": "tr", "tc": "td",
    "table-cell": "td", "br": "br", "cr": "br", "line-break": "br", "list-item": "li",
}  # fmt: skip
_HIDDEN = frozenset(["delText", "instrText", "tracked-changes", "annotation", "rPh"])
"""Elements of office documents whose text is deleted, a formula, or a reader's remark."""


def file_text(data: bytes, depth: int = 0) -> Pages:
    """Yield the pages of a file with their text. Raises NotText if there is more that cannot be read."""
    if b"%PDF-" in data[:1024]:
        yield from pdf_text(data)
    elif data.startswith(b"PK\x03\x04"):
        yield from office_text(data)
    else:
        try:
            text = decode(data).replace("\r\n", "\n")
        except NotText as error:
            kind = next((kind for magic, kind in MAGIC.items() if data.startswith(magic)), "no known kind of file")
            raise NotText(f"is {kind}, or encrypted" if data.startswith(b"\xd0\xcf") else f"is {kind}") from error
        if text.startswith("{\\rtf"):
            raise NotText("is an RTF file")
        if (head := _MAIL.match(text)) and _MAIL_HEAD.search(head[0]):
            yield from mail_text(data, depth)
        else:
            yield None, html_text(text) if _HTML.match(text) else text


def pdf_text(data: bytes) -> Pages:
    """Yield the pages of a PDF file. Raises NotText."""
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise NotText('needs pypdf: pip install "rag-index[files]"') from error
    document, wrong = PdfReader(io.BytesIO(data)), []
    if document.is_encrypted and not document.decrypt(""):
        raise NotText("is encrypted")
    for number, page in enumerate(document.pages, start=1):
        try:
            yield number, page.extract_text()
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the other pages are worth reading
            wrong.append(f"page {number} ({type(error).__name__}: {error})")
    if wrong:
        raise NotText(f"is broken in {', '.join(wrong[:3])}")


def office_text(data: bytes) -> Pages:
    """Yield the text of a document of Word, PowerPoint, Excel or LibreOffice. Raises NotText."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        found = [one for name in names if (one := _MEMBER.fullmatch(name))]
        if not found:
            raise NotText("is a ZIP file, but no document of a known kind")
        if "META-INF/manifest.xml" in names and b"encryption-data" in _member(archive, "META-INF/manifest.xml"):
            raise NotText("is encrypted")
        for one in sorted(found, key=lambda one: int(one[1] or 0)):
            yield int(one[1]) if one[1] else None, _xml_text(_member(archive, one[0]))


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as member:
        data = member.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise NotText(f"unpacks to more than {MAX_BYTES:,} bytes")
    return data


def _xml_text(data: bytes) -> str:
    return str(etree.XML(data, etree.XMLParser(target=_OfficeText(), resolve_entities=False, no_network=True)))


class _OfficeText(HtmlText):
    """What lxml tells of the XML of an office document, read as HTML."""

    def __init__(self) -> None:
        super().__init__(lines=False)
        self._hidden = self._cells = self._texts = 0
        self._in_runs = False
        """Whether only elements `t` have text, as in Microsoft's formats."""

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        space, _, name = tag.rpartition("}")
        self._in_runs = self._in_runs or "openxmlformats" in space
        self._hidden += name in _HIDDEN
        self._texts += name == "t"
        if name in ("tab", "s"):
            super().data(" ")
        elif name in ("tc", "table-cell"):
            self._cells += 1
        if element := self._element(name):
            super().start(element, {})

    def end(self, tag: str) -> None:
        name = tag.rpartition("}")[2]
        self._hidden -= name in _HIDDEN
        self._texts -= name == "t"
        self._cells -= name in ("tc", "table-cell")
        if element := self._element(name):
            super().end(element)

    def data(self, text: str) -> None:
        if not self._hidden and (self._texts or not self._in_runs):
            super().data(text)

    def _element(self, name: str) -> str | None:
        """Return the element of HTML. Paragraphs of a cell stay in its line."""
        element = _AS_HTML.get(name)
        if element == "p" and self._cells:
            super().data(" ")
            return None
        return element


def mail_text(data: bytes, depth: int = 0) -> Pages:
    """Yield what an e-mail says, and what is attached to it, but pictures. Raises NotText."""
    if depth > MAX_DEPTH:
        raise NotText("has e-mails within e-mails within e-mails")
    message = email.message_from_bytes(data, policy=email.policy.default)
    heads = [f"{name}: {message[name]}" for name in HEAD if message[name]]
    body = message.get_body(("plain", "html"))
    yield None, "\n".join(heads) + "\n\n" + (_body_text(body) if body is not None else "")
    wrong = []
    for one in message.iter_attachments():
        kind, name = one.get_content_type(), one.get_filename() or one.get_content_type()
        inner: Any = one.get_payload(0) if kind == "message/rfc822" else one.get_payload(decode=True)
        try:
            for _, text in file_text(bytes(inner or b""), depth + 1) if not kind.startswith("image/") else ():
                yield None, f"{name}\n\n{text}"
        except (NotText, zipfile.BadZipFile) as error:
            wrong.append(f"{name} {error}")
    if wrong:
        raise NotText(f"has attachments that cannot be read: {', '.join(wrong)}")


def _body_text(body: Any) -> str:
    data, text = body.get_payload(decode=True) or b"", None
    with suppress(LookupError, ValueError):
        text = data.decode(body.get_content_charset() or "utf-8")
    text = decode(data) if text is None else text
    return html_text(text) if body.get_content_type() == "text/html" else text


def _answers(form: str, data: bytes) -> Iterator[dict[str, str]]:
    """Yield what the parent is told of a file: its pages, and then a reason if there is more that cannot be read."""
    chars = 0
    try:
        for page, found in _pages(form, data):
            text = visible(found.encode("utf-8", "replace").decode().replace("\0", " ")).strip()
            if text:
                yield {"page": "" if page is None else str(page), "text": text[: MAX_CHARS - chars]}
            chars += len(text)
            if chars > MAX_CHARS:
                raise NotText(f"has more than {MAX_CHARS:,} characters, of which the first are indexed")
        if not chars:
            raise NotText("has no text, as where pages are pictures")
    except NotText as error:
        yield {"reason": str(error)}
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except Exception as error:  # noqa: BLE001 - whatever a parser raises is about the file
        yield {"reason": f"is broken ({type(error).__name__}: {str(error)[:200]})"}
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
