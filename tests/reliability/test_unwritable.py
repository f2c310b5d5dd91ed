"""Folders and files that this user may not write: each command says who may not, whose it is, and what to do."""

import ctypes
import re
from contextlib import chdir, contextmanager

import pytest

from tests.project import run_here

DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER = 1, 2, 3
"""What root has to lose before permissions of files stop it."""


@contextmanager
def powerless():
    """Let permissions of files stop this thread, and those that it starts, even if they are root's."""
    libc, header = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0)
    before = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, before) == 0
    without = type(before)(*before)
    without[0] &= ~(1 << DAC_OVERRIDE | 1 << DAC_READ_SEARCH | 1 << FOWNER)
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def run_as_anybody(project, command, code=1):
    """Run the program as a user whom permissions stop, and return all that it says."""
    with powerless(), chdir(project.folder):
        return "".join(run_here(project.config, *command.split(), code=code))


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


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    ["search printer", "doctor", "doctor --repair", "index-all", "rebuild notes", "erase notes", "drop notes --yes"],
)
def test_a_store_that_cannot_be_written_is_whole_and_no_reason_for_a_backup(indexed, closed, command):
    store = closed(indexed.folder / ".rag-index" / "qdrant")
    said = run_as_anybody(indexed, command)
    assert re.search(rf"the store {store}\S* cannot be written by user \w+ \(Permission denied; ", said), said
    assert "set `data` or [store] path to another folder" in said
    assert "backup" not in said
    assert "finding" not in said
    for path in (store, *store.rglob("*")):
        path.chmod(0o700)
    assert indexed.run().indexes[0].unchanged == 3, "nothing was repaired, and so lost"


@pytest.mark.long
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
    said = run_as_anybody(indexed, command, 2)
    indexed.folder.chmod(0o700)
    assert f"{file} cannot be written by user " in said, said
    assert "or name " in said
