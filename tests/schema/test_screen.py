"""The lines that a person sees of a proposal, and what it means to change one."""

from dataclasses import replace

import pytest

from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, TableUse
from rag_index.first_run.schema.screen import change, left_out, lines, share_sentence, size

SECRET = "is named like a secret"


def table(name, *, rows=10, chars=1000, becomes="document", exact=True, searched=0, **more):
    return TableUse(name, rows, chars, exact, becomes, searched=searched, **more)


def deleted(name, rows=1, of=10):
    return HiddenRows(name, ("is_deleted",), "is_deleted = 0", "is_deleted is true", rows, of)


def said(first, now=None, listed=()):
    return [(one.title, one.says) if one.kind == "table" else one.says for one in lines(first, now or first, listed)]


@pytest.mark.parametrize(
    ("chars", "words"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (9_560, "9.56 kB"), (12_345, "12.3 kB"), (99_960, "100 kB"),
        (653_210, "653 kB"), (999_700, "1 MB"), (1_750_000, "1.75 MB"), (2_000_000_000, "2 GB"),
        (1_234_000_000_000, "1,234 GB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits(chars, words):
    assert size(chars) == words


def test_the_share_counts_everything_and_says_whether_it_is_exact():
    made = Proposal((table("a", chars=653_000, searched=653_000), table("b", chars=1_097_000, becomes="out")))
    assert share_sentence(made) == "1 of 2 tables is searched: 653 kB of 1.75 MB of text"
    made = replace(made, tables=(*made.tables, table("c", chars=0, becomes="part", exact=False)))
    assert share_sentence(made) == "2 of 3 tables are searched: about 653 kB of 1.75 MB of text"


def test_equal_conditions_of_thirty_tables_are_one_line_and_others_stay_apart():
    tables = [table(f"t{n}", hidden=(deleted(f"t{n}", rows=n),)) for n in range(30)]
    other = HiddenRows("t1", ("space.private",), "x", "its space is private", -1, 10, "Is it?")
    first = Proposal((*tables, table("ticket", hidden=(other,))))
    found = [one for one in lines(first, first) if one.kind == "condition"]
    assert [one.says for one in found] == [
        "t0, t1, t2, 27 more: 435 of 300 hidden: is_deleted is true",
        "t1: some of 10 hidden: its space is private",
    ]
    assert (found[1].note, found[1].names) == ("Is it?", ("space.private",))
    assert change(Choices(), found[0]).show == tuple(f"t{n}.is_deleted" for n in range(30))


def test_what_becomes_the_same_is_one_line_unless_it_is_large_or_listed():
    small = [table(f"e{n}", chars=0, rows=0, becomes="out", why="is empty") for n in range(5)]
    large = table("log", chars=5000, becomes="out", why="is empty")
    first = Proposal((table("ticket", index="ticket"), *small, large))
    assert said(first) == [
        ("ticket", "document"), ("log", "left out: is empty"), ("e0, e1, e2, 2 more", "left out: is empty"),
    ]  # fmt: skip
    assert ("e1", "left out: is empty") in said(first, listed=["e1", "e2"])
    assert [one.is_group for one in lines(first, first)] == [False, False, True]


def test_names_of_any_characters_stay_on_their_line():
    odd = table("a\nb\x1b[2J <b>[red]", becomes="part", of=("x\ty",))
    assert said(Proposal((odd,))) == [("a b\ufffd[2J <b>[red]", "part of x y")]


def test_a_line_that_was_changed_stays_and_changes_back():
    email = LeftOut("ticket", "email", "is personal", 120)
    first = Proposal((table("ticket", hidden=(deleted("ticket"),), left_out=(email,)),))
    document, hidden, out = lines(first, first)
    choices = change(change(change(Choices(), document), hidden), out)
    assert choices == Choices(exclude=("ticket",), show=("ticket.is_deleted", "ticket.email"))
    now = Proposal((table("ticket"),))
    document, hidden, out = lines(first, now)
    assert (hidden.says, out.says) == ("ticket: 1 of 10 shown: is_deleted is true", "ticket.email: 120 B searched")
    left = replace(document, searched=False)
    assert change(change(change(choices, left), hidden), out) == Choices()
    assert len(lines(first, Proposal((table("ticket", becomes="out", why="x"),)))) == 1, "of a table that is left out"


def test_a_changed_column_forgets_what_it_was_used_for():
    out = lines(made := Proposal((table("t", left_out=(LeftOut("t", "c", "as you said", 1),)),)), made)[1]
    assert change(Choices(uses={"t.c": "out", "t.d": "title"}), out) == Choices(show=("t.c",), uses={"t.d": "title"})


def test_what_is_left_out_is_named_with_its_size_the_largest_first():
    tables = [
        table("small", chars=0, becomes="out", why="is empty"), table("log", chars=2000, becomes="out", why="is a log"),
        table("a", left_out=(LeftOut("a", "token", SECRET, 0), LeftOut("a", "mail", "is personal", 3000))),
        table("b", left_out=(LeftOut("b", "token", SECRET, 0),)),
    ]  # fmt: skip
    assert left_out(Proposal(tuple(tables))) == [
        "a.mail (3 kB): is personal", "log (2 kB): is a log", "small: is empty", f"token of a, b: {SECRET}",
    ]  # fmt: skip
