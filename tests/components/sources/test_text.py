"""Text as people read it: formats, charsets and packed bytes; what is no text is named."""

import gzip
import re
import zlib
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_index.components.sources.pages import Composer, clean
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


def test_html_is_read_with_entities_tables_lists_and_code_and_without_scripts():
    assert read_text(HTML, "html") == READ
    assert read_text(HTML, "auto") == READ
    assert read_text('&lt;p class="x"&gt;a &#38;lt; b&lt;/p&gt;', "html") == "a < b"
    assert read_text("\n&#60;p&#62;a &#38;lt; b&#60;/p&#62;", "html") == "a < b"
    assert read_text("1 &lt; 2 &amp; 3", "html") == "1 < 2 & 3"
    assert read_text("one line\nand <i>another</i>\n\n[gallery ids=1]new", "html") == "one line\nand another\n\nnew"
    assert read_text("R&uuml;cken", "auto") == "Rücken"


def test_markdown_and_bbcode_lose_their_marks():
    text = "# Head\n\nSome **bold** [link](http://x).\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nx < 1\n```"
    assert read_text(text, "markdown") == "Head\n\nSome bold link.\n\na | b\n1 | 2\n\nx < 1"
    assert read_text("[quote=&quot;Rolf&quot;]Check[/quote][list][*]a [b]b[/b][*]c < d[/list]", "auto") == (
        "Rolf: Check\n\n- a b\n- c < d"
    )
    assert read_text("<r>Hi <B><s>[b]</s>you<e>[/b]</e></B>,<br/>bye</r>", "auto") == "Hi you,\nbye"


def test_a_text_in_several_languages_has_no_keys():
    assert read_text('{"en_US": "Chair", "fr_FR": "<p>Chaise</p>", "nl_BE": null}', "json") == "Chair\nChaise"
    assert read_text('{"name": {"en": "Chair", "de": "Stuhl"}}', "json") == "name: Chair\nname: Stuhl"
    assert read_text('{"de": "Stuhl"}', "json") == "Stuhl"
    assert read_text('{"id": "7"}', "json") == "id: 7"
    assert read_text('{"id": "7", "no": "A-12"}', "json") == "id: 7\nno: A-12"
    assert read_text('{"en": 3, "de": 4}', "json") == "en: 3\nde: 4"


def test_json_is_flattened_with_its_keys_and_without_secrets_and_objects_are_left_out():
    value = '{"colour": "moss", "size": {"width": 140}, "tags": ["a", "b"], "api_key": "sk_1", "on": true, "no": null}'
    assert read_text(value, "json") == "colour: moss\nwidth: 140\ntags: a, b\non: true"
    assert read_text({"steps": [{"text": "<p>first</p>"}, {"text": "then"}]}, "auto") == "text: first\ntext: then"
    assert read_text("{no json}", "json") == "{no json}"
    assert read_text("[" * 100_000, "json").startswith("[[")
    assert read_text('a:1:{s:4:"file";s:5:"a.jpg";}', "auto") == ""
    said = '{"sessions": [{"title": "Keynote", "room": "About the old mill", "token": "x1"}], "salt": "two spoons"}'
    assert read_text(said, "json") == "title: Keynote\nroom: About the old mill\nsalt: two spoons"
    menu = (
        'a:3:{s:4:"unit";s:2:"h1";s:5:"value";s:9:"Accordion";i:7;s:21:"<b>A</b> list of mills";s:5:"token";s:3:"a b";}'
    )
    assert read_text(menu, "auto") == "Accordion\nA list of mills"
    said = 's:4:"note";s:30:"He said "no"; nobody heard \u00fc.";'
    assert read_text(f"a:1:{{{said}}}", "auto") == 'He said "no"; nobody heard \u00fc.'
    inner = f"a:1:{{{said}}}"
    outer = f'a:1:{{i:0;s:{len(inner.encode())}:"{inner}";}}'
    assert read_text(outer, "auto") == 'He said "no"; nobody heard \u00fc.'


@pytest.mark.parametrize("value", [
    "hunter2", "x", "a8f5f167f44f4964e6c998dee827110c" * 200, "Basic dXNlcjpwYXNz", "abcd efgh ijkl mnop", 4711,
    ["ab1", "cd2"],
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", {"id": "k3jh5"},
    "eyJhbGciOiJkaXIifQ..iv1.cipher2.tag3",
])  # fmt: skip
def test_what_a_key_of_json_names_as_a_secret_is_left_out(value):
    for key in ("password", "apiToken", "session"):
        assert read_text({"a": 1, key: value}, "json") == "a: 1"


@pytest.mark.parametrize(("value", "text"), [
    ({"password": "Use twelve letters, and hunter2 is bad"}, "password: Use twelve letters, and [secret] is bad"),
    ({"password_policy": "short", "total_tokens": 15}, "password_policy: short\ntotal_tokens: 15"),
    ({"sessions": [{"room": "Hall", "seats": 200, "key": "k3jh5"}]}, "room: Hall\nseats: 200"),
    ({"cookies": ["oatmeal cookie", "k3jh5k3jh5"], "salt": "5 g"}, "cookies: oatmeal cookie\nsalt: 5 g"),
    ({"session": "両勺の塩"}, "session: 両勺の塩"),
    ({"passphrase": "correct horse battery staple", "a": 1}, "a: 1"),
    ({"secret": True, "pin": 7}, "secret: true\npin: 7"),
])  # fmt: skip
def test_what_is_said_in_words_is_no_secret(value, text):
    assert read_text(value, "json") == text


BASE64 = "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4"


@pytest.mark.parametrize("form", ["plain", "html", "markdown", "auto"])
@pytest.mark.parametrize(("text", "left"), [
    (f"see data:image/png;base64,{BASE64}== here", "see here"),
    (f"data:text/plain;charset=utf-8;base64,{BASE64}\n{BASE64}\nAAAA=\nHello there", "Hello there"),
    ("the data: image, base64, of metadata:a/b,c", "the data: image, base64, of metadata:a/b,c"),
])  # fmt: skip
def test_addresses_that_are_files_are_left_out(text, left, form):
    assert Composer("body", {"body": form}).compose([text]).split() == left.split()


@pytest.mark.parametrize(
    "text", ["Grüße aus Köln", "if a < b & c then List<String>", "3 * 4 * 5 [1] {x}", "Привет, мир"]
)
def test_plain_text_stays_as_it_is_whatever_its_signs(text):
    assert find_format(text) == "plain"
    for form in ("plain", "auto"):
        assert read_text(text, form) == text
        assert read_text(text.encode(), form) == text
        assert read_text(gzip.compress(text.encode()), form) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Dreißig Ärmel".encode("cp1252"), "Dreißig Ärmel"),
        ("Dreißig Ärmel".encode("cp1252").decode("utf-8", "surrogateescape"), "Dreißig Ärmel"),
        ("Привет мир, как дела сегодня".encode("cp1251"), "Привет мир, как дела сегодня"),
        ("abc ü".encode("utf-16"), "abc ü"),
        ("abc abc".encode("utf-16-le"), "abc abc"),
        ("Привет, мир".encode("utf-16-be"), "Привет, мир"),
        ("Grüße".encode("utf-32"), "Grüße"),
        ("Zażółć gęślą jaźń, drukarka nie działa".encode("cp1250"), "Zażółć gęślą jaźń, drukarka nie działa"),
        ("灯塔的故事".encode("gbk"), "灯塔的故事"),
        ("灯台".encode("iso2022_jp"), "灯台"),
        (
            "<?xml version='1.0' encoding='cp-850'?><a>Größe</a>".encode("cp850"),
            "<?xml version='1.0' encoding='cp-850'?><a>Größe</a>",
        ),
        ("Grüße aus Köln".encode() + b"\xe4", "Grüße aus Kölnä"),
        (b"x^2 + y^2", "x^2 + y^2"),
        (("It is offline. " * 99 + "灯台").encode("iso2022_jp"), "It is offline. " * 99 + "灯台"),
        ("Tiskárna nefunguje, prosím zapněte zařízení".encode("cp1250"), "Tiskárna nefunguje, prosím zapněte zařízení"),
        ("He said “yes” – it’s 5 €".encode("cp1252"), "He said “yes” – it’s 5 €"),
        (zlib.compress(b"packed by zlib"), "packed by zlib"),
        (zlib.compress(b"packed as a wiki does it")[2:-4], "packed as a wiki does it"),
        (memoryview(b"a view"), "a view"),
        (12.5, "12.5"),
        (None, ""),
        (b"", ""),
    ],
)
def test_bytes_are_the_text_that_they_look_like(value, text):
    assert read_text(value) == text


@pytest.mark.parametrize(
    ("value", "what", "remedy"),
    [
        (b"%PDF-1.4 x", "a PDF file", "give this one format file"),
        (b"\x89PNG x", "a PNG picture", "leave such rows out by `where`"),
        (b"RIFF x", "a sound, video or WebP file", "leave such rows out by `where`"),
        (bytes(range(256)), "no known kind of file", "give this one format file"),
        (b"\x80\x04\x95\x00\x00\x00", "no known", "give this one format file"),
    ],
)
def test_bytes_that_are_no_text_are_named(value, what, remedy):
    with pytest.raises(NotText, match=f"holds {len(value)} bytes that are no text .{what}.*{remedy}"):
        read_text(value, "auto")


@pytest.mark.parametrize("value", [gzip.compress(bytes(64_000_001)), zlib.compress(b"a text, a long text")[:-9]])
def test_packed_bytes_that_are_cut_off_or_too_many_are_named(value):
    with pytest.raises(NotText, match="is cut off, or unpacks to more than 64,000,000 bytes"):
        read_text(value)


@pytest.mark.parametrize(
    ("form", "text", "kept"),
    [
        ("html", "<p><code>[vc_row]</code> data[user_id]</p><pre>[my_sql]</pre>", ["[vc_row]", "[user_id]", "[my_s"]),
        ("html", "<a\nhref='http://x'>the manual</a>\nMap<String, int>", ["the manual\nMap<String, int>"]),
        ("html", "of <user-name>, a <b and c> d<br>", ["of <user-name>, a <b and c> d"]),
        ("markdown", "`a[user_id]`\n\n[Anna]: hello\n\n" + "> " * 30 + "deep", ["[user_id]", "[Anna]: hello", "deep"]),
        ("bbcode", "[b]x[/b]: [code]a[i] = b[i] < 3\n\nend[/code], c[s]", ["x:", "a[i] = b[i] < 3\n\nend", "c[s]"]),
        ("auto", "for all i: a[i] = b[i], c[b] = 2\n\nend", ["a[i] = b[i], c[b] = 2\n\nend"]),
        ("auto", "- Why is a `<table>` wide?\n\n```html\n<p>Menu &amp;</p>\n```", ["<table>", "<p>Menu &amp;</p>"]),
        ("auto", "Write [b]bold[/b] as `[b]bold[/b]`", ["`[b]bold[/b]`"[1:-1]]),
        ("auto", "press <p> and i:5; if x <b and c> d", ["press <p> and i:5; if x <b and c> d"]),
        ("json", '{"a":' * 200 + '"x"' + "}" * 200, ['"x"']),
        ("html", "Wirbel\u00adsäule su\u200bper ก\u200bข", ["Wirbelsäule super ก\u200bข"]),
    ],
)  # fmt: skip
def test_no_format_robs_a_text_of_its_words(form, text, kept):
    found = read_text(text, form) if form != "html" or "<" in text else clean(text)
    assert [words for words in kept if words not in found] == []


@pytest.mark.parametrize(("form", "text"), [
    ("html", "[vc_row width='1/2']a[/vc_row] [caption id=x]b[/caption] [embed]c[/embed]"),
    ("markdown", "[a](file:///x) [b](javascript:x) ![c](data:image/png;base64,AAAA)"),
    ("bbcode", "[url=http://x/?a[]=1]a[/url] [img]http://x/y.png[/img][size=2]b[/size] c"),
])  # fmt: skip
def test_marks_and_addresses_are_no_words(form, text):
    assert " ".join(read_text(f"<p>{text}</p>" if form == "html" else text, form).split()) == "a b c"


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
@given(st.lists(st.one_of(
    st.sampled_from(["<!-- c -->", "&amp;", "&nbsp;", "<br>", " < ", "<3", "\n\n", "\n", "<a\nhref='x>y'>", "</a>"]),
    st.sampled_from(["p", "b", "div", "table", "td", "li", "pre", "code", "h2", "span", "form", "a"]).flatmap(
        lambda name: st.sampled_from([f"<{name}>", f"</{name}>", f'<{name} class="x">', f"<{name}/>"])),
    st.just("w"),
), max_size=40))  # fmt: skip
def test_html_has_the_words_that_another_parser_hears(pieces):
    text = "".join(f" w{number}q" if piece == "w" else piece for number, piece in enumerate(pieces))
    assert re.findall(r"w\d+q", read_text(text, "html")) == Heard(text).words


HEAD = r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Cyr;}}{\*\generator x;}\f0 "


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (HEAD + r"Gr\'fc\'dfe\par {\b bold}{\v hidden}\par\par \f1\'cf\'f0\'e8\f0  \{x\}}" + "\0",
         "Grüße\nbold\n\nПри {x}"),
        (r"{\rtf1 10{\super 6} H{\sub 2}O}", "10^6 H2O"),
        (r"{\rtf1 \u8364?5 \u-10179?\u-8704? {\uc2\u20320\'c4\'e3}!}", "€5 \U0001f600 你!"),
        (r"{\rtf1\ansicpg932 \'83e\'83X\'83g}", "テスト"),
        (r"{\rtf1\mac caf\'8e}", "café"),
        (r"{\rtf1 \trowd one\cell two\cell\row three\cell\cell four\row}", "one | two\nthree |  | four"),
        (r"{\rtf1{\pict 8950}{\*\shppict{\pict 00}}a{\footnote note}}", "a note"),
        (r"{\rtf1 {\field{\*\fldinst HYPERLINK}{\fldrslt link}}}", "link"),
        (r"{\rtf1 cut off {\b here", "cut off here"),
        (r"{\rtf1 old}" + "\nadded later", "old\nadded later"),
        (r"{\rtf1 <b>a</b> &amp; [b]}", "<b>a</b> &amp; [b]"),
        (r"{\rtfx", ""),
    ],
)  # fmt: skip
def test_rtf_is_read_whatever_the_format_of_its_column(rtf, text):
    for form in (None, "plain", "auto", "html"):
        read = Composer("body", form and {"body": form})
        assert read.compose([rtf]) == read.compose([rtf.encode()]) == text
