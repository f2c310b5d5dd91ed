"""A number keeps its value where an office document raises or lowers a part of it, and a formula
stands in a line, as in HTML: 10 and a raised 6 are `10^6`, but H2O and 1st stay."""

import pytest

from tests.components.sources.test_attachments import zipped
from tests.components.sources.test_file_formats import DRAWING, OFFICE, SHEET, relations
from tests.components.sources.test_office_files import (
    ODF_COMMON,
    SPACES,
    WORD,
    odf,
    presentation,
    workbook,
)

MATH = f'xmlns:m="{OFFICE}officeDocument/2006/math"'
UP, DOWN, LEVEL = (
    f'<w:vertAlign w:val="{value}"/>' for value in ("superscript", "subscript", "baseline")
)
WORD_STYLES = {
    "Up": ("character", UP),
    "Heir": ("character", '<w:basedOn w:val="Child"/>'),
    "Child": ("character", '<w:basedOn w:val="Up"/>'),
    "UpParagraph": ("paragraph", UP),
    "Circle": ("character", '<w:basedOn w:val="Circle"/>'),
    "Mark": ("character", f'<w:name w:val="footnote reference"/>{UP}'),
}


def word_style(name, kind, inner):
    settings = inner.replace("<w:vertAlign", "<w:rPr><w:vertAlign") + (
        "</w:rPr>" if "vertAlign" in inner else ""
    )
    return f'<w:style w:type="{kind}" w:styleId="{name}">{settings}</w:style>'


def document(body, notes=""):
    styles = "".join(word_style(name, kind, inner) for name, (kind, inner) in WORD_STYLES.items())
    return zipped(
        {
            "_rels/.rels": relations(("officeDocument", "word/document.xml")),
            "word/_rels/document.xml.rels": relations(
                ("styles", "styles.xml"), ("footnotes", "footnotes.xml")
            ),
            "word/styles.xml": f"<w:styles {WORD}>{styles}</w:styles>",
            "word/footnotes.xml": f"<w:footnotes {WORD}><w:p>{notes}</w:p></w:footnotes>",
            "word/document.xml": f"<w:document {WORD} {MATH}><w:body>{body}</w:body></w:document>",
        }
    )


def run(text, settings=""):
    return f'<w:r><w:rPr>{settings}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*runs, style=""):
    settings = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{settings}{''.join(runs)}</w:p>"


def styled(name):
    return f'<w:rStyle w:val="{name}"/>'


REFERENCE = f'<w:r><w:rPr>{UP}</w:rPr><w:footnoteReference {{}} w:id="2"/>{{}}</w:r>'
IN_WORD = {
    "raised": ([run("The limit is 10"), run("6", UP), run(" units")], "The limit is 10^6 units"),
    "raised in several runs": (
        [run("1"), run("0"), run("1", UP), run("2", UP), run(" m")],
        "10^12 m",
    ),
    "a space that is raised too": ([run("10"), run("6 ", UP), run("units")], "10^6 units"),
    "negative": ([run("10"), run("-6", UP), run(" m")], "10^-6 m"),
    "digits behind it": ([run("5"), run("3", UP), run("7")], "5^3 7"),
    "words": ([run("H"), run("2", DOWN), run("O is the 1"), run("st", UP)], "H2O is the 1st"),
    "raised and then lowered": ([run("10"), run("6", UP), run("2", DOWN), run(" m")], "10^6_2 m"),
    "a base": ([run("101"), run("2", DOWN), run(" is 5")], "101_2 is 5"),
    "a style": ([run("10"), run("6", styled("Up")), run(" units")], "10^6 units"),
    "a style based on others": ([run("10"), run("6", styled("Heir")), run(" units")], "10^6 units"),
    "a style based on itself": ([run("10"), run("6", styled("Circle"))], "106"),
    "a style that a run undoes": ([run("10"), run("6", styled("Up") + LEVEL)], "106"),
    "moved up": ([run("10"), run("6", '<w:position w:val="8"/>'), run(" units")], "10^6 units"),
    "hardly moved": ([run("10"), run("6", '<w:position w:val="1"/>'), run(" units")], "106 units"),
    "a link": (
        [run("10"), f"<w:hyperlink>{run('6', UP)}</w:hyperlink>", run(" units")],
        "10^6 units",
    ),
    "a footnote": (
        [run("See clause 1"), REFERENCE.format("", ""), run(" of it")],
        "See clause 1 of it",
    ),
    "a footnote with a mark of its own": (
        [
            run("See clause 1"),
            REFERENCE.format('w:customMarkFollows="1"', "<w:t>2</w:t>"),
            run(" of it"),
        ],
        "See clause 1 of it",
    ),
    "the number of a note that is typed": (
        [run("clause 1"), run("2", styled("Mark")), run(" of")],
        "clause 1[2] of",
    ),
}


@pytest.mark.parametrize("name", IN_WORD)
def test_raised_and_lowered_numbers_of_word_keep_their_value(read, name):
    runs, text = IN_WORD[name]
    assert read(document(paragraph(*runs))) == ([("", text)], "")


def test_a_paragraph_that_is_raised_raises_what_does_not_undo_it(read):
    body = paragraph(run("10", LEVEL), run("6"), run(" units", LEVEL), style="UpParagraph")
    assert read(document(body)) == ([("", "10^6 units")], "")


def test_what_is_raised_at_the_start_of_a_cell_or_a_paragraph_is_no_exponent(read):
    cells = "".join(f"<w:tc>{paragraph(one)}</w:tc>" for one in (run("10"), run("6", UP)))
    body = (
        f"<w:tbl><w:tr>{cells}</w:tr></w:tbl>"
        + paragraph(run("5"))
        + paragraph(run("3", UP), run("H"))
    )
    assert read(document(body)) == ([("", "10 | 6\n\n5\n\n3H")], "")


def test_the_text_of_a_footnote_has_raised_numbers_too(read):
    data = document(paragraph(run("main")), run("10") + run("6", UP))
    assert read(data) == ([("", "main"), ("", "10^6")], "")


def math(text):
    return f"<m:r><m:t>{text}</m:t></m:r>"


def formula(name, settings="", **parts):
    inner = "".join(f"<m:{part}>{value}</m:{part}>" for part, value in parts.items())
    return f"<m:{name}>{settings and f'<m:{name}Pr>{settings}</m:{name}Pr>'}{inner}</m:{name}>"


HALF = formula("f", num=math("1"), den=math("2"))
POWER = formula("sSup", e=math("10"), sup=math("6"))
HIDDEN = "<m:r><w:rPr><w:vanish/></w:rPr><m:t>9</m:t></m:r>"
FORMULAS = {
    "10^6": POWER,
    "10^12": formula("sSup", e=math("1") + math("0"), sup=math("1") + math("2")),
    "x1": formula("sSub", e=math("x"), sub=math("1")),
    "10_2": formula("sSub", e=math("10"), sub=math("2")),
    "x1^2": formula("sSubSup", e=math("x"), sub=math("1"), sup=math("2")),
    "1/2": HALF,
    "(1/2)/3": formula("f", num=HALF, den=math("3")),
    "(10^6)/(a+1)": formula("f", num=POWER, den=math("a+1")),
    "2 1/2": math("2") + HALF,
    "√16": formula("rad", '<m:degHide m:val="1"/>', deg="", e=math("16")),
    "√[3](a+b)": formula("rad", deg=math("3"), e=math("a+b")),
    "(a+b)^2": formula("sSup", e=formula("d", e=math("a+b")), sup=math("2")),
    "[a,b": (
        formula(
            "d", '<m:begChr m:val="["/><m:sepChr m:val=","/><m:endChr m:val=""/>', e=math("a")
        ).replace("</m:d>", f"<m:e>{math('b')}</m:e></m:d>")
    ),
    "∑_(i=1)^10 2i": formula(
        "nary", '<m:chr m:val="∑"/>', sub=math("i=1"), sup=math("10"), e=math("2i")
    ),
    "x=1; y=2": (
        formula("eqArr", e=math("x&amp;=1")).replace(
            "</m:eqArr>", f"<m:e>{math('y&amp;=2')}</m:e></m:eqArr>"
        )
    ),
    "(10; 2)": formula(
        "d", e=formula("f", '<m:type m:val="noBar"/>', num=math("10"), den=math("2"))
    ),
    "if x > 10 and y^2": math("if x &gt; 10 and ") + formula("sSup", e=math("y"), sup=math("2")),
    "x7": f"{math('x')}{HIDDEN}<w:del>{math('8')}</w:del><w:ins>{math('7')}</w:ins>",
}


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_of_word_and_powerpoint_stand_in_a_line(read, text):
    inner = f"<m:oMath>{FORMULAS[text]}</m:oMath>"
    body = paragraph(run("It is "), inner, run(" so"))
    assert read(document(body)) == ([("", f"It is {text} so")], "")
    choice = f"<mc:Choice>{inner}</mc:Choice><mc:Fallback>{slide_run('12')}</mc:Fallback>"
    slide = f"<a:p>{slide_run('It is ')}{choice}</a:p>"
    assert read(slides(slide)) == ([("1", f"It is {text}")], "")


def test_a_formula_is_no_part_of_the_number_beside_it(read):
    body = paragraph(run("Take 2"), f"<m:oMath>{HALF}</m:oMath>", run("5 of it"))
    body += paragraph(f"<m:oMath>{math('x=1')}</m:oMath><m:oMath>{math('2=y')}</m:oMath>")
    assert read(document(body)) == ([("", "Take 2 1/2 5 of it\n\nx=1 2=y")], "")
    page = b"<!DOCTYPE html><p>Take 2<math><mfrac><mn>1</mn><mn>2</mn></mfrac></math>5 of it</p>"
    assert read(page) == ([("", "Take 2 1/2 5 of it")], "")


def slide_run(text, settings=""):
    return f"<a:r><a:rPr {settings}/><a:t>{text}</a:t></a:r>"


def slides(body, list_style=""):
    names = (
        f'xmlns:p="{OFFICE}presentationml/2006/main" xmlns:a="{DRAWING}" xmlns:w="w" xmlns:mc="mc"'
        f" {MATH}"
    )
    box = f"<p:txBody><a:lstStyle>{list_style}</a:lstStyle>{body}</p:txBody>"
    parts = {"ppt/slides/slide1.xml": f"<p:sld {names}>{box}</p:sld>"}
    return presentation(["r1"], parts, ("slide", "slides/slide1.xml"))


def test_raised_numbers_of_slides_keep_their_value(read):
    up, up_too, down = 'baseline="30000"', 'baseline="30%"', 'baseline="-25000"'
    said = (
        slide_run("10")
        + slide_run("6", up)
        + slide_run(" units of H")
        + slide_run("2", down)
        + slide_run("O, 10")
    )
    body = f"<a:p>{said}{slide_run('1', up_too)}{slide_run('2', up)}</a:p>"
    assert read(slides(body)) == ([("1", "10^6 units of H2O, 10^12")], "")
    level = 'baseline="0"'
    body = (
        "<a:p><a:pPr"
        f' lvl="1"/>{slide_run("10", level)}{slide_run("6")}{slide_run(" units", level)}</a:p>'
    )
    raised = f"<a:lvl2pPr><a:defRPr {up}/></a:lvl2pPr>"
    assert read(slides(body, raised)) == ([("1", "10^6 units")], "")
    assert read(slides(body)) == ([("1", "106 units")], "")


def odf_style(name, position, family="text", parent=""):
    base = f' style:parent-style-name="{parent}"' if parent else ""
    inner = f'<style:text-properties style:text-position="{position}"/>' if position else ""
    return f'<style:style style:name="{name}" style:family="{family}"{base}>{inner}</style:style>'


ODF_STYLES = "".join(
    [
        odf_style("Raised", "super 58%"),
        odf_style("Child", "", parent="Raised"),
        odf_style("Common", "", parent="Up"),
        odf_style("Lowered", "-33% 58%"),
        odf_style("Level", "0% 100%"),
        odf_style("P1", "33% 58%", "paragraph"),
        odf_style("Twice", "", "text"),
        odf_style("Twice", "super 58%", "paragraph"),
        odf_style("ce1", "super 58%", "table-cell"),
    ]
)


def span(text, style):
    return f'<t:span t:style-name="{style}">{text}</t:span>'


IN_OPENDOCUMENT = {
    "raised": (f"10{span('6', 'Raised')} units", "10^6 units"),
    "in several spans": (f"10{span('1', 'Raised')}{span('2', 'Child')} units", "10^12 units"),
    "a style of the document": (f"10{span('6', 'Common')} units", "10^6 units"),
    "a span within": (
        f"10{span('1' + span('2', 'Unknown') + '3', 'Raised')} units",
        "10^123 units",
    ),
    "lowered": (f"101{span('2', 'Lowered')} is 5, H{span('2', 'Lowered')}O", "101_2 is 5, H2O"),
    "the name of another kind of style": (f"10{span('6', 'Twice')} units", "106 units"),
}


def common_styles():
    styles = f"{ODF_COMMON}{odf_style('Up', 'super 58%')}"
    return f"<o:document-styles {SPACES}><o:styles>{styles}</o:styles></o:document-styles>"


@pytest.mark.parametrize("name", IN_OPENDOCUMENT)
def test_raised_and_lowered_numbers_of_opendocument_keep_their_value(read, name):
    inner, text = IN_OPENDOCUMENT[name]
    styles = {"styles.xml": common_styles()}
    document = odf(f"<o:text><t:p>{inner}</t:p></o:text>", ODF_STYLES, **styles)
    assert read(document) == ([("", text)], "")
    cells = (
        "<table:table-row><table:table-cell"
        f' office:value-type="string"><t:p>{inner}</t:p></table:table-cell>'
    )
    table = f'<table:table table:name="Stock">{cells}</table:table-row></table:table>'
    sheet = odf(f"<o:spreadsheet>{table}</o:spreadsheet>", ODF_STYLES, "spreadsheet", **styles)
    assert read(sheet) == ([("", f"Stock\n\n{text}")], "")
    page = f"<d:page><d:text-box><t:p>{inner}</t:p></d:text-box></d:page>"
    slides = odf(f"<o:presentation>{page}</o:presentation>", ODF_STYLES, "presentation", **styles)
    assert read(slides) == ([("1", text)], "")


def test_the_number_of_a_note_of_opendocument_is_no_exponent(read):
    number = "<t:note-ref>2</t:note-ref>"
    body = f"<o:text><t:p>clause 1{span(number, 'Raised')} and note {number}</t:p></o:text>"
    assert read(odf(body, ODF_STYLES)) == ([("", "clause 1[2] and note 2")], "")


def test_a_paragraph_or_a_cell_of_opendocument_may_be_raised_as_a_whole(read):
    inner = f"{span('10', 'Level')}6{span(' units', 'Level')}"
    document = odf(f'<o:text><t:p t:style-name="P1">{inner}</t:p></o:text>', ODF_STYLES)
    assert read(document) == ([("", "10^6 units")], "")
    # The value of the cell has no scripts, and is 106.
    cell = (
        '<table:table-cell table:style-name="ce1"'
        f' office:string-value="106"><t:p>{inner}</t:p></table:table-cell>'
    )
    table = (
        f'<table:table table:name="Stock"><table:table-row>{cell}</table:table-row></table:table>'
    )
    sheet = odf(f"<o:spreadsheet>{table}</o:spreadsheet>", ODF_STYLES, "spreadsheet")
    assert read(sheet) == ([("", "Stock\n\n10^6 units")], "")


def test_formulas_of_libreoffice_stand_where_they_are_shown(read):
    space = 'xmlns="http://www.w3.org/1998/Math/MathML"'
    fraction = "<mfrac><mn>1</mn><mn>2</mn></mfrac><annotation>1 over 2</annotation>"
    half = f"<math {space}><semantics>{fraction}</semantics></math>"
    shown = '<d:object xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="./Object 1"/>'
    body = f"<o:text><t:p>Take 2<d:frame>{shown}</d:frame> of it</t:p></o:text>"
    assert read(odf(body, **{"Object 1/content.xml": half})) == ([("", "Take 2 1/2 of it")], "")
    assert read(odf("", mimetype="formula", **{"content.xml": half})) == ([("", "1/2")], "")


def rich_run(text, settings=""):
    return f'<r><rPr>{settings}</rPr><t xml:space="preserve">{text}</t></r>'


def test_raised_numbers_of_cells_and_remarks_keep_their_value(read):
    up = '<vertAlign val="superscript"/>'
    shared = [
        f"<r><t>10</t></r>{rich_run('6', up)}{rich_run(' units')}",
        f"{rich_run('10')}{rich_run('1', up)}{rich_run('2', up)}<rPh><t>read so</t></rPh>",
        f"{rich_run('10')}<r><t>6</t></r>",
    ]
    inline = f"<is><r><t>5</t></r>{rich_run('3', up)}</is>"
    cells = (
        '<c r="A1" t="s"><v>0</v></c><c r="B1" t="s"><v>1</v></c><c r="C1" t="s" s="0"><v>2</v></c>'
    )
    # The font of the last cell is raised, and so is a run without a font of its own.
    cells += f'<c r="D1" t="inlineStr">{inline}</c><c r="E1" t="s" s="1"><v>2</v></c>'
    fonts = (
        f'<fonts><font/><font>{up}</font></fonts><cellXfs><xf fontId="0"/><xf'
        ' fontId="1"/></cellXfs>'
    )
    rows = f'<sheetData><row r="1">{cells}</row></sheetData>'
    remark = f"<text><r><t>10</t></r>{rich_run('9', up)}</text>"
    data = workbook(
        {"Stock": []},
        **{
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{SHEET}">{rows}</worksheet>',
            "xl/sharedStrings.xml": (
                f'<sst xmlns="{SHEET}">{"".join(f"<si>{one}</si>" for one in shared)}</sst>'
            ),
            "xl/styles.xml": f'<styleSheet xmlns="{SHEET}">{fonts}</styleSheet>',
            "xl/worksheets/_rels/sheet1.xml.rels": relations(("comments", "../comments1.xml")),
            "xl/comments1.xml": f'<comments xmlns="{SHEET}">{remark}</comments>',
        },
    )
    text = "Stock\n\n10^6 units | 10^12 | 106 | 5^3 | 10^6"
    assert read(data) == ([("", text), ("", "10^9")], "")
