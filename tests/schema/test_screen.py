"""What people and programs see of a proposal: its lines, what answers them, and JSON."""

import json
from dataclasses import replace

import pytest

from rag_index.cli.settings import screen_lines
from rag_index.errors import SettingsError
from rag_index.first_run.schema.answers import ValuesAnswer
from rag_index.first_run.schema.candidates import Candidate, CandidateValue
from rag_index.first_run.schema.proposed import ColumnUse, Proposal, TableUse
from rag_index.first_run.schema.screen import (
    answer_to,
    left_out,
    lines,
    share_sentence,
    size,
    to_json,
    treatment,
    why,
)

SECRET = "is named like a secret"


def table(name, *, chars=1000, becomes="document", exact=True, **more):
    return TableUse(name, 10, chars, exact, becomes, **more)


def question(name, *, yes=9, no=812, shown=("0",), result="asked", chars=1000, **more):
    """Return a candidate of a yes and no, of which the values in `shown` are shown."""
    values = (
        CandidateValue("0", "no", no, "0" in shown),
        CandidateValue("1", "yes", yes, "1" in shown),
    )
    of, _, column = name.partition(".")
    hidden = sum(one.rows for one in values if not one.is_shown)
    return Candidate(
        name, of, column, result, "is rare", values, hidden=hidden, of=yes + no, chars=chars, **more
    )


def said(made, **more):
    return [(one.kind, one.id, one.says) for one in lines(made, made, **more)]


def test_sizes_have_three_digits():
    for chars, words in (
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (9_560, "9.56 kB"),
        (12_345, "12.3 kB"),
        (99_960, "100 kB"),
        (653_210, "653 kB"),
        (999_700, "1 MB"),
        (1_750_000, "1.75 MB"),
        (2_000_000_000, "2 GB"),
        (1_234_000_000_000, "1,234 GB"),
    ):
        assert size(chars) == words, chars


def test_the_share_counts_everything_and_says_whether_it_is_exact():
    made = Proposal(
        (table("a", chars=653_000, searched=653_000), table("b", chars=1_097_000, becomes="out"))
    )
    assert share_sentence(made) == "1 of 2 tables is searched: 653 kB of 1.75 MB of text"
    made = replace(made, tables=(*made.tables, table("c", chars=0, becomes="part", exact=False)))
    assert share_sentence(made) == "2 of 3 tables are searched: about 653 kB of 1.75 MB of text"


def test_questions_come_first_those_about_the_most_text_before_others_and_none_about_what_no_index_reads():
    made = Proposal(
        candidates=(
            question("setting.active", chars=10),
            question("ticket.is_deleted", result="understood"),
            question("log.held", chars=0),
            question("comment.held", chars=5000),
            question("ticket.locale", result="harmless", shown=("0", "1")),
            question("ticket.color", result="facet", shown=("0",), is_answered=True),
        )
    )
    assert said(made) == [
        ("question", "comment.held", "shown: no 812 · left out: yes 9"),
        ("question", "setting.active", "shown: no 812 · left out: yes 9"),
        ("decided", "ticket.color", "shown: no 812 · left out: yes 9"),
        ("decided", "ticket.is_deleted", "shown: no 812 · left out: yes 9"),
    ]
    assert [one.id for one in made.questions] == ["comment.held", "setting.active"]
    assert ("decided", "ticket.locale", "shown: no 812, yes 9") in said(made, all_of_it=True)
    assert "log.held" not in str(said(made, all_of_it=True))


def test_a_question_keeps_its_place_when_it_is_answered():
    first = Proposal(candidates=(question("a.held", chars=9), question("b.held", chars=5)))
    answered = question("a.held", shown=("0", "1"), chars=2, is_answered=True)
    now = replace(first, candidates=(answered, first.candidates[1]))
    assert [one.id for one in lines(first, now)] == ["a.held", "b.held"]
    assert [one.id for one in now.questions] == ["b.held"]
    now = replace(now, candidates=(*now.candidates, question("c.held", chars=99)))
    assert [one.id for one in lines(first, now)] == [
        "a.held",
        "b.held",
        "c.held",
    ], "what an answer led to is last"


def test_twelve_questions_are_asked_at_first_and_the_rest_is_behind_more():
    made = Proposal(candidates=tuple(question(f"t{n:02}.held", chars=100 - n) for n in range(15)))
    found = said(made)
    assert [one for _, one, _ in found] == [*(f"t{n:02}.held" for n in range(12)), ""]
    assert found[-1] == ("folded", "", "3 more questions")
    assert [one for _, one, _ in said(made, all_of_it=True)] == [f"t{n:02}.held" for n in range(15)]


def test_many_values_are_folded_and_names_of_any_characters_stay_on_their_line():
    values = tuple(CandidateValue(f"{n}", f"s\n{n}", n, True) for n in range(1, 10))
    many_values = replace(question("ticket.state"), values=values)
    assert (
        treatment(many_values) == "shown: s 1 1, s 2 2, s 3 3, s 4 4, s 5 5, s 6 6, s 7 7, 2 more"
    )
    odd = table("a\nb\x1b[2J <b>[red]", becomes="part", of=("x\ty",))
    made = Proposal((odd,))
    line, share = [*screen_lines(made, made)][1:]
    assert "a b\ufffd[2J <b>[red]" in line
    assert "part of x y" in line
    assert "searched" in share


def test_two_hundred_tables_have_at_most_forty_lines_and_what_is_folded_can_be_listed():
    tables = []
    for n in range(200):
        mail = ColumnUse(f"t{n}.mail", "mail", "leave out", 9, "is personal")
        becomes = ("document", "part", "label", "out")[n % 4]
        tables.append(
            table(f"t{n}", becomes=becomes, of=(f"t{n - 1}",), why=f"is {n % 7}", columns=(mail,))
        )
    asked = [question(f"t{n}.flag") for n in range(30)]
    known = [question(f"t{n}.deleted", result="understood") for n in range(60)]
    made = Proposal(tuple(tables), candidates=(*asked, *known))
    assert len([*screen_lines(made, made)]) <= 40
    listed = lines(made, made, all_of_it=True)
    assert [one.kind for one in listed].count("folded") == 0
    assert len(listed) == 30 + 60 + 200 + 150


def test_large_tables_that_are_left_out_have_a_line_and_small_ones_are_counted_with_their_reasons():
    made = Proposal(
        (
            table("ticket", index="tickets"),
            table("audit", chars=900, becomes="out", why="is a log"),
            table("a", chars=0, becomes="out", why="is empty"),
            table("b", chars=0, becomes="out", why="is empty"),
        )
    )
    assert said(made) == [
        ("table", "ticket", "document (index tickets)"),
        ("table", "audit", "left out: is a log"),
        ("folded", "", "2 tables left out: is empty (2)"),
    ]


def test_a_column_that_was_left_out_keeps_its_line_to_be_left_out_again():
    email = ColumnUse("ticket.email", "email", "leave out", 120, "is personal")
    first = Proposal((table("ticket", columns=(email,)),))
    assert said(first)[-1] == ("column", "ticket.email", "120 B left out: is personal")
    now = Proposal((table("ticket", columns=(replace(email, use="text", why=""),)),))
    assert (lines(first, now)[-1].id, lines(first, now)[-1].says) == (
        "ticket.email",
        "120 B searched, as you said",
    )
    assert lines(now, now)[-1].kind == "table"


def test_an_answer_says_of_every_value_whether_it_is_shown():
    state = (
        CandidateValue("open", "open", 30, True),
        CandidateValue("held, maybe", "held, maybe", 4, True),
        CandidateValue("", "empty", 2, False),
    )
    made = Proposal(
        candidates=(replace(question("comment.state"), values=state), question("comment.held"))
    )
    states, held = lines(made, made)
    if states.id == "comment.held":
        states, held = held, states
    assert answer_to(held, made, show=True) == ValuesAnswer(show=("0", "1"))
    assert answer_to(held, made, show=False, values="no") == ValuesAnswer(hide=("0", "1"))
    assert answer_to(states, made, show=False, values="held, maybe") == ValuesAnswer(
        show=("open",), hide=("", "held, maybe")
    )
    assert answer_to(states, made, show=True, values="empty, open") == ValuesAnswer(
        show=("", "held, maybe", "open")
    )
    with pytest.raises(SettingsError, match=r"comment\.held is never perhaps: it is no, yes"):
        answer_to(held, made, show=False, values="no, perhaps")
    with pytest.raises(SettingsError, match="Name the values after it: no, yes"):
        answer_to(held, made, show=False)


def test_tables_and_columns_are_answered_without_values():
    email = ColumnUse("ticket.email", "email", "leave out", 120, "is personal")
    made = Proposal((table("ticket", columns=(email,)),))
    ticket, column = lines(made, made)
    assert (answer_to(ticket, made, show=True), answer_to(ticket, made, show=False)) == (
        "document",
        "leave out",
    )
    assert (answer_to(column, made, show=True), answer_to(column, made, show=False)) == (
        "text",
        "leave out",
    )
    with pytest.raises(SettingsError, match="ticket takes no value"):
        answer_to(ticket, made, show=True, values="yes")


def test_why_names_the_result_and_the_word_or_share_and_near_columns():
    made = Proposal(candidates=(question("comment.held"),), excused={"comment.body": "is prose"})
    lines, found = why(made, "comment.held")
    assert lines == ["comment.held: asked: it is rare", "shown: no 812 · left out: yes 9"]
    assert (found["id"], found["result"], found["why"]) == ("comment.held", "asked", "is rare")
    assert why(made, "comment.body")[0] == ["comment.body: no question: it is prose"]
    with pytest.raises(
        SettingsError, match=r"there is no column comment.hold: near ones are comment.held"
    ):
        why(made, "comment.hold")


def test_json_has_open_questions_first_and_an_id_for_all_that_can_be_answered():
    email = ColumnUse("ticket.email", "email", "leave out", 120, "is personal")
    candidates = (
        question("ticket.locale", result="harmless", shown=("0", "1"), chars=9000),
        question("ticket.is_deleted", result="understood", chars=9000),
        question("ticket.held", chars=7),
        question("log.held", chars=0),
    )
    proposal = Proposal(
        (table("ticket", columns=(email,)),), candidates=candidates, notes=("a note",)
    )
    made = json.loads(json.dumps(to_json(proposal)))
    assert made["notes"] == ["a note"]
    found = [(one["id"], one["is_open"]) for one in made["questions"]]
    assert found[0] == ("ticket.held", True)
    assert found[1:] == [
        ("ticket.is_deleted", False),
        ("log.held", False),
        ("ticket.locale", False),
    ]
    assert made["questions"][0]["values"] == [
        {"value": "0", "spoken": "no", "rows": 812, "is_shown": True},
        {"value": "1", "spoken": "yes", "rows": 9, "is_shown": False},
    ]
    assert [one["id"] for one in made["tables"]] == ["ticket"]
    assert made["tables"][0]["columns"] == [
        {
            "id": "ticket.email",
            "name": "email",
            "use": "leave out",
            "chars": 120,
            "why": "is personal",
        }
    ]


def test_what_is_left_out_is_named_with_its_size_the_largest_first():
    columns = (
        ColumnUse("a.token", "token", "leave out", 0, SECRET),
        ColumnUse("a.mail", "mail", "leave out", 3000, "is personal"),
    )
    tables = (
        table("small", chars=0, becomes="out", why="is empty"),
        table("log", chars=2000, becomes="out", why="is a log"),
        table("a", columns=columns),
    )
    assert left_out(Proposal(tables)) == [
        "a.mail (3 kB): is personal",
        "log (2 kB): is a log",
        "small: is empty",
        f"a.token: {SECRET}",
    ]
