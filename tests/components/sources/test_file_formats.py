"""Whatever can be read in mails, office documents and PDF files is read; of all else the reason is
said."""

import base64
import io

import pytest
from pypdf import PdfWriter
from pypdf.annotations import FreeText, Text
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    NameObject,
    NumberObject,
    StreamObject,
    TextStringObject,
)

from tests.components.sources.test_attachments import ODT, assembled, docx, odt, pdf, zipped

HEAD = "From: kim@example.org\r\nSubject: a report\r\nMIME-Version: 1.0\r\n"
BASE64 = "Content-Transfer-Encoding: base64\r\n"
QUOTED = BASE64.replace("base64", "quoted-printable")
OFFICE = "http://schemas.openxmlformats.org/"
SHEET, DRAWING = f"{OFFICE}spreadsheetml/2006/main", f"{OFFICE}drawingml/2006/main"
STRICT = "http://purl.oclc.org/ooxml/wordprocessingml/main"
HEADS = "Subject: a report\nFrom: kim@example.org"
OLD = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600)
CALENDAR = """BEGIN:VCALENDAR
BEGIN:VTIMEZONE
DTSTART:19700329T020000
END:VTIMEZONE
BEGIN:VEVENT
UID:4711@example.org
SUMMARY:Visit to the light
 house\\, with guests
DESCRIPTION:Bring shoes\\nand water
LOCATION:Cape Horn
DTSTART;TZID=America/Lima:20240229T171500
ORGANIZER:mailto:kim@example.org
ATTENDEE;CN="Lee, Jo";ROLE=CHAIR:mailto:lee@example.org
BEGIN:VALARM
DESCRIPTION:Reminder
END:VALARM
END:VEVENT
END:VCALENDAR
"""
SAID = """summary: Visit to the lighthouse, with guests
description: Bring shoes
and water
location: Cape Horn
dtstart: America/Lima 2024-02-29 17:15
organizer: kim@example.org
attendee: Lee, Jo lee@example.org"""
TEXT = "The permit for the lighthouse was renewed by the harbour office"
GLYPHS = b"<%s> Tj" % b"".join(b"%04X" % (ord(sign) - 29) for sign in TEXT)
CHARSETS = {
    "x-gbk": ("gbk", "灯塔的故事"),
    "gb2312": ("gbk", "灯塔的故事"),
    "big5": ("big5", "燈塔"),
    "x-sjis": ("cp932", "灯台①"),
    "iso-2022-jp": ("iso2022_jp", "灯台"),
    "ks_c_5601-1987": ("cp949", "등대"),
    "cp-850": ("cp850", "Größe prüfen"),
    "iso-8859-1": ("cp1252", "“5 €”"),
    "iso-8859-8-i": ("iso8859-8", "מגדלור"),
    "windows-1251": ("cp1251", "Маяк"),
    "koi8-r": ("koi8-r", "Маяк"),
    "utf-7": ("utf-7", "Größe Маяк"),
    "tis-620": ("cp874", "ประภาคาร"),
    "us-ascii": ("utf-8", "Größe"),
    "windows-1252": ("utf-8", "Größe"),
    "utf-8": ("cp1252", "Größe prüfen"),
    "unknown-8bit": ("cp1252", "Größe prüfen"),
}
KINDS = {
    "threaded": "threadedComment",
    "comments": "comments",
    "footnotes": "footnotes",
    "endnotes": "endnotes",
    "hdr": "header",
    "ftr": "footer",
    "sheet1": "worksheet",
    "Strings": "sharedStrings",
    "drawing": "drawing",
    "chartEx": "chartEx",
    "embeddings": "package",
    "mht": "aFChunk",
    "custom": "customXml",
}
"""Kinds of parts, by what their names contain."""
CELLS = (
    '<row><c t="inlineStr"><is><r><t>light</t></r><r><t>house</t></r></is></c><c><v>5</v></c>'
    '<c t="str"><f>A1</f><v>tower</v></c><c t="s"><v>0</v></c></row>'
)
BOX = (
    f'<w:document xmlns:w="{OFFICE}wordprocessingml/2006/main"'
    f' xmlns:mc="{OFFICE}markup-compatibility/2006"><w:p><w:r>'
    "<w:t>a</w:t></w:r><mc:AlternateContent><mc:Choice><w:txbxContent><w:p><w:r><w:t>box</w:t></w:r></w:p>"
    "</w:txbxContent></mc:Choice><mc:Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></mc:Fallback></mc:AlternateContent>"
    "</w:p></w:document>"
)
NOTES = (
    "<o:text><t:p>the<t:note><t:note-citation>1</t:note-citation><t:note-body><t:p>note</t:p></t:note-body></t:note>"
    "<o:annotation"
    ' xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:creator>Kim</dc:creator><t:p>remark</t:p>'
    "</o:annotation></t:p></o:text>"
)
CHART = (
    f'<c:chartSpace xmlns:c="{OFFICE}drawingml/2006/chart"'
    f' xmlns:a="{DRAWING}"><a:t>sales</a:t><c:tx><c:v>towers'
    "</c:v></c:tx><c:strCache><c:pt><c:v>north</c:v></c:pt></c:strCache><c:multiLvlStrCache><c:lvl><c:pt><c:v>east"
    "</c:v></c:pt></c:lvl></c:multiLvlStrCache><c:numCache><c:pt><c:v>55</c:v></c:pt></c:numCache></c:chartSpace>"
)
STYLES = (
    f'<o:document-styles xmlns:o="{ODT}office:1.0"'
    f' xmlns:t="{ODT}text:1.0"><t:p>header</t:p></o:document-styles>'
)
CHART_EX = "http://schemas.microsoft.com/office/drawing/2014/chartex"
THREADS = "http://schemas.microsoft.com/office/spreadsheetml/2018/threadedcomments"
NAMES = b" ".join(b"/g%d" % number for number in range(33, 127))


def part(kind, text="", more=""):
    return f"Content-Type: {kind}\r\n{more}\r\n{text}\r\n"


def several(kind, mark, *parts):
    inner = "".join(f"--{mark}\r\n{one}" for one in parts)
    return f'Content-Type: multipart/{kind}; boundary="{mark}"\r\n\r\n{inner}--{mark}--\r\n'


def packed(data):
    return base64.encodebytes(data).decode()


def mixed(*parts):
    return several("mixed", "M", part("text/plain", "see below"), *parts)


def attached(kind, data, name=""):
    return part(
        kind,
        packed(data),
        BASE64 + (name and f'Content-Disposition: attachment; filename="{name}"\r\n'),
    )


PACKED = packed(b"the lighthouse")
INNER = HEAD + part("text/plain", "the lighthouse")
HTML = part("text/html", "<p>the lighthouse</p>")
RTF = part("text/rtf", "{\\rtf1 the light{\\b house}}")
NAMED = part("text/plain; name=b.txt", "the lighthouse")
NOT_SAID = several("alternative", "A", part("text/plain"), HTML)
HAS_IT = {
    "HTML beside nothing": NOT_SAID,
    "HTML beside blanks": several("alternative", "A", part("text/plain", " \r\n \r\n"), HTML),
    "HTML with pictures beside nothing": several(
        "alternative",
        "A",
        part("text/plain"),
        several("related", "R", HTML, part("image/png", "x")),
    ),
    "HTML beside a hint": several(
        "alternative", "A", part("text/plain", "This message is in HTML."), HTML
    ),
    "a text beside empty HTML": several(
        "alternative", "A", part("text/plain", "the lighthouse"), part("text/html")
    ),
    "two texts that are no alternatives": several(
        "alternative",
        "A",
        part("text/plain", "the lighthouse"),
        part("text/html", "<p>Der Turm ist zu</p>"),
    ),
    "an attachment within an alternative": several(
        "alternative",
        "A",
        part("text/plain", "see the file"),
        several("mixed", "M", part("text/html", "<p>see the file</p>"), NAMED),
    ),
    "a file behind a broken one": mixed(
        attached("application/pdf", b"%PDF-1.4 broken", "a.pdf"), NAMED
    ),
    "RTF": RTF,
    "a mail that is attached": mixed(part("message/rfc822", INNER)),
    "a mail that is attached in base64": mixed(attached("message/rfc822", INNER.encode())),
    "a mail that is attached as quoted-printable": mixed(
        part("message/rfc822", INNER.replace("lighthouse", "light=\r\nhouse"), QUOTED)
    ),
    "a mail with few heads": mixed(part("message/rfc822", "Subject: x\r\n\r\nthe lighthouse")),
    "a mail that is attached as bytes": mixed(
        attached("application/octet-stream", INNER.encode(), "a.eml")
    ),
    "a mail that is a mail": "Content-Type: message/rfc822\r\n\r\n" + INNER,
    "a digest": several("digest", "D", "\r\n" + INNER),
    "a report on a delivery": several(
        "report",
        "R",
        part("text/plain", "failed"),
        part(
            "message/delivery-status",
            "Reporting-MTA: dns; x\r\nX-Id: 5\r\n\r\nDiagnostic-Code: the lighthouse\r\n",
        ),
    ),
    "a mail within mails within alternatives": mixed(
        part(
            "message/rfc822", HEAD + several("mixed", "N", part("message/rfc822", HEAD + NOT_SAID))
        )
    ),
    "enriched text": part("text/enriched", "<bold>the lighthouse</bold>"),
    "a type that is not valid": part("text/plain charset=utf-8; ;=;", "the lighthouse"),
    "a type that is none": part("text", "the lighthouse"),
    "no boundary": (
        several("mixed", "M", part("text/plain", PACKED, BASE64)).replace('; boundary="M"', "")
    ),
    "another boundary": (
        several("mixed", "M", part("text/plain", PACKED, BASE64)).replace('="M"', "=X")
    ),
    "no end": several("mixed", "M", part("text/plain", "the lighthouse")).replace("--M--", ""),
    "one boundary for two": mixed(
        several("alternative", "M", part("text/plain", "the lighthouse"))
    ),
    "text behind the end": mixed() + "the lighthouse",
    "parts behind the end": mixed() + f"--M\r\n{NAMED}--M--\r\n",
    "only the end of a boundary": (
        several("mixed", "M", part("text/plain", PACKED, BASE64)).replace("--M\r", "\r")
    ),
    "a damaged line of a boundary": (
        several("mixed", "M", part("text/plain", PACKED, BASE64), part("text/plain", "x")).replace(
            "--M\r", "--M?\r", 1
        )
    ),
    "a boundary of lines with two carriage returns": mixed(NAMED).replace("\r\n", "\r\r\n"),
    "a boundary with spaces behind it": mixed(NAMED).replace("--M\r", "--M \t\r"),
    "parts in base64 as a whole": (
        f"Content-Type: multipart/mixed; boundary=M\r\n{BASE64}\r\n"
        + packed(mixed(part("text/plain", PACKED, BASE64)).partition("\r\n\r\n")[2].encode())
    ),
    "no empty line before the body": "Content-Type: text/plain\r\nthe lighthouse",
    "no empty line before the parts": mixed(NAMED).replace("\r\n\r\n--M", "\r\n--M", 1),
    "no empty line before parts with a colon in their boundary": (
        several("mixed", "M:1", part("text/plain", PACKED, BASE64)).replace(
            "\r\n\r\n--M", "\r\n--M", 1
        )
    ),
    "a part that begins with a space": several("mixed", "M", " the lighthouse\r\n"),
    "a mail with a single head": mixed(part("message/rfc822", f"{QUOTED}\r\nthe light=\r\nhouse")),
    "a digest of mails with a single head": several(
        "digest", "D", f"\r\n{QUOTED}\r\nthe light=\r\nhouse\r\n"
    ),
    "base64 that is none": part("text/plain", "the lighthouse", BASE64),
    "base64 without padding": part(
        "text/plain", packed(b"the lighthouse!!").replace("=", ""), BASE64
    ),
    "base64 with other signs": part(
        "text/plain", packed(b"the lighthouse").replace("I", "!I*"), BASE64
    ),
    "base64 twice": part(
        "text/plain", packed(b"at the li") + packed(b"the lighthouse!!") + packed(b"x"), BASE64
    ),
    "base64 with a remark": part(
        "text/plain", packed(b"the lighthouse"), BASE64.replace("\r", " (RFC 2045)\r")
    ),
    "base64 before a list's own words": part(
        "text/plain", packed(b"On towers") + "The list of the lighthouse", BASE64
    ),
    "quoted-printable that is none": part("text/plain", "a=b the lighthouse =", QUOTED),
    "heads in small letters": HEAD.lower() + part("text/plain", packed(b"the lighthouse"), BASE64),
}


@pytest.mark.parametrize("name", HAS_IT)
def test_no_word_of_a_mail_is_lost(read, name):
    pages, reason = read(HEAD.encode() + HAS_IT[name].encode())
    assert "the lighthouse" in " ".join("\n".join(text for _, text in pages).split()), pages
    assert reason == "" or "broken" in name


def test_what_cannot_be_read_in_a_mail_has_a_reason_and_the_rest_is_read(read):
    for data, reason in (
        (attached("application/pdf", b"%PDF-1.4 broken", "a.pdf"), "a.pdf is broken ("),
        (attached("application/msword", OLD, "old.doc"), "old.doc is an old Office file"),
        (
            attached("application/ms-tnef", b"\x78\x9f\x3e\x22\1\2", "winmail.dat"),
            "winmail.dat is an attachment of O",
        ),
        (attached("application/pdf", pdf(""), "scan.pdf"), "scan.pdf has no text"),
        (
            part("application/octet-stream", "-----BEGIN PGP MESSAGE-----\r\n\r\nhQ\r\n"),
            "is encrypted",
        ),
    ):
        pages, said = read((HEAD + mixed(data, NAMED)).encode())
        assert reason in said
        assert [text for _, text in pages][-1] == "b.txt\n\nthe lighthouse", reason
        assert "see below" in pages[0][1], reason


def test_an_alternative_is_read_once_and_its_invitation_too_and_no_signature_or_picture_is_missed(
    read,
):
    signature = attached("application/pkcs7-signature", b"\x30\x82\1\2\3", "smime.p7s")
    assert (
        read((HEAD + mixed(signature, attached("image/png", b"\x89PNG\r\n\x1a\n\0"))).encode())[1]
        == ""
    )
    invited = part("text/calendar; method=REQUEST", CALENDAR.replace("\n", "\r\n"))
    mail = HEAD + several(
        "alternative", "A", part("text/plain", "Come!"), part("text/html", "<p>Come!</p>"), invited
    )
    assert [text for _, text in read(mail.encode())[0]] == [
        f"{HEADS}\n\nCome!",
        f"text/calendar\n\n{SAID}",
    ]


@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_a_calendar_is_read_as_a_person_reads_it(read, codec):
    assert read(CALENDAR.encode(codec)) == ([("", SAID)], "")


def test_a_file_with_many_mails_has_all_of_them_and_a_text_with_heads_is_no_mail(read):
    mails = [
        HEAD + part("text/plain", packed(word), BASE64)
        for word in (b"the tower", b"the lighthouse")
    ]
    box = "\r\n".join(f"From kim@example.org Mon Jan  1 10:00:00 2024\r\n{mail}" for mail in mails)
    assert [text.split("\n\n")[1] for _, text in read(box.encode())[0]] == [
        "the tower",
        "the lighthouse",
    ]
    note = "Title: The lighthouse\nDate: 2024\n\nIt is white."
    assert read(note.encode()) == ([("", note)], "")


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_charset_is_understood_in_bodies_heads_names_and_html(read, charset):
    codec, word = CHARSETS[charset]
    data = word.encode(codec)
    name = f"filename*={charset}''{''.join(f'%{byte:02X}' for byte in data)}"
    html = b"<html><head><meta charset='%s'></head><body>%s</body></html>" % (
        charset.encode(),
        data,
    )
    mail = (
        f"Subject: =?{charset}?B?{base64.b64encode(data).decode()}?=\r\nMIME-Version: 1.0\r\n"
        + mixed(
            part(f"text/plain; charset={charset}", packed(data), BASE64),
            part(
                "application/octet-stream",
                "the lighthouse",
                f"Content-Disposition: attachment; {name}\r\n",
            ),
            part("text/html", packed(html), BASE64),
        )
    )
    pages, reason = read(mail.encode())
    body, file = [text for _, text in pages]
    assert body.startswith(f"Subject: {word}\n\nsee below\n\n{word}\n\n{word}")
    assert (file, reason) == (f"{word}\n\nthe lighthouse", "")


EIGHT_BITS = {
    "utf-8": "Grüße aus Köln: der “Leuchtturm” kostet 5 €",
    "cp1252": "Grüße aus Köln: der “Leuchtturm” kostet 5 €",
    "cp1250": "Zażółć gęślą jaźń: latarnia morska nie działa",
    "cp1254": "Deniz feneri çalışmıyor, lütfen şu işe bakın",
    "koi8-r": "Маяк в гавани не работает, пришлите мастера",
    "cp1251": "Маяк в гавани не работает, пришлите мастера",
    "cp1253": "Ο φάρος του λιμανιού δεν λειτουργεί σήμερα",
    "gbk": "港口的灯塔坏了，请尽快派人检查一下",
    "big5": "港口的燈塔壞了，請儘快派人檢查一下",
    "cp932": "港の灯台が故障しました。確認をお願いします",
    "euc-jp": "港の灯台が故障しました。確認をお願いします",
    "cp949": "항구의 등대가 고장났습니다 확인 부탁드립니다",
}
"""What bytes beyond ASCII stand for, by charset."""
NO_CHARSETS = {
    "no charset": "",
    "an unknown one": "; charset=x-unknown",
    "that of a database": "; charset=utf8mb4",
    "ASCII": '; charset="us-ascii"',
    "a wrong one": "; charset=utf-8",
}


def bytes_of(mail, **data):
    """Return a mail with bytes where their names stand in braces."""
    found = mail.encode()
    for name, value in data.items():
        found = found.replace(b"{%s}" % name.encode(), value)
    return found


@pytest.mark.parametrize("way", ["8bit", "7bit", "binary", ""])
@pytest.mark.parametrize("named", NO_CHARSETS)
def test_a_body_that_is_not_packed_is_read_in_the_charset_that_it_looks_like(read, named, way):
    charset, how = NO_CHARSETS[named], way and f"Content-Transfer-Encoding: {way}\r\n"
    forwarded = INNER.replace("text/plain", f"text/plain{charset}").replace(
        "the lighthouse", "{words} of another"
    )
    mail = HEAD + mixed(
        part(f"text/plain{charset}", "{words} at first", how),
        part(f"text/html{charset}", "<p>{words} in <b>marks</b></p>", how),
        part(f"text/csv{charset}; name=a.csv", "{words};in a table", how),
        part("message/rfc822", forwarded, how),
    )
    for codec, words in EIGHT_BITS.items():
        pages, reason = read(bytes_of(mail + "{words} behind the end", words=words.encode(codec)))
        body, table, inner = [text for _, text in pages]
        said = ["see below", f"{words} at first", f"{words} in marks", f"{words} behind the end"]
        assert body.split("\n\n")[1:] == said, codec
        assert table == f"a.csv\n\n{words};in a table"
        assert inner == f"message/rfc822\n\n{HEADS}\n\n{words} of another"
        assert reason == ""


@pytest.mark.parametrize("charset", [*CHARSETS, "utf-16", "utf-16le", "utf-16be", "iso-8859-15"])
def test_a_body_that_is_not_packed_is_read_in_the_charset_that_it_names(read, charset):
    codec, words = CHARSETS.get(charset, (charset, "Größe: 5\nKöln"))
    for kind in ("text/plain", "text/csv; name=a.csv"):
        mail = (
            f"{HEAD}Content-Transfer-Encoding: 8bit\r\nContent-Type: {kind};"
            f" charset={charset}\r\n\r\n{{words}}"
        )
        pages, reason = read(bytes_of(mail, words=words.encode(codec)))
        assert pages[-1][1].endswith(f"\n\n{words}")
        assert reason == ""


@pytest.mark.parametrize("charset", CHARSETS)
def test_html_in_eight_bits_is_read_in_the_charset_that_it_names_itself(read, charset):
    codec, words = CHARSETS[charset]
    html = "<html><head><meta charset='{charset}'></head><p>{words}</p></html>"
    for kind in ("text/html", "text/html; charset=us-ascii", "text/html; charset=x-unknown"):
        mail = bytes_of(
            HEAD + part(kind, html), charset=charset.encode(), words=words.encode(codec)
        )
        assert read(mail) == ([("", f"{HEADS}\n\n{words}")], ""), kind


def test_the_charset_that_a_text_names_counts_unless_its_bytes_are_invalid_in_it(read):
    for charset, codec, words, found in (
        ("iso-8859-1", "koi8-r", "Маяк", "íÁÑË"),
        ("koi8-r", "cp1252", "Größe", "GrЖъe"),
        ("iso-8859-1", "cp932", EIGHT_BITS["cp932"], EIGHT_BITS["cp932"]),
        ("iso-8859-7", "cp1252", "Größe prüfen “5 Ò”", "Größe prüfen “5 Ò”"),
        ("utf-16be", "utf-16le", "Größe: 5\nKöln", "Größe: 5\nKöln"),
        ("gb2312", "utf-8", "Größe: Äpfel für Öl", "Größe: Äpfel für Öl"),
    ):
        mail = bytes_of(
            f"{HEAD}{part(f'text/plain; charset={charset}', '{words}')}", words=words.encode(codec)
        )
        assert read(mail)[0] == [("", f"{HEADS}\n\n{found}")], (charset, codec)


def test_files_that_are_attached_as_bytes_are_whole_within_a_forwarded_mail_too(read):
    file = docx("<w:p><w:r><w:t>the lighthouse</w:t></w:r></w:p>")
    assert b"\n" in file.replace(b"\r\n", b"")
    for end in ("\r\n", "\n"):
        inner = mixed(
            part(
                "application/octet-stream; name=a.docx",
                "{file}",
                "Content-Transfer-Encoding: binary\r\n",
            )
        )
        mail = HEAD + mixed(
            part("message/rfc822", HEAD + inner.replace('"M"', '"N"').replace("--M", "--N"))
        )
        pages, reason = read(bytes_of(mail.replace("\r\n", end), file=file))
        assert ([text for _, text in pages][-1], reason) == (
            "message/rfc822\n\na.docx\n\nthe lighthouse",
            "",
        )


def test_zero_bytes_in_a_body_cost_no_word_and_those_of_utf_16_are_its_own(read):
    mail = HEAD + part("text/plain{charset}", "{words}", "Content-Transfer-Encoding: binary\r\n")
    for codec, words in EIGHT_BITS.items():
        for charset in ("", f"; charset={codec}"):
            data = "\n".join([words, words]).encode(codec).replace(b"\n", b"\0\0\n\0")
            pages, reason = read(bytes_of(mail, charset=charset.encode(), words=data))
            assert (pages, reason) == ([("", f"{HEADS}\n\n{words}\n{words}")], ""), (codec, charset)
    for charset in ("", "; charset=utf-8", "; charset=utf-16", "; charset=utf-16le"):
        for end in ("\r\n", "\n", "", "\0"):
            data = "港口的灯塔坏了\n2 Tage, 港口".encode("utf-16-le")
            pages, _ = read(
                bytes_of(mail.removesuffix("\r\n") + end, charset=charset.encode(), words=data)
            )
            assert pages == [("", f"{HEADS}\n\n港口的灯塔坏了\n2 Tage, 港口")], (charset, end)
    mail = HEAD + mixed(
        part("text/plain; charset=utf-16be", "{words}", "Content-Transfer-Encoding: binary\r\n")
    )
    assert read(bytes_of(mail, words="港口\n2\n".encode("utf-16-be")))[0][0][1].endswith(
        "\n\n港口\n2"
    )


def test_each_mail_of_a_mailbox_has_its_own_charset(read):
    mails = [
        bytes_of(
            "From kim@example.org Mon Jan  1 10:00:00"
            f" 2024\n{HEAD}{part(f'text/plain{named}', '{words}')}",
            words=words.encode(codec),
        )
        for (codec, words), named in zip(
            EIGHT_BITS.items(), [*NO_CHARSETS.values()] * 3, strict=False
        )
    ]
    pages, reason = read(b"\r\n".join(mails))
    assert [text.split("\n\n")[1] for _, text in pages] == [*EIGHT_BITS.values()]
    assert reason == ""
    marked = b"\xef\xbb\xbf" + bytes_of(
        HEAD + part("text/plain", "{words}"), words="Größe prüfen".encode("cp1252")
    )
    assert read(marked)[0] == [("", f"{HEADS}\n\nGröße prüfen")]


@pytest.mark.parametrize("codec", EIGHT_BITS)
def test_heads_in_eight_bits_are_read_in_the_charset_of_their_mail(read, codec):
    words = EIGHT_BITS[codec]
    first = words.split()[0].strip(":").split("，")[0].split("。")[0]
    file = part('application/octet-stream; name="{first}.bin"', "the lighthouse")
    for charset in ("", f"; charset={codec}"):
        mail = (
            "Subject: {first}\0{first}\r\nFrom: =?us-ascii?Q?Kim?= {first}"
            " <kim@example.org>\r\nMIME-Version: 1.0\r\n"
        )
        mail += several("mixed", "M", part(f"text/plain{charset}", "{words}"), file)
        pages, _ = read(bytes_of(mail, words=words.encode(codec), first=first.encode(codec)))
        heads = f"Subject: {first} {first}\nFrom: Kim {first} <kim@example.org>"
        assert [text for _, text in pages] == [
            f"{heads}\n\n{words}",
            f"{first}.bin\n\nthe lighthouse",
        ]


def test_words_in_eight_bits_stand_beside_encoded_ones_and_odd_heads_cost_themselves_alone(read):
    packed_word = f"=?utf-8?B?{base64.b64encode('灯塔'.encode()).decode()}?="
    for head, said in (
        (f"Маяк {packed_word} Größe", "Маяк 灯塔 Größe"),
        (f"a {packed_word}  {packed_word} b", "a 灯塔灯塔 b"),
        (f"=?utf-8?B?a?= or {packed_word}", "=?utf-8?B?a?= or 灯塔"),
        ("\x1b$BEtBf\x1b(B", "灯台"),
        ("Grö\0ße", "Grö ße"),
    ):
        mail = f"Subject: {head}\r\nMIME-Version: 1.0\r\n{part('text/plain; charset=utf-8', 'x')}"
        assert read(mail.encode())[0] == [("", f"Subject: {said}\n\nx")]


def test_heads_and_names_in_eight_bits_or_divided_are_read_and_a_byte_of_no_charset_costs_itself_alone(
    read,
):
    for head in ("Grüße vom Маяк".encode(), "Grüße".encode("cp1252")):
        mail = b"Subject: %s\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; name=%s\r\n\r\nx" % (
            head,
            head,
        )
        assert ["Grüße" in text for _, text in read(mail)[0]] == [True, True]
    words = "".join(
        f"=?utf-8?B?{base64.b64encode(some).decode()}?=\r\n "
        for some in (b"Gr\xc3", b"\xbc\xc3\x9fe")
    )
    name = (
        "Content-Disposition: attachment;\r\n filename*0*=utf-8''Gr%C3%BC;\r\n"
        " filename*1*=%C3%9Fe.txt\r\n"
    )
    pages, _ = read(
        (
            f"Subject: {words}\r\nMIME-Version: 1.0\r\n" + mixed(part("text/plain", "x", name))
        ).encode()
    )
    assert [text.split("\n")[0] for _, text in pages] == ["Subject: Grüße", "Grüße.txt"]
    body = "打印机无法工作请检查连接灯塔的故事".encode("gbk") + b"\xff end"
    [(_, text)], _ = read(f"{HEAD}Content-Type: text/plain; charset=gbk\r\n\r\n".encode() + body)
    assert text.endswith("打印机无法工作请检查连接灯塔的故事\ufffd end")


def relations(*pairs, space=f"{OFFICE}officeDocument/2006/relationships"):
    """Return the XML of relations: pairs of kind and target, whose ids are their numbers from 1."""
    inner = ""
    for number, (kind, target) in enumerate(pairs, start=1):
        inner += f'<Relationship Id="r{number}" Type="{space}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{OFFICE}package/2006/relationships">{inner}</Relationships>'


def packaged(members):
    """Return a document whose first member is the main part, which refers to all others."""
    main, *others = members
    folder, _, name = main.partition("/")
    kinds = [next(kind for mark, kind in KINDS.items() if mark in other) for other in others]
    references = "".join(
        f'<x r:id="r{n + 1}" xmlns:r="{OFFICE}relationships"/>' for n in range(len(others))
    )
    text, end, root = members[main].rpartition("</")
    pairs = zip(kinds, (f"/{other}" for other in others), strict=True)
    links = {
        "_rels/.rels": relations(("officeDocument", main)),
        f"{folder}/_rels/{name}.rels": relations(*pairs),
    }
    return zipped({**members, **links, main: text + references + end + root})


def word(text, root="document", space=f"{OFFICE}wordprocessingml/2006/main"):
    return f'<w:{root} xmlns:w="{space}"><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:{root}>'


def slide(text, root="sld"):
    space = f"{OFFICE}presentationml/2006/main"
    return (
        f'<p:{root} xmlns:p="{space}"'
        f' xmlns:a="{DRAWING}"><a:p><a:r><a:t>{text}</a:t></a:r></a:p></p:{root}>'
    )


OFFICE_TEXTS = {
    "a main part of another name": (
        {"word/document2.xml": word("the lighthouse")},
        ["the lighthouse"],
    ),
    "XML of others within": (
        {
            "word/document.xml": word("main"),
            "customXml/item1.xml": "<comments><t>none</t></comments>",
        },
        ["main"],
    ),
    "strict": ({"word/document.xml": word("the lighthouse", space=STRICT)}, ["the lighthouse"]),
    "comments, notes and headers": (
        {
            "word/document.xml": word("main"),
            **{
                f"word/{root}1.xml": word(root, root)
                for root in ("comments", "footnotes", "endnotes", "hdr", "ftr")
            },
        },
        ["main", "comments", "footnotes", "endnotes", "hdr", "ftr"],
    ),
    "a text box": ({"word/document.xml": BOX}, ["a\n\nbox"]),
    "a workbook": (
        {
            "xl/workbook.xml": (
                f'<workbook xmlns="{SHEET}"'
                f' xmlns:r="{OFFICE}officeDocument/2006/relationships"><sheets><sheet name="Stock"'
                ' sheetId="1" r:id="r1"/></sheets></workbook>'
            ),
            "xl/worksheets/sheet1.xml": (
                f'<worksheet xmlns="{SHEET}"><sheetData>{CELLS}</sheetData></worksheet>'
            ),
            "xl/sharedStrings.xml": (
                f'<sst xmlns="{SHEET}"><si><t>shared</t><rPh><t>read so</t></rPh></si></sst>'
            ),
            "xl/comments1.xml": (
                f'<comments xmlns="{SHEET}"><text><r><t>remark</t></r></text></comments>'
            ),
            "xl/threadedComments/1.xml": (
                f'<ThreadedComments xmlns="{THREADS}"><text>reply</text></ThreadedComments>'
            ),
            "xl/drawings/drawing1.xml": (
                f'<x:wsDr xmlns:x="{OFFICE}x" xmlns:a="{DRAWING}"><a:t>box</a:t></x:wsDr>'
            ),
        },
        ["Stock\n\nlighthouse | 5 | tower | shared", "remark", "reply", "box"],
    ),
    "a chart of another kind": (
        {
            "word/document.xml": word("main"),
            "word/charts/chartEx1.xml": (
                f'<chartSpace xmlns="{CHART_EX}"><strDim><pt>north</pt></strDim><numDim><pt>55'
                "</pt></numDim><tx><txData><v>towers</v></txData></tx></chartSpace>"
            ),
        },
        ["main", "north | towers"],
    ),
    "what was moved is read where it is now": (
        {
            "word/document.xml": (
                word("main").replace("<w:p>", "<w:moveFrom><w:t>away</w:t></w:moveFrom><w:p>")
            )
        },
        ["main"],
    ),
    "notes and remarks of OpenDocument": (odt(NOTES), ["the\n\nnote\n\nremark"]),
    "headers of OpenDocument": ({"styles.xml": STYLES}, ["header"]),
    "XML that only looks like it": (
        b"<?xml version='1.0'?><document><p>text</p></document>",
        ["<?xml version='1.0'?><document><p>text</p></document>"],
    ),
    "documents within": (
        {
            "word/document.xml": word("main"),
            "word/embeddings/a.docx": docx("<w:p><w:r><w:t>inner</w:t></w:r></w:p>"),
            "word/part.mht": HEAD + HTML,
        },
        ["main", "word/embeddings/a.docx\n\ninner", f"word/part.mht\n\n{HEADS}\n\nthe lighthouse"],
    ),
}


@pytest.mark.parametrize("name", OFFICE_TEXTS)
def test_all_texts_of_an_office_document_are_read(read, name):
    data, texts = OFFICE_TEXTS[name]
    wanted = [one if isinstance(one, tuple) else ("", one) for one in texts]
    if not isinstance(data, bytes):
        data = zipped(data) if "styles.xml" in data else packaged(data)
    assert read(data) == (wanted, "")


def test_opendocument_without_a_zip_file_has_a_reason(read):
    flat = '<?xml version="1.0" encoding="UTF-8"?>' + STYLES.replace("document-styles", "document")
    assert read(flat.encode()) == (
        [],
        "is an OpenDocument file in one piece of XML: save it as an ordinary one",
    )


def test_what_cannot_be_read_in_an_office_document_has_a_reason_and_the_rest_is_read(read):
    large = word(" " * 65_000_000, "comments")
    for members, reason in (
        ({"word/comments.xml": "<w:comments"}, "word/comments.xml is broken ("),
        ({"word/comments.xml": large}, "word/comments.xml unpacks to more than 64,000,000"),
        ({"word/embeddings/old.bin": OLD}, "word/embeddings/old.bin is an old Office file"),
    ):
        pages, said = read(packaged({"word/document.xml": word("the lighthouse"), **members}))
        assert reason in said
        assert pages == [("", "the lighthouse")], reason


def written(writer):
    writer.write(found := io.BytesIO())
    return found.getvalue()


def form(**fields):
    """Return a PDF file with a form. The values of `fields` are those of the format, without
    slashes."""
    writer = PdfWriter(clone_from=io.BytesIO(pdf("Form")))
    kids = ArrayObject()
    for name, field in fields.items():
        kind = {"T": TextStringObject(name), "Subtype": NameObject("/Widget"), **field}
        kids.append(
            writer._add_object(
                DictionaryObject({NameObject(f"/{key}"): value for key, value in kind.items()})
            )
        )
    writer.pages[0][NameObject("/Annots")] = kids
    writer._root_object[NameObject("/AcroForm")] = DictionaryObject({NameObject("/Fields"): kids})
    return writer


def test_values_of_a_form_are_read_and_its_password_is_not(read):
    choice = ArrayObject([ArrayObject([TextStringObject("3"), TextStringObject("Tower")])])
    filled = form(
        text={"V": TextStringObject("the lighthouse Маяк")},
        box={"V": NameObject("/Off")},
        radio={"V": NameObject("/Red")},
        choice={"V": TextStringObject("3"), "Opt": choice},
        several={"V": ArrayObject([TextStringObject("first"), TextStringObject("second")])},
        child={"Parent": DictionaryObject({NameObject("/V"): TextStringObject("of the parent")})},
        password={"V": TextStringObject("hunter2"), "Ff": NumberObject(1 << 13)},
    )
    said = "Form\nthe lighthouse Маяк\nRed\nTower\nfirst\nsecond\nof the parent"
    assert read(written(filled)) == ([("1", said)], "")
    xml = StreamObject()
    xml.set_data(b"<data><name>of XFA</name></data>")
    xfa = ArrayObject([TextStringObject("datasets"), filled._add_object(xml)])
    filled._root_object["/AcroForm"][NameObject("/XFA")] = xfa
    assert read(written(filled))[0] == [("1", said), ("", "of XFA")]


def test_remarks_and_attachments_of_a_pdf_are_read(read):
    writer = PdfWriter(clone_from=io.BytesIO(pdf("Page", "Another")))
    writer.add_annotation(1, FreeText(text="the lighthouse", rect=(0, 0, 9, 9)))
    writer.add_annotation(1, Text(text="tower", rect=(0, 0, 9, 9)))
    writer.add_attachment("a.txt", b"attached")
    writer.add_attachment("b.doc", OLD)
    file = StreamObject()
    file.set_data(b"pinned")
    held = DictionaryObject({NameObject("/F"): writer._add_object(file)})
    named = DictionaryObject({NameObject("/F"): TextStringObject("c.txt"), NameObject("/EF"): held})
    pin = {"/Subtype": NameObject("/FileAttachment"), "/FS": writer._add_object(named)}
    kids = writer.pages[1]["/Annots"]
    kids.append(
        writer._add_object(DictionaryObject({NameObject(key): value for key, value in pin.items()}))
    )
    pages, reason = read(written(writer))
    assert pages[:2] == [("1", "Page"), ("2", "Another\nthe lighthouse\ntower")]
    assert pages[2:] == [("", "a.txt\n\nattached"), ("", "c.txt\n\npinned")]
    assert reason == "has a file that cannot be read: b.doc is an old Office file, or encrypted"


def pdf_with_font(show, font, *more):
    """Return a PDF file whose only page shows text in a font."""
    page = (
        b"/Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font <<"
        b" /F 5 0 R >> >>"
    )
    content = b"BT /F 12 Tf 50 700 Td " + show + b" ET"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< %s >>" % page,
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        font,
        *more,
    ]
    return assembled(objects)


def numbered(meanings):
    """Return a page in a font of numbered glyphs, with what each means in Unicode, None if the file
    does not say."""
    pairs = (
        [b"<%04X> <%04X>" % (ord(sign) - 29, meanings(sign)) for sign in sorted({*TEXT})]
        if meanings
        else []
    )
    told = (
        b"begincmap\n1 begincodespacerange <0000> <FFFF> endcodespacerange\n%d beginbfchar\n"
        % len(pairs)
    )
    told += b"\n".join(pairs) + b"\nendbfchar endcmap"
    return pdf_with_font(
        GLYPHS,
        b"<< /Type /Font /Subtype /Type0 /BaseFont /A+B /Encoding /Identity-H /DescendantFonts [6 0"
        b" R]%s >>" % (b" /ToUnicode 8 0 R" if meanings else b""),
        b"<< /Type /Font /Subtype /CIDFontType2 /BaseFont /A+B /FontDescriptor 7 0 R /DW 500 "
        b"/CIDSystemInfo << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
        b"<< /Type /FontDescriptor /FontName /A+B /Flags 4 >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(told), told),
    )


GARBLED = {
    "numbers of glyphs": numbered(None),
    "private signs": numbered(lambda sign: 0xF000 + ord(sign)),
    "controls": numbered(lambda sign: ord(sign) % 16 + 1),
    "marks": numbered(lambda sign: 33 + ord(sign) % 16),
    "replaced": numbered(lambda sign: 0xFFFD),
    "names of glyphs": pdf_with_font(
        b"<%s> Tj" % bytes((ord(sign) - 15) % 94 + 33 for sign in TEXT).hex().encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /A+B /Encoding << /Differences [33 "
        + NAMES
        + b"] >> >>",
    ),
    "numbers as text": pdf("".join(f"\\(cid:{ord(sign)}\\)" for sign in TEXT)),
}


@pytest.mark.parametrize("name", GARBLED)
def test_a_page_whose_letters_mean_nothing_is_listed_and_not_read(read, name):
    assert read(GARBLED[name]) == (
        [],
        "is broken in page 1 (the file does not say what its letters mean)",
    )


def test_a_page_with_few_odd_signs_is_read(read):
    assert read(numbered(ord)) == ([("1", TEXT)], "")
    [(_, text)], reason = read(numbered(lambda sign: 0xF0B7 if sign == "w" else ord(sign)))
    assert (text, reason) == (TEXT.replace("w", "\uf0b7"), "")
    numbers = "-1.5 (2.75) 3/4 +12% $5 [7] 8*9 #10 {11}; 12, 13: 14"
    assert read(pdf(numbers.replace("(", "\\(").replace(")", "\\)"))) == ([("1", numbers)], "")


def test_words_divided_by_lines_ligatures_and_arabic_are_words(read):
    assert read(pdf("develop-) Tj 0 -14 Td (ment")) == ([("1", "development")], "")
    said = dict(zip(sorted({*TEXT}), "\ufefc\ufee3\ufee8\ufe8e\ufead\ufe93" * 9, strict=False))
    [(_, text)], _ = read(numbered(lambda sign: ord(said[sign]) if sign != " " else 32))
    assert "\ufee3" not in text
    assert "\u0645" in text


def test_a_broken_page_costs_itself_alone_and_is_named(read):
    writer = PdfWriter(clone_from=io.BytesIO(pdf("First", "Second", "Third")))
    for one in writer.pages:
        one.compress_content_streams()
    whole = written(writer)
    start = whole.index(b"stream\n", whole.index(b"endstream") + 10) + 7
    end = whole.index(b"\nendstream", start)
    pages, reason = read(whole[:start] + bytes(end - start) + whole[end:])
    assert (pages, reason[:21]) == ([("1", "First"), ("3", "Third")], "is broken in page 2 (")
    pages, reason = read(pdf("First", "Second", "Third").replace(b"[3 0 R 5 0 R", b"[3 0 R 99 0 R"))
    assert [text for _, text in pages] == ["First", "Third"]
    assert reason == "is broken in 1 of 3 pages, which are not there"


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-256"])
def test_an_encrypted_pdf_is_named_unless_its_password_is_empty(read, algorithm):
    for password, wanted in (("", ([("1", "Plan")], "")), ("secret", ([], "is encrypted"))):
        writer = PdfWriter(clone_from=io.BytesIO(pdf("Plan")))
        writer.encrypt(password, owner_password="owner", algorithm=algorithm)
        assert read(written(writer)) == wanted


def test_files_within_files_end_somewhere(read):
    mail = INNER
    for number in range(9):
        mail = HEAD + several(
            "mixed", f"M{number}", part("text/plain", "x"), part("message/rfc822", mail)
        )
    pages, reason = read(mail.encode())
    assert len(pages) == 6
    assert "has files within files within files" in reason
