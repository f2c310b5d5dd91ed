"""Sample databases to try rag-index on: Python's documentation, and a generated service desk of any size.

All share how the database file replaces an older one as a whole, and how the settings file is written.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rag_index.database.files import replacement
from rag_index.errors import SourceError

__all__ = ["new_database", "settings_file"]

_COMPANIONS = ("-wal", "-shm", "-journal")


@contextlib.contextmanager
def new_database(out: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection to an empty SQLite database that becomes `out` if the block ends without an error.

    Until then, and for good after an error, `out` stays as it was. Missing folders are created. Raises SourceError if
    the file cannot be written.
    """
    try:
        if out.is_dir():
            raise IsADirectoryError("it is a folder")
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacement(out) as unfinished:
            with contextlib.closing(sqlite3.connect(unfinished)) as connection:
                # Nobody reads the file before it is moved, and a crash leaves `out` alone, so no journal is needed.
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                yield connection
                connection.commit()
            for suffix in _COMPANIONS:  # an older database's log would be replayed into the new one
                Path(f"{out}{suffix}").unlink(missing_ok=True)
    except (OSError, sqlite3.Error) as exc:
        raise SourceError(f"cannot write {out}: {exc}; name another file, in a folder that you may write to") from exc


_TEMPLATE = """\
# {title}
# All other keys have defaults: `rag-index config` prints them.

[source]
url = {url}  # read, never written; relative to this file
"""


def settings_file(title: str, database: str, indexes: Iterable[Mapping[str, str | Sequence[str]]]) -> str:
    """Return a rag-index.toml for the SQLite file `database`, whose path may be relative to it.

    `indexes` has the keys of each `[[indexes]]`.
    """
    head = _TEMPLATE.format(title=title, url=_toml(f"sqlite:///{database}"))
    tables = ("".join(f"{key} = {_toml(value)}\n" for key, value in index.items()) for index in indexes)
    return head + "".join(f"\n[[indexes]]\n{table}" for table in tables)


def _toml(value: str | Sequence[str]) -> str:
    """Return a string or an array of strings as TOML, whose basic strings are written as in JSON."""
    return json.dumps(value, ensure_ascii=False)
