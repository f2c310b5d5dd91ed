"""Files that people write, files that are replaced atomically, and who may read or write a file."""

from __future__ import annotations

import codecs
import errno
import grp
import os
import pwd
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rag_index.errors import SettingsError

OWNER_FOLDER = 0o700
OWNER_FILE = 0o600
REFUSED_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""The byte order marks of encodings that are refused. UTF-32 stands first, because its mark begins
with that of UTF-16."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)


def read_written(path: Path, what: str = "") -> str:
    """Return the text of a file that a person wrote, whichever editor saved it: without byte order
    marks, and with a line feed alone at the end of each line. Raises SettingsError, whose message
    begins with `what`, if the file cannot be read or is not UTF-8."""
    named = f"{what} {path}" if what else str(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"{named} cannot be read: {error.strerror or error}; name one that exists and that this"
            " user may read"
        ) from error
    other = next(
        (name for mark, name in REFUSED_BYTE_ORDER_MARKS.items() if content.startswith(mark)), ""
    )
    if other or b"\0" in content:
        raise SettingsError(f"{named} is {other or 'UTF-16, or no text'}: save it as UTF-8")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{named} is not UTF-8 (byte {error.start:,}): save it as UTF-8"
        ) from error
    lines = re.sub("\r\n?", "\n", text)
    # Byte order marks stand at the start of the file, and of a line where files were joined.
    return re.sub("(\\A|\n)\ufeff+", r"\1", lines)


def unwritable(path: Path, error: Exception, otherwise: str) -> str:
    """Return the message for a file or folder that cannot be written: why, who owns it, and what to
    do. `otherwise` names the setting or option by which another place is chosen."""
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    if number in DISK_FULL:
        return f"{path} cannot be written, since no space is left: free some, or {otherwise}"
    # Such as EISDIR. An error without a number is one of SQLite, which may mean a missing right.
    if number not in (*NOT_ALLOWED, None):
        return f"{path} cannot be written: {reason}; {otherwise}"
    named = Path(getattr(error, "filename", None) or path).absolute()
    existing = next(p for p in (named, *named.parents) if os.path.exists(p))  # noqa: PTH110 - Path.exists may raise
    # The file itself is writable, so its folder is at fault.
    if existing.is_file() and os.access(existing, os.W_OK):
        existing = existing.parent
    found = existing.stat()
    user = _user_name(os.geteuid())
    mode = f"{stat.S_IMODE(found.st_mode):03o}"
    owner = f"{existing} belongs to {_user_name(found.st_uid)}, mode {mode}"
    return (
        f"{path} cannot be written by user {user} ({reason}; {owner}): let {user} write there, or"
        f" {otherwise}"
    )


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment, a power cut too, leaves either the old or the new
    content. Raises OSError; the old content then stays. A temporary file that a crash leaves
    matches `leftovers`."""
    with replacement(path, sync=True) as temporary:
        temporary.write_bytes(content)
    sync_path(path.parent)


def leftovers(path: Path) -> Iterator[Path]:
    """Yield the temporary files that crashes left beside a file. Remove them only while no other
    process writes the file."""
    return path.parent.glob(f".{path.name}.*.tmp")


@contextmanager
def replacement(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, and rename that file to `path` at the end
    of the block.

    The block creates the file and closes it. If the block raises, the temporary file is removed and
    `path` stays as it was. With `sync`, the content is on disk before the rename. Each temporary
    file has a random name, so that several writers do not meet. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if sync:
            sync_path(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Return once a file, or the names in a folder, are on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private_folder(folder: Path) -> None:
    """Create a folder, and the missing ones above it, for the owner alone. Close an existing folder
    to other users, but not to its group: somebody chose that. Raises OSError."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    for path in reversed(missing):
        path.mkdir(mode=OWNER_FOLDER, exist_ok=True)
    folder.mkdir(exist_ok=True)  # FileExistsError if it is a file
    _close_to_others(folder, OWNER_FOLDER)


def private_file(path: Path) -> None:
    """Create an empty file for the owner alone, with the folders above it; close an existing one to
    other users. The files that SQLite makes beside a database get the mode of the database. Raises
    OSError."""
    if not path.parent.exists():
        private_folder(path.parent)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, OWNER_FILE))
    # ledger.db, ledger.db-wal, ledger.db-shm
    for file in (path, *path.parent.glob(f"{path.name}-*")):
        _close_to_others(file, OWNER_FILE)


def other_writer(path: Path, *, sticky: bool = False) -> str:
    """Return who may write a file or folder besides this user and root, such as "user bob"; "" if
    nobody may.

    With `sticky`, a folder with the sticky bit, such as /tmp, counts as closed: others can add to
    it, but replace nothing there. A symbolic link is judged by its owner. A group that has no other
    member counts as its user, as in Debian's OpenSSH: where each user has such a group, the umask
    lets it write. Raises OSError.
    """
    found = path.lstat()
    if found.st_uid not in (0, os.geteuid()):
        return f"user {_user_name(found.st_uid)}"
    if stat.S_ISLNK(found.st_mode) or (sticky and found.st_mode & stat.S_ISVTX):
        return ""
    if found.st_mode & stat.S_IWOTH:
        return "everybody"
    if not found.st_mode & stat.S_IWGRP:
        return ""
    try:
        group = grp.getgrgid(found.st_gid)
    except KeyError:  # a group of another machine
        return f"group {found.st_gid}"
    members = {group.gr_name, *group.gr_mem}
    trusted = {"root", _user_name(os.geteuid())}
    return "" if members <= trusted else f"group {group.gr_name}"


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _close_to_others(path: Path, mode: int) -> None:
    """Remove all rights of users outside the group, if they have any. Where that is refused, the
    mode stays."""
    with suppress(OSError):
        if path.stat().st_mode & stat.S_IRWXO:
            path.chmod(mode)


def file_stamp(path: Path) -> tuple[int, int, int] | None:
    """Return values that change when the file changes: modification time (ns), size (bytes), inode.
    None if the file does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
