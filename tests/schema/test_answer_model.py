"""Answers: what a file may say, what it decides, and what is refused by name."""

import io
import json

import pytest

from rag_index.errors import SettingsError
from rag_index.first_run.schema.answers import Answers
from rag_index.first_run.schema.candidates import Candidate, CandidateValue, ShownAndHidden, make_id
from rag_index.first_run.schema.proposed import ColumnUse, Proposal, TableUse


def candidate(name, *values, result="asked", **more):
    """Return a candidate with values such as ("0", "no", 812, True): as stored, as spoken, rows,
    whether they show."""
    table, _, column = name.partition(".")
    made = tuple(CandidateValue(*value) for value in values)
    return Candidate(
        name,
        table,
        column,
        result,
        "is rare",
        made,
        **{"chars": 100, "hidden": 9, "of": 821} | more,
    )


HELD = candidate("comment.held", ("0", "no", 812, True), ("1", "yes", 9, False))
STATE = candidate(
    "ticket.state",
    ("open", "open", 30, True),
    ("draft", "draft", 4, False),
    ("", "empty", 1, False),
)
ODD = candidate(make_id("press", "the note", "extra", "is.private"), ("true", "yes", 1, False))
EMAIL = ColumnUse("ticket.email", "email", "leave out", 120, "is personal")
SUBJECT = ColumnUse("ticket.subject", "subject", "title", 900)
FIRST = Proposal(
    tables=(
        TableUse("ticket", 35, 1020, True, "document", index="ticket", columns=(SUBJECT, EMAIL)),
        TableUse("comment", 821, 9000, True, "part", of=("ticket",)),
        TableUse("audit", 9, 10, True, "out", why="is a log"),
    ),
    candidates=(HELD, STATE, ODD),
)


def test_columns_tables_and_texts_are_answered_by_their_ids():
    made = Answers.parse(
        {
            "comment.held": {"show": ["no"]},
            "audit": "document",
            "comment": "leave out",
            "ticket.email": "text",
        }
    ).decisions(FIRST)
    assert made.values == {"comment.held": ShownAndHidden(show=frozenset({"0"}))}, (
        "yes keeps what holds"
    )
    assert made.tables == {"audit": "document", "comment": "leave out"}
    assert made.columns == {"ticket.email": "text"}


VIP = candidate("ticket.vip", ("Y", "yes", 3, True), ("y", "yes", 2, True), ("N", "no", 9, True))
FULL = candidate("ticket.tank", ("empty", '"empty"', 3, True), ("", "empty", 2, True))


def test_a_word_stands_for_all_values_that_people_read_so():
    first = Proposal(candidates=(VIP, FULL))
    made = Answers.parse({"ticket.vip": {"hide": ["yes"]}}).decisions(first)
    assert made.values["ticket.vip"].hide == {"Y", "y"}
    made = Answers.parse({"ticket.tank": {"hide": ['"empty"']}}).decisions(first)
    assert made.values["ticket.tank"].hide == {"empty"}
    with pytest.raises(SettingsError, match="is empty in two ways"):
        Answers.parse({"ticket.tank": {"hide": ["empty"]}}).decisions(first)


def test_the_id_of_a_name_with_dots_and_blanks_has_quotes():
    made = Answers.parse({'press."the note".extra."is.private"': {"show": ["yes"]}}).decisions(
        FIRST
    )
    assert made.values == {ODD.id: ShownAndHidden(show=frozenset({"true"}))}


@pytest.mark.parametrize(
    ("column", "said", "value"),
    [
        ("comment.held", "1", "1"),
        ("comment.held", "yes", "1"),
        ("comment.held", True, "1"),
        ("comment.held", 0, "0"),
        ("ticket.state", "draft", "draft"),
        ("ticket.state", "empty", ""),
        ("ticket.state", None, ""),
    ],
)
def test_a_value_is_written_as_it_is_stored_as_people_read_it_or_as_json_has_it(
    column, said, value
):
    answers = Answers.parse({column: {"hide": [said]}})
    assert answers.decisions(FIRST).values[column] == ShownAndHidden(hide=frozenset({value}))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        (
            {"comment.hled": {"show": ["no"]}},
            "there is no question comment.hled: near ones are comment.held",
        ),
        ({"zzzzzzz": "document"}, "there is no question zzzzzzz: init --json prints all ids"),
        ({"ticket.state": {"show": ["drafts"]}}, "ticket.state is never drafts: it is draft"),
        (
            {"ticket.state": {"show": ["zzz"]}},
            "ticket.state is never zzz: it is open, draft, empty",
        ),
        (
            {"ticket.state": {"show": ["draft"], "hide": ["draft"]}},
            "cannot both show and hide draft",
        ),
        ({"comment.held": {"show": ["no"], "hide": ["0"]}}, "cannot both show and hide 0"),
        (
            {"comment.held": "leave out"},
            'the answer to comment.held must be {"show": [VALUE, …], "hide": [VALUE, …]}',
        ),
        ({"audit": {"show": ["yes"]}}, 'the answer to audit must be "document" or "leave out"'),
        (
            {"ticket.email": "document"},
            'the answer to ticket.email must be "title", "text" or "leave out"',
        ),
        ({"audit": "hide"}, "the answer to audit must be {"),
        ({"audit": {"shown": ["yes"]}}, "the answer to audit must be {"),
        ({"audit": {}}, "the answer to audit must be {"),
        ({"audit": {"show": "yes"}}, "the answer to audit must be {"),
        ({"audit": {"show": [["yes"]]}}, "the answer to audit must be {"),
        ([{"audit": "document"}], 'answers are a JSON object, such as {"comment.held"'),
        ("document", "answers are a JSON object"),
        (None, "answers are a JSON object"),
    ],
)
def test_what_is_no_answer_is_refused_by_name_in_one_line(answers, said):
    with pytest.raises(SettingsError) as error:
        Answers.parse(answers).decisions(FIRST)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "are not JSON: "),
        ("", "are not JSON: "),
        ("[" * 100_000, "are not JSON: "),
        ("[]", "answers are a JSON object"),
        ('{"audit": "document", "audit": "leave out"}', "audit is answered twice: leave one out"),
        (
            '{"comment.held": {"show": ["no"], "show": ["yes"]}}',
            "show is answered twice: leave one out",
        ),
        ('{"\\ud800": "document"}', "there is no question "),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_name(tmp_path, text, said):
    file = tmp_path / "a.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        Answers.read(str(file)).decisions(FIRST)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert "a.json" in str(error.value) or "no question" in said


def test_a_file_that_is_missing_or_no_utf_8_gets_one_line(tmp_path):
    with pytest.raises(
        SettingsError, match=r"the answers in .*none\.json cannot be read: No such file"
    ):
        Answers.read(str(tmp_path / "none.json"))
    (tmp_path / "a.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(SettingsError, match="are not JSON: "):
        Answers.read(str(tmp_path / "a.json"))


def test_answers_come_from_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"audit": "document"}'))
    assert Answers.read("-").decisions(FIRST).tables == {"audit": "document"}
    monkeypatch.setattr("sys.stdin", io.StringIO("no"))
    with pytest.raises(SettingsError, match="the answers in the standard input are not JSON"):
        Answers.read("-")


def test_an_answer_takes_the_place_of_the_one_before_and_answers_are_json_again():
    answers = Answers.parse({"audit": "document", "comment.held": {"show": ["yes"]}})
    again = answers.with_answer("audit", "leave out")
    assert again.decisions(FIRST).tables == {"audit": "leave out"}
    assert answers.decisions(FIRST).tables == {"audit": "document"}
    assert Answers.parse(json.loads(again.model_dump_json())) == again
