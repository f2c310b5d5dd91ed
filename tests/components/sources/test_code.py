"""A folder of source code as a source: which files it has, in which order, which it excludes, which
stay unread."""

import itertools
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from rag_index.components.sources import code
from rag_index.components.sources.code import CodeSource
from rag_index.components.sources.listing import list_files
from rag_index.core.documents.canonical import decode_payload, hash_text
from rag_index.core.documents.keys import document_id
from rag_index.core.settings import IndexSettings
from rag_index.errors import SettingsError, SourceUnavailable
from tests.components.sources.conftest import KnownStamps, pages

OLD = time.time() - 1000
PARTS = [
    "*",
    "**",
    "?",
    "a",
    "doc",
    "in.py",
    "*.py",
    "[ab]",
    "[!a]*",
    "d*c",
    "*.p[xy]",
    "\\!n.py",
    "[0-9].py",
    "[^0-9].py",
    "[",
    "x.py\\ ",
]
"""Parts of patterns."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def write(root: Path, path: str, content: str | bytes = "x = 1\n", *, at: float = OLD) -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(file, (at, at))
    return file


def source(root: Path, **keys: object) -> CodeSource:
    return CodeSource(root, IndexSettings(name="code", kind="code", root=root, **keys))


def read(opened: CodeSource, rows: int = 1000) -> tuple[list[str], dict[str, str], list[str]]:
    """Return the paths in order, the reasons of failures by path, and the paths that stay
    unread."""
    paths: list[str] = []
    reasons: dict[str, str] = {}
    unread: list[str] = []
    for page in pages(opened, rows):
        paths += map(document_id, page.documents.keys)
        reasons |= {document_id(f.key): f"{f.kind}: {f.reason}" for f in page.unreadable}
        unread += map(document_id, page.unread)
    return paths, reasons, unread


def paths_of(root: Path, **keys: object) -> set[str]:
    return set(read(source(root, **keys))[0])


def test_files_are_read_by_language_the_largest_first(root):
    for path, size in {
        "a.py": 1,
        "b/c.py": 9,
        "d.go": 1,
        "README.md": 1,
        "b/x.tsx": 1,
        "data.json": 1,
    }.items():
        write(root, path, "x" * size)
    opened = source(root)
    assert (read(opened)[0], opened.count()) == (["d.go", "b/c.py", "a.py", "b/x.tsx"], 4)
    page = opened.page(None, 10)
    assert decode_payload(page.documents.payloads[1]) == {"path": "b/c.py", "language": "python"}
    assert page.documents.text_hashes[1] == hash_text("python\n" + "x" * 9), (
        "in another language it has other chunks"
    )


@pytest.mark.parametrize(
    ("others", "languages", "expected"),
    [
        (["x.c", "a.py"], {}, "c"),
        (["x.c", "deep/y.cc"], {}, "cpp"),
        (["y.hpp"], {}, "cpp"),
        (["a.py"], {}, "cpp"),
        (["y.cc"], {".h": "c"}, "c"),
    ],
)
def test_a_header_is_of_c_if_all_sources_are(root, others, languages, expected):
    for path in ("lib/v.h", *others):
        write(root, path)
    files = list_files(root, [], ["*.cc"], languages).files
    assert next(file.language for file in files if file.path == "lib/v.h") == expected


def test_pages_are_limited_by_rows_and_by_bytes_and_read_twice_are_the_same(root, monkeypatch):
    monkeypatch.setattr("rag_index.components.sources.code.PAGE_BYTES", 1000)
    for number in range(6):
        write(root, f"{number}.py", "x" * (400 + number))
    opened = source(root)
    first = opened.page(None, 1000)
    assert len(first.documents) == 3
    assert (
        opened.page(first.cursor, 2).documents.keys == opened.page(first.cursor, 2).documents.keys
    )
    assert len(read(opened, rows=2)[0]) == len(read(opened)[0]) == 6


def test_patterns_are_anchored_at_the_root(root):
    for path in ("a.py", "b.ts", "s/a.py", "s/n.md", "s/node_modules/m.js", "s/t/d.py"):
        write(root, path)
    for include, exclude, paths in (
        ([], [], {"a.py", "b.ts", "s/a.py", "s/node_modules/m.js", "s/t/d.py"}),
        (["**/*.py"], [], {"a.py", "s/a.py", "s/t/d.py"}),
        (["*.py"], [], {"a.py"}),
        (["s/**"], [], {"s/a.py", "s/n.md", "s/node_modules/m.js", "s/t/d.py"}),
        (["s/t"], [], {"s/t/d.py"}),
        ([], ["**/node_modules/**"], {"a.py", "b.ts", "s/a.py", "s/t/d.py"}),
        ([], ["a.py", "s/t"], {"b.ts", "s/a.py", "s/node_modules/m.js"}),
        (["**/*.py", "**/*.md"], ["s/t/**"], {"a.py", "s/a.py", "s/n.md"}),
    ):
        assert paths_of(root, include=include, exclude=exclude) == paths, (include, exclude)


def test_gitignore_nested_and_above(root):
    write(root, ".git/config")
    write(root, ".git/hook.py")
    write(root, ".gitignore", "# comment\n*.log.py\nbuild/\n/only_here.py\n")
    write(root, "service/.gitignore", "!keep.log.py\nlocal.py\n")
    for path in (
        "a.log.py",
        "build/b.py",
        "only_here.py",
        "service/only_here.py",
        "service/keep.log.py",
        "service/local.py",
        "service/deep/local.py",
        "service/deep/build/x.py",
        "local.py",
    ):
        write(root, path)
    assert paths_of(root) == {"service/only_here.py", "service/keep.log.py", "local.py"}
    assert paths_of(root / "service") == {"only_here.py", "keep.log.py"}
    assert paths_of(root / "build") == {"b.py"}, (
        "a folder that the settings name is wanted, though it is ignored"
    )


def test_each_skipped_file_has_a_reason(root, monkeypatch):
    write(root, "large.py", "x = 1\n" * 100)
    write(root, "binary.py", b"x = '\0'")
    write(root, "minified.js", "var a=1;" * 2000)
    write(root, "made.go", "// Code generated by protoc-gen-go. DO NOT EDIT.\npackage a\n")
    write(root, "made.py", '"""Of @generated files, and how to edit them."""\n')
    write(
        root,
        "made2.py",
        "#!/usr/bin/env python\n# This file was generated by a tool.\n# Do not edit!\n",
    )
    monkeypatch.setattr(code, "MAX_FILE_BYTES", 20_000)
    paths, reasons, _ = read(source(root))
    assert paths == ["large.py", "made.py"]
    assert {path: reason.split(":")[0] for path, reason in reasons.items()} == dict.fromkeys(
        reasons, "skipped"
    )
    assert reasons.keys() == {"binary.py", "minified.js", "made.go", "made2.py"}
    monkeypatch.setattr(code, "MAX_FILE_BYTES", 300)
    assert read(source(root))[1]["large.py"] == "skipped: it has 600 bytes, more than 300"


def test_links(root, tmp_path):
    write(root, "a/real.py")
    write(tmp_path, "outside/o.py")
    links = {
        "inside.py": "a/real.py",
        "a/loop": "..",
        "out.py": "../outside/o.py",
        "out": "../outside",
        "broken.py": "nothing.py",
        "self.py": "self.py",
        "b": "a",
        "readme": "../outside/o.py",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    paths, reasons, _ = read(source(root))
    assert paths == ["a/real.py"]
    failed = dict.fromkeys(["a/loop", "out.py", "out", "broken.py", "self.py"], "failed")
    assert {path: reason.split(":")[0] for path, reason in reasons.items()} == failed
    assert "it is a link that leaves the root, loops or leads nowhere (to " in reasons["broken.py"]


def test_names_that_are_not_unicode(root):
    write(root, "good.py")
    name = os.fsdecode(b"caf\xe9.py")
    try:
        (root / name).write_text("x = 1")
    except OSError:
        pytest.skip("the file system takes no such names")
    paths, reasons, _ = read(source(root))
    assert (paths, "rename it" in reasons["'caf\\udce9.py'"]) == (["good.py"], True)


def test_files_and_folders_without_permission():
    with tempfile.TemporaryDirectory() as folder:  # other users cannot enter pytest's own folders
        root = Path(folder)
        root.chmod(0o755)
        write(root, "open.py")
        write(root, "shut.py").chmod(0)
        write(root, "folder/known.py")
        (root / "folder").chmod(0)
        opened = source(root)
        opened.use_scan_state(
            KnownStamps("files/1", {'"folder/known.py"': "1", '"folders.py"': "1"})
        )
        user = os.geteuid()
        try:
            os.seteuid(
                65_534 if user == 0 else user
            )  # root may read everything, and that user owns nothing
            paths, reasons, unread = read(opened)
        finally:
            os.seteuid(user)
            (root / "folder").chmod(0o755)
    assert (paths, unread) == (["open.py"], ["folder/known.py"])
    assert "cannot be read" in reasons["shut.py"]
    assert "its documents are kept as they are" in reasons["folder/"]


def test_unchanged_files_stay_unread(root, monkeypatch):
    monkeypatch.setattr("rag_index.components.sources.code.RACY_SECONDS", 0.05)
    write(root, "a.py", "a = 1\n")
    write(root, "b.py", "b = 1\n")
    opened = source(root)
    opened.use_scan_state(KnownStamps())
    assert read(opened) == (["a.py", "b.py"], {}, [])
    time.sleep(0.1)
    stamps = opened.page(None, 10).stamps
    assert stamps.keys() == {'"a.py"', '"b.py"'}
    write(root, "b.py", "b = 2\n")
    state = KnownStamps("files/1", stamps)
    opened.use_scan_state(state)
    assert (read(opened), state.following) == ((["b.py"], {}, ["a.py"]), "files/1")


def test_a_file_that_changed_just_now_has_no_stamp_and_one_that_grew_after_the_listing_is_not_cut(
    root, monkeypatch
):
    """It may change again within the same time, and its size and time would not show that."""
    young = write(root, "young.py", at=time.time() + 3600)
    monkeypatch.setattr(code, "MAX_FILE_BYTES", 1000)
    opened = source(root)
    assert (opened.page(None, 10).stamps, opened.count()) == ({}, 1)
    young.write_text("x = 1\n" * 1000)
    [failure] = opened.page(None, 10).unreadable
    assert (failure.kind, failure.reason) == ("skipped", "it has 6,000 bytes, more than 1,000")


def test_a_root_that_does_not_exist_and_a_pattern_that_is_not_valid(root):
    missing = source(root / "nothing")
    with pytest.raises(SettingsError, match=r"root .*nothing is not a folder"):
        missing.check()
    with pytest.raises(SourceUnavailable, match="cannot be read"):
        missing.page(None, 10)
    with pytest.raises(SettingsError, match="correct the pattern"):
        source(root, include=["a\\"]).page(None, 10)


def test_ignore_files_leave_in_what_git_leaves_in(tmp_path):
    chance = random.Random(1)
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    folders = ["", "doc/", "doc/a/", "a/b/", "b/doc/a/"]
    for folder, name in itertools.product(folders, ["in.py", "x.py", "!n.py", "1.py", "b c.py"]):
        write(tmp_path, folder + name)
    for _ in range(120):
        for folder in folders:
            count = chance.randint(0, 3)
            lines = [
                "/".join(chance.choices(PARTS, k=chance.choice([1, 1, 2, 3]))) for _ in range(count)
            ]
            starts, ends = ["", "", "!", "/", "!/"], ["", "", "/", "/**", " ", "\r"]
            lines = [chance.choice(starts) + line + chance.choice(ends) for line in lines]
            text = chance.choice(["", "\ufeff"]) + "\n".join(
                [*chance.choice([[], ["*", "!*/", "!*.py"]]), *lines]
            )
            (tmp_path / folder / ".gitignore").write_text(text, newline="")
        command = ["git", "ls-files", "-z", "-o", "--exclude-standard"]
        listed = subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.split("\0")
        wanted = {path for path in listed if path.endswith(".py")}
        assert {file.path for file in list_files(tmp_path, [], []).files} == wanted


def test_a_folder_that_became_a_link_after_the_listing_is_not_followed(root, tmp_path):
    write(tmp_path, "private/a.py", "SECRET = 1\n")
    write(root, "inner/a.py")
    code = source(root)
    assert code.count() == 1
    (root / "inner").rename(root / "old")
    (root / "inner").symlink_to(tmp_path / "private")
    page = code.page(None, 10)
    assert (page.documents.texts, "cannot be read" in page.unreadable[0].reason) == ([], True)


@pytest.mark.parametrize("kind", ["pipe", "device", "link"])
def test_an_ignore_file_that_is_no_ordinary_file_is_not_read(tmp_path, kind):
    write(tmp_path, "a.py")
    write(tmp_path, "rules", "*.py\n")
    ignore = tmp_path / ".gitignore"
    os.mkfifo(ignore) if kind == "pipe" else ignore.symlink_to(
        "/dev/zero" if kind == "device" else tmp_path / "rules"
    )
    assert [file.path for file in list_files(tmp_path, [], []).files] == ["a.py"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("foreign", [".git", ".gitignore"])
def test_a_repository_of_somebody_else_above_the_root_does_not_count(tmp_path, foreign):
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    write(tmp_path, ".gitignore", "*.py\n")
    write(tmp_path, "src/a.py")
    assert not list_files(tmp_path / "src", [], []).files
    os.chown(tmp_path / foreign, 12345, 12345)
    assert [file.path for file in list_files(tmp_path / "src", [], []).files] == ["a.py"]
