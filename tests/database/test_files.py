"""Files that are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag_index.database.files import replace_file, replacement


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    return path


def test_a_file_is_replaced_and_nothing_is_left_beside_it(file):
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"
    replace_file(file.with_name("other.txt"), b"first")
    assert {path.name for path in file.parent.iterdir()} == {"file.txt", "other.txt"}


def test_content_is_on_disk_before_the_rename_and_the_folder_after_it(file, monkeypatch):
    synced, fsync = [], os.fsync

    def recorded(descriptor):
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), file.read_bytes()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    replace_file(file, b"new")
    (content, before), (folder, after) = synced
    assert content.startswith(str(file.parent / ".file.txt."))
    assert (before, folder, after) == (b"old", str(file.parent), b"new")


def test_a_reader_sees_the_old_content_until_the_block_ends(file):
    with replacement(file) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == file.parent
        assert file.read_bytes() == b"old"
    assert file.read_bytes() == b"new"


def test_an_error_in_the_block_keeps_the_old_content(file):
    def fail_half_way():
        with replacement(file, sync=True) as temporary:
            temporary.write_bytes(b"ne")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail_half_way()
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_keeps_the_old_content(file, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def test_two_writers_do_not_share_a_temporary_file(file):
    with replacement(file) as one, replacement(file) as other:
        assert one != other
        one.write_bytes(b"one")
        other.write_bytes(b"other")
    assert file.read_bytes() == b"one", "the outer block ends last"
