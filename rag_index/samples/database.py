"""A sample's database file: written beside its place and moved there whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["new_database"]

_COMPANIONS = ("-wal", "-shm", "-journal")


@contextlib.contextmanager
def new_database(out: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an empty SQLite database that becomes `out` where the block ends without an error.

    Until then, and for good after an error, `out` stays as it was. Missing folders are made.

    Raises:
        SourceError: the file cannot be written.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        if out.is_dir():
            raise IsADirectoryError("it is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(unfinished)) as connection:
            # Nobody reads the file before it is moved, and a crash leaves `out` alone: no journal is needed.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            yield connection
            connection.commit()
        for suffix in _COMPANIONS:  # an older database's log would be replayed into the new one
            Path(f"{out}{suffix}").unlink(missing_ok=True)
        unfinished.replace(out)
    except (OSError, sqlite3.Error) as exc:
        raise SourceError(f"cannot write {out}: {exc}; name another file, in a folder that you may write to") from exc
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
