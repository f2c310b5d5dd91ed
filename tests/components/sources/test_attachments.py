"""Files of rows become text: PDF, office documents, e-mail and HTML, in a column or in a folder;
and what cannot."""

import io
import os
import shutil
import zipfile
from email.message import EmailMessage

import pytest

from rag_index.components.sources import attachments
from rag_index.components.sources.attachments import with_files
from rag_index.core import machine
from rag_index.core.documents.batches import TextLayout
from rag_index.core.documents.keys import document_id
from rag_index.errors import SourceUnavailable
from tests.components.sources.conftest import pages
from tests.docs.pages import blocks, page, section
from tests.project import Project

ODT = "urn:oasis:names:tc:opendocument:xmlns:"
PLUGIN = """
import os, signal, time

def read(data):
    yield 1, "before"
    if data == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    if data == b"hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        time.sleep(3600)
    if data == b"fill":
        bytearray(4_000_000_000)
    if data == b"long":
        yield 2, "x" * 6_000_000
"""
WORD = (
    "<w:p><w:r><w:t>Reset</w:t></w:r><w:r><w:tab/><w:t>it</w:t><w:instrText>PAGE</w:instrText></w:r></w:p><w:tbl><w:tr>"
    "<w:tc><w:p><w:r><w:t>part</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>price</w:t></w:r></w:p></w:tc></w:tr></w:tbl>"
)
SHEETS = "<o:text><t:h>Reset</t:h><t:p>Hold<t:s/>it</t:p><t:tracked-changes><t:p>old</t:p></t:tracked-changes></o:text>"
SAID = "Subject: Grüße: the printer\nFrom: Kim <kim@example.org>\n\nIt is offline."


def pdf(*texts):
    """Return a PDF file with a page for each text."""
    kids = " ".join(f"{3 + 2 * n} 0 R" for n in range(len(texts)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(texts)} >>",
    ]
    font = "<< /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
    for number, text in enumerate(texts):
        page = (
            f"/Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources {font} /Contents"
            f" {4 + 2 * number} 0 R"
        )
        stream = f"BT /F 12 Tf 50 700 Td ({text}) Tj ET"
        objects += [f"<< {page} >>", f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream"]
    return assembled(one.encode() for one in objects)


def assembled(objects):
    """Return the PDF file of objects, the first of which is its catalog."""
    data, places = b"%PDF-1.4\n", []
    for number, one in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, one)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(places) + 1,
        len(data),
    )
    return b"%sxref\n0 %d\n0000000000 65535 f \n%s%s" % (data, len(places) + 1, table, end)


def zipped(members):
    found = io.BytesIO()
    with zipfile.ZipFile(found, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return found.getvalue()


def docx(body):
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return zipped(
        {"word/document.xml": f'<w:document xmlns:w="{word}"><w:body>{body}</w:body></w:document>'}
    )


def odt(body):
    names = f'xmlns:o="{ODT}office:1.0" xmlns:t="{ODT}text:1.0" xmlns:b="{ODT}table:1.0"'
    return zipped(
        {"content.xml": f"<o:document-content {names}><o:body>{body}</o:body></o:document-content>"}
    )


def mail(attached=b"", name="plan.pdf"):
    message = EmailMessage()
    message["Subject"], message["From"] = "Grüße: the printer", "Kim <kim@example.org>"
    message.set_content("It is offline.")
    message.add_alternative("<p>It is <b>offline</b>.</p>", subtype="html")
    message.add_attachment(b"\x89PNG logo", maintype="image", subtype="png", filename="logo.png")
    if attached:
        message.add_attachment(
            attached, maintype="application", subtype="octet-stream", filename=name
        )
    return bytes(message)


READ = {
    "pdf": (pdf("First page", "", "Third page"), [("1", "First page"), ("3", "Third page")]),
    "docx": (docx(WORD), [("", "Reset it\n\npart | price")]),
    "odt": (odt(SHEETS), [("", "Reset\n\nHold it")]),
    "eml": (mail(pdf("Plan")), [("", SAID), ("", "plan.pdf\n\nPlan")]),
    "html": (
        b"<!DOCTYPE html><html><head><title>Menu</title></head><p>Caf&eacute;</p></html>",
        [("", "Menu\n\nCafé")],
    ),
    "txt": ("Grüße".encode("utf-16"), [("", "Grüße")]),
}
UNREADABLE = {
    "broken": (b"%PDF-1.4\nnothing", [], "is broken ("),
    "no zip": (b"PK\x03\x04nothing", [], "is broken (BadZipFile"),
    "entities": (docx("<w:p><w:r><w:t>&a;</w:t></w:r></w:p>"), [], "is broken (XMLSyntaxError"),
    "picture": (b"\x89PNG\r\n\x1a\n\0", [], "is a PNG picture"),
    "scan": (pdf("", ""), [], "has no text"),
    "part of a mail": (
        mail(b"\xd0\xcf\x11\xe0\0\1", "old.doc"),
        [("", SAID)],
        "old.doc is an old Office file",
    ),
}


def read(source):
    """Return own text, parts (name, id, page, text) and what is lacking, by document."""
    found = {}
    for some in pages(source):
        assert not some.unreadable
        for one in with_files(some.documents):
            text, encoded = one.texts[0], one.layouts[0]
            layout = TextLayout.decode(encoded) if encoded else TextLayout("", len(text), [])
            parts = [
                (part.name, part.id, part.page, text[part.start : part.end])
                for part in layout.parts
            ]
            found[document_id(one.keys[0])] = text[: layout.end], parts, layout.lacks
    return found


def test_files_in_a_column_become_parts_with_pages_and_what_cannot_be_read_is_said(database):
    blob = {"sqlite": "BLOB", "postgresql": "BYTEA", "mariadb": "LONGBLOB"}[database.kind]
    database.run(f"CREATE TABLE file (id INTEGER PRIMARY KEY, body VARCHAR(20), data {blob})")
    cases = {**{name: (*case, "") for name, case in READ.items()}, **UNREADABLE}
    if database.kind == "sqlite":
        cases["bomb"] = docx("<w:p/>" * 12_000_000), [], "unpacks to more than 64,000,000 bytes"
        cases["too large"] = b"x" * 50_000_001, [], "has more than 50,000,000 bytes"
    else:  # it gives the same bytes
        cases = {name: cases[name] for name in ("pdf", "eml", "txt", "broken", "picture")}
    rows = [(number, f"Note {name}", case[0]) for number, (name, case) in enumerate(cases.items())]
    database.run("INSERT INTO file VALUES (?, ?, ?)", rows=rows)
    source = database.source(table="file", text=["body", "data"], format={"data": "file"})
    source.check()
    found = read(source)
    for number, (name, (_, parts, reason)) in enumerate(cases.items()):
        own, of_file, lacks = found[str(number)]
        assert (own, of_file) == (f"Note {name}", [("data", "", *part) for part in parts]), name
        assert (reason in lacks, bool(reason)) == (True, bool(lacks)), (name, lacks)


def test_files_of_parts_are_parts_with_the_id_of_their_row(sqlite):
    sqlite.notes(2).run(
        "CREATE TABLE attachment (id INTEGER PRIMARY KEY, note_id INTEGER, name TEXT, data BLOB)"
    )
    rows = [
        (7, 1, "a.pdf", pdf("One", "Two")),
        (8, 1, "b.bin", b"PK\x03\x04"),
        (9, 2, "none", None),
    ]
    sqlite.run("INSERT INTO attachment VALUES (?, ?, ?, ?)", rows=rows)
    part = {
        "table": "attachment",
        "on": "note_id",
        "key": "id",
        "text": ["name", "data"],
        "format": {"data": "file"},
    }
    found = read(sqlite.source(parts=[part], text="body"))
    named = [("attachment", "7", "", "a.pdf"), ("attachment", "8", "", "b.bin")]
    assert found["1"][1] == [
        *named,
        ("attachment", "7", "1", "One"),
        ("attachment", "7", "2", "Two"),
    ]
    assert found["1"][2].startswith("attachment 8 is broken")
    assert found["2"] == ("note 2", [("attachment", "9", "", "none")], "")


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "parts", "reason"),
    [
        ("die", ["before"], "ends the process that reads it (exit code -9)"),
        ("hang", ["before"], "takes longer than 0.5 s to read"),
        pytest.param("fill", ["before"], "takes too much memory", marks=pytest.mark.long),
        pytest.param(
            "long",
            ["before", "x" * 4_999_994],
            "has more than 5,000,000 characters",
            marks=pytest.mark.long,
        ),
        ("well", ["before"], ""),
    ],
)
def test_a_plug_in_reads_files_in_a_process_that_they_may_end(
    sqlite, tmp_path, content, parts, reason, monkeypatch
):
    (info := tmp_path / "odd-1.dist-info").mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[rag_index.formats]\nodd = odd_format:read\n")
    (tmp_path / "odd_format.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(attachments, "READ_SECONDS", 0.5 if content == "hang" else 30.0)
    sqlite.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
    sqlite.run("INSERT INTO note VALUES (?, ?)", rows=[(1, content), (2, "well")])
    found = read(sqlite.source(text="body", format={"body": "odd"}))
    assert [text for _, _, _, text in found["1"][1]] == parts
    assert reason in found["1"][2]
    assert found["2"] == ("", [("body", "", "1", "before")], "")


def test_names_lead_to_files_below_the_folder_alone_and_a_changed_file_changes_its_row(
    sqlite, tmp_path
):
    root = tmp_path / "files"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.txt").write_text("A text")
    (tmp_path / "secret.txt").write_text("hidden")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    names = [
        "in/a.txt",
        "../secret.txt",
        str(tmp_path / "secret.txt"),
        "link.txt",
        "linked/secret.txt",
        "pipe",
        "in",
        "in/../in/a.txt",
        "none.txt",
        "",
        "a\x00b",
    ]
    sqlite.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
    sqlite.run("INSERT INTO note VALUES (?, ?)", rows=list(enumerate(names)))
    source = sqlite.source(text="body", format={"body": "file"}, files=root)
    source.check()
    found = read(source)
    assert [one for one in found.values() if one[1]] == [("", [("body", "", "", "A text")], "")]
    assert {names[int(number)] for number, one in found.items() if not one[2]} == {"in/a.txt", ""}
    before = source.page(None, 100).documents
    (root / "in" / "a.txt").write_text("Another text")
    after = source.page(None, 100).documents
    assert [a != b for a, b in zip(before.text_hashes, after.text_hashes, strict=True)] == [
        True
    ] + [False] * 10
    (root / "in" / "a.txt").unlink()
    for name in ("link.txt", "linked", "pipe"):
        (root / name).unlink()
    (root / "in").rmdir()
    with pytest.raises(SourceUnavailable, match="is empty; check that it is mounted"):
        source.check()
    # The mount has gone since: its files are not missing.
    with pytest.raises(SourceUnavailable, match="is empty; check that it is mounted"):
        source.page(None, 100)


def test_a_text_in_the_place_of_a_files_name_is_not_repeated_in_the_reason(sqlite, tmp_path):
    (tmp_path / "a.txt").write_text("A text")
    texts = [
        "measles " * 40,
        "measles\nand no file",
        "x" * 300 + "/measles",
        "../" + "measles" * 50,
    ]
    sqlite.run("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
    sqlite.run("INSERT INTO note VALUES (?, ?)", rows=list(enumerate(texts)))
    found = read(sqlite.source(text="body", format={"body": "file"}, files=tmp_path))
    reasons = [one[2] for one in found.values()]
    assert all("a text of " in reason for reason in reasons), reasons
    assert "measles" not in str(reasons)


@pytest.mark.long
def test_the_example_of_the_docs_is_indexed_with_pages_and_files_that_changed_are_read_again(
    tmp_path, monkeypatch
):
    example = section(page("sources"), "## Attachments")
    project, uploads = Project(tmp_path / "desk"), tmp_path / "desk" / "uploads" / "2026"
    uploads.mkdir(parents=True)
    (uploads / "manual.pdf").write_bytes(
        pdf("The fuser unit is hot", "Hold the red button to calibrate")
    )
    (uploads / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n\0")
    with project.source() as db:
        db.executescript(blocks(example, "sql")[0])
    project.write_settings(
        'project = "t"\n[source]\nurl = "sqlite:///source.db"\n' + blocks(example, "toml")[0]
    )
    assert (project.run().exit_code, project.run().indexes[0].unchanged) == (0, 1)
    hit = project.json("search", "calibrate red button")["hits"][0]
    assert hit["part"] == {"name": "attachment", "id": "7", "page": "2"}
    assert (
        "Printer (1), attachment 7, page 2" in project.cli("search", "calibrate red button").stdout
    )
    [failed] = project.json("status", "--failed")["failed"]
    assert (failed["kind"], failed["reason"]) == ("incomplete", "attachment 8 is a PNG picture")
    (uploads / "manual.pdf").write_bytes(pdf("Nothing of it is true"))
    (uploads / "photo.png").write_bytes(b"It is a text now")
    assert (project.run().indexes[0].changed, project.json("status", "--failed")["failed"]) == (
        1,
        [],
    )
    assert "Nothing of it is true" in project.texts("tickets")["1"]
    shutil.rmtree(uploads.parent)
    monkeypatch.setattr(machine.time, "sleep", lambda seconds: None)
    assert project.run().indexes[0].state == "failed"
    assert "Nothing of it is true" in project.texts("tickets")["1"]
