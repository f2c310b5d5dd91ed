"""The files below a folder: .gitignore respected, patterns anchored at the folder, links not followed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.chunking.code.languages import MISSING, TEXT, language_of
from rag_index.documents.batches import Failure
from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["File", "Listing", "Patterns", "list_files"]

GIT = ".git"
IGNORE = ".gitignore"


@dataclass(frozen=True, slots=True)
class File:
    """A file as the folder lists it; it was not opened."""

    path: str
    """From the root, with /."""
    language: str
    size: int


@dataclass(slots=True)
class Listing:
    """All files of a folder as they were at one time, in the order in which they are read."""

    at: float = field(default_factory=time.time)
    files: list[File] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Links and names that cannot be read."""
    closed: list[str] = field(default_factory=list)
    """Folders that cannot be looked into, from the root, with / at their end."""

    def __len__(self) -> int:
        return len(self.files) + len(self.failures)


class Patterns:
    """Patterns as in a .gitignore, all of them from one folder."""

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

    def says(self, path: str) -> bool | None:
        """Whether the path (a folder's ends with /) is among them; None where no pattern says so or otherwise."""
        found: bool | None = self._spec.check_file(path).include
        return found


@dataclass(frozen=True, slots=True)
class _Ignored:
    """The patterns of one .gitignore, and the folder that they are for (from the root, with / at its end)."""

    folder: str
    patterns: Patterns
    above: str = ""
    """Where the .gitignore lies above the root: the way from there to the root, with / at its end."""

    def says(self, path: str) -> bool | None:
        return self.patterns.says(self.above + path.removeprefix(self.folder))


def list_files(root: Path, include: Sequence[str], exclude: Sequence[str]) -> Listing:
    """The files below `root` that are included, by language, the largest first.

    Raises:
        SourceUnavailable: the folder itself cannot be read.
        SettingsError: a pattern is none, or pathspec is not installed.
    """
    return _Walk(root, Patterns(include, anchored=True), Patterns(exclude, anchored=True)).listing()


class _Walk:
    """One walk through all folders."""

    def __init__(self, root: Path, include: Patterns, exclude: Patterns) -> None:
        self._root = root
        self._real = os.path.realpath(root)
        self._include = include
        self._exclude = exclude
        self._found = Listing()

    def listing(self) -> Listing:
        """As `list_files`."""
        waiting: list[tuple[str, list[_Ignored]]] = [("", _above(self._root))]
        while waiting:
            folder, ignored = waiting.pop()
            try:
                with os.scandir(self._root / folder) as entries:
                    there = list(entries)
            except OSError as exc:
                self._closed(folder, exc)
                continue
            if any(entry.name == IGNORE for entry in there):
                ignored = [*ignored, *_read_ignored(self._root / folder / IGNORE, folder)]
            for entry in there:
                self._entry(entry, folder, ignored, waiting)
        self._found.files.sort(key=lambda file: (file.language, -file.size, file.path))
        self._found.failures.sort(key=lambda failure: failure.key)
        return self._found

    def _entry(
        self, entry: os.DirEntry[str], folder: str, ignored: list[_Ignored], waiting: list[tuple[str, list[_Ignored]]]
    ) -> None:
        path = folder + entry.name
        try:
            if entry.is_symlink():
                self._link(path, ignored)
            elif entry.is_dir(follow_symlinks=False):
                if entry.name != GIT and not self._left_out(f"{path}/", ignored):
                    waiting.append((f"{path}/", ignored))
            elif entry.is_file(follow_symlinks=False) and (language := self._wanted(path, ignored)):
                size = entry.stat(follow_symlinks=False).st_size
                if path.isprintable() or _is_unicode(path):
                    self._found.files.append(File(path, language, size))
                else:
                    self._failed(ascii(path), "its name is not valid Unicode; rename it")
        except FileNotFoundError:  # gone since the folder was listed
            return
        except OSError as exc:
            self._failed(path, f"it cannot be read: {exc.strerror}")

    def _wanted(self, path: str, ignored: list[_Ignored]) -> str:
        """The language of a file that is to be indexed; nothing for others."""
        language = language_of(path)
        included = self._include.says(path) if self._include else language != TEXT
        return language if included and not self._left_out(path, ignored) else ""

    def _left_out(self, path: str, ignored: list[_Ignored]) -> bool:
        if self._exclude and self._exclude.says(path):
            return True
        for one in reversed(ignored):  # the nearest .gitignore has the last word
            if (said := one.says(path)) is not None:
                return said
        return False

    def _link(self, path: str, ignored: list[_Ignored]) -> None:
        """A link to what is within the root is left: it is indexed under its own path. Others cannot be followed."""
        full = self._root / path
        leads = os.path.realpath(full)
        is_folder = Path(leads).is_dir()
        if self._left_out(f"{path}/", ignored) if is_folder else not self._wanted(path, ignored):
            return
        within = leads == self._real or leads.startswith(self._real + os.sep)
        holder = os.path.realpath(full.parent)
        if is_folder and within and (holder == leads or holder.startswith(leads + os.sep)):
            self._failed(path, f"a link that loops: it leads to {leads}, which it lies in; exclude it")
        elif not Path(leads).exists():
            why = "loops" if Path(leads).is_symlink() else f"leads to {leads}, which is not there"
            self._failed(path, f"a link that {why}; remove or exclude it")
        elif not within:
            self._failed(path, f"a link that leaves the root: it leads to {leads}; exclude it, or index that folder")

    def _closed(self, folder: str, exc: OSError) -> None:
        if not folder:
            raise SourceUnavailable(f"{self._root} cannot be read: {exc.strerror}; see that it is there") from exc
        if not isinstance(exc, FileNotFoundError):
            self._failed(folder, f"the folder cannot be read: {exc.strerror}; what is known of it is kept")
            self._found.closed.append(folder)

    def _failed(self, path: str, reason: str) -> None:
        name = path if _is_unicode(path) else ascii(path)
        self._found.failures.append(Failure(encode_key([name]), reason))


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _above(root: Path) -> list[_Ignored]:
    """What a repository says that the root lies in: its own .gitignore files from its top down to above the root.

    Nothing where they leave out the root itself: who names it wants it.
    """
    absolute = root.absolute()
    top = next((folder for folder in (absolute, *absolute.parents) if (folder / GIT).exists()), absolute)
    way = absolute.relative_to(top).parts
    found = _read_ignored(top / GIT / "info" / "exclude", "", "".join(f"{part}/" for part in way))
    for depth in range(len(way)):
        above = "".join(f"{part}/" for part in way[depth:])
        patterns = _read_ignored(top.joinpath(*way[:depth]) / IGNORE, "", above)
        found += patterns
        if any(
            one.patterns.says("/".join(way[depth:end]) + "/")
            for one in patterns
            for end in range(depth + 1, len(way) + 1)
        ):
            return []
    return found


def _read_ignored(path: Path, folder: str, above: str = "") -> list[_Ignored]:
    try:
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    patterns = Patterns([line for line in lines if line.strip() and not line.startswith("#")], anchored=False)
    return [_Ignored(folder, patterns, above)] if patterns else []
