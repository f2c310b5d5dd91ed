"""Sheets of .xlsx and .ods: cells without a value cost nothing, and times are read as people see
them."""

import io
import zipfile

import pytest

from rag_index.components.sources.office_package import OfficePackage, TextStyles
from rag_index.components.sources.spreadsheets import opendocument_sheets
from tests.components.sources.test_attachments import zipped
from tests.components.sources.test_file_formats import SHEET
from tests.components.sources.test_office_files import cell, odf, workbook

REAL = [("Device", "Room"), *((f"Printer {number}", "Kitchen") for number in range(1, 60))]
SAID = ["Stock", "Device | Room", *(f"Device: {device} | Room: Kitchen" for device, _ in REAL[1:])]
LAST_ROW, LAST_COLUMN = 1_048_576, 16_384


def sheet(rows, behind="", styles=""):
    """Return a workbook of one sheet, from rows of XML, and what follows them."""
    inner = f'<worksheet xmlns="{SHEET}"><sheetData>{rows}</sheetData>{behind}</worksheet>'
    parts = {"xl/worksheets/sheet1.xml": inner}
    if styles:
        parts["xl/styles.xml"] = f'<styleSheet xmlns="{SHEET}">{styles}</styleSheet>'
    return workbook({"Stock": []}, **parts)


def excel_row(number, *cells):
    return f'<row r="{number}">{"".join(cells)}</row>'


def letters(number):
    """Return the name of a column, from 1."""
    name = ""
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord("A") + rest) + name
    return name


def real_rows():
    rows = (
        excel_row(n, cell(f"A{n}", a), cell(f"B{n}", b)) for n, (a, b) in enumerate(REAL, start=1)
    )
    return "".join(rows)


def formats(*numbers):
    """Return a row in which each column has a format and no value."""
    return "".join(excel_row(n, f'<c r="A{n}" s="1"/>', f'<c r="XFD{n}" s="1"/>') for n in numbers)


def text_cell(text, times=1):
    repeated = f'table:number-columns-repeated="{times}"'
    return (
        f"<table:table-cell {repeated}"
        f' office:value-type="string"><text:p>{text}</text:p></table:table-cell>'
    )


def no_cell(times=1):
    return f'<table:table-cell table:style-name="ce1" table:number-columns-repeated="{times}"/>'


def calc_row(*cells, times=1):
    return (
        f'<table:table-row table:number-rows-repeated="{times}">{"".join(cells)}</table:table-row>'
    )


def calc(*rows):
    table = f'<table:table table:name="Stock">{"".join(rows)}</table:table>'
    return odf(f"<office:spreadsheet>{table}</office:spreadsheet>", mimetype="spreadsheet")


CALC_ROWS = [
    calc_row(text_cell(device), text_cell(room), no_cell(LAST_COLUMN - 2)) for device, room in REAL
]
BETWEEN = calc_row(no_cell(LAST_COLUMN), times=LAST_ROW - len(REAL) - 1)
CALC_FAR = calc_row(no_cell(LAST_COLUMN - 1), text_cell("far"))
WITHOUT_VALUE = {
    "a stray cell": (
        sheet(real_rows() + excel_row(LAST_ROW, cell(f"XFD{LAST_ROW}", "far"))),
        [*SAID, "far"],
    ),
    "a stray cell of Calc": (calc(*CALC_ROWS, BETWEEN, CALC_FAR), [*SAID, "far"]),
    "formats alone": (sheet(real_rows() + formats(70, LAST_ROW)), SAID),
    "a formula without a result": (
        sheet(
            real_rows() + excel_row(LAST_ROW, f'<c r="XFD{LAST_ROW}" t="str"><f>""</f><v></v></c>')
        ),
        SAID,
    ),
    "an error": (
        sheet(real_rows() + excel_row(LAST_ROW, f'<c r="XFD{LAST_ROW}" t="e"><v>#N/A</v></c>')),
        SAID,
    ),
    "merged cells": (
        sheet(real_rows(), f'<mergeCells><mergeCell ref="A70:XFD{LAST_ROW}"/></mergeCells>'),
        SAID,
    ),
    "spaces": (calc(*CALC_ROWS, calc_row(text_cell(" ", LAST_COLUMN), times=LAST_ROW)), SAID),
    "a cell in each row and column": (
        sheet(
            "".join(excel_row(n, cell(f"{letters(n)}{n}", n)) for n in range(1, LAST_COLUMN + 1))
        ),
        ["Stock", *map(str, range(1, LAST_COLUMN + 1))],
    ),
}


@pytest.mark.parametrize("name", WITHOUT_VALUE)
def test_cells_without_a_value_cost_nothing(read, name):
    data, said = WITHOUT_VALUE[name]
    assert read(data) == ([("", "\n\n".join(said))], "")


def test_cells_of_calc_that_repeat_a_value_are_read_as_often_as_there_is_room(read):
    rows = [
        calc_row(text_cell("Oslo", 2), no_cell(), text_cell("Bergen"), times=3),
        calc_row(text_cell("end")),
    ]
    assert read(calc(*rows)) == ([("", "Stock\n\n" + "Oslo | Oslo | Bergen\n\n" * 3 + "end")], "")
    most = "has more than 5,000,000 characters; the first ones are indexed"
    for columns in (LAST_COLUMN, 10**12):
        [(_, text)], reason = read(calc(calc_row(text_cell("Oslo", columns), times=10**12)))
        assert (len(text), reason) == (5_000_000, most)
        assert text.startswith("Stock\n\nOslo | Oslo | Oslo")


def test_a_value_of_calc_that_repeats_itself_ends_at_the_last_row():
    package = OfficePackage(calc(calc_row(text_cell("a"), times=10**12), calc_row(text_cell("b"))))
    counts = [
        sum(1 for _ in sheet.rows)
        for sheet in opendocument_sheets(package, "content.xml", TextStyles())
    ]
    assert counts == [LAST_ROW]


def test_a_sheet_of_calc_is_read_behind_one_that_is_hidden(read):
    style = (
        '<style:style style:name="h" style:family="table"><style:table-properties'
        ' table:display="false"/></style:style>'
    )
    tables = ""
    for name in ("h", "v", "w"):
        tables += (
            f'<table:table table:name="{name}"'
            f' table:style-name="{name}">{calc_row(text_cell(name))}</table:table>'
        )
    data = odf(f"<office:spreadsheet>{tables}</office:spreadsheet>", style, "spreadsheet")
    assert read(data) == ([("", "v\n\nv"), ("", "w\n\nw")], "")


def test_merged_cells_have_their_value_in_each_row_that_has_another(read):
    rows = excel_row(1, cell("A1", "Team"), cell("B1", "Town")) + excel_row(
        2, cell("A2", "North"), cell("B2", "Oslo")
    )
    rows += excel_row(LAST_ROW, cell(f"B{LAST_ROW}", "Bergen"))
    merged = f'<mergeCells><mergeCell ref="A2:A{LAST_ROW}"/></mergeCells>'
    [(_, text)], reason = read(sheet(rows, merged))
    lines = text.split("\n\n")
    assert (lines[:3], reason) == (["Stock", "Team | Town", "Team: North | Town: Oslo"], "")
    assert lines[-1] == "Team: North | Town: Bergen"
    assert len(lines) < 1100


def test_a_title_over_a_whole_sheet_leaves_the_names_of_its_columns(read):
    merged = '<mergeCells><mergeCell ref="A1:XFD1"/></mergeCells>'
    rows = [("Inventory",), ("Device", "Room"), ("Printer", "Kitchen"), ("Scanner", "Hall")]
    written = ""
    for number, row in enumerate(rows, start=1):
        written += excel_row(
            number, *(cell(f"{letters(n)}{number}", text) for n, text in enumerate(row, start=1))
        )
    said = [
        "Stock",
        "Inventory",
        "Device | Room",
        "Device: Printer | Room: Kitchen",
        "Device: Scanner | Room: Hall",
    ]
    assert read(sheet(written, merged)) == ([("", "\n\n".join(said))], "")


def test_merged_cells_that_begin_left_of_all_values_hide_none(read):
    merged = '<mergeCells><mergeCell ref="A1:C1"/></mergeCells>'
    rows = excel_row(1, '<c r="A1" s="1"/>', cell("B1", "Printer")) + excel_row(
        2, cell("B2", "Scanner")
    )
    assert read(sheet(rows, merged)) == ([("", "Stock\n\nPrinter\n\nScanner")], "")


def test_all_merged_cells_of_a_large_sheet_are_known(read):
    pairs = [(number, number + 1) for number in range(1, 4000, 2)]
    rows = ""
    for number, other in pairs:
        rows += excel_row(number, cell(f"A{number}", f"Team {number}"), cell(f"B{number}", "Oslo"))
        rows += excel_row(other, cell(f"B{other}", "Bergen"))
    # Bytes are read in blocks of a megabyte, and the first ends among the merged cells.
    rows += excel_row(5000, cell("B5000", "x" * (2**20 - len(rows) - 5000)))
    merged = "".join(f'<mergeCell ref="A{number}:A{other}"/>' for number, other in pairs)
    [(_, text)], reason = read(sheet(rows, f"<mergeCells>{merged}</mergeCells>"))
    assert (text.count("Team"), reason) == (4000, "")


def test_a_note_left_of_a_table_below_it_does_not_hide_its_names(read):
    rows = [["Device", "Room"], *(["Printer", ""] for _ in range(9))]
    written = ""
    for number, row in enumerate(rows, start=1):
        cells = (
            cell(f"{column}{number}", text) for column, text in zip("BC", row, strict=True) if text
        )
        written += excel_row(number, *cells)
    written += excel_row(12, cell("A12", "a note"))
    said = ["Stock", "Device | Room", *["Device: Printer"] * 9, "a note"]
    assert read(sheet(written)) == ([("", "\n\n".join(said))], "")


KINDS = {
    "[h]:mm": {
        1.0625: "25:30",
        1 / 3: "8:00",
        25.51 / 24: "25:30",
        -0.0625: "-1:30",
        0: "0:00",
        100: "2400:00",
    },
    "[hh]:mm:ss": {1.0625: "25:30:00", 1 / 3: "8:00:00", 25.51 / 24: "25:30:36"},
    "[mm]:ss": {0.0625: "1:30:00"},
    '[h]"hours "mm': {1.0625: "25:30"},
    "[s].00": {0.5005 / 86400: "0:00:00.5", 1: "24:00:00"},
    "[Red][h]:mm;-0": {1.0625: "25:30"},
    "h:mm": {0.5: "12:00:00", 45351.5: "2024-02-29 12:00:00"},
    "h:mm AM/PM": {0.5: "12:00:00"},
    "AM/PM h": {0.5: "12:00:00"},
    "yyyy-mm-dd": {
        45351: "2024-02-29",
        1: "1900-01-01",
        59: "1900-02-28",
        61: "1900-03-01",
        1e9: "1000000000",
    },
    "#,##0.00": {45351: "45351", 0.1 + 0.2: "0.3"},
    "0.0\\d": {1.5: "1.5"},
    '0.0" days"': {1.5: "1.5"},
    "0_d": {1.5: "1.5"},
    "[Red]0;yyyy": {1.5: "1.5"},
    "General": {1.5: "1.5"},
}


@pytest.mark.parametrize("code", KINDS)
def test_numbers_are_read_as_the_dates_and_times_that_their_format_shows(read, code):
    quoted = code.replace('"', "&quot;")
    styles = f'<numFmts><numFmt numFmtId="170" formatCode="{quoted}"/></numFmts>'
    styles += '<cellXfs><xf numFmtId="0"/><xf numFmtId="170"/></cellXfs>'
    for number, text in KINDS[code].items():
        data = sheet(excel_row(1, f'<c r="A1" s="1"><v>{number!r}</v></c>'), styles=styles)
        assert read(data) == ([("", f"Stock\n\n{text}")], "")


def test_days_count_from_1904_where_a_workbook_says_so(read):
    styles = '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs>'
    data = sheet(excel_row(1, '<c r="A1" s="1"><v>43889</v></c>'), styles=styles)
    assert read(data) == ([("", "Stock\n\n2020-02-28")], "")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts["xl/workbook.xml"] = parts["xl/workbook.xml"].replace(
        b"<sheets>", b'<workbookPr date1904="1"/><sheets>'
    )
    assert read(zipped(parts)) == ([("", "Stock\n\n2024-02-29")], "")


def test_dates_that_are_written_as_text_are_read_as_such(read):
    cells = [
        f'<c t="d"><v>{text}</v></c>'
        for text in ("2024-02-29T12:30:00", "2024-02-29", "12:30:00", "soon")
    ]
    assert read(sheet(excel_row(1, *cells))) == (
        [("", "Stock\n\n2024-02-29 12:30:00 | 2024-02-29 | 12:30:00 | soon")],
        "",
    )
    days = [
        f'<table:table-cell office:date-value="{text}"/>'
        for text in ("2024-02-29T12:30:00", "2024-02-29")
    ]
    assert read(calc(calc_row(*days))) == ([("", "Stock\n\n2024-02-29 12:30:00 | 2024-02-29")], "")


def test_spaces_and_signs_of_cells_that_are_written_otherwise_are_read(read):
    shared = f'<sst xmlns="{SHEET}"><si><t>a_x000D_\nb_x0041_</t></si></sst>'
    row = excel_row(1, '<c r="A1" t="s"><v>0</v></c>')
    rows = f"<sheetData>{row}</sheetData>"
    parts = {
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{SHEET}">{rows}</worksheet>',
        "xl/sharedStrings.xml": shared,
    }
    assert read(workbook({"Stock": []}, **parts)) == ([("", "Stock\n\na bA")], "")
    inner = '1<text:s text:c="2"/>2<text:tab/>3<text:line-break/>4</text:p><text:p>5'
    assert read(calc(calc_row(text_cell(inner)))) == ([("", "Stock\n\n1 2 3 4 5")], "")


def test_times_of_calc_are_read_as_people_see_them(read):
    times = {
        "PT08H30M00S": "08:30:00",
        "PT25H30M00S": "25:30",
        "PT25H30M36S": "25:30:36",
        "-PT01H30M00S": "-1:30",
    }
    cells = [
        f'<table:table-cell office:value-type="time" office:time-value="{time}"/>' for time in times
    ]
    assert read(calc(calc_row(*cells))) == ([("", "Stock\n\n" + " | ".join(times.values()))], "")


def test_cells_and_rows_that_do_not_name_their_place_follow_each_other(read):
    rows = '<row><c t="str"><v>a</v></c><c/><c t="str"><v>b</v></c></row><row/>'
    rows += '<row><c r="B3" t="str"><v>c</v></c><c t="str"><v>d</v></c></row>'
    merged = '<mergeCells><mergeCell ref="B3:B4"/></mergeCells>'
    rows += '<row r="4"><c r="C4"><v>1</v></c><c r="A4"><v>2</v></c></row>'
    rows += '<row r="6"><c r="C6"><v>3</v></c><c r="A6"><v>4</v></c></row>'
    assert read(sheet(rows, merged)) == (
        [("", "Stock\n\na | b\n\nc | d\n\n2 | c | 1\n\n4 | 3")],
        "",
    )


def test_what_is_read_before_a_sheet_is_broken_is_kept_and_so_are_the_other_sheets(read):
    good = f'<worksheet xmlns="{SHEET}"><sheetData>{excel_row(1, cell("A1", "Printer"))}'
    rows = {
        "sheet1": good + excel_row(2, '<c r="A2" t="s"><v>7</v></c>') + "</sheetData></worksheet>",
        "sheet2": f"{good}<row",
    }
    parts = {f"xl/worksheets/{name}.xml": text for name, text in rows.items()}
    pages, reason = read(workbook({"Stock": [], "Lists": [], "Zebra": [["x"]]}, **parts))
    assert pages == [("", "Stock\n\nPrinter"), ("", "Lists\n\nPrinter"), ("", "Zebra\n\nx")]
    assert reason.startswith(
        "sheet Stock refers to a text that is missing; sheet Lists is broken (XMLSyntaxError"
    )


def test_a_part_is_found_though_its_name_is_written_otherwise(read):
    shared = f'<sst xmlns="{SHEET}"><si><t>Printer</t></si></sst>'
    rows = (
        f'<worksheet xmlns="{SHEET}"><sheetData><row r="1"><c r="A1"'
        ' t="s"><v>0</v></c></row></sheetData></worksheet>'
    )
    for name in ("xl/sharedStrings.xml", "xl/SharedStrings.xml"):
        data = workbook({"Stock": []}, **{"xl/worksheets/sheet1.xml": rows, name: shared})
        assert read(data) == ([("", "Stock\n\nPrinter")], "")
