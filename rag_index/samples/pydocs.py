"""A sample that every machine has: the documentation of the Python interpreter that runs.

    module, class, function, method     docstrings of the standard library
    topic                               chapters of the language reference

`class` is a reserved word in many grammars, so code that builds SQL from a table's name has to quote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.samples import indexes
from rag_index.samples.database import new_database
from rag_index.samples.indexes import SampleIndex
from rag_index.samples.stdlib_compiled import compiled_modules, inner_entries, module_entries
from rag_index.samples.stdlib_source import read_module, read_topics, source_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rag_index.samples.entries import Entry

__all__ = ["TABLES", "scaffold", "write"]

TABLES = ("class", "function", "method", "module", "topic")

_COLUMNS = ("name", "summary", "body", "module", "signature", "kind")


def write(out: Path) -> dict[str, int]:
    """Write the SQLite database `out`, replacing what was there, and return the number of rows by table.

    The same interpreter gives the same rows each time. Modules with source are parsed, not imported; nothing is
    printed. A name that is defined twice (branches by platform) gets one row, with its first docstring.

    Raises:
        SourceError: the file cannot be written.
    """
    counts = dict.fromkeys(TABLES, 0)
    with new_database(out) as connection:
        for table in TABLES:
            connection.execute(
                f'CREATE TABLE "{table}" (name TEXT NOT NULL PRIMARY KEY, summary TEXT NOT NULL, body TEXT,'
                " module TEXT, signature TEXT, kind TEXT)"
            )
        for entry in _entries():
            values = [getattr(entry, column) for column in _COLUMNS]
            statement = f'INSERT OR IGNORE INTO "{entry.table}" VALUES (?, ?, ?, ?, ?, ?)'
            counts[entry.table] += connection.execute(statement, values).rowcount
    return counts


def scaffold(database: str) -> str:
    """Return a commented rag-index.toml with an index for each table of the SQLite file `database`."""
    plural = {"module": "modules", "class": "classes", "function": "functions", "method": "methods", "topic": "topics"}
    wanted = [
        SampleIndex(name, table, "name", ("summary", "body"), ("name", "module", "signature", "summary"))
        for table, name in plural.items()
    ]
    return indexes.scaffold("Python's own documentation", database, wanted)


def _entries() -> Iterator[Entry]:
    """Yield all entries, source files first: if a name is defined in Python and in C, the one in Python counts."""
    reexports: list[tuple[str, str, frozenset[str] | None]] = []
    names: list[str] = []
    for name, path in source_files():
        names.append(name)
        module = read_module(name, path)
        if module:
            yield from module.entries
            reexports.extend((inner, name, published) for inner, published in module.reexports)
    for inner, public, published in reexports:
        yield from inner_entries(inner, public, published)
    for name in compiled_modules(names):
        yield from module_entries(name)
    yield from read_topics()
