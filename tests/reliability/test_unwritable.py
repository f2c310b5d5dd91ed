"""Folders and files that this user may not write: each command says who may not, whose it is, and what to do."""

import os
import re
import subprocess

import pytest

from tests.project import PROGRAM

POWERS = "-dac_override,-dac_read_search,-fowner"
"""What root has to lose before permissions of files stop it."""


def run_as_anybody(project, *arguments):
    """Run the program as a user whom permissions stop, and return its code and all that it says."""
    powerless = ["setpriv", f"--bounding-set={POWERS}", f"--inh-caps={POWERS}", "--"] if os.geteuid() == 0 else []
    ended = subprocess.run(
        [*powerless, *PROGRAM, *arguments], cwd=project.folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
def closed():
    """A function that takes the right to write a folder or file, and all in it; the test gives it back at its end."""
    changed = []

    def close(path):
        for one in (path, *path.rglob("*")):
            changed.append((one, one.stat().st_mode))
            one.chmod(0o500 if one.is_dir() else 0o400)
        return path

    yield close
    for one, mode in changed:
        if one.exists():
            one.chmod(mode)


@pytest.fixture
def indexed(project):
    assert project.fill(3).run().state == "completed"
    return project


@pytest.mark.parametrize(
    "command",
    ["search printer", "doctor", "doctor --repair", "index-all", "rebuild notes", "erase notes", "drop notes --yes"],
)
def test_a_store_that_cannot_be_written_is_whole_and_no_reason_for_a_backup(indexed, closed, command):
    store = closed(indexed.folder / ".rag-index" / "qdrant")
    code, said = run_as_anybody(indexed, *command.split())
    assert code == 1
    assert re.search(rf"the store {store}\S* cannot be written by user \w+ \(Permission denied; ", said), said
    assert "set `data` or [store] path to another folder" in said
    assert "backup" not in said
    assert "finding" not in said
    for path in (store, *store.rglob("*")):
        path.chmod(0o700)
    assert indexed.run().indexes[0].unchanged == 3, "nothing was repaired, and so lost"


@pytest.mark.parametrize("command", ["index-all", "doctor", "drop notes --yes"])
def test_a_ledger_that_cannot_be_written(indexed, closed, command):
    folder = closed(indexed.folder / ".rag-index")
    code, said = run_as_anybody(indexed, *command.split())
    assert code == 1
    assert f"ledger {folder}/ledger.db cannot be written by user " in said, said
    assert "set `data` or [ledger] url to another place" in said


@pytest.mark.parametrize(
    ("command", "file"),
    [
        ("init --force", "rag-index.toml"),
        ("export notes --out out.jsonl", "out.jsonl"),
        ("sample workshop --out new.db", "new.db"),
        ("sample workshop --out new/new.db", "new/new.db"),
    ],
)
def test_a_file_that_cannot_be_written(indexed, closed, command, file):
    closed(indexed.config)
    indexed.folder.chmod(0o500)
    code, said = run_as_anybody(indexed, *command.split())
    indexed.folder.chmod(0o700)
    assert code in (1, 2)
    assert f"{file} cannot be written by user " in said, said
    assert "or name " in said


def test_data_that_cannot_be_made(project, closed):
    project.fill(3)
    closed(project.folder)
    code, said = run_as_anybody(project, "index-all")
    assert code == 2
    assert f"{project.folder} belongs to " in said, said
