"""The screen of `init`: who may see rows and what becomes of each table; answered by numbers, ids
or a file."""

import io
import json
import os
import pty
import re
import select
import sqlite3
import tomllib
from contextlib import chdir

import pytest

from rag_index.first_run.samples import workshop
from tests.docs.pages import page
from tests.forked_program import start_in_terminal
from tests.project import run_here

PROMPT = "Ctrl-C nothing: "
BODY = "The {} in room {} prints blank pages again and again, said the person at desk {}."


@pytest.fixture
def folder(tmp_path):
    """A folder with a database of tickets and their remarks, some of them hidden, notes, and tables
    without any use."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.executescript(
            "CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT, is_confidential"
            " INT, email TEXT, answer TEXT, put_aside INT);CREATE TABLE remark (id INTEGER PRIMARY"
            " KEY, ticket_id INT REFERENCES ticket, body TEXT, is_deleted INT);CREATE TABLE note"
            " (id INTEGER PRIMARY KEY, title TEXT, body TEXT, is_deleted INT);CREATE TABLE number"
            " (id INTEGER PRIMARY KEY, value INT);"
        )
        for n in range(5):
            db.execute(f"CREATE TABLE empty_{n} (id INTEGER PRIMARY KEY, body TEXT)")
        for i in range(1, 41):
            row = (
                i,
                f"Printer {i} is offline",
                BODY.format("printer", i, i),
                i % 10 == 0,
                f"p{i}@example.org",
                BODY.format("fax", -i, i),
                i == 7,
            )
            db.execute("INSERT INTO ticket VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            db.execute(
                "INSERT INTO remark VALUES (?, ?, ?, ?)",
                (i, i, BODY.format("copier", i, -i), i % 8 == 0),
            )
            db.execute(
                "INSERT INTO note VALUES (?, ?, ?, ?)",
                (i, f"Note {i}", BODY.format("plotter", i, i), i == 5),
            )
            db.execute("INSERT INTO number VALUES (?, ?)", (i, i))
    db.close()
    return tmp_path


def init(folder, *keys, options=("source.db",), columns=100):
    """Run `init` in a terminal, type keys at each prompt, and return the exit code and what the
    terminal shows. Ctrl-C is typed again while nothing happens: Python misses one between a
    question and its first look at the input."""
    main, side = pty.openpty()
    with chdir(folder):
        process = start_in_terminal(
            "", ["init", *options], os.environ | {"COLUMNS": str(columns)}, side, side
        )
    os.close(side)
    shown, left = "", list(keys)
    while True:
        if not select.select([main], [], [], 1)[0]:
            if not left and keys[-1:] == ("\x03",):
                os.write(main, b"\x03")
            continue
        try:
            shown += os.read(main, 4096).decode(errors="replace")
        except OSError:  # all that had the terminal open have ended
            break
        if left and shown.count(PROMPT) > len(keys) - len(left):
            os.write(main, left.pop(0).encode())
    os.close(main)
    return process.wait(60), shown.replace("\r\n", "\n")


def without_terminal(folder, *options, answers=None, code=0):
    """Run `init`, with answers in a file if there are any, and return what it prints, or the
    error."""
    if answers is not None:
        (folder / "answers.json").write_text(json.dumps(answers))
        options = (*options, "--answers", "answers.json")
    with chdir(folder):
        out, err = run_here("rag-index.toml", "init", *options, code=code)
    return out if code == 0 else err


def read(folder):
    return (folder / "rag-index.toml").read_text(encoding="utf-8")


def settings(folder):
    """Return the indexes in the file by their tables."""
    return {index["table"]: index for index in tomllib.loads(read(folder))["indexes"]}


def test_enter_writes_what_the_screen_shows_what_is_open_first(folder):
    code, shown = init(folder, "\r")
    assert code == 0, shown
    assert re.search(
        r"^  1  ticket.put_aside +shown: no 39 · left out: yes 1$", shown, re.MULTILINE
    )
    assert re.search(
        r"^  2  ticket.is_confidential +shown: no 36 · left out: yes 4$", shown, re.MULTILINE
    )
    assert re.search(r"^ +\d+  ticket +40 +\d+%  document$", shown, re.MULTILINE)
    assert re.search(r"^ +\d+  remark +40 +\d+%  part of ticket$", shown, re.MULTILINE)
    assert re.search(
        r"^ +6 tables left out: is empty \(5\); has no text of its own \(1\)$", shown, re.MULTILINE
    )
    assert re.search(r"^ +\d+  ticket.email +\d+ B left out: ", shown, re.MULTILINE)
    assert re.search(
        r"^3 of 9 tables are searched: [\d.]+ kB of [\d.]+ kB of text\.$", shown, re.MULTILINE
    )
    assert settings(folder)["ticket"]["visible"] == {
        "is_confidential": {"show": ["0", ""], "hide": ["1"]},
        "put_aside": {"show": ["0", ""], "hide": ["1"]},
        "remark.is_deleted": {"show": ["0", ""], "hide": ["1"]},
    }
    assert "# hides rows if put_aside is yes: has an exception in 2% of the rows" in read(folder)
    assert "# - ticket.put_aside: shown: no 39 · left out: yes 1" in read(folder)


def test_the_screen_of_the_sample_is_the_one_in_the_documentation(tmp_path):
    workshop.write(tmp_path / "workshop.db")
    screen = without_terminal(tmp_path, "workshop.db").partition("     who may")
    assert "".join(screen[1:]).partition("Wrote ")[0] in page("install")


def test_answers_by_number_or_id_show_and_hide_and_turn_back(folder):
    _, shown = init(folder, "\x03")
    lines = ("note ", "ticket.put_aside", "ticket.email")
    note, held, email = (
        re.findall(rf"^ +(\d+)  {line}", shown, re.MULTILINE)[-1] for line in lines
    )
    (folder / "rag-index.toml").unlink(missing_ok=True)
    keys = (
        f"show {email}\r",
        f"show {held}\r",
        "show ticket.is_confidential\r",
        "hide 2 no\r",
        f"hide {note}\r",
        "\r",
    )
    code, shown = init(folder, *keys)
    assert code == 0, shown
    last = shown.split(PROMPT)[-2]
    assert re.search(r"ticket.put_aside +shown: no 39, yes 1$", last, re.MULTILINE)
    assert re.search(r"ticket.is_confidential +shown: yes 4 · left out: no 36$", last, re.MULTILINE)
    assert re.search(r"ticket.email +\d+ B searched, as you said", last)
    assert re.search(r"note +40 +\d+%  left out: is left out, as you said", last)
    assert settings(folder).keys() == {"ticket"}
    assert "email" in settings(folder)["ticket"]["text"]
    (folder / "rag-index.toml").unlink()
    keys = (
        "hide note\r",
        "show note\r",
        "show ticket.put_aside\r",
        "hide ticket.put_aside yes\r",
        "\r",
    )
    code, shown = init(folder, *keys)
    assert settings(folder).keys() == {"ticket", "note"}, shown
    assert "put_aside" in read(folder)


def test_more_lists_everything_and_what_cannot_be_is_said(folder):
    keys = (
        "more\r",
        "show empty_0\r",
        "show 77\r",
        "what 1\r",
        "hide 1 perhaps\r",
        "hide 1\r",
        "show note yes\r",
        "\r",
    )
    code, shown = init(folder, *keys)
    assert code == 0
    listed = re.findall(r"^ +\d+  (empty_\d) +0 ", shown.split(PROMPT)[1], re.MULTILINE)
    assert listed == [f"empty_{n}" for n in range(5)]
    for said in (
        "the rows of empty_0 cannot be documents: it is empty",
        "77 is neither the number of a line nor an id",
        "what is no answer: write show, hide, look or why",
        "ticket.put_aside is never perhaps: it is no, yes",
        "which rows of ticket.put_aside are left out? Name the values after it: no, yes",
        "note takes no value",
    ):
        assert said in " ".join(shown.split())


def test_why_says_which_result_a_column_got(folder):
    _, shown = init(folder, "why 1\r", "why ticket\r", "\r")
    first, second = shown.split(PROMPT)[1:3]
    assert "ticket.put_aside: asked: it " in first
    assert "there is no column ticket" in " ".join(second.split())
    out = without_terminal(folder, "source.db", "--why", "ticket.is_confidential")
    assert re.match(
        r"ticket\.is_confidential: understood: it .*\nshown: no 36 · left out: yes 4\n", out
    )
    said = json.loads(
        without_terminal(folder, "source.db", "--why", "ticket.put_aside", "--json", "--force")
    )
    assert (said["id"], said["result"], said["is_open"]) == ("ticket.put_aside", "asked", True)


def test_look_prints_two_documents_as_a_search_would(folder):
    code, shown = init(folder, "look ticket\r", "\r")
    assert code == 0, shown
    said = shown.split(PROMPT)[1]
    assert said.count("\nticket: Printer ") + said.startswith("ticket: ") == 2
    assert "prints blank pages again and again" in said


def test_ctrl_c_writes_nothing(folder):
    code, shown = init(folder, "hide note\r", "\x03")
    assert (code, [*folder.glob("*.toml")]) == (130, []), shown
    assert "stopped; no settings file was written" in shown


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_screen_fits_into_narrow_and_wide_terminals(folder, columns):
    _, shown = init(folder, "\r", columns=columns)
    screen = shown[shown.index("who may see") : shown.index("Enter writes")].splitlines()[1:]
    assert max(map(len, screen)) <= columns, screen
    said = " ".join(" ".join(screen).split())
    for words in (
        "document",
        "part of ticket",
        "shown: no 36 · left out: yes 4",
        "left out: is empty (5)",
    ):
        assert words in said


def test_without_a_terminal_the_same_screen_is_printed_and_a_file_answers_it(folder):
    said = without_terminal(folder, "--source", "sqlite:///source.db")
    assert re.search(
        r"^ +\d+  ticket.is_confidential +shown: no 36 · left out: yes 4$", said, re.MULTILINE
    )
    assert settings(folder).keys() == {"ticket", "note"}
    answers = {
        "remark": "document",
        "note": "leave out",
        "ticket.is_confidential": {"show": ["yes"]},
        "ticket.answer": "leave out",
        "ticket.put_aside": {"show": ["no", "yes"]},
    }
    without_terminal(folder, "source.db", "--force", answers=answers)
    found = settings(folder)
    assert found.keys() == {"ticket", "remark"}
    assert {name: one["hide"] for name, one in found["ticket"]["visible"].items()} == {
        "is_confidential": [],
        "put_aside": [],
    }
    assert found["ticket"]["text"] == ["body"]


def test_a_script_answers_by_the_ids_that_json_prints(folder):
    """`init --json > q.json`, answer everything that is open, `init --answers a.json --yes`."""
    questions = json.loads(without_terminal(folder, "source.db", "--json"))["questions"]
    assert not (folder / "rag-index.toml").exists()
    (held,) = [one for one in questions if one["is_open"]]
    assert held["id"] == "ticket.put_aside"
    answers = {held["id"]: {"show": [value["value"] for value in held["values"]]}}
    said = without_terminal(folder, "source.db", "--yes", answers=answers)
    assert "Wrote rag-index.toml" in said
    assert settings(folder)["ticket"]["visible"]["put_aside"] == {
        "show": ["0", "1", ""],
        "hide": [],
    }
    again = json.loads(without_terminal(folder, "source.db", "--json", answers=answers))
    assert not [one for one in again["questions"] if one["is_open"]]
    assert again["answers"] == {"ticket.put_aside": {"show": ["0", "1", ""], "hide": []}}


def test_a_value_that_is_not_named_keeps_what_holds(folder):
    without_terminal(folder, "source.db", "--yes", answers={"ticket.put_aside": {"show": ["no"]}})
    assert settings(folder)["ticket"]["visible"]["put_aside"] == {"show": ["0", ""], "hide": ["1"]}
    answers = {"ticket.put_aside": {"hide": ["empty"]}}
    without_terminal(folder, "source.db", "--yes", "--force", answers=answers)
    assert settings(folder)["ticket"]["visible"]["put_aside"] == {"show": ["0"], "hide": ["1", ""]}


def test_a_question_that_an_answer_leads_to_can_be_answered_with_it(folder):
    """Rows of `said` refer to notes by a column that nobody declared: that matters once a note is
    hidden."""
    with sqlite3.connect(folder / "source.db") as db:
        db.execute("UPDATE note SET is_deleted = 0, id = id + 1000")
        db.execute("ALTER TABLE note ADD COLUMN grade TEXT DEFAULT 'a'")
        db.execute("UPDATE note SET grade = 'b' WHERE id % 4 = 0")
        db.execute("CREATE TABLE said (id INTEGER PRIMARY KEY, nid INT, body TEXT)")
        for n in range(1, 121):
            said = f"Somebody said of number {n} that the wheel of the mill turns far too fast."
            db.execute("INSERT INTO said VALUES (?, ?, ?)", (n, 1000 + n % 40 + 1, said))
    db.close()
    hides = {"note.grade": {"hide": ["b"]}}

    def nid(answers):
        questions = json.loads(without_terminal(folder, "source.db", "--json", answers=answers))[
            "questions"
        ]
        return [one for one in questions if one["id"] == "said.nid" and len(one["values"]) == 2]

    assert nid({}) == []
    (found,) = nid(hides)
    assert (found["is_open"], [one["is_shown"] for one in found["values"]]) == (True, [True, False])
    (found,) = nid({**hides, "said.nid": {"show": ["of hidden rows"]}})
    assert (found["is_open"], [one["is_shown"] for one in found["values"]]) == (False, [True, True])


def test_answers_come_from_standard_input(folder, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"note": "leave out"}'))
    without_terminal(folder, "source.db", "--yes", "--answers", "-")
    assert settings(folder).keys() == {"ticket"}


def test_json_prints_the_whole_proposal_and_writes_with_yes_alone(folder):
    said = json.loads(without_terminal(folder, "source.db", "--json"))
    ids = [one["id"] for one in said["questions"]]
    assert ids[:2] == ["ticket.put_aside", "ticket.is_confidential"]
    assert {"remark.is_deleted", "note.is_deleted"} <= {*ids}
    assert {one["id"]: one["becomes"] for one in said["tables"]}["number"] == "out"
    assert [one["table"] for one in said["indexes"]] == ["ticket", "note"]
    assert "examples" not in json.dumps(said)
    assert not (folder / "rag-index.toml").exists()
    without_terminal(folder, "source.db", "--json", "--yes")
    assert settings(folder).keys() == {"ticket", "note"}


def test_an_index_that_would_be_hidden_whole_ends_it_with_3(folder):
    with sqlite3.connect(folder / "source.db") as db:
        db.execute("UPDATE note SET is_deleted = 1")
    db.close()
    with chdir(folder):
        out, err = run_here("rag-index.toml", "init", "source.db", "--yes", code=3)
    assert "every row of note is left out: answer who may see them, with --answers FILE" in err
    assert re.search(r"^ +\d+  note.is_deleted +left out: yes 40$", out, re.MULTILINE)


def test_an_answer_that_does_not_fit_gets_one_line_and_writes_nothing(folder):
    for answers, said in (
        ({"tickets": "document"}, "there is no question tickets: near ones are ticket"),
        ({"zzz": "leave out"}, "there is no question zzz: init --json prints all ids"),
        (
            {"ticket.is_confidental": {"show": ["no"]}},
            "there is no question ticket.is_confidental: near ones are ",
        ),
        (
            {"ticket.is_confidential": {"show": ["on"]}},
            "ticket.is_confidential is never on: it is no",
        ),
        ({"number": "document"}, "the rows of number cannot be documents: it has no text"),
        ([], "answers.json: answers are a JSON object"),
    ):
        error = without_terminal(folder, "source.db", answers=answers, code=2)
        assert error.splitlines()[-1].startswith(f"rag-index: {said}"), error
        assert not (folder / "rag-index.toml").exists()


def test_the_last_line_says_that_the_password_is_missing_and_the_file_has_none(folder):
    said = without_terminal(folder, "sqlite:///source.db?sslpassword=s3cret")
    assert (
        said.splitlines()[-1]
        == "It has no password: before that, set RAG_INDEX_SOURCE__URL to the complete URL."
    )
    assert "s3cret" not in said + (folder / "rag-index.toml").read_text(encoding="utf-8")
    without_terminal(folder, "sqlite:///source.db", "--force")
    assert "password" not in without_terminal(folder, "source.db", "--force")


def test_two_databases_none_and_one_without_anything_to_look_for_get_one_line(folder):
    sqlite3.connect(folder / "empty.db").executescript("PRAGMA user_version = 1")
    for options, said in (
        ("source.db --source sqlite:///source.db", "leave one out"),
        ("--answers none.json", "name it, too"),
        ("--why note.is_deleted", "name it, too"),
        ("source.db --answers none.json", "the answers in none.json cannot be read"),
        ("source.db --examples", "--examples adds example rows to what --json prints: add --json"),
        ("nothing.db", "is not a database URL"),
        ("empty.db", "has no table: name another database"),
    ):
        assert said in without_terminal(folder, *options.split(), code=2).splitlines()[-1]
