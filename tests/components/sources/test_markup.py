"""HTML with formulas, foreign elements and hidden text: no mark is text, numbers keep their value."""

import pytest

from rag_index.components.sources.text import read_text

FIRST, REST = "<p>See <ac:link><ri:page ri:content-title='Mill'/>", "</ac:link></p>"
MACRO = "<ac:structured-macro ac:name='code'><ac:parameter ac:name='"
MACRO_END = "</ac:plain-text-body></ac:structured-macro>"


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("<mi>a</mi><mo>+</mo><mi>b</mi>", "a+b"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mn>1</mn></mrow><mn>2</mn></mfrac>", "(a+1)/2"),
        ("<mn>2</mn><mfrac><mn>1</mn><mn>2</mn></mfrac>", "2 1/2"),
        ("<msup><mn>10</mn><mn>6</mn></msup>", "10^6"),
        ("<msub><mi>H</mi><mn>2</mn></msub><mi>O</mi>", "H2O"),
        ("<msub><mi>log</mi><mn>10</mn></msub><mn>100</mn>", "log10 100"),
        ("<munderover><mo>&sum;</mo><mrow><mi>i</mi><mo>=</mo><mn>0</mn></mrow><mi>n</mi></munderover><mi>x</mi>",
         "∑_(i=0)^n x"),
        ("<mi>sin</mi><mo>&ApplyFunction;</mo><mi>x</mi>", "sin x"),
        ("<mi>a</mi><mo>&lt;</mo><mi>b</mi>", "a<b"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr><mtr><mtd><mi>x</mi></mtd></mtr></mtable>",
         "1 0; x"),
        ("<semantics><mi>E</mi><annotation encoding='application/x-tex'>tex</annotation></semantics>", "E"),
        ("<mover><mi>x</mi><mo>¯</mo></mover><msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt>", "x¯√(a+b)"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot><mfenced><mi>x</mi><mi>y</mi></mfenced>", "√[3]x(x, y)"),
    ],
)  # fmt: skip
def test_a_formula_is_read_in_a_line(formula, text):
    for start, end in (
        ("<math xmlns='http://www.w3.org/1998/Math/MathML'>", "</math>"),
        ("<MATH id='x'>", "</MATH>"),
    ):
        assert read_text(f"<p>so {start}{formula}{end} it is</p>", "html") == f"so {text} it is"
        assert read_text(f"so {start}{formula}{end} it is", "auto") == f"so {text} it is"


@pytest.mark.parametrize(
    "hidden",
    [
        "<div hidden>no</div>", "<div hidden='hidden'>no</div>", "<p style='DISPLAY : none !important'>no</p>",
        "<p style='color:red;visibility:hidden'>no</p>", "<template>no</template>", "<img hidden alt='no'>",
        "<div style='max-height:0px;overflow:hidden'>no</div>", "<!--[if mso]><p>no</p><![endif]-->",
        "<xml><w:WordDocument><w:View>no</w:View></w:WordDocument></xml>",
        "<div style='display:none'><div>no<br></div>no</div>",
    ],
)  # fmt: skip
def test_what_a_browser_hides_is_no_text(hidden):
    assert read_text(f"<p>before</p>{hidden}<p>after</p>", "html").split() == ["before", "after"]


@pytest.mark.parametrize(
    "shown",
    [
        "<p style='max-height:0.5em'>yes</p>", "<div style='font-size:0'><p style='font-size:13px'>yes</p></div>",
        "<i aria-hidden='true'>yes</i>", "<!--[if !mso]><!--><p>yes</p><!--<![endif]-->",
        "<![if !supportLists]>yes<![endif]>", "<p class='hidden' data-hidden='1'>yes</p>",
    ],
)  # fmt: skip
def test_what_a_browser_shows_is_text(shown):
    assert read_text(f"<p>before</p>{shown}<p>after</p>", "html").split() == ["before", "yes", "after"]


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        (f"{FIRST}<ac:plain-text-link-body><![CDATA[the <mill>]]></ac:plain-text-link-body>{REST}", "See the <mill>"),
        (f"{MACRO}language'>java</ac:parameter><ac:plain-text-body><![CDATA[if (a < b)\n    <!-- c -->]]>{MACRO_END}",
         "java\n\nif (a < b)\n    <!-- c -->"),
        ("<ac:task><ac:task-id>7</ac:task-id><ac:task-status>done</ac:task-status>oil it</ac:task>", "- oil it"),
        ("<p><o:p>a</o:p> <st1:place w:st='on'>Graz</st1:place> <w:sdt ShowingPlcHdr='t'>b</w:sdt></p>", "a Graz b"),
        ("<?xml:namespace prefix = o ns = 'urn:x' /><p>a</p>", "a"),
        ("<x-note>one <user-name> and List<String></x-note>", "one <user-name> and List<String>"),
        ("<p><unknown>x</unknown> <foo bar='1'>y and <timeout/>z</p>", "x y and z"),
        ("<p>x<svg viewBox='0'><title>A mill</title><style>.a{}</style><text>Go</text></svg>y</p>", "x\nA mill\nGo\ny"),
    ],
)  # fmt: skip
def test_an_element_that_no_list_knows_gives_its_text_and_no_mark(marked, text):
    assert read_text(marked, "html") == text
