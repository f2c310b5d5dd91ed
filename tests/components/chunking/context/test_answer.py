"""The context that is extracted from an answer."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_index.components.chunking.context import extract_context
from rag_index.components.hosts.clients import Answer


def extract(text, ended=True):
    return extract_context(Answer(text, ended, None))


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("It is about printers.", "It is about printers."),
        ("  It is\n\n about\tprinters. \n", "It is about printers."),
        ("It is \x1b[31mabout\x00 print\u200bers\u202e.", "It is [31mabout printers."),
        ("No end of a sentence", "No end of a sentence"),
        ("<think>Hm. What is it?</think>\nIt is about printers.", "It is about printers."),
        ("می\u200cخواهم", "می\u200cخواهم"),
    ],
)
def test_a_short_answer_is_used_whole(text, context):
    assert extract(text) == (context, "")


def test_the_finished_sentences_of_a_long_answer_that_fit_are_used():
    text = (
        "It is about printers. It says what to do. And then it goes on for far too long, as models do, " + "word " * 50
    )
    assert extract(text) == ("It is about printers. It says what to do.", "")
    assert extract("プリンタの文書です。紙がない。" + "長い" * 150) == ("プリンタの文書です。紙がない。", "")
    assert extract("a" * 300) == ("a" * 300, "")
    assert extract("a" * 301)[0] == ""
    assert extract("It is about printers. It says", ended=False) == ("It is about printers.", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\x07\u200b", "empty"),
        ("<think>Hm", "does not come to an answer"),
        ("long " * 70, "too long (no sentence ends within 300 characters)"),
        ("\ufffd\ufffd abc", "not text"),
        ("abc \ud800", "not text"),
        ("$%&/()=?! a", "not text"),
    ],
)
def test_an_unusable_answer_gives_a_reason(text, reason):
    context, why = extract(text)
    assert context == ""
    assert reason in why


@given(st.text(max_size=700), st.booleans())
def test_a_context_is_one_line_of_300_characters_without_control_characters(text, ended):
    context, why = extract_context(Answer(text, ended, None))
    assert bool(context) != bool(why)
    assert len(context) <= 300
    assert context == " ".join(context.split())
    assert not any(unicodedata.category(sign)[0] == "C" and sign not in "\u200c\u200d" for sign in context)
