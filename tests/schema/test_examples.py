"""Example rows of questions: what an assistant may read, and nothing of persons, secrets and hidden
rows."""

import json

import pytest

from rag_index.first_run.schema import Answers, scaffold
from rag_index.first_run.schema.examples import add_examples
from rag_index.first_run.schema.screen import to_json
from tests.schema.conftest import PROSE, many

SECRETS = {
    "email": lambda n: f"ada{n}@example.org",
    "phone": lambda n: f"+49 30 12345{n:02}",
    "api_token": lambda n: f"{n:02}" * 16,
    "door": lambda n: f"sk_live_{n:02}Ab3dE5fG7hI9jK1lM",
    "author": lambda n: f"Ada Brandt{n}",
}


@pytest.fixture
def printed(propose):
    """A function that returns the questions about tables with their examples, and the whole
    text."""

    def made(answers=None, **tables):
        propose(**tables)
        found = scaffold(str(propose.url), answers=Answers.parse(answers or {}))
        questions = to_json(found.proposal)["questions"]
        add_examples(questions, found)
        return {one["id"]: one for one in questions}, json.dumps(questions, ensure_ascii=False)

    return made


def ticket(**more):
    return many(
        60,
        subject="Printer {n} is offline",
        body=f"{PROSE} {{n}}",
        put_aside=lambda n: int(n % 12 == 0),
        **more,
    )


def test_an_open_question_has_rows_for_each_value(printed):
    questions, _ = printed(ticket=ticket())
    no, yes = questions["ticket.put_aside"]["values"][:2]
    assert [row["subject"] for row in no["examples"]] == [
        "Printer 1 is offline",
        "Printer 2 is offline",
    ]
    assert [row["subject"] for row in yes["examples"]] == [
        "Printer 12 is offline",
        "Printer 24 is offline",
    ]
    assert all(PROSE in row["body"] for row in yes["examples"])


def test_no_example_has_a_column_with_secrets_or_personal_data(printed):
    questions, text = printed(ticket=ticket(**SECRETS))
    assert questions["ticket.put_aside"]["values"][0]["examples"]
    assert not [word for word in ("example.org", "+49", "0101", "sk_live", "Ada") if word in text]


def test_an_answer_that_has_a_personal_column_searched_shows_it_in_no_example(printed):
    _, text = printed({"ticket.email": "text", "ticket.door": "text"}, ticket=ticket(**SECRETS))
    assert "Printer 12" in text
    assert not [word for word in ("example.org", "sk_live") if word in text]


def test_rows_that_another_column_hides_are_no_examples(printed):
    private = {
        "is_private": lambda n: int(n == 12),
        "note": lambda n: "Nobody may read this, ever" if n == 12 else None,
    }
    questions, text = printed(ticket=ticket(**private))
    yes = questions["ticket.put_aside"]["values"][1]
    assert [row["subject"] for row in yes["examples"]] == [
        "Printer 24 is offline",
        "Printer 36 is offline",
    ]
    assert "Nobody may read this" not in text
    assert "examples" not in questions["ticket.is_private"]["values"][0], (
        "names and values have answered it"
    )


def test_rows_of_persons_are_no_examples(printed):
    person = many(
        60,
        name="Ada Brandt{n}",
        email="a{n}@example.org",
        about=f"{PROSE} {{n}}",
        odd=lambda n: int(n % 12 == 0),
    )
    questions, text = printed(person=person)
    assert "person.odd" in questions
    assert "Ada" not in text


def test_rows_with_a_name_that_are_called_like_persons_are_no_examples(printed):
    applicants = many(
        60,
        name="Ada Brandt{n}",
        letter=f"{PROSE} {{n}}",
        state=lambda n: "shortlist" if n % 6 == 2 else "pool",
    )
    questions, _ = printed(applicant=applicants)
    assert not any("examples" in value for value in questions["applicant.state"]["values"])


@pytest.mark.parametrize("contact", ["ada@example.org", "+43 664 1234567", "0664 123 45 67"])
def test_a_text_with_a_way_to_reach_a_person_is_in_no_example(printed, contact):
    body = f"{PROSE} {{n}}, call {contact}"
    tickets = many(60, subject="Printer {n}", body=body, put_aside=lambda n: int(n % 12 == 0))
    _, text = printed(ticket=tickets)
    assert "Printer 12" in text
    assert contact not in text
