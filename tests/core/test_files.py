"""Files that are replaced as a whole, those of the owner alone, and those that people write."""

import os
import sqlite3
from pathlib import Path

import pytest

from rag_index.core.files import private_file, private_folder, read_written, replace_file
from rag_index.core.settings import ServeSettings, load_settings
from rag_index.errors import SettingsError
from rag_index.search.evaluation.golden import read_golden
from rag_index.search.service.tokens import TokenRegister, new_token, token_line


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_bytes(b"old")
    return path


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


def test_a_full_disk_keeps_the_old_content(file, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(file.parent.iterdir()) == [file]


def mode(path) -> str:
    return f"{path.stat().st_mode & 0o777:o}"


def test_a_new_folder_is_the_owners_alone_and_an_old_one_closed_to_all_but_a_group_that_was_let_in(
    tmp_path,
):
    tmp_path.chmod(0o755)
    private_folder(tmp_path / "data" / "qdrant")
    assert [mode(tmp_path), mode(tmp_path / "data"), mode(tmp_path / "data" / "qdrant")] == [
        "755",
        "700",
        "700",
    ]
    for before, after in (
        (0o755, "700"),
        (0o777, "700"),
        (0o701, "700"),
        (0o750, "750"),
        (0o2770, "770"),
    ):
        tmp_path.chmod(before)
        private_folder(tmp_path)
        assert mode(tmp_path) == after


def test_a_database_and_the_files_beside_it_are_the_owners_alone(tmp_path):
    path = tmp_path / "data" / "ledger.db"
    private_file(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (x)")
        assert {file.name: mode(file) for file in path.parent.iterdir()} == {
            "ledger.db": "600",
            "ledger.db-shm": "600",
            "ledger.db-wal": "600",
        }


def test_what_a_person_wrote_is_read_as_any_editor_saves_it(tmp_path):
    path = tmp_path / "written.txt"
    for content in (
        b"a = 1\nb\n",
        b"\xef\xbb\xbfa = 1\r\nb\r\n",
        b"a = 1\rb\r",
        b"a = 1\r\n\xef\xbb\xbfb\n",  # two files in one
        b"\xef\xbb\xbf\xef\xbb\xbfa = 1\nb\n",
    ):
        path.write_bytes(content)
        assert read_written(path) == "a = 1\nb\n"


def test_other_encodings_are_refused_by_their_names(tmp_path):
    path = tmp_path / "written.txt"
    for encoding, said in (
        ("utf-16", "is UTF-16"),
        ("utf-16-le", "is UTF-16, or no text"),
        ("utf-32", "is UTF-32"),
        ("latin-1", "is not UTF-8 .byte 4."),
    ):
        path.write_bytes("a = ö\n".encode(encoding))
        with pytest.raises(SettingsError, match=f"^golden file {path} {said}: save it as UTF-8$"):
            read_written(path, "golden file")
    path.unlink()
    with pytest.raises(
        SettingsError, match="cannot be read: No such file or directory; name one that exists"
    ):
        read_written(path)


def test_settings_tokens_and_golden_queries_are_read_by_that(tmp_path):
    token = new_token()
    line, golden = token_line("bo", token, ["sales"]), '{"query": "printer", "relevant": ["1"]}'
    paths = [tmp_path / name for name in ("rag-index.toml", "tokens", "golden.jsonl")]
    toml = (
        '[source]\nurl = "sqlite:///a.db"\n[[indexes]]\nname = "n"\ntable = "n"\nkey = "id"\ntext ='
        ' "body"\n'
    )
    reads = (
        load_settings,
        lambda path: TokenRegister(ServeSettings(tokens_file=path)).caller(token).name,
        lambda path: [query.query for query in read_golden(path)],
    )
    for path, text, read in zip(paths, (toml, line, golden), reads, strict=True):
        path.write_bytes(f"\ufeff{text}\n".replace("\n", "\r\n").encode())
        assert read(path)
        path.write_bytes(text.encode("utf-16"))
        with pytest.raises(SettingsError, match=f"{path} is UTF-16: save it as UTF-8"):
            read(path)
