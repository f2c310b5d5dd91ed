"""The screen of `init`: who may see rows and what becomes of each table; answered by numbers or by options."""

import json
import os
import pty
import re
import select
import sqlite3
import tomllib
from contextlib import chdir

import pytest

from tests.forked_program import start_in_terminal
from tests.project import run_here

PROMPT = "Ctrl-C nothing: "
BODY = "The {} in room {} prints blank pages again and again, said the person at desk {}."


@pytest.fixture
def folder(tmp_path):
    """A folder with a database of tickets and their remarks, some of them hidden, notes, and tables without any use."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.executescript(
            "CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT, is_confidential INT, email TEXT, "
            "answer TEXT, put_aside INT);"
            "CREATE TABLE remark (id INTEGER PRIMARY KEY, ticket_id INT REFERENCES ticket, body TEXT, is_deleted INT);"
            "CREATE TABLE note (id INTEGER PRIMARY KEY, title TEXT, body TEXT, is_deleted INT);"
            "CREATE TABLE number (id INTEGER PRIMARY KEY, value INT);"
        )
        for n in range(5):
            db.execute(f"CREATE TABLE empty_{n} (id INTEGER PRIMARY KEY, body TEXT)")
        for i in range(1, 41):
            row = (
                i, f"Printer {i} is offline", BODY.format("printer", i, i), i % 10 == 0, f"p{i}@example.org",
                BODY.format("fax", -i, i), i == 7,
            )  # fmt: skip
            db.execute("INSERT INTO ticket VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            db.execute("INSERT INTO remark VALUES (?, ?, ?, ?)", (i, i, BODY.format("copier", i, -i), i % 8 == 0))
            db.execute("INSERT INTO note VALUES (?, ?, ?, ?)", (i, f"Note {i}", BODY.format("plotter", i, i), i == 5))
            db.execute("INSERT INTO number VALUES (?, ?)", (i, i))
    db.close()
    return tmp_path


def init(folder, *keys, options=("source.db",), columns=100):
    """Run `init` in a terminal, type keys at each prompt, and return the exit code and what the terminal shows. Ctrl-C
    is typed again while nothing happens: Python misses one between a question and its first look at the input."""
    main, side = pty.openpty()
    with chdir(folder):
        process = start_in_terminal("", ["init", *options], os.environ | {"COLUMNS": str(columns)}, side, side)
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


def read(folder):
    return (folder / "rag-index.toml").read_text(encoding="utf-8")


def settings(folder):
    """Return the indexes in the file by their tables."""
    return {index["table"]: index for index in tomllib.loads(read(folder))["indexes"]}


def test_enter_writes_what_the_screen_shows_what_is_open_first(folder):
    code, shown = init(folder, "\r")
    assert code == 0, shown
    assert re.search(r"^  1  ticket.put_aside +no 39 · yes 1   left out: yes \(2 of 80\)$", shown, re.MULTILINE)
    assert re.search(r"^  2  ticket.is_confidential +no 36 · yes 4   left out: yes \(8 of 80\)$", shown, re.MULTILINE)
    assert re.search(r"^ +\d+  ticket +40 +\d+%  document$", shown, re.MULTILINE)
    assert re.search(r"^ +\d+  remark +40 +\d+%  part of ticket$", shown, re.MULTILINE)
    empty = r"^ +\d+  empty_0, empty_1, empty_2, 3 more +40 +left out: is empty \(5\), has"
    assert re.search(empty, shown, re.MULTILINE)
    assert re.search(r"^ +\d+  ticket.email +\d+ B left out: ", shown, re.MULTILINE)
    assert re.search(r"^3 of 9 tables are searched: [\d.]+ kB of [\d.]+ kB of text\.$", shown, re.MULTILINE)
    assert settings(folder)["ticket"]["where"] == "COALESCE(is_confidential, 0) = 0 AND put_aside IN (0)"
    assert "# hides rows if is_confidential is yes; hides rows if put_aside is yes" in read(folder)


def test_answers_by_number_show_and_hide_and_turn_back(folder):
    _, shown = init(folder, "\x03")
    lines = ("note ", "ticket.put_aside", "ticket.email")
    note, held, email = (re.findall(rf"^ +(\d+)  {line}", shown, re.MULTILINE)[-1] for line in lines)
    (folder / "rag-index.toml").unlink(missing_ok=True)
    code, shown = init(folder, f"hide {note}\r", f"show {held} {email}\r", "hide ticket.is_confidential no\r", "\r")
    assert code == 0, shown
    last = shown.split(PROMPT)[-2]
    assert "left out: is left out, as you said" in last
    assert "shown, as you said" in last
    assert re.search(r"ticket.email +\d+ B searched, before: ", last)
    ticket = settings(folder)["ticket"]
    assert settings(folder).keys() == {"ticket"}
    assert ticket["where"] == "(is_confidential IS NULL OR is_confidential NOT IN (0))"
    assert "email" in ticket["text"]
    (folder / "rag-index.toml").unlink()
    code, shown = init(folder, "hide note\r", "show note\r", "hide ticket.put_aside\r", "\r")
    assert settings(folder).keys() == {"ticket", "note"}, shown
    assert "put_aside" in settings(folder)["ticket"]["where"]


def test_what_is_folded_is_listed_and_what_cannot_be_is_said(folder):
    keys = ("?\r", "show empty_0\r", "show 77\r", "what 1\r", "hide 1 perhaps\r", "hide 99\r", "\r")
    code, shown = init(folder, *keys)
    assert code == 0
    listed = re.findall(r"^ +\d+  (empty_\d) +0 ", shown.split(PROMPT)[1], re.MULTILINE)
    assert listed == [f"empty_{n}" for n in range(5)]
    for said in (
        "the rows of empty_0 cannot be documents: it is empty", "77 is neither the number of a line nor a name in one",
        "what is no answer: write show, hide or look", "ticket.put_aside is never perhaps: it is no, yes",
    ):  # fmt: skip
        assert said in " ".join(shown.split())


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
    for words in ("document", "part of ticket", "no 36 · yes 4 left out: yes (8 of 80)", "left out: is empty (5)"):
        assert words in said


def test_without_a_terminal_the_same_screen_is_printed_and_options_answer_it(folder):
    said = without_terminal(folder, "--source", "sqlite:///source.db")
    assert re.search(r"^ +\d+  ticket.is_confidential +no 36 · yes 4   left out: yes", said, re.MULTILINE)
    assert settings(folder).keys() == {"ticket", "note"}
    options = ("--include", "rem*", "--exclude", "note", "--show", "ticket.is_confidential", "--hide", "ticket.answer")
    without_terminal(folder, "source.db", "--force", *options, "--show", "ticket.put_aside")
    found = settings(folder)
    assert found.keys() == {"ticket", "remark"}
    assert "where" not in found["ticket"]
    assert found["ticket"]["text"] == ["body"]
    without_terminal(folder, "source.db", "--force", "--exclude", "*", "--include", "note")
    assert settings(folder).keys() == {"note"}, "what is included is read, whatever is excluded"
    without_terminal(folder, "source.db", "--force", "--hide", "remark.ticket_id=3")
    assert "ticket_id NOT IN (3)" in settings(folder)["ticket"]["parts"][0]["where"]


def test_json_prints_the_whole_proposal_and_writes_with_yes_alone(folder):
    said = json.loads(without_terminal(folder, "source.db", "--json", "--show", "ticket.put_aside"))
    hidden = ["ticket.is_confidential", "remark.is_deleted", "note.is_deleted"]
    assert [one["place"] for one in said["hidden"]] == hidden
    assert said["answers"] == {"show": ["ticket.put_aside"]}
    assert {one["name"]: one["becomes"] for one in said["tables"]}["number"] == "out"
    assert [one["settings"]["table"] for one in said["indexes"]] == ["ticket", "note"]
    assert not (folder / "rag-index.toml").exists()
    open_ones = json.loads(without_terminal(folder, "source.db", "--json", "--yes"))["hidden"]
    assert [one["place"] for one in open_ones if one["state"] == "open"] == ["ticket.put_aside"]
    assert settings(folder).keys() == {"ticket", "note"}


def test_an_index_that_would_be_hidden_whole_ends_it_with_3(folder):
    with sqlite3.connect(folder / "source.db") as db:
        db.execute("UPDATE note SET is_deleted = 1")
    db.close()
    with chdir(folder):
        out, err = run_here("rag-index.toml", "init", "source.db", "--yes", code=3)
    assert "every row of note is left out: show some with --show TABLE.COLUMN" in err
    assert re.search(r"^  1  note.is_deleted +yes 40   left out: yes \(40 of 40\)$", out, re.MULTILINE)


def test_a_name_that_does_not_fit_gets_one_line(folder):
    for options, said in (
        (["--include", "tickets"], "there is no table tickets: ticket"),
        (["--exclude", "zzz"], "there is no table zzz: none is named like it"),
        (["--show", "ticket.is_confidental"], "there is no column ticket.is_confidental, as TABLE.COLUMN: ticket.is_c"),
        (["--hide", "subject"], "there is no column subject, as TABLE.COLUMN: "),
        (["--include", "number"], "the rows of number cannot be documents: it has no text"),
    ):
        error = without_terminal(folder, "source.db", *options, code=2)
        assert error.splitlines()[-1].startswith(f"rag-index: {said}"), error
        assert not (folder / "rag-index.toml").exists()


def test_the_last_line_says_that_the_password_is_missing_and_the_file_has_none(folder):
    said = without_terminal(folder, "sqlite:///source.db?sslpassword=s3cret")
    assert said.splitlines()[-1] == "It has no password: before that, set RAG_INDEX_SOURCE__URL to the complete URL."
    assert "s3cret" not in said + (folder / "rag-index.toml").read_text(encoding="utf-8")
    without_terminal(folder, "sqlite:///source.db", "--force")
    assert "password" not in without_terminal(folder, "source.db", "--force")


def test_two_databases_none_and_one_without_anything_to_look_for_get_one_line(folder):
    sqlite3.connect(folder / "empty.db").executescript("PRAGMA user_version = 1")
    for options, said in (
        ("source.db --source sqlite:///source.db", "leave one out"),
        ("--exclude note", "name it, too"),
        ("nothing.db", "is not a database URL"),
        ("source.db --exclude [!e]*", "has no table whose rows people would look for: name one with --include"),
        ("empty.db", "has no table: name another database"),
    ):
        assert said in without_terminal(folder, *options.split(), code=2).splitlines()[-1]
