"""The lines that a person sees of a proposal, and what it means to answer one."""

from dataclasses import replace

import pytest

from rag_index.cli.settings import screen_lines
from rag_index.errors import SettingsError
from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, TableUse
from rag_index.first_run.schema.screen import answer, change, left_out, lines, share_sentence, size

SECRET = "is named like a secret"


def table(name, *, rows=10, chars=1000, becomes="document", exact=True, searched=0, **more):
    return TableUse(name, rows, chars, exact, becomes, searched=searched, **more)


def hidden(place, rows=9, of=821, *, state="open", out=True, large=False):
    values = (("no", of - rows, False), ("yes", rows, True))
    return HiddenRows(place, f"{place.partition('.')[2]} is yes", "x = 0", rows, of, state, out, values, large)


def said(first, now=None):
    return [(one.title, one.says, one.note) for one in lines(first, now or first)]


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


def test_a_line_of_rows_has_its_values_and_counts_and_says_what_is_left_out():
    waits = hidden("comment.muted", 90, state="asked", out=False)
    assert said(Proposal((), hidden=(waits, hidden("comment.held_for_review")))) == [
        ("comment.muted", "no 731 · yes 90", "shown, unless you hide yes (90 of 821)"),
        ("comment.held_for_review", "no 812 · yes 9", "left out: yes (9 of 821)"),
    ]


def test_two_hundred_tables_have_at_most_forty_lines_and_what_is_folded_can_be_listed():
    tables = [table(f"t{n}", becomes=("document", "part", "label", "out")[n % 4], of=(f"t{n - 1}",), why=f"is {n % 7}",
                    left_out=(LeftOut(f"t{n}", "mail", "is personal", 9),)) for n in range(200)]  # fmt: skip
    states = ["open"] * 30 + ["known"] * 60
    rows = [hidden(f"t{n}.flag", n % 3, state=state) for n, state in enumerate(states)]
    made = Proposal(tuple(tables), hidden=tuple(rows))
    assert len([*screen_lines(made, made)]) <= 40
    everything = lines(made, made, all_of_it=True)
    assert len(everything) == 200 + 90 + 200
    assert not any(one.is_group for one in everything)


def test_conditions_that_hide_no_row_today_are_one_line():
    made = Proposal((), hidden=tuple(hidden(f"t{n}.is_deleted", 0, state="known") for n in range(27)))
    assert [(one.says, len(one.names)) for one in lines(made, made)] == [("hide no row today", 27)]


def test_what_one_answer_decides_is_one_line_with_all_its_rows():
    listed = [replace(hidden("content.state", rows, 100, state="known"), values=()) for rows in (0, 7, 2)]
    assert said(Proposal(hidden=(*listed, hidden("note.mark")))) == [
        ("content.state", "", "left out: is yes (9 of 300)"),
        ("note.mark", "no 812 · yes 9", "left out: yes (9 of 821)"),
    ]


def test_names_of_any_characters_stay_on_their_line():
    odd = table("a\nb\x1b[2J <b>[red]", becomes="part", of=("x\ty",))
    assert said(Proposal((odd,))) == [("a b\ufffd[2J <b>[red]", "part of x y", "")]


def test_a_line_that_was_changed_stays_and_changes_back():
    email = LeftOut("ticket", "email", "is personal", 120)
    first = Proposal((table("ticket", left_out=(email,)),), hidden=(hidden("ticket.is_deleted"),))
    rows, document, out = lines(first, first)
    choices = change(change(change(Choices(), document), rows), out)
    assert choices == Choices(exclude=("ticket",), show=("ticket.is_deleted", "ticket.email"))
    now = Proposal((table("ticket"),))
    rows, document, out = lines(first, now)
    assert (rows.note, out.says) == ("shown, as you said", "120 B searched, before: is personal")
    back = change(change(choices, rows), out)
    assert (back.show, back.hide) == ((), ("ticket.is_deleted", "ticket.email"))


def test_an_answer_names_values_and_takes_the_place_of_the_one_before():
    (line,) = lines(made := Proposal((), hidden=(hidden("comment.state"),)), made)
    choices = answer(Choices(show=("comment.state",)), line, show=False, values=["held", "taken down"])
    assert choices == Choices(hide=("comment.state=held", "comment.state=taken down"))
    assert answer(choices, line, show=True) == Choices(show=("comment.state",))
    folded = replace(line, names=("a.b", "a.c"))
    with pytest.raises(SettingsError, match=r"share a line: list them with \?"):
        answer(choices, folded, show=True)
    with pytest.raises(SettingsError, match="takes no value"):
        answer(choices, line, show=True, values=["held"])


def test_a_changed_column_forgets_what_it_was_used_for():
    out = lines(made := Proposal((table("t", left_out=(LeftOut("t", "c", "as you said", 1),)),)), made)[1]
    assert change(Choices(uses={"t.c": "out", "t.d": "title"}), out) == Choices(show=("t.c",), uses={"t.d": "title"})


def test_what_is_left_out_is_named_with_its_size_the_largest_first():
    tables = [
        table("small", chars=0, becomes="out", why="is empty"), table("log", chars=2000, becomes="out", why="is a log"),
        table("a", left_out=(LeftOut("a", "token", SECRET, 0), LeftOut("a", "mail", "is personal", 3000))),
    ]  # fmt: skip
    assert left_out(Proposal(tuple(tables))) == [
        "a.mail (3 kB): is personal", "log (2 kB): is a log", "small: is empty", f"a.token: {SECRET}",
    ]  # fmt: skip
