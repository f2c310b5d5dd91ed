"""What commands other than runs show while they take long: what is counted, on a terminal and in a
pipe, and nothing of it afterwards. What Ctrl-C leaves."""

import json
import re
import subprocess
import sys

import pytest

from tests.fakes.qdrant import FakeQdrant
from tests.project import Project
from tests.terminal import in_terminal, plain_lines

AT_ONCE = """\
import sys
from rag_index.core.reports import progress
progress.SHOWN_AFTER = progress.LINE_SECONDS = 0.0
from rag_index.cli import main
main(sys.argv[1:])
"""
LONG = {
    "plan": ["60 documents read"],
    "doctor": ["60 documents read", "points compared"],
    "erase notes": ["points copied"],
    "export notes --out notes.jsonl": ["points written"],
}
STOPPED = {
    "doctor": (
        "stopped; what is repaired is kept, nothing else was changed, and the same command begins"
        " again"
    ),
    "erase notes": "stopped; searches work as before, and the same command completes the erasure",
    "export notes --out notes.jsonl": "stopped; no file was written",
}


@pytest.fixture
def project(indexed_notes):
    return indexed_notes(60)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A fake server, and a project that is indexed there. Each command of a test is stopped before
    it changes any."""
    with FakeQdrant() as server:
        project = Project(
            tmp_path_factory.mktemp("served") / "project", f'[store]\nurl = "{server.url}"'
        ).fill(60)
        project.run()
        server.break_next("points/scroll", times=None, hang=600)
        yield project


def at_once(project, *arguments):
    """Return a command line that shows progress from the first moment."""
    return [sys.executable, "-c", AT_ONCE, "--config", str(project.config), *arguments]


@pytest.mark.parametrize("command", LONG)
def test_a_command_that_takes_long_counts_what_it_does_and_leaves_nothing_of_that(
    project, command, monkeypatch
):
    monkeypatch.chdir(project.folder)
    drawn = plain_lines(in_terminal(at_once(project, *command.split()), 100, forked=True))
    for counted in LONG[command]:
        assert any(f"of {counted}" in line or f" {counted}" in line for line in drawn), drawn
    assert "of" not in drawn[-2].split(), drawn[-2:]


def test_a_pipe_gets_lines_and_json_stays_alone_on_standard_output(project):
    done = subprocess.run(
        at_once(project, "doctor", "--json"), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["findings"] == []
    assert "doctor: 0 of 60 documents read" in done.stderr.splitlines()
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("command", STOPPED)
def test_ctrl_c_while_a_bar_is_drawn_says_what_is_kept(served, command, monkeypatch):
    monkeypatch.chdir(served.folder)
    begun = re.compile(r" 0 of \d+ points")
    asked = in_terminal(at_once(served, *command.split()), 100, until=begun.search, forked=True)
    assert plain_lines(asked)[-2] == f"rag-index: {STOPPED[command]}"
    assert asked.rfind("\x1b[?25h") > asked.rfind("\x1b[?25l") >= 0, "the cursor is there again"
    assert not (served.folder / "notes.jsonl").exists()
