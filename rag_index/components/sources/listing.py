"""The files below a folder. .gitignore is respected, patterns are anchored at the folder, and links
are not followed."""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
"""The most bytes of an ignore file (chosen), and of a path in Linux."""
_BRACKET = rb"\[(?P<negated>[!^]?)(?P<members>\]?(?:\[:[^\]\[:]*+:\]|\\.|[^\]\\])*+)\]"
_PART = re.compile(rb"((?:\\.|" + _BRACKET + rb"|[^/])*+)(?:/|\Z)", re.DOTALL)
"""A part of a pattern, up to the next slash that stands for itself."""
_SIGN = re.compile(
    rb"(?P<stars>\*+)|(?P<one>\?)|" + _BRACKET + rb"|\\(?P<quoted>.)|(?P<plain>[^\\\[])", re.DOTALL
)
"""A token of a part of a pattern."""


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
    """Open a file in an open folder, or with O_DIRECTORY a folder, and return its descriptor.

    No link is followed. Raises OSError if the last step of the path is a link, or something else,
    such as a pipe.
    """
    safe = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    opened = os.open(name, safe | flags, dir_fd=folder)
    if flags & os.O_DIRECTORY:
        return opened
    if not stat.S_ISREG(os.fstat(opened).st_mode):
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
    """List the files below `root` that are included, by language, the largest first.

    Args:
        include: Patterns of files and folders. Without any, the files of known languages.
        exclude: Patterns of files and folders.
        languages: The languages of files by the end of their names, where they differ from
            `language_of`.

    Raises:
        SourceUnavailable: The root cannot be read.
        SettingsError: A pattern is not valid.
    """
    return _Walk(root, include, exclude, languages or {}).listing()


class _Walk:
    """One walk through the folders below a root."""

    def __init__(
        self,
        root: Path,
        include: Sequence[str],
        exclude: Sequence[str],
        languages: Mapping[str, str],
    ) -> None:
        self._root = root
        self._include = _patterns(include)
        self._exclude = _patterns(exclude)
        self._languages = languages
        self._sources: set[str] = set()
        """The languages of the files that are not headers."""
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
                self._fail_folder(folder, exc)
        self._decide_headers()
        self._listing.files.sort(key=lambda file: (file.language, -file.size, file.path))
        self._listing.failures.sort(key=lambda failure: failure.key)
        return self._listing

    def _fail_folder(self, folder: str, error: OSError) -> None:
        """Record that a folder cannot be read. Raises SourceUnavailable if it is the root."""
        if not folder:
            message = f"{self._root} cannot be read: {error.strerror}; check that it exists"
            raise SourceUnavailable(message) from error
        # deleted after the folder around it was listed
        if isinstance(error, FileNotFoundError):
            return
        reason = f"the folder cannot be read: {error.strerror}; its documents are kept as they are"
        self._fail(folder, reason)
        self._listing.unreadable_folders.append(folder)

    def _decide_headers(self) -> None:
        """Make headers C++, unless the settings name their language, or all sources are of C."""
        is_c = "c" in self._sources and "cpp" not in self._sources
        if is_c or C_HEADER in self._languages:
            return
        files = self._listing.files
        for number, file in enumerate(files):
            if file.path.lower().endswith(C_HEADER):
                files[number] = replace(file, language="cpp")

    def _visit_all(self, opened: int, folder: str, ignored: tuple[Rule, ...]) -> None:
        """Visit what is in an open folder."""
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
            self._visit_file(entry, path, ignored)

    def _visit_file(self, entry: os.DirEntry[str], path: str, ignored: tuple[Rule, ...]) -> None:
        if not path.lower().endswith(C_HEADER):
            self._sources.add(language_of(path))
        language = self._included_language(path, ignored)
        if not language:
            return
        if not path.isprintable() and not _is_unicode(path):
            self._fail(path, "its name is not valid Unicode; rename it")
            return
        found = entry.stat(follow_symlinks=False)
        times = f"{found.st_size}/{found.st_mtime_ns}/{found.st_ctime_ns}"
        changed_at = max(found.st_mtime, found.st_ctime)
        self._listing.files.append(File(path, language, found.st_size, changed_at, times))

    def _included_language(self, path: str, ignored: tuple[Rule, ...]) -> str:
        """Return the language of a file, "" if the file is not included."""
        language = language_of(path, self._languages)
        is_included = self._has_included(path) if self._include else language != TEXT
        if not is_included or self._is_excluded(path, ignored):
            return ""
        return language

    def _has_included(self, path: str) -> bool:
        """Return whether a pattern of `include` fits a file or a folder above it."""
        if is_ignored(path, self._include):
            return True
        above = (path[: end.start()] for end in re.finditer("/", path))
        return any(is_ignored(folder, self._include) for folder in above)

    def _is_excluded(self, path: str, ignored: tuple[Rule, ...]) -> bool:
        if is_ignored(path, self._exclude):
            return True
        return is_ignored(self._top + path, ignored)

    def _visit_link(self, path: str, ignored: tuple[Rule, ...]) -> None:
        """Skip a link to something within the root, which is indexed under its own path; other
        links are failures."""
        link = self._root / path
        target = Path(os.path.realpath(link))
        if target.is_dir():
            is_left_out = self._is_excluded(f"{path}/", ignored)
        else:
            is_left_out = not self._included_language(path, ignored)
        if is_left_out:
            return
        loops = Path(os.path.realpath(link.parent)).is_relative_to(target)
        is_within = target.is_relative_to(os.path.realpath(self._root))
        if loops or not is_within or not target.exists():
            self._fail(
                path,
                f"it is a link that leaves the root, loops or leads nowhere (to {target});"
                " exclude it",
            )

    def _fail(self, path: str, reason: str) -> None:
        name = path if _is_unicode(path) else ascii(path)
        key = encode_key([name])
        self._listing.failures.append(Failure(key, reason))


def _is_unicode(path: str) -> bool:
    return path.encode(errors="ignore").decode() == path


def _patterns(lines: Iterable[str]) -> tuple[Rule, ...]:
    """Return the rules of patterns in the settings. Raises SettingsError if one is not valid."""
    rules: list[Rule] = []
    for line in dict.fromkeys(lines):
        rule = _read_rule(os.fsencode(f"/{line.removeprefix('/')}"), b"")
        if rule is None:
            raise SettingsError(
                f"no file fits the pattern {line!r} of include or exclude; correct the pattern"
            )
        rules.append(rule)
    return tuple(rules)


def _ignored_above(root: Path) -> tuple[str, tuple[Rule, ...]]:
    """Return the path to the root from the top of its repository, and the rules of the ignore files
    above it.

    Only a repository counts that belongs to this user, to the owner of the root, or to the system:
    others could empty an index. There are no rules if they exclude the root itself: the settings
    name it on purpose.
    """
    top = next((folder for folder in (root, *root.parents) if os.path.lexists(folder / GIT)), root)
    parts = root.relative_to(top).parts
    owners = {0, os.geteuid()}
    if root.exists():
        owners.add(root.stat().st_uid)
    for part in (GIT, ".", *parts[:-1]):
        folder = top / part
        if os.path.lexists(folder) and folder.lstat().st_uid not in owners:
            return "", ()
    # "", "a/", "a/b/": from the top to the root
    above = [""]
    for part in parts:
        above.append(f"{above[-1]}{part}/")
    found = _read_ignore_below(top, "", f"{GIT}/info/exclude", owners)
    for path in above[:-1]:
        found += _read_ignore_below(top, path, IGNORE, owners)
    is_excluded = any(is_ignored(path, found) for path in above[1:])
    return above[-1], () if is_excluded else found


def _read_ignore_below(top: Path, path: str, name: str, owners: Container[int]) -> tuple[Rule, ...]:
    """Return the rules of an ignore file in a folder below the top of a repository."""
    try:
        with open_below(top, path) as opened:
            return _read_ignore_file(opened, name, path, owners)
    except OSError:
        return ()


def _read_ignore_file(
    folder: int, name: str, path: str, owners: Container[int] | None = None
) -> tuple[Rule, ...]:
    """Return the rules of an ignore file.

    There are none if it is no ordinary file, as with git, has more than `MAX_IGNORE_BYTES`, or is
    not of the `owners`.

    Args:
        folder: The descriptor of its folder.
        name: The path of the file from there.
        path: The path of the folder from the top of the repository, with / at the end.
        owners: The users whose file counts; None for all.
    """
    try:
        with os.fdopen(open_file(name, folder), "rb") as file:
            data = file.read(MAX_IGNORE_BYTES + 1)
            is_ours = owners is None or os.fstat(file.fileno()).st_uid in owners
    except OSError:
        return ()
    if len(data) > MAX_IGNORE_BYTES or not is_ours:
        return ()
    encoded_path = os.fsencode(path)
    rules: list[Rule] = []
    for line in data.removeprefix(codecs.BOM_UTF8).split(b"\n"):
        rule = _read_rule(line.removesuffix(b"\r"), encoded_path)
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


class Rule(NamedTuple):
    """A line of an ignore file. The last rule that fits a path, or a folder on the way to it,
    decides."""

    ignores: bool
    """False for a line that begins with `!`."""
    folders_only: bool
    pattern: re.Pattern[bytes]
    """What fits the complete path from the top of the repository."""


def is_ignored(path: str, rules: Sequence[Rule]) -> bool:
    """Return whether rules leave out a path by itself, and not by a folder above it.

    Args:
        path: The path from the top, with / at the end if it is a folder.
    """
    encoded = os.fsencode(path)
    name = encoded.removesuffix(b"/")
    is_folder = name != encoded
    for rule in reversed(rules):
        if (is_folder or not rule.folders_only) and rule.pattern.fullmatch(name):
            return rule.ignores
    return False


def _read_rule(line: bytes, folder: bytes) -> Rule | None:
    """Return the rule of a line of an ignore file; None for a comment, and for a pattern that fits
    nothing.

    Args:
        folder: The path of the folder of the file, with / at the end.
    """
    if not line or line.startswith(b"#") or len(line) > MAX_PATH:
        return None
    ignores = not line.startswith(b"!")
    line = line.removeprefix(b"!")
    kept = line.rstrip(b" ")
    # a space behind a backslash belongs to the name, unless another backslash quotes that one
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    if len(kept) < len(line) and backslashes % 2:
        kept += b" "
    pattern = kept.removesuffix(b"/")
    if b"/" in pattern:
        parts = [found[1] for found in _PART.finditer(pattern.removeprefix(b"/"))][:-1]
    # "*.log" fits in each folder
    else:
        parts = [b"**", re.sub(rb"\*\*+", b"*", pattern)]
    try:
        expression = re.escape(folder) + _expression(parts)
        return Rule(ignores, kept != pattern, re.compile(expression, re.DOTALL))
    except (ValueError, re.error):  # such a pattern fits nothing
        return None


def _expression(parts: Sequence[bytes]) -> bytes:
    """Return the expression of the parts of a pattern. Raises ValueError if it fits nothing.

    What follows a star is taken once, as far left as it fits. So nothing is tried twice, and
    nothing is missed.
    """
    groups = [b""]
    """What stands between the parts that are two stars."""
    for part in parts:
        is_any_folders = len(part) > 1 and not part.strip(b"*")
        if is_any_folders:
            groups.append(b"")
        else:
            groups[-1] += _part_expression(part) + b"/"
    # "a/b", without two stars
    if len(groups) == 1:
        return groups[0].removesuffix(b"/") if groups[0] else b".+"
    # "a/**/b/**/c"
    first, *between, final = groups
    deeper = b"".join(b"(?>(?:[^/]+/)*?" + group + b")" for group in between if group)
    end = b"(?:[^/]+/)*" + final.removesuffix(b"/") if final else b".+"
    return first + deeper + end


def _part_expression(part: bytes) -> bytes:
    """Return the expression of a part of a pattern. Raises ValueError if it fits nothing."""
    pieces = [b""]
    """What stands between the stars."""
    position = 0
    while position < len(part):
        sign = _SIGN.match(part, position)
        if sign is None:
            raise ValueError("a bracket is not closed, or a backslash is the last sign")
        position = sign.end()
        if sign["stars"]:
            pieces.append(b"")
        # a set of characters: "[!a-c]"
        elif sign["members"] is not None:
            members = sign["members"].replace(b"[", rb"\[")
            negated = b"^" if sign["negated"] else b""
            pieces[-1] += rb"(?!/)[" + negated + members + b"]"
        elif sign["one"]:
            pieces[-1] += b"[^/]"
        else:
            pieces[-1] += re.escape(sign["quoted"] or sign["plain"])
    if len(pieces) == 1:
        return pieces[0]
    first, *between, final = pieces
    shortest = b"".join(b"(?>[^/]*?" + piece + b")" for piece in between)
    return first + shortest + b"[^/]*" + final
