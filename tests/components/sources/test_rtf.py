"""RTF in a column of text: what people read of it."""

import pytest

from rag_index.components.sources.pages import Composer

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


def test_long_and_broken_rtf_takes_linear_time():
    text = r"{\rtf1 " + r"{\field{\*\fldinst{HYPERLINK a" * 20_000 + "{" * 50_000
    assert Composer("body").compose([text]) == ""
