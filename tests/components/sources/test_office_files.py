"""Office documents are read as people see them: slides in their order, rows of sheets with the
names of columns, and nothing that was deleted or hidden."""

import base64
import gzip
import io
import zipfile

import pytest

from tests.components.sources.test_attachments import ODT, zipped
from tests.components.sources.test_file_formats import (
    CHART,
    OFFICE,
    OLD,
    SHEET,
    relations,
    slide,
    word,
)

RELATIONS = f"{OFFICE}officeDocument/2006/relationships"
STRICT = "http://purl.oclc.org/ooxml/officeDocument/relationships"
WORD = f'xmlns:w="{OFFICE}wordprocessingml/2006/main" xmlns:r="{RELATIONS}"'
SPACES = " ".join(
    f'xmlns:{name}="{ODT}{space}:1.0"'
    for name, space in {
        "office": "office",
        "t": "text",
        "text": "text",
        "table": "table",
        "d": "drawing",
        "style": "style",
        "p": "presentation",
        "o": "office",
    }.items()
)
XLS = gzip.decompress(
    base64.b64decode("""
H4sIAAAAAAACA7twXvDBwo1SDxnQgB0DM8O//5wMbEhijEDMCeMIMADl//8HMWE0BxD/HwVDCnByACOSjZVhN+8ZdlAcguL7IQMTwwaWg0CSgeEREMcw
FDD45eelKtAROIHdkMgIcoMtkGRkmAMU4WOQBLtKCEwmg0lhMLkerHIPmHQAi/SCSVug2geMUQzn7f20LKCpOIJJCSzHxwAydztYzy2wiCGDKMMJUCqu
n8AIUcvK4FiUmZgzOCXkWHgYljAA4809NS+1KDHnAYMIMAKXMHz9r8DA8AWWUw8ojIrTV5yRASj+A1WcHYv4ZCYWBoYGhv8J4ATeCkyQa5khmTA4IzW1
xPAPuEiFAC5Q4QvOrAIomZUXnIh5gGQKAz+YLQhOygJAvX9WfrzkmxRgHw8WaYCaBkpDqiCbGf4zNIJ0ADXzwWUgpBZYhzaYbAKbKg1mS4FJEWACBNJq
AaJQhlszWE0LWFYNaI8xGFy2V0diawDZra8Dd8i1PrbXBLLXuT+sEll33X4hgxKwWkkB6gfBZgYdRh3GWTNBYKc9jGaEZvm7YFISI/tzMAlA3f4fWlfx
A0NHCszkh4bgB3sGBqCv/7MwODEsbrBjEmLYBtIKLC4YUEJ5FIyCUTAKRsEoGAWjYBSMgmELQI19UCsY1O8AdQlYod0Kdui4zl8g/jc6TDJsQRBDPhCW
ADumrgx5QLqIoZKk9CPGwMoIM4uRSD2w8UIQCAfaXsSQzZAEdkc2yekX2C1kRPYP0RoFqJeFSLX/HynupLH9ALz9ZD8AFgAA
""")
)
"""A workbook of Excel 97 with a 1 in its first cell."""
SLIDES = {
    f"ppt/slides/slide{n}.xml": slide(text)
    for n, text in enumerate(["first", "second", "third"], start=1)
}
THREE = [("slide", f"slides/slide{n}.xml") for n in (1, 2, 3)]
WORD_STYLES = "".join(
    f'<w:style w:styleId="{name}"><w:basedOn w:val="{base}"/><w:rPr>{marks}</w:rPr></w:style>'
    for name, base, marks in [
        ("Shy", "Normal", "<w:vanish/>"),
        ("Heir", "Shy", "<w:b/>"),
        ("Open", "Shy", '<w:vanish w:val="0"/>'),
    ]
)
ODF_STYLES = (
    '<style:style style:name="P1"><style:text-properties t:display="none"/></style:style>'
    '<style:style style:name="P2" style:parent-style-name="Shy"/>'
    '<style:style style:name="P3"><style:text-properties t:display="true"/></style:style>'
)
ODF_COMMON = '<style:style style:name="Shy"><style:text-properties t:display="none"/></style:style>'
HIDDEN_IN_ODF = {
    "hidden": '<t:p t:style-name="P1">hidden</t:p>',
    "a span": '<t:p>seen<t:span t:style-name="P1">hidden</t:span></t:p>',
    "a style of the document": '<t:p t:style-name="P2">hidden</t:p>',
    "a section": '<t:section t:display="none"><t:p>hidden</t:p></t:section>',
    "a section with a condition": (
        '<t:section t:display="condition" t:is-hidden="true"><t:p>hidden</t:p></t:section>'
    ),
    "a hidden paragraph": '<t:p>hidden<t:hidden-paragraph t:is-hidden="true"/></t:p>',
    "a hidden text": '<t:p>seen<t:hidden-text t:is-hidden="true">hidden</t:hidden-text></t:p>',
    "shown": '<t:p t:style-name="P3">seen<t:hidden-paragraph t:is-hidden="false"/></t:p>',
}
ROWS = {
    "names of columns": (
        [["Device", "Room"], ["Printer", "Kitchen"], ["Scanner", "Kitchen"]],
        ["Device | Room", "Device: Printer | Room: Kitchen", "Device: Scanner | Room: Kitchen"],
    ),
    "kinds of values": (
        [
            ["Day", "Moment", "Sum", "Paid", "Code"],
            [45351 + 0j, 45351.5 + 0j, 0.1 + 0.2, True, 4006381333931],
        ],
        [
            "Day | Moment | Sum | Paid | Code",
            (
                "Day: 2024-02-29 | Moment: 2024-02-29 12:00:00 | Sum: 0.3 | Paid: true | Code:"
                " 4006381333931"
            ),
        ],
    ),
    "a title, a gap and a column without a name": (
        [
            ["Inventory"],
            [None],
            ["Device", None, "2024"],
            ["Printer", "new", 3.0],
            ["Scanner", None, 4],
        ],
        [
            "Inventory",
            "Device | 2024",
            "Device: Printer | new | 2024: 3",
            "Device: Scanner | 2024: 4",
        ],
    ),
    "no names": ([["Printer", 3], ["Scanner", 4]], ["Printer | 3", "Scanner | 4"]),
    "a form": ([["Name:", "Kim"], ["Room:", "7b"]], ["Name: | Kim", "Room: | 7b"]),
    "a list that repeats itself": (
        [["Kim", "Berlin"], ["Lee", "Paris"], ["Jo", "Berlin"]],
        ["Kim | Berlin", "Lee | Paris", "Jo | Berlin"],
    ),
    "names on each page": (
        [["Device", "Room"], ["Printer", "1a"], [None], ["Device", "Room"], ["Scanner", "1b"]],
        ["Device | Room", "Device: Printer | Room: 1a", "Device: Scanner | Room: 1b"],
    ),
    "two tables": (
        [
            ["Device", "Room"],
            ["Printer", "1a"],
            [None],
            ["Part", "Maker", "Price"],
            ["Fuser", "Ox", 5],
        ],
        [
            "Device | Room",
            "Device: Printer | Room: 1a",
            "Part | Maker | Price",
            "Part: Fuser | Maker: Ox | Price: 5",
        ],
    ),
    "one column": ([["Printer"], ["Scanner"]], ["Printer", "Scanner"]),
}


def presentation(listed, parts, *pairs, space=RELATIONS):
    """Return a presentation. `listed` has the ids of its slides in order, and `pairs` its
    relations."""
    ids = "".join(
        f'<p:sldId id="{256 + number}" r:id="{one}"/>' for number, one in enumerate(listed)
    )
    names = f'xmlns:p="{OFFICE}presentationml/2006/main" xmlns:r="{space}"'
    own = {
        "_rels/.rels": relations(("officeDocument", "ppt/presentation.xml"), space=space),
        "ppt/presentation.xml": (
            f"<p:presentation {names}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>"
        ),
        "ppt/_rels/presentation.xml.rels": relations(*pairs, space=space),
    }
    return zipped(own | parts)


@pytest.mark.parametrize("space", [RELATIONS, STRICT])
def test_slides_have_the_numbers_that_people_see_and_deleted_ones_are_not_read(read, space):
    def pages(*listed):
        return read(presentation(listed, SLIDES, *THREE, space=space))[0]

    assert pages("r3", "r1", "r2") == [("1", "third"), ("2", "first"), ("3", "second")]
    assert pages("r1", "r3") == [("1", "first"), ("2", "third")]
    many = [("slide", f"/ppt/slides/S%20{n}.xml") for n in range(12)]
    named = {f"ppt/slides/S {n}.xml": slide(f"slide {n}") for n in range(12)}
    found, _ = read(presentation([f"r{n}" for n in range(1, 13)], named, *many, space=space))
    assert found == [(str(n + 1), f"slide {n}") for n in range(12)]


def test_notes_comments_and_charts_have_the_number_of_their_slide(read):
    chart = (
        f'<c:chart xmlns:c="c" xmlns:r="{RELATIONS}" r:id="r2"/><a:hlinkClick xmlns:r="{RELATIONS}"'
        ' r:id="r3"/>'
    )
    parts = {
        **SLIDES,
        "ppt/slides/slide2.xml": slide("second").replace("<a:p>", f"{chart}<a:p>"),
        "ppt/slides/_rels/slide2.xml.rels": relations(
            ("notesSlide", "../notesSlides/n.xml"),
            ("chart", "/ppt/charts/c.xml"),
            ("slide", "slide3.xml"),
            ("slideLayout", "../l.xml"),
            ("chart", "../charts/old.xml"),
        ),
        "ppt/notesSlides/n.xml": slide("said of it", "notes"),
        "ppt/charts/c.xml": CHART,
        "ppt/charts/old.xml": CHART.replace("sales", "old"),
        "ppt/l.xml": slide("Click to add", "sldLayout"),
        "ppt/notesSlides/orphan.xml": slide("orphan", "notes"),
    }
    pages = [
        ("1", "second"),
        ("1", "sales | towers | north | east"),
        ("1", "said of it"),
        ("2", "first"),
    ]
    assert read(presentation(["r2", "r1"], parts, *THREE)) == (pages, "")


def test_a_hidden_slide_counts_and_is_not_read_with_its_notes(read):
    parts = {
        **SLIDES,
        "ppt/slides/slide1.xml": slide("first").replace("<p:sld ", '<p:sld show="0" '),
        "ppt/slides/_rels/slide1.xml.rels": relations(("notesSlide", "../n.xml")),
        "ppt/n.xml": slide("said of it", "notes"),
    }
    assert read(presentation(["r1", "r2"], parts, *THREE)) == ([("2", "second")], "")


def test_a_slide_that_is_not_there_or_broken_is_named_and_the_others_are_read(read):
    parts = {"ppt/slides/slide1.xml": "<p:sld", "ppt/slides/slide3.xml": slide("third")}
    pages, reason = read(presentation(["r1", "r2", "r3"], parts, *THREE))
    assert pages == [("3", "third")]
    assert reason.startswith("ppt/slides/slide1.xml is broken (XMLSyntaxError")
    assert "ppt/slides/slide2.xml is broken (KeyError" in reason


def odf(body, styles="", mimetype="text", **parts):
    text = f"<office:automatic-styles>{styles}</office:automatic-styles><office:body>{body}</office:body>"
    own = {
        "mimetype": f"application/vnd.oasis.opendocument.{mimetype}",
        "META-INF/manifest.xml": "<manifest:manifest/>",
        "content.xml": f"<office:document-content {SPACES}>{text}</office:document-content>",
    }
    return zipped(own | parts)


def test_slides_of_opendocument_have_their_numbers_too(read):
    hidden = (
        '<style:style style:name="h"><style:drawing-page-properties'
        ' p:visibility="hidden"/></style:style>'
    )
    pages = "".join(
        f'<d:page d:style-name="{style}"><t:p>{style}</t:p></d:page>' for style in ("a", "h", "b")
    )
    assert read(odf(f"<o:presentation>{pages}</o:presentation>", hidden)) == (
        [("1", "a"), ("3", "b")],
        "",
    )


def run(text, marks="", before=""):
    return f"<w:p><w:pPr>{before}</w:pPr><w:r><w:rPr>{marks}</w:rPr><w:t>{text}</w:t></w:r></w:p>"


SEEN_IN_WORD = {
    "not hidden": run("seen", '<w:vanish w:val="false"/>'),
    "shown in a hidden style": run("seen", '<w:vanish w:val="0"/>', '<w:pStyle w:val="Shy"/>'),
    "a style that shows": run("seen", '<w:rStyle w:val="Open"/>', '<w:pStyle w:val="Shy"/>'),
    "a paragraph's mark": run("seen", "", '<w:rPr><w:rStyle w:val="Shy"/><w:vanish/></w:rPr>'),
    "hidden on the web alone": run("seen", "<w:webHidden/>"),
    "inserted": f"<w:ins>{run('seen')}</w:ins>",
    "moved to": f"<w:moveTo>{run('seen')}</w:moveTo>",
}
NOT_SEEN_IN_WORD = {
    "hidden": run("hidden", "<w:vanish/>"),
    "a style of signs": run("hidden", '<w:rStyle w:val="Shy"/>'),
    "a style of paragraphs": run("hidden", "", '<w:pStyle w:val="Shy"/>'),
    "based on one": run("hidden", '<w:rStyle w:val="Heir"/>'),
    "deleted": "<w:p><w:del><w:r><w:delText>hidden</w:delText></w:r></w:del></w:p>",
    "moved away": f"<w:moveFrom>{run('hidden')}</w:moveFrom>",
}


@pytest.mark.parametrize("name", [*SEEN_IN_WORD, *NOT_SEEN_IN_WORD])
def test_text_that_word_hides_or_that_was_deleted_is_not_read(read, name):
    body = SEEN_IN_WORD.get(name) or NOT_SEEN_IN_WORD[name]
    members = {
        "_rels/.rels": relations(("officeDocument", "word/document.xml")),
        "word/_rels/document.xml.rels": relations(("styles", "looks.xml")),
        "word/looks.xml": f"<w:styles {WORD}>{WORD_STYLES}</w:styles>",
        "word/document.xml": f"<w:document {WORD}>{run('before')}{body}</w:document>",
    }
    assert read(zipped(members)) == (
        [("", "before\n\nseen" if name in SEEN_IN_WORD else "before")],
        "",
    )


def test_parts_of_a_document_are_those_that_it_refers_to_in_its_order(read):
    parts = {
        name: word(name, root)
        for name, root in {"a": "hdr", "b": "ftr", "c": "comments", "old": "ftr"}.items()
    }
    document = zipped(
        {
            "_rels/.rels": relations(("officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": relations(
                ("footer", "b.xml"),
                ("comments", "c.xml"),
                ("header", "a.xml"),
                ("footer", "old.xml"),
                ("package", "embeddings/in.docx"),
                ("aFChunk", "chunk.html"),
            ),
            **{f"word/{name}.xml": text for name, text in parts.items()},
            "word/embeddings/in.docx": zipped({"word/document.xml": word("within")}),
            "word/chunk.html": "<!DOCTYPE html><p>imported</p>",
            "word/comments9.xml": word("orphan", "comments"),
            "word/glossary.xml": word("building block"),
            "word/document.xml": (
                word("main").replace(
                    "<w:p>",
                    f'<w:p xmlns:r="{RELATIONS}"><w:headerReference r:id="r3"/><w:footerReference'
                    ' r:id="r1"/><w:OLEObject r:id="r5"/><w:altChunk r:id="r6"/>',
                )
            ),
        }
    )
    texts = [
        "main",
        "a",
        "b",
        "word/embeddings/in.docx\n\nwithin",
        "word/chunk.html\n\nimported",
        "c",
    ]
    assert read(document) == ([("", text) for text in texts], "")


MISSING = {
    "an embedded file": '<w:object><o:OLEObject r:id="r9"/></w:object>',
    "an imported file": '<w:altChunk r:id="r9"/>',
    "a header": '<w:sectPr><w:headerReference r:id="r9"/></w:sectPr>',
    "a chart": '<c:chart r:id="r9"/>',
}
NOT_MISSING = {
    "a link": f'<w:hyperlink r:id="r9">{run("main")}</w:hyperlink>',
    "a picture": '<a:blip r:embed="r9"/>',
    "a file elsewhere": '<w:object><o:OLEObject r:id="r1"/></w:object>',
    "an empty reference": '<c:chart r:id=""/>',
    "what was deleted": '<w:del><w:object><o:OLEObject r:id="r9"/></w:object></w:del>',
}


@pytest.mark.parametrize("name", [*MISSING, *NOT_MISSING])
def test_a_document_that_refers_to_a_part_that_is_missing_is_incomplete(read, name):
    body = MISSING.get(name) or NOT_MISSING[name]
    external = relations(("oleObject", "file:///plan.xls")).replace(
        "Target=", 'TargetMode="External" Target='
    )
    members = {
        "_rels/.rels": relations(("officeDocument", "word/document.xml")),
        "word/_rels/document.xml.rels": external,
        "word/document.xml": (
            f'<w:document {WORD} xmlns:o="o" xmlns:c="c"'
            f' xmlns:a="a">{run("main")}{body}</w:document>'
        ),
    }
    [(_, text), *_], reason = read(zipped(members))
    assert text.startswith("main")
    element = body.rpartition(' r:id="r9"')[0].rpartition(":")[2]
    missing = f"word/document.xml refers to a part that is missing ({element} r9)"
    assert reason == (missing if name in MISSING else "")


def test_a_part_of_opendocument_that_is_missing_makes_it_incomplete(read):
    shown = '<d:object xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="{}"/>'
    body = f"<o:text><t:p>main{shown.format('./Object 1')}{shown.format('../other.odt')}</t:p></o:text>"
    missing = "content.xml refers to a part that is missing (object ./Object 1)"
    assert read(odf(body)) == ([("", "main")], missing)


def test_the_placeholder_of_a_field_that_is_not_filled_in_is_not_read(read):
    def control(inner, settings="<w:showingPlcHdr/>"):
        return f"<w:sdt><w:sdtPr>{settings}</w:sdtPr><w:sdtContent>{inner}</w:sdtContent></w:sdt>"

    off = '<w:showingPlcHdr w:val="false"/>'
    click, math = (
        "<w:r><w:t>Click</w:t></w:r>",
        "<m:oMath><m:r><m:t>Type here</m:t></m:r></m:oMath>",
    )
    cells = f"<w:tc>{run('A')}</w:tc>{control(f'<w:tc>{run(click)}</w:tc>')}<w:tc>{run('B')}</w:tc>"
    body = [
        f"<w:p><w:r><w:t>Name: </w:t></w:r>{control(click)}</w:p>",
        f"<w:p>{control('<w:r><w:t>Kim</w:t></w:r>', '')}</w:p>",
        f"<w:p>{control('<w:r><w:t>Lee</w:t></w:r>', off)}</w:p>",
        control(f"<w:p>{click}{math}</w:p>"),
        # A field that is filled in, beside one that is not.
        control(f"<w:p>{control(click)}<w:r><w:t>end</w:t></w:r></w:p>", "<w:text/>"),
        f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>",
    ]
    text = f'<w:document {WORD} xmlns:m="m">{"".join(body)}</w:document>'
    assert read(zipped({"word/document.xml": text})) == (
        [("", "Name:\n\nKim\n\nLee\n\nend\n\nA | | B")],
        "",
    )


@pytest.mark.parametrize("name", HIDDEN_IN_ODF)
def test_text_that_libreoffice_hides_is_not_read(read, name):
    common = f"<o:document-styles {SPACES}><o:styles>{ODF_COMMON}</o:styles></o:document-styles>"
    body = f"<o:text>{HIDDEN_IN_ODF[name]}<t:p>end</t:p></o:text>"
    [(_, text)], reason = read(odf(body, ODF_STYLES, **{"styles.xml": common}))
    assert (text, reason) == ("seen\n\nend" if "seen" in body else "end", "")


def cell(place, value):
    kind = "str" if isinstance(value, str) else "b" if isinstance(value, bool) else "n"
    style = ' s="1"' if isinstance(value, complex) else ""
    number = (
        value.real
        if isinstance(value, complex)
        else int(value)
        if isinstance(value, bool)
        else value
    )
    return f'<c r="{place}" t="{kind}"{style}><v>{number}</v></c>'


def lines(rows):
    found = ""
    for number, row in enumerate(rows, start=1):
        cells = [
            cell(f"{letter}{number}", one)
            for letter, one in zip("ABCDEF", row, strict=False)
            if one is not None
        ]
        found += f'<row r="{number}">{"".join(cells)}</row>'
    return f"<sheetData>{found}</sheetData>"


def workbook(sheets, merged="", states=(), **parts):
    """Return a workbook. `sheets` has rows by names; a complex number is a day, and None an empty
    cell."""
    listed, written = "", {}
    for n, (name, rows) in enumerate(sheets.items(), start=1):
        listed += f'<sheet name="{name}" sheetId="{n}" r:id="r{n}" {"".join(states[n - 1 : n])}/>'
        written[f"xl/worksheets/sheet{n}.xml"] = (
            f'<worksheet xmlns="{SHEET}">{lines(rows)}{merged}</worksheet>'
        )
    pairs = [("worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)]
    own = {
        "_rels/.rels": relations(("officeDocument", "xl/workbook.xml")),
        "xl/workbook.xml": (
            f'<workbook xmlns="{SHEET}" xmlns:r="{RELATIONS}"><sheets>{listed}</sheets></workbook>'
        ),
        "xl/_rels/workbook.xml.rels": relations(*pairs, ("styles", "styles.xml")),
        "xl/styles.xml": (
            f'<styleSheet xmlns="{SHEET}"><cellXfs><xf/><xf numFmtId="14"/></cellXfs></styleSheet>'
        ),
    }
    return zipped(own | written | parts)


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_a_sheet_is_a_line_with_the_names_of_its_columns(read, name):
    rows, lines = ROWS[name]
    assert read(workbook({"Stock": rows})) == ([("", "\n\n".join(["Stock", *lines]))], "")


def test_merged_cells_say_the_same_of_all_their_rows_and_columns(read):
    merged = (
        '<mergeCells><mergeCell ref="A1:C1"/><mergeCell ref="B2:C2"/><mergeCell'
        ' ref="A4:A5"/></mergeCells>'
    )
    rows = [
        ["Staff"],
        [None, "Place"],
        ["Team", "Town", "Room"],
        ["North", "Oslo", 1],
        [None, "Bergen", 2],
    ]
    said = [
        "Stock",
        "Staff",
        "Place",
        "Team | Town | Room",
        "Team: North | Town: Oslo | Room: 1",
        "Team: North | Town: Bergen | Room: 2",
    ]
    assert read(workbook({"Stock": rows}, merged)) == ([("", "\n\n".join(said))], "")


def test_sheets_are_in_their_order_and_hidden_ones_are_not_read_with_their_comments(read):
    remark = f'<comments xmlns="{SHEET}"><text><t>{{}}</t></text></comments>'
    more = {f"xl/comments{n}.xml": remark.format(f"remark {n}") for n in (1, 2, 3)}
    for n in (1, 2, 3):
        more[f"xl/worksheets/_rels/sheet{n}.xml.rels"] = relations(
            ("comments", f"../comments{n}.xml")
        )
    states = ["", 'state="hidden"', 'state="veryHidden"']
    data = workbook(
        {"Zebra": [["x"]], "Salaries": [["y"]], "Lists": [["z"]]}, states=states, **more
    )
    assert read(data) == ([("", "Zebra\n\nx"), ("", "remark 1")], "")


def test_a_workbook_whose_sheets_are_unknown_is_broken(read):
    broken = io.BytesIO(workbook({"Stock": [["Printer"]]}))
    with zipfile.ZipFile(broken, "a") as archive:
        archive.writestr("xl/_rels/workbook.xml.rels", "<Relationships")
    pages, reason = read(broken.getvalue())
    assert (pages, reason[:11]) == ([], "is broken (")


def test_sheets_of_opendocument_and_of_old_excel_are_read(read):
    def row(*cells):
        said = (
            f'<table:table-cell office:value-type="string">{one}</table:table-cell>'
            for one in cells
        )
        return f"<table:table-row>{''.join(said)}</table:table-row>"

    cells = (("Device", "Room"), ("Printer", "Kitchen"))
    rows = "".join(row(*(f"<text:p>{cell}</text:p>" for cell in one)) for one in cells)
    remark = row(
        "<office:annotation><text:p>remark</text:p></office:annotation><text:p>Fax</text:p>"
    )
    style = '<style:table-properties table:display="false"/>'
    hidden = f'<style:style style:name="h" style:family="table">{style}</style:style>'
    sheets = f'<table:table table:name="Zebra">{rows}{remark}</table:table>'
    sheets += f'<table:table table:name="Lists" table:style-name="h">{remark}</table:table>'
    data = odf(f"<office:spreadsheet>{sheets}</office:spreadsheet>", hidden, "spreadsheet")
    said = "Zebra\n\nDevice | Room\n\nDevice: Printer | Room: Kitchen\n\nFax"
    assert read(data) == ([("", said), ("", "remark")], "")
    assert read(XLS) == ([("", "Sheet1\n\n1")], "")
    assert read(OLD)[1] == "is an old Office file, or encrypted"
