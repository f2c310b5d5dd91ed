"""The files below a folder. It respects .gitignore, anchors patterns at the folder, and does not follow links."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.chunking.code.headers import Neighbours
from rag_index.chunking.code.languages import HEADER, MISSING, TEXT, language_of
from rag_index.documents.batches import Failure
from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

GIT = ".git"
IGNORE = ".gitignore"


@dataclass(frozen=True, slots=True)
class File:
    """A file as the folder lists it, before it is opened."""

    path: str
    """The path from the root, with /."""
    language: str
    """The language by its name; of a header, that of the sources nearest to it."""
    size: int
    is_header: bool = False
    """Whether it may be C or C++, which its content decides."""


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


class Patterns:
    """Patterns as in a .gitignore, all from the same folder."""

    def __init__(self, lines: Iterable[str], *, anchored: bool) -> None:
        try:
            from pathspec import GitIgnoreSpec
        except ImportError as exc:
            raise SettingsError(MISSING.format(name="pathspec")) from exc
        self._lines = [f"/{line.removeprefix('/')}" for line in lines] if anchored else list(lines)
        try:
            self._spec: Any = GitIgnoreSpec.from_lines(self._lines)
        except ValueError as exc:
            raise SettingsError(f"{exc}; correct the pattern") from exc

    def __bool__(self) -> bool:
        return bool(self._lines)

    def match(self, path: str) -> bool | None:
        """Return whether the patterns include a path (with / at the end for a folder); None if they do not decide."""
        included: bool | None = self._spec.check_file(path).include
        return included


@dataclass(frozen=True, slots=True)
class _IgnoreFile:
    """The patterns of one .gitignore, and the folder that they apply to (from the root, with / at the end)."""

    folder: str
    patterns: Patterns
    above: str = ""
    """The path to the root, with / at the end, from the folder of a .gitignore that is above the root."""

    def match(self, path: str) -> bool | None:
        """Return what the patterns say of a path from the root; None if they do not decide."""
        return self.patterns.match(self.above + path.removeprefix(self.folder))


def list_files(
    root: Path, include: Sequence[str], exclude: Sequence[str], languages: Mapping[str, str] | None = None
) -> Listing:
    """Return the files below `root` that are included, by language, the largest first.

    `languages` are the languages of files by the end of their names, where they differ from `language_of`.

    Raises:
        SourceUnavailable: the folder itself cannot be read.
        SettingsError: a pattern is not valid, or pathspec is not installed.
    """
    return _Walk(root, Patterns(include, anchored=True), Patterns(exclude, anchored=True), languages or {}).listing()


class _Walk:
    """A walk through all folders below a root."""

    def __init__(self, root: Path, include: Patterns, exclude: Patterns, languages: Mapping[str, str]) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._include = include
        self._exclude = exclude
        self._languages = languages
        self._neighbours = Neighbours()
        self._listing = Listing()

    def listing(self) -> Listing:
        """Walk through the folders and return what was found."""
        waiting: list[tuple[str, list[_IgnoreFile]]] = [("", _ignore_files_above(self._root))]
        while waiting:
            folder, ignore_files = waiting.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    listed = list(entries)
            except OSError as exc:
                self._fail_folder(folder, exc)
                continue
            self._listing.folders.append(folder)
            if any(entry.name == IGNORE for entry in listed):
                ignore_files = [*ignore_files, *_read_ignore_file(self._root / folder / IGNORE, folder)]
            for entry in listed:
                self._visit(entry, folder, ignore_files, waiting)
        self._listing.files = [self._with_language(file) for file in self._listing.files]
        self._listing.files.sort(key=lambda file: (file.language, -file.size, file.path))
        self._listing.failures.sort(key=lambda failure: failure.key)
        return self._listing

    def _visit(
        self,
        entry: os.DirEntry[str],
        folder: str,
        ignore_files: list[_IgnoreFile],
        waiting: list[tuple[str, list[_IgnoreFile]]],
    ) -> None:
        path = folder + entry.name
        try:
            if entry.is_symlink():
                self._visit_link(path, ignore_files)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name != GIT and not self._is_excluded(f"{path}/", ignore_files):
                    waiting.append((f"{path}/", ignore_files))
            elif entry.is_file(follow_symlinks=False):
                self._neighbours.add(path)
                if not (language := self._included_language(path, ignore_files)):
                    return
                size = entry.stat(follow_symlinks=False).st_size
                if path.isprintable() or _is_unicode(path):
                    self._listing.files.append(File(path, language, size))
                else:
                    self._fail(ascii(path), "its name is not valid Unicode; rename it")
        except FileNotFoundError:  # deleted after the folder was listed
            return
        except OSError as exc:
            self._fail(path, f"it cannot be read: {exc.strerror}")

    def _with_language(self, file: File) -> File:
        """Return a header with the language of the sources nearest to it; any other file as it is."""
        if HEADER in self._languages or not file.path.lower().endswith(HEADER):
            return file
        return replace(file, language=self._neighbours.guess(file.path), is_header=True)

    def _included_language(self, path: str, ignore_files: list[_IgnoreFile]) -> str:
        """Return the language of a file that is included; "" for other files."""
        language = language_of(path, self._languages)
        included = self._include.match(path) if self._include else language != TEXT
        return language if included and not self._is_excluded(path, ignore_files) else ""

    def _is_excluded(self, path: str, ignore_files: list[_IgnoreFile]) -> bool:
        if self._exclude and self._exclude.match(path):
            return True
        for ignore_file in reversed(ignore_files):  # the nearest .gitignore decides
            if (ignored := ignore_file.match(path)) is not None:
                return ignored
        return False

    def _visit_link(self, path: str, ignore_files: list[_IgnoreFile]) -> None:
        """Skip a link to a file within the root, which is indexed under its own path; other links are failures."""
        full = self._root / path
        target = os.path.realpath(full)
        is_folder = Path(target).is_dir()
        if (
            self._is_excluded(f"{path}/", ignore_files)
            if is_folder
            else not self._included_language(path, ignore_files)
        ):
            return
        within = target == self._real_root or target.startswith(self._real_root + os.sep)
        parent = os.path.realpath(full.parent)
        if is_folder and within and (parent == target or parent.startswith(target + os.sep)):
            self._fail(path, f"it is a link that loops: it leads to {target}, a folder around it; exclude it")
        elif not Path(target).exists():
            problem = "loops" if Path(target).is_symlink() else f"leads to {target}, which does not exist"
            self._fail(path, f"it is a link that {problem}; remove or exclude it")
        elif not within:
            self._fail(
                path, f"it is a link that leaves the root: it leads to {target}; exclude it, or index that folder"
            )

    def _fail_folder(self, folder: str, exc: OSError) -> None:
        if not folder:
            raise SourceUnavailable(f"{self._root} cannot be read: {exc.strerror}; check that it exists") from exc
        if not isinstance(exc, FileNotFoundError):
            self._fail(folder, f"the folder cannot be read: {exc.strerror}; its documents are kept as they are")
            self._listing.unreadable_folders.append(folder)

    def _fail(self, path: str, reason: str) -> None:
        name = path if _is_unicode(path) else ascii(path)
        self._listing.failures.append(Failure(encode_key([name]), reason))


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ignore_files_above(root: Path) -> list[_IgnoreFile]:
    """Return the ignore files of the repository around the root, from its top down to the folder above the root.

    Returns none if they exclude the root itself: whoever names it in the settings wants it.
    """
    absolute = root.absolute()
    top = next((folder for folder in (absolute, *absolute.parents) if (folder / GIT).exists()), absolute)
    parts = absolute.relative_to(top).parts
    found = _read_ignore_file(top / GIT / "info" / "exclude", "", "".join(f"{part}/" for part in parts))
    for depth in range(len(parts)):
        above = "".join(f"{part}/" for part in parts[depth:])
        patterns = _read_ignore_file(top.joinpath(*parts[:depth]) / IGNORE, "", above)
        found += patterns
        if any(
            ignore_file.patterns.match("/".join(parts[depth:end]) + "/")
            for ignore_file in patterns
            for end in range(depth + 1, len(parts) + 1)
        ):
            return []
    return found


def _read_ignore_file(path: Path, folder: str, above: str = "") -> list[_IgnoreFile]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    patterns = Patterns([line for line in lines if line.strip() and not line.startswith("#")], anchored=False)
    return [_IgnoreFile(folder, patterns, above)] if patterns else []
