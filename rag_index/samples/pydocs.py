"""A sample that every machine has: the documentation of the Python interpreter that runs.

    module, class, function, method     docstrings of the standard library, as far as it is written in Python
    topic                               chapters of the language reference

`class` is a reserved word in many grammars, so code that builds SQL from a table's name has to quote it.
"""

from __future__ import annotations

import ast
import inspect
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rag_index.samples import new_database, settings_file


class Entry(NamedTuple):
    """A documented name. `table` is module, class, function, method or topic."""

    table: str
    name: str
    """Fully qualified: json.decoder.JSONDecoder.decode."""
    summary: str
    """The docstring's first paragraph on one line, never empty."""
    body: str | None = None
    module: str | None = None
    """The module that defines it; for a module its package, or None at the top level."""
    signature: str | None = None


def _entry(
    table: str, name: str, docstring: str | None, module: str | None = None, signature: str | None = None
) -> Iterator[Entry]:
    """Yield an entry, unless the docstring is missing or empty."""
    summary, body = split_docstring(docstring or "")
    if summary:
        yield Entry(table, name, summary, body, module, signature)


def split_docstring(docstring: str) -> tuple[str, str | None]:
    """Return the first paragraph on one line, and the rest without indentation, or None if there is no rest."""
    paragraph, _, rest = inspect.cleandoc(docstring).strip().partition("\n\n")
    return " ".join(paragraph.split()), rest.strip() or None


def is_public(name: str) -> bool:
    """Return whether no part of a dotted name starts with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))


_LEFT_OUT = frozenset(
    {"antigravity", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "this", "turtledemo"}
)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = _Function | ast.ClassDef


def standard_library() -> Path:
    """Return the folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def source_files() -> Iterator[tuple[str, Path]]:
    """Yield dotted name and file of each public module that has source, in order of name."""
    library = standard_library()
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        for path in [library / f"{name}.py", *sorted((library / name).rglob("*.py"))]:
            module = ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
            if is_public(module) and _LEFT_OUT.isdisjoint(module.split(".")):
                yield module, path


def read_module(name: str, path: Path) -> list[Entry]:
    """Parse one source file; it has no entries if it cannot be read or is not valid in this version of Python."""
    tree = _parse(path)
    if tree is None:
        return []
    entries = list(_entry("module", name, ast.get_docstring(tree), name.rpartition(".")[0] or None))
    for statement in _statements(tree.body):
        if isinstance(statement, _Definition) and is_public(statement.name):
            entries.extend(_definition(statement, name, name))
    return entries


def read_topics() -> Iterator[Entry]:
    """Yield the topics of the language reference that help() shows; none if they are not installed."""
    tree = _parse(standard_library() / "pydoc_data" / "topics.py")
    for statement in tree.body if tree else []:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(statement.value).items()):
                title, body = split_docstring(text)
                yield Entry("topic", name, title.rstrip("*=-~^ "), body)


def _parse(path: Path) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a block and of the branches in it, in order, but not those inside definitions."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With):
            yield from _statements(statement.body)
            for handler in getattr(statement, "handlers", ()):
                yield from _statements(handler.body)
            yield from _statements(getattr(statement, "orelse", []))


def _definition(node: _Definition, owner: str, module: str) -> Iterator[Entry]:
    """Yield the entry of a definition in a module or a class, and the entries inside it."""
    name, docstring = f"{owner}.{node.name}", ast.get_docstring(node)
    if not isinstance(node, ast.ClassDef):
        table = "function" if owner == module else "method"
        yield from _entry(table, name, docstring, module, _signature(node))
        return
    members = [member for member in _statements(node.body) if isinstance(member, _Definition)]
    yield from _entry("class", name, docstring, module)
    for member in members:
        if is_public(member.name) or (member.name.startswith("__") and member.name.endswith("__")):
            yield from _definition(member, name, module)


def _signature(node: _Function) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(node.args)}){returns}"


TABLES = ("class", "function", "method", "module", "topic")


def write(out: Path) -> dict[str, int]:
    """Write the SQLite database `out`, replacing what was there, and return the number of rows by table.

    The same interpreter gives the same rows each time. Modules with source are parsed, not imported; nothing is
    printed. A name that is defined twice (branches by platform) gets one row, with its first docstring. Raises
    SourceError if the file cannot be written.
    """
    counts = dict.fromkeys(TABLES, 0)
    with new_database(out) as connection:
        for table in TABLES:
            connection.execute(
                f'CREATE TABLE "{table}" (name TEXT NOT NULL PRIMARY KEY, summary TEXT NOT NULL, body TEXT,'
                " module TEXT, signature TEXT)"
            )
        for entry in _entries():
            statement = f'INSERT OR IGNORE INTO "{entry.table}" VALUES (?, ?, ?, ?, ?)'
            counts[entry.table] += connection.execute(statement, entry[1:]).rowcount
    return counts


def scaffold(database: str) -> str:
    """Return a rag-index.toml with an index for each table of the SQLite file `database`."""
    plural = {"module": "modules", "class": "classes", "function": "functions", "method": "methods", "topic": "topics"}
    columns = {"key": "name", "text": ("summary", "body"), "payload": ("name", "module", "signature", "summary")}
    wanted = [{"name": name, "table": table, **columns} for table, name in plural.items()]
    return settings_file("Python's own documentation", database, wanted)


def _entries() -> Iterator[Entry]:
    for name, path in source_files():
        yield from read_module(name, path)
    yield from read_topics()
