"""What of a hit is shown: the words of the query in whatever form they stand, and the text cut around them."""

import pytest

from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.search import Retriever
from rag_index.search.highlights import marked, snippet
from tests.project import Project, run_here

PARTS = """
project = "test"
[source]
url = "sqlite:///source.db"
[[indexes]]
name = "notes"
table = "note"
key = "id"
title = "title"
text = ["body"]
[[indexes.parts]]
table = "remark"
on = "note_id"
key = "id"
text = ["said"]
"""


@pytest.mark.parametrize(
    ("query", "text", "shown"),
    [
        ("printer offline", "Printers go offline.", "[Printers] go [offline]."),
        ("mbp ham805", "The MBP-HAM805, see ham80", "The [MBP-HAM805], see ham80"),
        ("MBP-HAM805", "mbp ham805 of MBP-HAM805", "[mbp] [ham805] of [MBP-HAM805]"),
        ("anna@shop.example", "Sent by Anna@shop.example today", "Sent by [Anna]@[shop.example] today"),
        ("g++ error", "We compile with g++, errors and all", "We compile with [g++], [errors] and all"),
        ("café", "The CAFE and the cafés", "The [CAFE] and the [cafés]"),
        ("café", "The cafe\u0301 and a cafe", "The [cafe\u0301] and a [cafe]"),
        ("STRASSE", "Stra\u00dfe, Hauptstra\u00dfe", "[Stra\u00dfe], Hauptstra\u00dfe"),
        ("f\u00fcr", "daf\u00fcr und f\u00fcr", "daf\u00fcr und [f\u00fcr]"),
        ("lodz", "\u0141\u00f3d\u017a", "[\u0141\u00f3d\u017a]"),
        (
            "\u05e9\u05dc\u05d5\u05dd",
            "\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
            "[\u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd]",
        ),
        ("故障", "打印机出现故障了", "打印机出现[故障]了"),
        ("of the", "of the printer", "of the printer"),
    ],
)
def test_words_are_marked_as_they_stand_in_the_text(query, text, shown):
    encoder = Bm25Encoder(Bm25Model("english"))
    assert marked(text, encoder.highlights(encoder.words(query), text), "[", "]") == shown


def test_parts_of_names_are_marked_in_source_code():
    encoder = Bm25Encoder(Bm25Model("english", identifiers=True))
    text = "def read_tree(path): return JsonTreeReader"
    assert encoder.highlights(encoder.words("tree"), text) == ("read_tree", "JsonTreeReader")


def test_a_long_text_is_cut_where_most_words_stand():
    text = f"{'nothing here ' * 60}the printer is offline again, said the printer's owner {'or there ' * 60}"
    cut = snippet(text, ["printer", "offline"], 80)
    assert cut.startswith("… ")
    assert cut.endswith(" …")
    assert "printer is offline" in cut
    assert len(cut) <= 84
    assert snippet("short", ["printer"], 80) == "short"
    assert snippet("x" * 500, [], 80) == f"{'x' * 56} …"


@pytest.fixture
def project(tmp_path):
    """A project with two indexes of one table, and a table of parts; all are empty."""
    project = Project(tmp_path)
    project.write_settings(PARTS + PARTS[PARTS.index("[[indexes]]") :].replace('"notes"', '"again"'))
    project.execute("CREATE TABLE remark (id INTEGER PRIMARY KEY, note_id INTEGER, said TEXT)")
    return project


@pytest.mark.long
def test_the_shown_chunk_has_words_of_the_query_and_not_only_its_title(project):
    with project.source() as db:
        db.execute("INSERT INTO note (id, title, body) VALUES (1, 'Printer prints blank pages', 'It began on Monday.')")
        said = ["Ok.", "Thank you!", f"It is about the drum of the printer. {'Nobody knows why. ' * 8}"]
        db.executemany("INSERT INTO remark (note_id, said) VALUES (1, ?)", [(one,) for one in said])
    run_here(project.config, "index-all")
    with Retriever.from_settings(project.settings) as retriever:
        for query, shown in (("printer prints blank", "drum of the"), ("blank pages printed", "It began on Monday.")):
            hits = retriever.search_sync(query).hits
            assert {hit.index for hit in hits} == {"notes", "again"}, "two indexes of one table, with equal keys"
            for hit in hits:
                assert shown in hit.text, query
                assert {"prints"} <= {*hit.highlights}
