"""Sample databases to try rag-index on. Each replaces an older file as a whole."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rag_index.core.files import replacement, unwritable
from rag_index.errors import SourceError

_COMPANIONS = ("-wal", "-shm", "-journal")


@contextlib.contextmanager
def new_database(out: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to an empty SQLite database that becomes `out` if the block ends without
    an error. Until then, and for good after an error, `out` stays as it was. Missing folders are
    created. Raises SourceError if the file cannot be written."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacement(out) as unfinished:
            with contextlib.closing(sqlite3.connect(unfinished)) as connection:
                yield connection
                connection.commit()
            for suffix in _COMPANIONS:  # an older database's log would be replayed into the new one
                Path(f"{out}{suffix}").unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as exc:
        raise SourceError(unwritable(out, exc, "name another file with --out")) from exc
