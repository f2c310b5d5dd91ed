"""The files below a folder. It respects .gitignore, anchors patterns at the folder, and does not follow links."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rag_index.chunking.code.languages import HEADER, MISSING, TEXT, Neighbours, language_of
from rag_index.documents.batches import Failure
from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError, SourceUnavailable

GIT = ".git"
IGNORE = ".gitignore"
_MEANS_SOMETHING = re.compile(r"([\\*?\[\]])")
"""What a pattern does not take for itself."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as the folder lists it, before it is opened."""

    path: str
    """The path from the root, with /."""
    language: str
    """The language by its name; of a header, that of the sources nearest to it."""
    size: int
    changed_at: float
    times: str
    """The size and the times of the file, as text."""
    is_header: bool = False
    """Whether it may be C or C++, which its content decides."""

    @property
    def stamp(self) -> str:
        """What says that the content is as before, if it is as before."""
        return f"{self.times}/{self.language}"


@dataclass(slots=True)
class Listing:
    """All files of a folder at one time, in the order in which they are to be read."""

    listed_at: float = field(default_factory=time.time)
    files: list[File] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Links, names and folders that cannot be read."""
    folders: list[str] = field(default_factory=list)
    """Paths from the root, with / at the end, of the folders that were listed; "" is the root."""
    unreadable_folders: list[str] = field(default_factory=list)
    """Paths from the root, with / at the end, of folders that cannot be listed."""

    def __len__(self) -> int:
        return len(self.files) + len(self.failures)


def list_files(
    root: Path, include: Sequence[str], exclude: Sequence[str], languages: Mapping[str, str] | None = None
) -> Listing:
    """Return the files below `root` that are included, by language, the largest first.

    `languages` are the languages of files by the end of their names, where they differ from `language_of`. Raises
    SourceUnavailable if the folder itself cannot be read, and SettingsError if a pattern is not valid, or pathspec is
    not installed.
    """
    return _Walk(root, include, exclude, languages or {}).listing()


class _Walk:
    def __init__(
        self, root: Path, include: Sequence[str], exclude: Sequence[str], languages: Mapping[str, str]
    ) -> None:
        self._root = root
        self._include, self._exclude = (
            _patterns(f"/{line.removeprefix('/')}" for line in lines) for lines in (include, exclude)
        )
        self._languages = languages
        self._neighbours = Neighbours()
        self._listing = Listing()
        self._top, ignored = _ignored_above(root.absolute())
        """The path to the root, with / at the end, from the top of the repository around it."""
        self._waiting: list[tuple[str, Any]] = [("", ignored)]
        """Folders, each with the patterns of the ignore files above it, of which the last one that fits decides."""

    def listing(self) -> Listing:
        """Walk through the folders and return what was found."""
        while self._waiting:
            folder, ignored = self._waiting.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    listed = list(entries)
            except OSError as exc:
                if not folder:
                    message = f"{self._root} cannot be read: {exc.strerror}; check that it exists"
                    raise SourceUnavailable(message) from exc
                if not isinstance(exc, FileNotFoundError):
                    self._fail(folder, f"the folder cannot be read: {exc.strerror}; its documents are kept as they are")
                    self._listing.unreadable_folders.append(folder)
                continue
            self._listing.folders.append(folder)
            if any(entry.name == IGNORE for entry in listed):
                ignored = ignored + _read_ignore_file(self._root / folder / IGNORE, self._top + folder)
            for entry in listed:
                try:
                    self._visit(entry, folder + entry.name, ignored)
                except FileNotFoundError:  # deleted after the folder was listed
                    continue
                except OSError as exc:
                    self._fail(folder + entry.name, f"it cannot be read: {exc.strerror}")
        for number, file in enumerate(self._listing.files):
            if HEADER not in self._languages and file.path.lower().endswith(HEADER):
                language = self._neighbours.guess(file.path)
                self._listing.files[number] = replace(file, language=language, is_header=True)
        self._listing.files.sort(key=lambda file: (file.language, -file.size, file.path))
        self._listing.failures.sort(key=lambda failure: failure.key)
        return self._listing

    def _visit(self, entry: os.DirEntry[str], path: str, ignored: Any) -> None:
        if entry.is_symlink():
            self._visit_link(path, ignored)
        elif entry.is_dir(follow_symlinks=False):
            if entry.name != GIT and not self._is_excluded(f"{path}/", ignored):
                self._waiting.append((f"{path}/", ignored))
        elif entry.is_file(follow_symlinks=False):
            self._neighbours.add(path)
            if not (language := self._included_language(path, ignored)):
                return
            if path.isprintable() or _is_unicode(path):
                stat = entry.stat(follow_symlinks=False)
                times = f"{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}"
                changed_at = max(stat.st_mtime, stat.st_ctime)
                self._listing.files.append(File(path, language, stat.st_size, changed_at, times))
            else:
                self._fail(path, "its name is not valid Unicode; rename it")

    def _included_language(self, path: str, ignored: Any) -> str:
        language = language_of(path, self._languages)
        included = self._include.check_file(path).include if len(self._include) else language != TEXT
        return language if included and not self._is_excluded(path, ignored) else ""

    def _is_excluded(self, path: str, ignored: Any) -> bool:
        return bool(self._exclude.check_file(path).include or ignored.check_file(self._top + path).include)

    def _visit_link(self, path: str, ignored: Any) -> None:
        """Skip a link to something within the root, which is indexed under its own path; other links are failures."""
        link = self._root / path
        target, root = Path(os.path.realpath(link)), os.path.realpath(self._root)
        if self._is_excluded(f"{path}/", ignored) if target.is_dir() else not self._included_language(path, ignored):
            return
        loops = Path(os.path.realpath(link.parent)).is_relative_to(target)
        if loops or not target.exists() or not target.is_relative_to(root):
            self._fail(path, f"it is a link that leaves the root, loops or leads nowhere (to {target}); exclude it")

    def _fail(self, path: str, reason: str) -> None:
        name = path if _is_unicode(path) else ascii(path)
        self._listing.failures.append(Failure(encode_key([name]), reason))


def _is_unicode(path: str) -> bool:
    return path.encode(errors="ignore").decode() == path


def _patterns(lines: Iterable[str]) -> Any:
    try:
        from pathspec import GitIgnoreSpec
    except ImportError as exc:
        raise SettingsError(MISSING.format(name="pathspec")) from exc
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as exc:
        raise SettingsError(f"{exc}; correct the pattern") from exc


def _ignored_above(root: Path) -> tuple[str, Any]:
    """Return the path to the root from the top of its repository, and the patterns of the ignore files above it.

    There are none if they exclude the root itself: whoever names it in the settings wants it.
    """
    top = next((folder for folder in (root, *root.parents) if (folder / GIT).exists()), root)
    above = [""]
    for part in root.relative_to(top).parts:
        above.append(f"{above[-1]}{part}/")
    found = _read_ignore_file(top / GIT / "info" / "exclude", "")
    for folder in above[:-1]:
        found += _read_ignore_file(top / folder / IGNORE, folder)
    return above[-1], _patterns([]) if any(found.check_file(folder).include for folder in above[1:]) else found


def _read_ignore_file(path: Path, folder: str) -> Any:
    """Return the patterns of an ignore file for paths from the top of the repository, where `folder` begins."""
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    prefix = "/" + _MEANS_SOMETHING.sub(r"\\\1", folder)
    found = []
    for line in lines:
        if line.strip() and not line.startswith("#"):
            sign, pattern = ("!", line[1:]) if line.startswith("!") else ("", line)
            anywhere = "" if "/" in pattern.strip().rstrip("/") else "**/"
            found.append(f"{sign}{prefix}{anywhere}{pattern.removeprefix('/')}")
    return _patterns(found)
