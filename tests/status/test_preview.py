"""`rag-index plan --show N`: whole documents as they would be embedded."""

import sqlite3

import pytest

from tests.etl.test_parts import SETTINGS, TABLES
from tests.project import Project


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path / "project")
    project.write_settings(SETTINGS)
    with sqlite3.connect(project.folder / "source.db") as db:
        db.executescript(TABLES)
        db.execute("UPDATE remark SET body = 'red' || char(27) || '[31m' WHERE id = 11")
    return project


def test_documents_are_shown_with_title_payload_and_parts(project):
    shown = project.cli("plan", "--show", "1").stdout
    assert shown.splitlines() == [
        "notes: Printer offline (1)",
        "  https://desk.example.org/t/1",
        '  payload: {"customer": {"name": "Acme"}}',
        "  --- chunk 0",
        "  Printer offline",
        "",
        "  It prints only red pages.",
        "  --- remark 10",
        "  Printer offline",
        "",
        "  Replace the toner cartridge.",
        "  --- remark 11",
        "  Printer offline",
        "",
        "  red\N{REPLACEMENT CHARACTER}[31m",
        "",
    ]
    assert not (project.folder / ".rag-index").exists()  # nothing is written


def test_documents_are_shown_as_json(project):
    first, second = project.json("plan", "--show", "9")["documents"]
    assert (first["document_id"], first["title"], len(first["chunks"])) == ("1", "Printer offline", 3)
    assert second["chunks"][1] == {"text": "Screen flickers\n\nA new graphics driver helps.", "part": "remark 12"}


def test_an_index_without_documents_says_so(project):
    project.execute("UPDATE ticket SET hidden = 1")
    assert project.cli("plan", "--show", "1").stdout == "notes: no document with text\n"
