"""Text as people read it: formats, charsets and packed bytes; what is no text is named, and secrets
are masked. HTML may have formulas, foreign elements and hidden text: no mark is text, and numbers
keep their value."""

import gzip
import re
import zlib
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.components.sources.pages import Composer, clean
from rag_index.components.sources.secret_values import without_secrets
from rag_index.components.sources.text import NotText, find_format, read_text

HTML = """<style>p {}</style><h1>Title &amp; more</h1><p>Some <b>bold</b> &ndash; text<br>in Wirbels&shy;&auml;ule</p>
<ul><li>one</li><li>two <a href="http://x">link</a></li></ul><script>var a = "<p>no</p>";</script>
<table><tr><th>Where</th> <th>Warm</th></tr><tr><td>cellar</td><td>5 to 8</td></tr></table>
<pre>def f(x):
    return x &lt; 1</pre><!-- nobody sees this -->"""
READ = """Title & more

Some bold – text
in Wirbelsäule

- one
- two link

Where | Warm
cellar | 5 to 8

def f(x):
    return x < 1"""
TURKISH = "Deniz feneri çalışmıyor, lütfen şu işe bakın"
CP850 = "<?xml version='1.0' encoding='cp-850'?>"
BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4"
HEAD = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204"
    r" Cyr;}}{\*\generator x;}\f0 "
)
FIRST, REST = "<p>See <ac:link><ri:page ri:content-title='Mill'/>", "</ac:link></p>"
MACRO = "<ac:structured-macro ac:name='code'><ac:parameter ac:name='"
MACRO_END = "</ac:plain-text-body></ac:structured-macro>"
MAIL = (
    "Please click http://cod.example/newsletter.html?token=nl-e6dc078cedb4eb739fef7 to subscribe."
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9"
CODED = "MHcCAQEEIIGkG5mA7zBq0e1p4rW9xYtQ3uVnJ8sLdKfHc2oXyZbT"
NO_SECRETS = [
    "see https://git.example/a/b/commit/3541c75fd24df42fbb68e549b16dfa90",
    "https://docs.example/document/d/1A2b3C4d5E6f7G8h9I0j/edit and ?keyword=iphone13promax12",
    "token: 2024-03-05T10:00:00, costs $2, $100 or ${price}, session: introduction-2024",
    (
        "The password has 12 characters at least; the token is in the header. Password: $PASSWORD1"
        " or {pass2word}"
    ),
    (
        "Basic knowledge of sk-learn, npm_config_registry_url_2 and hf_transformers_cache_directory"
        " at http://a.b:80/c@d"
    ),
    "0123456789abcdef0123456789abcdef",
    "run task_test_runner, docs_test_suite and disk_live_data with highs_and_lows_of_the_day",
    (
        "https://x.example/presets/commonmark.cpython-311.pyc and"
        " https://x.example/verification/ISO9001-2015.pdf"
    ),
    "https://shop.example/magic-mouse/MK2E3AM4A1234",
    "\\textbf{SHA}-256, $argon2 and $1$replacement cost $5$; glpat-token",
]


def test_html_is_read_with_entities_tables_lists_and_code_and_without_scripts():
    assert read_text(HTML, "html") == read_text(HTML, "auto") == READ
    assert read_text('&lt;p class="x"&gt;a &#38;lt; b&lt;/p&gt;', "html") == "a < b"
    assert read_text("\n&#60;p&#62;a &#38;lt; b&#60;/p&#62;", "html") == "a < b"
    assert read_text("1 &lt; 2 &amp; 3", "html") == "1 < 2 & 3"
    assert (
        read_text("one line\nand <i>another</i>\n\n[gallery ids=1]new", "html")
        == "one line\nand another\n\nnew"
    )
    assert read_text("R&uuml;cken", "auto") == "Rücken"


def test_markdown_and_bbcode_lose_their_marks():
    text = (
        "# Head\n\nSome **bold** [link](http://x).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx <"
        " 1\n```"
    )
    assert read_text(text, "markdown") == "Head\n\nSome bold link.\n\na | b\n1 | 2\n\nx < 1"
    quoted = "[quote=&quot;Rolf&quot;]Check[/quote][list][*]a [b]b[/b][*]c < d[/list]"
    assert read_text(quoted, "auto") == "Rolf: Check\n\n- a b\n- c < d"
    assert read_text("<r>Hi <B><s>[b]</s>you<e>[/b]</e></B>,<br/>bye</r>", "auto") == "Hi you,\nbye"


def test_json_is_flattened_with_its_keys_but_those_of_languages_and_without_secrets_and_objects_are_left_out():
    assert (
        read_text('{"en_US": "Chair", "fr_FR": "<p>Chaise</p>", "nl_BE": null}', "json")
        == "Chair\nChaise"
    )
    assert (
        read_text('{"name": {"en": "Chair", "de": "Stuhl"}}', "json") == "name: Chair\nname: Stuhl"
    )
    assert read_text('{"de": "Stuhl"}', "json") == "Stuhl"
    assert read_text('{"id": "7"}', "json") == "id: 7"
    assert read_text('{"id": "7", "no": "A-12"}', "json") == "id: 7\nno: A-12"
    assert read_text('{"en": 3, "de": 4}', "json") == "en: 3\nde: 4"
    value = (
        '{"colour": "moss", "size": {"width": 140}, "tags": ["a", "b"], "api_key": "sk_1", "on":'
        ' true, "no": null}'
    )
    assert read_text(value, "json") == "colour: moss\nwidth: 140\ntags: a, b\non: true"
    assert (
        read_text({"steps": [{"text": "<p>first</p>"}, {"text": "then"}]}, "auto")
        == "text: first\ntext: then"
    )
    assert read_text("{no json}", "json") == "{no json}"
    assert read_text("[" * 100_000, "json").startswith("[[")
    assert read_text('a:1:{s:4:"file";s:5:"a.jpg";}', "auto") == ""
    said = (
        '{"sessions": [{"title": "Keynote", "room": "About the old mill", "token": "x1"}], "salt":'
        ' "two spoons"}'
    )
    assert read_text(said, "json") == "title: Keynote\nroom: About the old mill\nsalt: two spoons"
    values = 's:5:"value";s:9:"Accordion";i:7;s:21:"<b>A</b> list of mills"'
    menu = f'a:3:{{s:4:"unit";s:2:"h1";{values};s:5:"token";s:3:"a b";}}'
    assert read_text(menu, "auto") == "Accordion\nA list of mills"
    said = 's:4:"note";s:30:"He said "no"; nobody heard \u00fc.";'
    assert read_text(f"a:1:{{{said}}}", "auto") == 'He said "no"; nobody heard \u00fc.'
    inner = f"a:1:{{{said}}}"
    assert (
        read_text(f'a:1:{{i:0;s:{len(inner.encode())}:"{inner}";}}', "auto")
        == 'He said "no"; nobody heard \u00fc.'
    )


@pytest.mark.parametrize(
    "value",
    [
        "hunter2",
        "x",
        "a8f5f167f44f4964e6c998dee827110c" * 200,
        "Basic dXNlcjpwYXNz",
        "abcd efgh ijkl mnop",
        4711,
        ["ab1", "cd2"],
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----",
        {"id": "k3jh5"},
        "eyJhbGciOiJkaXIifQ..iv1.cipher2.tag3",
    ],
)
def test_what_a_key_of_json_names_as_a_secret_is_left_out(value):
    for key in ("password", "apiToken", "session"):
        assert read_text({"a": 1, key: value}, "json") == "a: 1", key


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"password": "Use twelve letters, and hunter2 is bad"},
            "password: Use twelve letters, and [secret] is bad",
        ),
        (
            {"password_policy": "short", "total_tokens": 15},
            "password_policy: short\ntotal_tokens: 15",
        ),
        ({"sessions": [{"room": "Hall", "seats": 200, "key": "k3jh5"}]}, "room: Hall\nseats: 200"),
        (
            {"cookies": ["oatmeal cookie", "k3jh5k3jh5"], "salt": "5 g"},
            "cookies: oatmeal cookie\nsalt: 5 g",
        ),
        ({"session": "両勺の塩"}, "session: 両勺の塩"),
        ({"passphrase": "correct horse battery staple", "a": 1}, "a: 1"),
        ({"secret": True, "pin": 7}, "secret: true\npin: 7"),
    ],
)
def test_what_is_said_in_words_is_no_secret(value, text):
    assert read_text(value, "json") == text


@pytest.mark.parametrize("form", ["plain", "html", "markdown", "auto"])
@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"see data:image/png;base64,{BASE64}== here", "see here"),
        (
            f"data:text/plain;charset=utf-8;base64,{BASE64}\n{BASE64}\nAAAA=\nHello there",
            "Hello there",
        ),
        (
            "the data: image, base64, of metadata:a/b,c",
            "the data: image, base64, of metadata:a/b,c",
        ),
    ],
)
def test_addresses_that_are_files_are_left_out(text, left, form):
    assert Composer("body", {"body": form}).compose([text]).split() == left.split()


@pytest.mark.parametrize(
    "text", ["Grüße aus Köln", "if a < b & c then List<S>", "3 * 4 * 5 [1] {x}", "Привет, мир"]
)
def test_plain_text_stays_as_it_is_whatever_its_signs(text):
    assert find_format(text) == "plain"
    for form in ("plain", "auto"):
        assert read_text(text, form) == read_text(text.encode(), form) == text
        assert read_text(gzip.compress(text.encode()), form) == text


def declared(charset, words, codec=None):
    """Return HTML that names a charset, in bytes if a codec is given."""
    text = f"<meta charset='{charset}'><p>{words}</p>"
    return text.encode(codec) if codec else text


def test_bytes_are_the_text_that_they_look_like():
    for value, text in (
        ("Dreißig Ärmel".encode("cp1252"), "Dreißig Ärmel"),
        ("Dreißig Ärmel".encode("cp1252").decode("utf-8", "surrogateescape"), "Dreißig Ärmel"),
        ("Привет мир, как дела сегодня".encode("cp1251"), "Привет мир, как дела сегодня"),
        ("abc ü".encode("utf-16"), "abc ü"),
        ("abc abc".encode("utf-16-le"), "abc abc"),
        ("Привет, мир".encode("utf-16-be"), "Привет, мир"),
        ("Grüße".encode("utf-32"), "Grüße"),
        (
            "Zażółć gęślą jaźń, drukarka nie działa".encode("cp1250"),
            "Zażółć gęślą jaźń, drukarka nie działa",
        ),
        ("灯塔的故事".encode("gbk"), "灯塔的故事"),
        ("灯台".encode("iso2022_jp"), "灯台"),
        (f"{CP850}<a>Größe</a>".encode("cp850"), f"{CP850}<a>Größe</a>"),
        ("Grüße aus Köln".encode() + b"\xe4", "Grüße aus Kölnä"),
        (b"x^2 + y^2", "x^2 + y^2"),
        (("It is offline. " * 99 + "灯台").encode("iso2022_jp"), "It is offline. " * 99 + "灯台"),
        (
            "Tiskárna nefunguje, prosím zapněte zařízení".encode("cp1250"),
            "Tiskárna nefunguje, prosím zapněte zařízení",
        ),
        ("He said “yes” – it’s 5 €".encode("cp1252"), "He said “yes” – it’s 5 €"),
        ("It costs 5 €".encode("cp1252"), "It costs 5 €"),
        ("è vero".encode("cp1252"), "è vero"),
        ("10 °C".encode("cp1252"), "10 °C"),
        ("Он и ты, и дом".encode("cp1251"), "Он и ты, и дом"),
        (declared("us-ascii", "港口的灯塔坏了", "gbk"), declared("us-ascii", "港口的灯塔坏了")),
        (declared("iso-8859-1", "灯台です。", "cp932"), declared("iso-8859-1", "灯台です。")),
        (
            declared("iso-8859-1", "Größe\x81" + " prüfen" * 50, "latin-1"),
            declared("iso-8859-1", "Größe\x81" + " prüfen" * 50),
        ),
        (
            f"<html><body><p>{TURKISH}</p></body></html>".encode("cp1254"),
            f"<html><body><p>{TURKISH}</p></body></html>",
        ),
        (zlib.compress(b"packed by zlib"), "packed by zlib"),
        (zlib.compress(b"packed as a wiki does it")[2:-4], "packed as a wiki does it"),
        (memoryview(b"a view"), "a view"),
        (12.5, "12.5"),
        (None, ""),
        (b"", ""),
    ):
        assert read_text(value) == text, value


def test_bytes_that_are_no_text_or_are_packed_and_cut_off_or_too_many_are_named():
    for value, what, remedy in (
        (b"%PDF-1.4 x", "a PDF file", "give this one format file"),
        (b"\x89PNG x", "a PNG picture", "leave such rows out by `where`"),
        (b"RIFF x", "a sound, video or WebP file", "leave such rows out by `where`"),
        (bytes(range(256)), "no known kind of file", "give this one format file"),
        (b"\x80\x04\x95\x00\x00\x00", "no known", "give this one format file"),
    ):
        with pytest.raises(
            NotText, match=f"holds {len(value)} bytes that are no text .{what}.*{remedy}"
        ):
            read_text(value, "auto")
    for packed in (gzip.compress(bytes(64_000_001)), zlib.compress(b"a text, a long text")[:-9]):
        with pytest.raises(NotText, match="is cut off, or unpacks to more than 64,000,000 bytes"):
            read_text(packed)


def test_no_format_robs_a_text_of_its_words():
    for form, text, kept in (
        (
            "html",
            "<p><code>[vc_row]</code> data[user_id]</p><pre>[my_sql]</pre>",
            ["[vc_row]", "[user_id]", "[my_s"],
        ),
        (
            "html",
            "<a\nhref='http://x'>the manual</a>\nMap<String, int>",
            ["the manual\nMap<String, int>"],
        ),
        ("html", "of <user-name>, a <b and c> d<br>", ["of <user-name>, a <b and c> d"]),
        (
            "markdown",
            "`a[user_id]`\n\n[Anna]: hello\n\n" + "> " * 30 + "deep",
            ["[user_id]", "[Anna]: hello", "deep"],
        ),
        (
            "bbcode",
            "[b]x[/b]: [code]a[i] = b[i] < 3\n\nend[/code], c[s]",
            ["x:", "a[i] = b[i] < 3\n\nend", "c[s]"],
        ),
        ("auto", "for all i: a[i] = b[i], c[b] = 2\n\nend", ["a[i] = b[i], c[b] = 2\n\nend"]),
        (
            "auto",
            "- Why is a `<table>` wide?\n\n```html\n<p>Menu &amp;</p>\n```",
            ["<table>", "<p>Menu &amp;</p>"],
        ),
        ("auto", "Write [b]bold[/b] as `[b]bold[/b]`", ["`[b]bold[/b]`"[1:-1]]),
        ("auto", "press <p> and i:5; if x <b and c> d", ["press <p> and i:5; if x <b and c> d"]),
        ("json", '{"a":' * 200 + '"x"' + "}" * 200, ['"x"']),
        ("html", "Wirbel\u00adsäule su\u200bper ก\u200bข", ["Wirbelsäule super ก\u200bข"]),
    ):
        found = read_text(text, form) if form != "html" or "<" in text else clean(text)
        assert [words for words in kept if words not in found] == [], form


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("html", "[vc_row width='1/2']a[/vc_row] [caption id=x]b[/caption] [embed]c[/embed]"),
        ("markdown", "[a](file:///x) [b](javascript:x) ![c](data:image/png;base64,AAAA)"),
        ("bbcode", "[url=http://x/?a[]=1]a[/url] [img]http://x/y.png[/img][size=2]b[/size] c"),
    ],
)
def test_marks_and_addresses_are_no_words(form, text):
    assert (
        " ".join(read_text(f"<p>{text}</p>" if form == "html" else text, form).split()) == "a b c"
    )


class Heard(HTMLParser):
    """The words of HTML as Python's own parser hears them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_data(self, data: str) -> None:
        self.words += re.findall(r"w\d+q", data)


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    "<!-- c -->",
                    "&amp;",
                    "&nbsp;",
                    "<br>",
                    " < ",
                    "<3",
                    "\n\n",
                    "\n",
                    "<a\nhref='x>y'>",
                    "</a>",
                ]
            ),
            st.sampled_from(
                ["p", "b", "div", "table", "td", "li", "pre", "code", "h2", "span", "form", "a"]
            ).flatmap(
                lambda name: st.sampled_from(
                    [f"<{name}>", f"</{name}>", f'<{name} class="x">', f"<{name}/>"]
                )
            ),
            st.just("w"),
        ),
        max_size=40,
    )
)
def test_html_has_the_words_that_another_parser_hears(pieces):
    text = "".join(f" w{number}q" if piece == "w" else piece for number, piece in enumerate(pieces))
    assert re.findall(r"w\d+q", read_text(text, "html")) == Heard(text).words


def test_rtf_is_read_whatever_the_format_of_its_column():
    for rtf, text in (
        (
            HEAD
            + r"Gr\'fc\'dfe\par {\b bold}{\v hidden}\par\par \f1\'cf\'f0\'e8\f0  \{x\}}"
            + "\0",
            "Grüße\nbold\n\nПри {x}",
        ),
        (r"{\rtf1 10{\super 6} H{\sub 2}O}", "10^6 H2O"),
        (r"{\rtf1 \u8364?5 \u-10179?\u-8704? {\uc2\u20320\'c4\'e3}!}", "€5 \U0001f600 你!"),
        (r"{\rtf1\ansicpg932 \'83e\'83X\'83g}", "テスト"),
        (r"{\rtf1\mac caf\'8e}", "café"),
        (
            r"{\rtf1 \trowd one\cell two\cell\row three\cell\cell four\row}",
            "one | two\nthree |  | four",
        ),
        (r"{\rtf1{\pict 8950}{\*\shppict{\pict 00}}a{\footnote note}}", "a note"),
        (r"{\rtf1 {\field{\*\fldinst HYPERLINK}{\fldrslt link}}}", "link"),
        (r"{\rtf1 cut off {\b here", "cut off here"),
        (r"{\rtf1 old}" + "\nadded later", "old\nadded later"),
        (r"{\rtf1 <b>a</b> &amp; [b]}", "<b>a</b> &amp; [b]"),
        (r"{\rtfx", ""),
    ):
        for form in (None, "plain", "auto", "html"):
            read = Composer("body", form and {"body": form})
            assert read.compose([rtf]) == read.compose([rtf.encode()]) == text, rtf


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        ("<mi>a</mi><mo>+</mo><mi>b</mi>", "a+b"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mn>1</mn></mrow><mn>2</mn></mfrac>", "(a+1)/2"),
        ("<mn>2</mn><mfrac><mn>1</mn><mn>2</mn></mfrac>", "2 1/2"),
        ("<msup><mn>10</mn><mn>6</mn></msup>", "10^6"),
        ("<msub><mi>H</mi><mn>2</mn></msub><mi>O</mi>", "H2O"),
        ("<msub><mi>log</mi><mn>10</mn></msub><mn>100</mn>", "log10 100"),
        (
            "<munderover><mo>&sum;</mo><mrow><mi>i</mi><mo>=</mo><mn>0</mn></mrow><mi>n</mi></munderover><mi>x</mi>",
            "∑_(i=0)^n x",
        ),
        ("<mi>sin</mi><mo>&ApplyFunction;</mo><mi>x</mi>", "sin x"),
        ("<mi>a</mi><mo>&lt;</mo><mi>b</mi>", "a<b"),
        (
            "<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>0</mn></mtd></mtr><mtr><mtd><mi>x</mi></mtd></mtr></mtable>",
            "1 0; x",
        ),
        (
            (
                "<semantics><mi>E</mi><annotation"
                " encoding='application/x-tex'>tex</annotation></semantics>"
            ),
            "E",
        ),
        (
            "<mover><mi>x</mi><mo>¯</mo></mover><msqrt><mi>a</mi><mo>+</mo><mi>b</mi></msqrt>",
            "x¯√(a+b)",
        ),
        (
            "<mroot><mi>x</mi><mn>3</mn></mroot><mfenced><mi>x</mi><mi>y</mi></mfenced>",
            "√[3]x(x, y)",
        ),
    ],
)
def test_a_formula_is_read_in_a_line(formula, text):
    for start, end in (
        ("<math xmlns='http://www.w3.org/1998/Math/MathML'>", "</math>"),
        ("<MATH id='x'>", "</MATH>"),
    ):
        assert read_text(f"<p>so {start}{formula}{end} it is</p>", "html") == f"so {text} it is", (
            start
        )
        assert read_text(f"so {start}{formula}{end} it is", "auto") == f"so {text} it is", start


def test_what_a_browser_hides_is_no_text_and_what_it_shows_is():
    for html in (
        "<div hidden>no</div>",
        "<div hidden='hidden'>no</div>",
        "<p style='DISPLAY : none !important'>no</p>",
        "<p style='color:red;visibility:hidden'>no</p>",
        "<template>no</template>",
        "<img hidden alt='no'>",
        "<div style='max-height:0px;overflow:hidden'>no</div>",
        "<!--[if mso]><p>no</p><![endif]-->",
        "<xml><w:WordDocument><w:View>no</w:View></w:WordDocument></xml>",
        "<div style='display:none'><div>no<br></div>no</div>",
        "<p style='max-height:0.5em'>yes</p>",
        "<div style='font-size:0'><p style='font-size:13px'>yes</p></div>",
        "<i aria-hidden='true'>yes</i>",
        "<!--[if !mso]><!--><p>yes</p><!--<![endif]-->",
        "<![if !supportLists]>yes<![endif]>",
        "<p class='hidden' data-hidden='1'>yes</p>",
    ):
        shown = ["yes"] if "yes" in html else []
        assert read_text(f"<p>before</p>{html}<p>after</p>", "html").split() == [
            "before",
            *shown,
            "after",
        ], html


def test_an_element_that_no_list_knows_gives_its_text_and_no_mark():
    for marked, text in (
        (
            (
                f"{FIRST}<ac:plain-text-link-body><![CDATA[the"
                f" <mill>]]></ac:plain-text-link-body>{REST}"
            ),
            "See the <mill>",
        ),
        (
            (
                f"{MACRO}language'>java</ac:parameter><ac:plain-text-body><![CDATA[if (a < b)\n   "
                f" <!-- c -->]]>{MACRO_END}"
            ),
            "java\n\nif (a < b)\n    <!-- c -->",
        ),
        (
            (
                "<ac:task><ac:task-id>7</ac:task-id><ac:task-status>done</ac:task-status>oil"
                " it</ac:task>"
            ),
            "- oil it",
        ),
        (
            (
                "<p><o:p>a</o:p> <st1:place w:st='on'>Graz</st1:place> <w:sdt"
                " ShowingPlcHdr='t'>b</w:sdt></p>"
            ),
            "a Graz b",
        ),
        ("<?xml:namespace prefix = o ns = 'urn:x' /><p>a</p>", "a"),
        ("<x-note>one <user-name> and List<String></x-note>", "one <user-name> and List<String>"),
        ("<p><unknown>x</unknown> <foo bar='1'>y and <timeout/>z</p>", "x y and z"),
        (
            (
                "<p>x<svg viewBox='0'><title>A"
                " mill</title><style>.a{}</style><text>Go</text></svg>y</p>"
            ),
            "x\nA mill\nGo\ny",
        ),
    ):
        assert read_text(marked, "html") == text, marked


def test_a_secret_within_a_text_is_masked_and_what_nothing_names_as_one_is_left_alone():
    for text, read in (
        (MAIL, "Please click http://cod.example/newsletter.html?token=[secret] to subscribe."),
        (
            "https://x.example/reset-password/a8f3kk2093jdkl2 now",
            "https://x.example/reset-password/[secret] now",
        ),
        ("https://x.example/magic-link/a8f3kk2093jdkl2", "https://x.example/magic-link/[secret]"),
        (
            "https://x.example/password_reset/MQ/a8f3kk2093jdkl2",
            "https://x.example/password_reset/MQ/[secret]",
        ),
        (
            "https://x.example/user/reset/1/1690000000/a8f3kk2093jdkl2",
            "https://x.example/user/reset/1/1690000000/[secret]",
        ),
        ('{"api_key": "8f3kk2093jdkl2x9", "n": 1}', '{"api_key": "[secret]", "n": 1}'),
        (f"Sent {JWT} twice: {JWT}", "Sent [secret] twice: [secret]"),
        ("root:$6$rounds8x$abcdefghij:0", "root:[secret]:0"),
        ("use sk_live_4eC39HqLyjWDarjtT1zdp7dc.", "use [secret]."),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nkeep it",
            "[secret]\nkeep it",
        ),
        (f"-----BEGIN EC PRIVATE KEY-----\n{CODED}\n{CODED}\nthat was it", "[secret]\nthat was it"),
        (
            "It starts with -----BEGIN CERTIFICATE-----. Then restart.",
            "It starts with [secret]. Then restart.",
        ),
        (f"root:$6$rounds=656000$saltsalt${CODED}:0", "root:[secret]:0"),
        (f"root:$1$salt${CODED}:0", "root:[secret]:0"),
        (f"eve scrypt:32768:8:1$salt${CODED}", "eve [secret]"),
        (f"userPassword: {{SSHA}}{CODED}", "userPassword: [secret]"),
        ("see postgresql://mill:S3cr3tWheel9@db/mill", "see postgresql://mill:[secret]@db/mill"),
        ("Server=db;User Id=sa;Password=Wheel123!x;", "Server=db;User Id=sa;Password=[secret];"),
        (f"Authorization: Bearer {CODED}", "Authorization: Bearer [secret]"),
        (
            f"hooks: https://x.example/api/webhooks/4711/{CODED}",
            "hooks: https://x.example/api/webhooks/4711/[secret]",
        ),
        (f"$y$j9T$saltsalt${CODED}, hf_{CODED} and SG.{CODED}", "[secret], [secret] and [secret]"),
        *((text, text) for text in NO_SECRETS),
    ):
        assert without_secrets(text) == read, text


def test_a_run_masks_secrets_in_titles_texts_and_parts_unless_the_settings_say_otherwise(project):
    project.execute("CREATE TABLE mail (id INTEGER PRIMARY KEY, subject TEXT, body TEXT)")
    project.execute("CREATE TABLE answer (id INTEGER PRIMARY KEY, mail_id INT, body TEXT)")
    project.execute("INSERT INTO mail VALUES (1, 'Key sk_live_4eC39HqLyjWDarjtT1', ?)", MAIL)
    project.execute("INSERT INTO answer VALUES (1, 1, ?)", f"You wrote {MAIL}")
    settings = (
        '[source]\nurl = "sqlite:///source.db"\n[[indexes]]\nname = "mail"\ntable = "mail"\nkey ='
        ' "id"\ntitle = "subject"\ntext = ["body"]\n{}[[indexes.parts]]\ntable = "answer"\non ='
        ' "mail_id"\ntext = ["body"]\n'
    )
    project.write_settings(settings.format(""))
    project.cli("index", "mail")
    (hit,) = project.json("search", "subscribe", "--index", "mail")["hits"]
    assert not re.search("e6dc078cedb4eb739fef7|4eC39HqLyjWDarjtT1", str(hit))
    assert hit["title"] == "Key [secret]"
    project.write_settings(settings.format('not_secret = ["body"]\n'))
    project.cli("index", "mail")
    (hit,) = project.json("search", "subscribe", "--index", "mail")["hits"]
    assert str(hit).count("e6dc078cedb4eb739fef7") >= 1
