"""Files that are replaced as a whole: a reader sees the old or the new content, never half of it."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a crash at any moment, a power cut too, leaves the old or the new content.

    Raises OSError; the old content then stays. What a crash leaves beside the file matches `leftovers`.
    """
    with replacement(path, sync=True) as temporary:
        temporary.write_bytes(content)
    _sync(path.parent)


def leftovers(path: Path) -> Iterator[Path]:
    """Yield the temporary files that crashes left beside a file. Remove them only while nobody else writes it."""
    return path.parent.glob(f".{path.name}.*.tmp")


@contextmanager
def replacement(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, and rename that file to `path` at the end of the block.

    The block creates the file and closes it. If the block raises, the temporary file is removed and `path` stays as it
    was. With `sync`, the content is on disk before the file is renamed. The temporary file has a name of its own,
    so that several writers at once do not meet. Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
