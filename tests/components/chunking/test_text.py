"""Chunks of prose: no character is lost, no chunk is too long, and chunks end where a reader would
end them."""

import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_index.components.chunking.text_chunker import TextChunker, halves

WORDS = (
    "The printer on the third floor does not answer. Please look at it!\nThank you, Ann\n\nPS: it"
    " is the blue one."
)

PIECES = [
    "word",
    "a",
    "Sentence. ",
    "\n\n",
    "\r\n",
    " ",
    "e\u0301",
    "👩‍👩‍👧",
    "🇩🇪",
    "漢字。",
    "    ",
]
texts = st.one_of(st.text(), st.text("ab .!\n\r\t"), st.lists(st.sampled_from(PIECES)).map("".join))
SEEN_AS_ONE = "e\u0301 कि 👩‍👩‍👧‍👦 ❤️"


def visible(text):
    return "".join(text.split())


@settings(deadline=None)
@given(texts, st.integers(1, 40), st.integers(0, 60))
@example("a" * 10 + " " * 100 + "b", 10, 5)
@example("a b", 1, 1)
def test_every_visible_character_is_in_a_chunk_and_no_chunk_is_too_long(text, chars, overlap):
    chunks = TextChunker(chars, overlap).split(text)
    assert all(0 < len(chunk) <= chars and chunk == chunk.strip() for chunk in chunks)
    assert bool(chunks) == bool(text.strip())
    if overlap == 0:
        assert visible("".join(chunks)) == visible(text)


@st.composite
def texts_of_distinct_characters(draw):
    """Draw a text without a repeated character, so that each chunk occurs at only one place in
    it."""
    gaps = draw(
        st.lists(
            st.sampled_from(["", "", "", "", " ", " ", "\n\n", "\r\n", " " * 70]), max_size=300
        )
    )
    return "".join(chr(0x4E00 + i) + gap for i, gap in enumerate(gaps)).strip()


@settings(deadline=None)
@given(texts_of_distinct_characters(), st.integers(1, 60), st.integers(0, 60))
def test_chunks_cover_the_text_in_order_and_each_says_something_new(text, chars, overlap):
    covered = 0
    for chunk in TextChunker(chars, overlap).split(text):
        start = text.index(chunk)
        assert not text[covered:start].strip()
        assert len(text[start:covered].strip()) <= overlap
        assert text[covered : start + len(chunk)].strip()
        covered = start + len(chunk)
    assert covered == len(text)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=60, max_size=200),
    st.integers(60, 120),
    st.integers(20, 30),
)
def test_each_chunk_repeats_about_the_overlap_of_the_one_before(lengths, chars, overlap):
    """The repeated part begins at a word, at most `overlap` characters back."""
    text = " ".join(f"{i:04}" + "x" * length for i, length in enumerate(lengths))
    covered = 0
    for chunk in TextChunker(chars, overlap).split(text):
        start = text.index(chunk)
        assert not covered or overlap - 15 <= covered - start <= overlap
        assert start == 0 or text[start - 1] == " "
        covered = start + len(chunk)


def test_a_chunk_ends_at_a_paragraph_else_a_sentence_with_its_quotes_else_a_word():
    paragraphs = "One two three. Four five six.\n\nSeven eight. Nine ten eleven twelve."
    assert TextChunker(45, 0).split(paragraphs)[0] == "One two three. Four five six."
    sentences = "One two three four. Five six seven eight nine ten eleven twelve"
    assert TextChunker(30, 0).split(sentences)[0] == "One two three four."
    words = "one two three four five six seven eight nine ten"
    assert TextChunker(20, 0).split(words) == [
        "one two three four",
        "five six seven",
        "eight nine ten",
    ]
    windows = "First line of it.\r\n\r\nSecond paragraph that is longer.\r\nAnd its second line."
    assert TextChunker(40, 0).split(windows)[0] == "First line of it."
    quoted = 'He said "it is the printer." Then he left the room.'
    assert TextChunker(30, 0).split(quoted)[0] == 'He said "it is the printer."'
    assert (
        TextChunker(10, 0).split("打印机坏了无法。请尽快修理它谢谢你们。")[0] == "打印机坏了无法。"
    )


@pytest.mark.parametrize("whole", SEEN_AS_ONE.split())
def test_a_character_as_people_see_it_is_not_split(whole):
    """Each text begins with one letter more than the one before, so that breaks fall at every
    place."""
    for lead in range(30):
        text = "x" * lead + whole * 30
        for chunk in TextChunker(32, 8).split(text):
            inner = chunk.lstrip("x")
            assert inner == whole * (len(inner) // len(whole)), (lead, chunk)
        for half in halves(text):
            assert half.lstrip("x") == whole * (len(half.lstrip("x")) // len(whole))


@pytest.mark.parametrize(
    "unit", [WORDS, *'x|\n|word |. |e\u0301|🇩🇪|."|\n \r\t'.split("|"), "a" + " " * 999], ids=repr
)
def test_time_grows_with_the_length_alone(unit):
    """A megabyte of any content takes well below a second of processor time."""
    text = "begin " + (unit * (1_000_000 // len(unit))) + " end"
    started = time.process_time()
    chunks = TextChunker(1000, 500).split(text)
    assert time.process_time() - started < 1.5
    assert len(chunks) <= 4 * len(text) // 1000 + 2


@settings(deadline=None)
@given(texts.map(str.strip).filter(bool))
def test_halves_keep_everything_and_get_shorter(text):
    first, second = halves(text)
    assert visible(first + second) == visible(text)
    if first:
        assert second
        assert max(len(first), len(second)) < len(text)
        assert (first, second) == (first.strip(), second.strip())
    else:
        assert len(text) == 1


def test_halves_are_split_at_the_best_break_near_the_middle():
    assert halves("One sentence here. And another one.") == (
        "One sentence here.",
        "And another one.",
    )
    assert [halves(text) for text in ("ab", "a", "")] == [("a", "b"), ("", "a"), ("", "")]
