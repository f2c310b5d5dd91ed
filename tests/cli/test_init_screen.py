"""The screen of `init`: what becomes of each table and which rows are hidden; changed by numbers or by options."""

import os
import pty
import re
import select
import sqlite3
import subprocess
import tomllib
from contextlib import chdir

import pytest

from tests.project import PROGRAM, run_here

PROMPT = "Ctrl-C nothing: "
BODY = "The {} in room {} prints blank pages again and again, said the person at desk {}."


@pytest.fixture
def folder(tmp_path):
    """A folder with a database of tickets and their remarks, some of them hidden, notes, and tables without any use."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute(
            "CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT, is_confidential INT, email TEXT, "
            "answer TEXT)"
        )
        db.execute(
            "CREATE TABLE remark (id INTEGER PRIMARY KEY, ticket_id INT REFERENCES ticket, body TEXT, is_deleted INT)"
        )
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, body TEXT, is_deleted INT)")
        db.execute("CREATE TABLE number (id INTEGER PRIMARY KEY, value INT)")
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
            )
            db.execute("INSERT INTO ticket VALUES (?, ?, ?, ?, ?, ?)", row)
            db.execute("INSERT INTO remark VALUES (?, ?, ?, ?)", (i, i, BODY.format("copier", i, -i), i % 8 == 0))
            db.execute("INSERT INTO note VALUES (?, ?, ?, ?)", (i, f"Note {i}", BODY.format("plotter", i, i), i == 5))
            db.execute("INSERT INTO number VALUES (?, ?)", (i, i))
    db.close()
    return tmp_path


def init(folder, *keys, options=("source.db",), columns=100):
    """Run `init` in a terminal, type keys at each prompt, and return the exit code and what the terminal shows.

    Ctrl-C is typed again while nothing happens: Python misses one between a question and its first look at the input.
    """
    main, side = pty.openpty()
    command = ["setsid", "--ctty", *PROGRAM, "init", *options]  # Ctrl-C reaches it
    process = subprocess.Popen(
        command, cwd=folder, stdin=side, stdout=side, stderr=side, env=os.environ | {"COLUMNS": str(columns)}
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


def without_terminal(folder, *options, code=0):
    with chdir(folder):
        out, err = run_here("rag-index.toml", "init", *options, code=code)
    return out if code == 0 else err


def settings(folder):
    """Return the indexes in the file by their tables."""
    found = tomllib.loads((folder / "rag-index.toml").read_text(encoding="utf-8"))
    return {index["table"]: index for index in found["indexes"]}


def number_of(shown, line):
    """Return the number of a line on the last screen."""
    return re.findall(rf"^ +(\d+)  {line}", shown, re.MULTILINE)[-1]


def test_enter_writes_what_the_screen_shows(folder):
    code, shown = init(folder, "\r")
    assert code == 0, shown
    assert re.search(r"^  1  ticket +40 +\d+%  document$", shown, re.MULTILINE)
    assert re.search(r"^ +\d+  remark +40 +\d+%  part of ticket$", shown, re.MULTILINE)
    assert re.search(r"^ +\d+  empty_0, empty_1, empty_2, 2 more +0 +left out: is empty$", shown, re.MULTILINE)
    assert re.search(r"^ +\d+  ticket: 4 of 40 hidden: is_confidential is true$", shown, re.MULTILINE)
    assert re.search(
        r"^ +\d+  (?:remark, note|note, remark): 6 of 80 hidden: is_deleted is true$", shown, re.MULTILINE
    ), "one line for both"
    assert re.search(r"^ +\d+  ticket.email: \d+ B left out: ", shown, re.MULTILINE)
    assert re.search(r"^3 of 9 tables are searched: [\d.]+ kB of [\d.]+ kB of text\.$", shown, re.MULTILINE)
    assert settings(folder).keys() == {"ticket", "note"}


def test_numbers_change_lines_and_change_them_back(folder):
    _, shown = init(folder, "\x03")
    note, hidden, email = (
        number_of(shown, line) for line in ("note ", "ticket: 4 of 40 hidden", "ticket.email: ")
    )  # fmt: skip
    (folder / "rag-index.toml").unlink(missing_ok=True)
    code, shown = init(folder, f"{note} {hidden} {email}\r", "\r")
    assert code == 0, shown
    last = shown.rpartition("becomes")[2]
    assert "note " in last
    assert "left out: is left out, as you said" in last
    assert "ticket: 4 of 40 shown: is_confidential is true" in last
    assert re.search(r"ticket.email: \d+ B searched", last)
    ticket = settings(folder)["ticket"]
    assert settings(folder).keys() == {"ticket"}
    assert "is_confidential" not in ticket.get("where", "")
    assert "email" in ticket["text"]
    (folder / "rag-index.toml").unlink()
    code, shown = init(folder, "note\r", "note\r", "ticket.is_confidential\r", "ticket.is_confidential\r", "\r")
    assert settings(folder).keys() == {"ticket", "note"}, shown
    assert "is_confidential" in settings(folder)["ticket"]["where"]


def test_tables_that_become_the_same_are_listed_before_one_is_changed(folder):
    code, shown = init(folder, "empty_0\r", "77 nothing\r", "\r")
    assert "the rows of empty_0 cannot be documents: it is empty" in shown
    assert "77 is neither the number of a line nor a name in one" in shown
    assert "nothing is neither" in shown
    group = number_of(shown, "empty_0, empty_1")
    (folder / "rag-index.toml").unlink()
    code, shown = init(folder, f"{group}\r", "\r")
    assert code == 0
    assert [*re.findall(r"^ +\d+  (empty_\d) +0 ", shown.rpartition("becomes")[2], re.MULTILINE)] == [
        f"empty_{n}" for n in range(5)
    ]


def test_show_prints_two_documents_as_a_search_would(folder):
    code, shown = init(folder, "show 1\r", "\r")
    assert code == 0, shown
    said = shown.split(PROMPT)[1]
    assert said.count("\nticket: Printer ") + said.startswith("ticket: ") == 2
    assert "prints blank pages again and again" in said


def test_ctrl_c_writes_nothing(folder):
    code, shown = init(folder, "note\r", "\x03")
    assert (code, [*folder.glob("*.toml")]) == (130, []), shown
    assert "stopped; no settings file was written" in shown


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_screen_fits_into_narrow_and_wide_terminals(folder, columns):
    _, shown = init(folder, "\r", columns=columns)
    screen = shown[shown.index("becomes") : shown.index("Enter writes")].splitlines()[1:]
    assert max(map(len, screen)) <= columns, screen
    said = " ".join(" ".join(screen).split())
    for words in (
        "document",
        "part of ticket",
        "ticket: 4 of 40 hidden: is_confidential is true",
        "left out: is empty",
    ):
        assert words in said


def test_without_a_terminal_the_same_screen_is_printed_and_options_answer_it(folder):
    said = without_terminal(folder, "--source", "sqlite:///source.db")
    assert "ticket: Printer 1 is offline (1)\n" in said, "a document of each"
    assert re.search(r"^ +\d+  ticket: 4 of 40 hidden: is_confidential is true$", said, re.MULTILINE)
    assert settings(folder).keys() == {"ticket", "note"}
    options = ("--include", "rem*", "--exclude", "note", "--show", "ticket.is_confidential", "--hide", "ticket.answer")
    without_terminal(folder, "source.db", "--force", *options)
    found = settings(folder)
    assert found.keys() == {"ticket", "remark"}
    assert "where" not in found["ticket"]
    assert found["ticket"]["text"] == ["body"]
    without_terminal(folder, "source.db", "--force", "--exclude", "*", "--include", "note")
    assert settings(folder).keys() == {"note"}, "what is included is read, whatever is excluded"


@pytest.mark.parametrize("options", [["--yes"], []], ids=["--yes in a terminal", "no terminal"])
def test_who_is_not_asked_is_not_asked(folder, options):
    if options:
        assert PROMPT not in init(folder, options=["source.db", *options])[1]
    else:
        without_terminal(folder, "source.db")
    assert settings(folder).keys() == {"ticket", "note"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--include", "tickets"], "there is no table tickets: ticket"),
        (["--exclude", "zzz"], "there is no table zzz: none is named like it"),
        (
            ["--show", "ticket.is_confidental"],
            "there is no column ticket.is_confidental, as TABLE.COLUMN: ticket.is_confid",
        ),
        (["--hide", "subject"], "there is no column subject, as TABLE.COLUMN: "),
        (["--include", "number"], "the rows of number cannot be documents: it has no text"),
    ],
)
def test_a_name_that_does_not_fit_gets_one_line(folder, options, said):
    error = without_terminal(folder, "source.db", *options, code=2)
    last = error.splitlines()[-1]
    assert last.startswith(f"rag-index: {said}"), error
    assert not (folder / "rag-index.toml").exists()


def test_the_last_line_says_that_the_password_is_missing_and_the_file_has_none(folder):
    said = without_terminal(folder, "sqlite:///source.db?sslpassword=s3cret")
    assert said.splitlines()[-1] == "It has no password: before that, set RAG_INDEX_SOURCE__URL to the complete URL."
    assert "s3cret" not in said + (folder / "rag-index.toml").read_text(encoding="utf-8")
    without_terminal(folder, "sqlite:///source.db", "--force")
    assert "password" not in without_terminal(folder, "source.db", "--force")


def test_two_databases_and_options_without_any_are_refused(folder):
    assert "leave one out" in without_terminal(folder, "source.db", "--source", "sqlite:///source.db", code=2)
    assert "name it, too" in without_terminal(folder, "--exclude", "note", code=2)
    assert "is not a database URL" in without_terminal(folder, "nothing.db", code=2)


def test_a_database_without_anything_to_look_for_gets_its_screen_and_one_line(folder):
    error = without_terminal(folder, "source.db", "--exclude", "[!e]*", code=2)
    assert error.splitlines()[-1].endswith("has no table whose rows people would look for: name one with --include")
