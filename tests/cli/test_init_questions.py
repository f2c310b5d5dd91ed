"""What `init` asks: in a terminal three questions at most, elsewhere as comments in the file that it writes."""

import os
import pty
import re
import select
import sqlite3
import subprocess
import tomllib

import pytest

from tests.project import PROGRAM

EVENT = "The nightly job wrote that the mill wheel stood still because of the ice in the river, on day {}"
GUESSED = ["ticket"]


@pytest.fixture
def folder(tmp_path):
    """A folder with a database of tickets, and of two tables that are for programs by their names alone."""
    with sqlite3.connect(tmp_path / "source.db") as db:
        db.execute("CREATE TABLE ticket (id INTEGER PRIMARY KEY, subject TEXT, body TEXT)")
        db.execute("CREATE TABLE job_event (id INTEGER PRIMARY KEY, message TEXT)")
        db.execute("CREATE TABLE queue_item (id INTEGER PRIMARY KEY, name TEXT, note TEXT)")
        for i in range(40):
            db.execute("INSERT INTO ticket VALUES (?, ?, ?)", (i, f"Printer {i} is offline", f"It is dead. {i}"))
            db.execute("INSERT INTO job_event VALUES (?, ?)", (i, EVENT.format(i)))
            db.execute("INSERT INTO queue_item VALUES (?, ?, ?)", (i, f"Letter {i}", f"A letter waits {i}"))
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
        (["y\r", "\r"], ["job_event", "ticket"], 0),
        (["yes\r", "\x04"], ["job_event", "ticket"], 1),
        (["\x04"], GUESSED, 2),
    ],
    ids=["yes, then the guess", "yes, then the end of the input", "the end of the input"],
)
def test_answers_in_a_terminal_decide_which_tables_are_searched(folder, keys, found, open_questions):
    code, shown = init(folder, *keys)
    assert (code, indexes(folder)) == (0, found), shown
    text = (folder / "rag-index.toml").read_text(encoding="utf-8")
    assert text.count("search it?") == open_questions
    assert "  yes: its rows become documents of an index of their own" in shown


def test_show_prints_a_document_before_the_answer(folder):
    code, shown = init(folder, "show\r", "what\r", "n\r", "n\r")
    assert (code, indexes(folder)) == (0, GUESSED), shown
    first, last = shown.split("[y/N/show] ")[1:3]
    assert re.search(r"job-event: .*\(\d+\)", first)
    assert "on day" in first
    assert "Answer yes, no, or show" in last


def test_ctrl_c_at_a_question_writes_nothing(folder):
    code, shown = init(folder, "y\r", "\x03")
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
    assert text.index("`job_event` (40 rows, 3.") < text.index("`queue_item` (40 rows, ")
    line = re.search(r"#   rag-index (init --force --add job_event)\n", text)
    subprocess.run(
        [*PROGRAM, *line[1].split(), "--source", "sqlite:///source.db"],
        cwd=folder, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert indexes(folder) == ["job_event", "ticket"]
