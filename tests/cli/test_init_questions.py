"""What `init` asks: in a terminal three questions at most, elsewhere as comments in the file that it writes."""

import os
import pty
import re
import select
import sqlite3
import subprocess
import tomllib
from random import Random

import pytest

from tests.project import PROGRAM

WORDS = "miller baker smith sexton ferryman wheel oven bell boat sluice key river".split()
GUESSED = ["queue_item", "ticket"]


@pytest.fixture
def folder(tmp_path):
    """A folder with a database of tickets, a table that is for programs by its name alone, and two of names."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute("CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT)")
        db.execute("CREATE TABLE queue_item (id INTEGER PRIMARY KEY, note TEXT)")
        db.execute("CREATE TABLE shelf (id INTEGER PRIMARY KEY, name TEXT)")
        db.execute("CREATE TABLE drawer (id INTEGER PRIMARY KEY, name TEXT)")
        for i in range(40):
            db.execute("INSERT INTO ticket VALUES (?, ?, ?)", (i, f"Printer {i} is offline", f"It is dead. {i}"))
            db.execute("INSERT INTO queue_item VALUES (?, ?)", (i, " ".join(Random(i).sample(WORDS, 8))))
            db.execute("INSERT INTO shelf VALUES (?, ?)", (i, f"Shelf {i} left"))
            db.execute("INSERT INTO drawer VALUES (?, ?)", (i, f"Drawer {i}"))
    db.close()
    return tmp_path


def init(folder, *keys, options=()):
    """Run `init` in a terminal, type a key at each question, and return the exit code and what the terminal shows.

    Ctrl-C is typed again while nothing happens: Python misses one between a question and its first look at the input.
    """
    main, side = pty.openpty()
    command = ["setsid", "--ctty", *PROGRAM, "init", "--source", "sqlite:///source.db", *options]  # Ctrl-C reaches it
    process = subprocess.Popen(command, cwd=folder, stdin=side, stdout=side, stderr=side)
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
        if left and shown.count("/show] ") > len(keys) - len(left):
            os.write(main, left.pop(0).encode())
    os.close(main)
    return process.wait(60), shown


def indexes(folder):
    """Return the tables of the indexes in the file."""
    found = tomllib.loads((folder / "rag-index.toml").read_text(encoding="utf-8"))
    return sorted(index["table"] for index in found["indexes"])


@pytest.mark.parametrize(
    ("keys", "found", "open_questions"),
    [
        (["n\r", "\r"], ["ticket"], 0),
        (["\r", "yes\r"], ["drawer", *GUESSED[:1], "shelf", "ticket"], 0),
        (["no\r", "\x04"], ["ticket"], 1),
        (["\x04"], GUESSED, 2),
    ],
    ids=["no, then the guess", "the guess, then yes", "no, then the end of the input", "the end of the input"],
)
def test_answers_in_a_terminal_decide_which_tables_are_searched(folder, keys, found, open_questions):
    code, shown = init(folder, *keys)
    assert (code, indexes(folder)) == (0, found), shown
    text = (folder / "rag-index.toml").read_text(encoding="utf-8")
    assert len(re.findall("search (?:it|them)\\?", text)) == open_questions
    assert "  yes: each row becomes a document" in shown


def test_show_prints_a_document_of_each_table_before_the_answer(folder):
    code, shown = init(folder, "n\r", "show\r", "what\r", "n\r")
    assert (code, indexes(folder)) == (0, ["ticket"]), shown
    first, last = shown.split("[y/N/show] ")[1:3]
    assert {"shelf: Shelf 0 left (0)", "drawer: Drawer 0 (0)"} <= {*first.splitlines()}
    assert "Answer yes, no, or show" in last


def test_ctrl_c_at_a_question_writes_nothing(folder):
    code, shown = init(folder, "n\r", "\x03")
    assert (code, [*folder.glob("*.toml")]) == (130, []), shown
    assert "stopped; no settings file was written" in shown


@pytest.mark.parametrize("terminal", [True, False], ids=["--yes in a terminal", "no terminal"])
def test_who_is_not_asked_finds_the_questions_in_the_file(folder, terminal):
    if terminal:
        assert "show]" not in init(folder, options=["--yes"])[1]
    else:
        command = [*PROGRAM, "init", "--source", "sqlite:///source.db"]
        subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert indexes(folder) == GUESSED
    text = (folder / "rag-index.toml").read_text(encoding="utf-8")
    assert text.index("`queue_item` (40 rows, 1.") < text.index("`shelf`, `drawer` (80 rows, ")
    line = re.search(r"#   rag-index (init --force --source sqlite:///source.db --add shelf --add drawer)\n", text)
    command = [*PROGRAM, *line[1].split()]
    subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert indexes(folder) == ["drawer", *GUESSED[:1], "shelf", "ticket"]
