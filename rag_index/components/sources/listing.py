"""The files below a folder. It respects .gitignore, anchors patterns at the folder, and does not
follow links."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from rag_index.components.chunking.code.languages import C_HEADER, TEXT, language_of
from rag_index.core.documents.batches import Failure
from rag_index.core.documents.keys import encode_key
from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import SettingsError, SourceUnavailable

GIT = ".git"
IGNORE = ".gitignore"
MAX_IGNORE_BYTES, MAX_PATH = 16_000_000, 4096
_BRACKET = rb"\[(?P<negated>[!^]?)(?P<members>\]?(?:\[:[^\]\[:]*+:\]|\\.|[^\]\\])*+)\]"
_PART = re.compile(rb"((?:\\.|" + _BRACKET + rb"|[^/])*+)(?:/|\Z)", re.DOTALL)
_SIGN = re.compile(
    rb"(?P<stars>\*+)|(?P<one>\?)|" + _BRACKET + rb"|\\(?P<quoted>.)|(?P<plain>[^\\\[])", re.DOTALL
)


@shows_sizes("language", "size")
@dataclass(frozen=True, slots=True)
class File:
    """A file as the folder lists it, before it is opened."""

    path: str
    """The path from the root, with /."""
    language: str
    """The language by its name; of a header, C if all sources of C and C++ below the root are of C,
    else C++."""
    size: int
    changed_at: float
    times: str
    """The size and the times of the file, as text."""

    @property
    def stamp(self) -> str:
        """What says that the content is as before, if it is as before."""
        return f"{self.times}/{self.language}"


@shows_sizes()
@dataclass(slots=True)
class Listing:
    """All files of a folder at one time, in the order in which they are to be read."""

    listed_at: float = field(default_factory=time.time)
    files: list[File] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    """Links, names and folders that cannot be read."""
    unreadable_folders: list[str] = field(default_factory=list)
    """Paths from the root, with / at the end, of folders that cannot be listed."""

    def __len__(self) -> int:
        return len(self.files) + len(self.failures)


def open_file(name: str, folder: int, flags: int = 0) -> int:
    """Return the descriptor of a file, or with O_DIRECTORY of a folder, in an open folder. No link
    is followed. Raises OSError if it is a link on the last step, or neither of the two, such as a
    pipe."""
    opened = os.open(
        name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=folder
    )
    if not flags & os.O_DIRECTORY and not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise OSError(errno.EINVAL, "it is no ordinary file")
    return opened


@contextmanager
def open_below(root: Path, folder: str) -> Iterator[int]:
    """Open a folder below a root by its path from there, with / at the end, step by step without
    following links."""
    opened = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in folder.split("/")[:-1]:
            inner = open_file(name, opened, os.O_DIRECTORY)
            os.close(opened)
            opened = inner
        yield opened
    finally:
        os.close(opened)


def list_files(
    root: Path,
    include: Sequence[str],
    exclude: Sequence[str],
    languages: Mapping[str, str] | None = None,
) -> Listing:
    """Return the files below `root` that are included, by language, the largest first. `languages`
    are the languages of files by the end of their names, where they differ from `language_of`.
    Raises SourceUnavailable if the folder itself cannot be read, and SettingsError if a pattern is
    not valid."""
    return _Walk(root, include, exclude, languages or {}).listing()


class _Walk:
    def __init__(
        self,
        root: Path,
        include: Sequence[str],
        exclude: Sequence[str],
        languages: Mapping[str, str],
    ) -> None:
        self._root = root
        self._include, self._exclude = _patterns(include), _patterns(exclude)
        self._languages = languages
        self._sources: set[str] = set()
        """The languages of the sources that are no headers."""
        self._listing = Listing()
        self._top, ignored = _ignored_above(root.absolute())
        """The path to the root, with / at the end, from the top of the repository around it."""
        self._waiting: list[tuple[str, tuple[Rule, ...]]] = [("", ignored)]
        """Folders, each with the rules of the ignore files above it. The last rule that fits
        decides."""

    def listing(self) -> Listing:
        """Walk through the folders and return what was found."""
        while self._waiting:
            folder, ignored = self._waiting.pop()
            try:
                with open_below(self._root, folder) as opened:
                    self._visit_all(opened, folder, ignored)
            except OSError as exc:
                if not folder:
                    message = f"{self._root} cannot be read: {exc.strerror}; check that it exists"
                    raise SourceUnavailable(message) from exc
                if not isinstance(exc, FileNotFoundError):
                    self._fail(
                        folder,
                        f"the folder cannot be read: {exc.strerror}; its documents are kept as"
                        " they are",
                    )
                    self._listing.unreadable_folders.append(folder)
        if C_HEADER not in self._languages and not (
            "c" in self._sources and "cpp" not in self._sources
        ):
            self._listing.files = [
                replace(file, language="cpp") if file.path.lower().endswith(C_HEADER) else file
                for file in self._listing.files
            ]
        self._listing.files.sort(key=lambda file: (file.language, -file.size, file.path))
        self._listing.failures.sort(key=lambda failure: failure.key)
        return self._listing

    def _visit_all(self, opened: int, folder: str, ignored: tuple[Rule, ...]) -> None:
        with os.scandir(opened) as entries:
            listed = list(entries)
        if any(entry.name == IGNORE for entry in listed):
            ignored += _read_ignore_file(opened, IGNORE, self._top + folder)
        for entry in listed:
            try:
                self._visit(entry, folder + entry.name, ignored)
            except FileNotFoundError:  # deleted after the folder was listed
                continue
            except OSError as exc:
                self._fail(folder + entry.name, f"it cannot be read: {exc.strerror}")

    def _visit(self, entry: os.DirEntry[str], path: str, ignored: tuple[Rule, ...]) -> None:
        if entry.is_symlink():
            self._visit_link(path, ignored)
        elif entry.is_dir(follow_symlinks=False):
            if entry.name != GIT and not self._is_excluded(f"{path}/", ignored):
                self._waiting.append((f"{path}/", ignored))
        elif entry.is_file(follow_symlinks=False):
            if not path.lower().endswith(C_HEADER):
                self._sources.add(language_of(path))
            if not (language := self._included_language(path, ignored)):
                return
            if path.isprintable() or _is_unicode(path):
                found = entry.stat(follow_symlinks=False)
                times = f"{found.st_size}/{found.st_mtime_ns}/{found.st_ctime_ns}"
                changed_at = max(found.st_mtime, found.st_ctime)
                self._listing.files.append(File(path, language, found.st_size, changed_at, times))
            else:
                self._fail(path, "its name is not valid Unicode; rename it")

    def _included_language(self, path: str, ignored: tuple[Rule, ...]) -> str:
        language = language_of(path, self._languages)
        above = (path[: end.start()] for end in re.finditer("/", path))
        included = (
            any(is_ignored(one, self._include) for one in (path, *above))
            if self._include
            else language != TEXT
        )
        return language if included and not self._is_excluded(path, ignored) else ""

    def _is_excluded(self, path: str, ignored: tuple[Rule, ...]) -> bool:
        return is_ignored(path, self._exclude) or is_ignored(self._top + path, ignored)

    def _visit_link(self, path: str, ignored: tuple[Rule, ...]) -> None:
        """Skip a link to something within the root, which is indexed under its own path; other
        links are failures."""
        link = self._root / path
        target, root = Path(os.path.realpath(link)), os.path.realpath(self._root)
        if (
            self._is_excluded(f"{path}/", ignored)
            if target.is_dir()
            else not self._included_language(path, ignored)
        ):
            return
        loops = Path(os.path.realpath(link.parent)).is_relative_to(target)
        if loops or not target.exists() or not target.is_relative_to(root):
            self._fail(
                path,
                f"it is a link that leaves the root, loops or leads nowhere (to {target});"
                " exclude it",
            )

    def _fail(self, path: str, reason: str) -> None:
        name = path if _is_unicode(path) else ascii(path)
        self._listing.failures.append(Failure(encode_key([name]), reason))


def _is_unicode(path: str) -> bool:
    return path.encode(errors="ignore").decode() == path


def _patterns(lines: Iterable[str]) -> tuple[Rule, ...]:
    found = {line: _read_rule(os.fsencode(f"/{line.removeprefix('/')}"), b"") for line in lines}
    for line in (line for line, rule in found.items() if rule is None):
        raise SettingsError(
            f"no file fits the pattern {line!r} of include or exclude; correct the pattern"
        )
    return tuple(filter(None, found.values()))


def _ignored_above(root: Path) -> tuple[str, tuple[Rule, ...]]:
    """Return the path to the root from the top of its repository, and the rules of the ignore files
    above it. Only a repository counts that belongs to this user, to the owner of the root, or to
    the system: others could empty an index. There are no rules if they exclude the root itself: the
    settings name it on purpose."""
    owners = {0, os.geteuid(), root.stat().st_uid} if root.exists() else set[int]()
    top = next((folder for folder in (root, *root.parents) if os.path.lexists(folder / GIT)), root)
    below = [top / part for part in (GIT, ".", *root.relative_to(top).parts[:-1])]
    if any(os.path.lexists(one) and one.lstat().st_uid not in owners for one in below):
        return "", ()
    above = [""]
    for part in root.relative_to(top).parts:
        above.append(f"{above[-1]}{part}/")
    found: tuple[Rule, ...] = ()
    for folder, name in [("", f"{GIT}/info/exclude"), *((folder, IGNORE) for folder in above[:-1])]:
        with suppress(OSError), open_below(top, folder) as opened:
            found += _read_ignore_file(opened, name, folder, owners)
    return above[-1], () if any(is_ignored(folder, found) for folder in above[1:]) else found


def _read_ignore_file(
    folder: int, name: str, path: str, owners: Container[int] | None = None
) -> tuple[Rule, ...]:
    """Return the rules of an ignore file of an open folder, which has this path, with / at the end,
    from the top. There are none if it is no ordinary file, as with git, has more than
    `MAX_IGNORE_BYTES`, or is not of the `owners`."""
    try:
        with os.fdopen(open_file(name, folder), "rb") as file:
            data = file.read(MAX_IGNORE_BYTES + 1)
            is_ours = owners is None or os.fstat(file.fileno()).st_uid in owners
    except OSError:
        return ()
    if len(data) > MAX_IGNORE_BYTES or not is_ours:
        return ()
    lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return tuple(
        rule for line in lines if (rule := _read_rule(line.removesuffix(b"\r"), os.fsencode(path)))
    )


class Rule(NamedTuple):
    """A line of an ignore file. The last rule that fits a path, or a folder on the way to it,
    decides."""

    ignores: bool
    folders_only: bool
    pattern: re.Pattern[bytes]
    """What fits the whole path from the top of the repository."""


def is_ignored(path: str, rules: Sequence[Rule]) -> bool:
    """Return whether rules leave out a path from the top, with / at the end if it is a folder, by
    itself."""
    encoded = os.fsencode(path)
    name = encoded.removesuffix(b"/")
    for rule in reversed(rules):
        if (name != encoded or not rule.folders_only) and rule.pattern.fullmatch(name):
            return rule.ignores
    return False


def _read_rule(line: bytes, folder: bytes) -> Rule | None:
    if not line or line.startswith(b"#") or len(line) > MAX_PATH:
        return None
    negated, line = line.startswith(b"!"), line.removeprefix(b"!")
    kept = line.rstrip(b" ")
    if len(kept) < len(line) and (len(kept) - len(kept.rstrip(b"\\"))) % 2:
        kept += b" "  # a space after a backslash belongs to the name
    pattern = kept.removesuffix(b"/")
    parts = [one[1] for one in _PART.finditer(pattern.removeprefix(b"/"))][:-1]
    if b"/" not in pattern:
        parts = [b"**", re.sub(rb"\*\*+", b"*", pattern)]
    try:
        return Rule(
            not negated,
            kept != pattern,
            re.compile(re.escape(folder) + _expression(parts), re.DOTALL),
        )
    except (ValueError, re.error):  # such a pattern fits nothing
        return None


def _expression(parts: Sequence[bytes]) -> bytes:
    """Return the expression of a pattern's parts. Raises ValueError for a pattern that fits
    nothing. What follows a star is taken once, as far left as it fits: nothing is tried twice, and
    nothing is missed."""
    groups = [b""]
    """What stands between the parts that are two stars."""
    for part in parts:
        if len(part) > 1 and not part.strip(b"*"):
            groups.append(b"")
        else:
            groups[-1] += _part_expression(part) + b"/"
    first, *between, final = groups if len(groups) > 1 else (b"", groups[0])
    any_folders = b"(?:[^/]+/)*" if len(groups) > 1 else b""
    deeper = b"".join(b"(?>(?:[^/]+/)*?" + group + b")" for group in between if group)
    return first + deeper + (any_folders + final.removesuffix(b"/") if final else b".+")


def _part_expression(part: bytes) -> bytes:
    pieces, position = [b""], 0
    while position < len(part):
        if (sign := _SIGN.match(part, position)) is None:
            raise ValueError("a bracket is not closed, or a backslash is the last sign")
        position = sign.end()
        if sign["stars"]:
            pieces.append(b"")
        elif sign["members"] is not None:
            members = sign["members"].replace(b"[", rb"\[")
            pieces[-1] += rb"(?!/)[" + (b"^" if sign["negated"] else b"") + members + b"]"
        else:
            pieces[-1] += b"[^/]" if sign["one"] else re.escape(sign["quoted"] or sign["plain"])
    if len(pieces) == 1:
        return pieces[0]
    first, *between, final = pieces
    return first + b"".join(b"(?>[^/]*?" + piece + b")" for piece in between) + b"[^/]*" + final
