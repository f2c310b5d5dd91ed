"""A sample that every machine has: the documentation of the Python interpreter that runs.

    module, class, function, method     docstrings of the standard library, as far as it is written
    in Python topic                               chapters of the language reference

`class` is a reserved word in many grammars, so code that builds SQL from a table's name has to
quote it.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rag_index.first_run.samples import new_database


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
    table: str,
    name: str,
    docstring: str | None,
    module: str | None = None,
    signature: str | None = None,
) -> Iterator[Entry]:
    summary, body = split_docstring(docstring or "")
    if summary:
        yield Entry(table, name, summary, body, module, signature)


def split_docstring(docstring: str) -> tuple[str, str | None]:
    """Return the first paragraph on one line, and the rest without indentation, or None if there is
    no rest."""
    paragraph, _, rest = inspect.cleandoc(docstring).strip().partition("\n\n")
    return " ".join(paragraph.split()), rest.strip() or None


_LEFT_OUT = frozenset(
    {
        "antigravity",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "this",
        "turtledemo",
    }
)
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
LIBRARY = Path(sysconfig.get_path("stdlib"))
"""The folder of the running interpreter's standard library."""


def source_files() -> Iterator[tuple[str, Path]]:
    """Yield dotted name and file of each public module that has source, in order of name."""
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        for path in [LIBRARY / f"{name}.py", *sorted((LIBRARY / name).rglob("*.py"))]:
            module = ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(
                ".__init__"
            )
            parts = module.split(".")
            if _LEFT_OUT.isdisjoint(parts) and not any(part.startswith("_") for part in parts):
                yield module, path


def read_module(name: str, path: Path) -> list[Entry]:
    """Parse one source file; it has no entries if it cannot be read or is not valid in this version
    of Python."""
    tree = _parse(path)
    module = _entry("module", name, ast.get_docstring(tree), name.rpartition(".")[0] or None)
    return [*module, *_members(tree, name, name)]


def read_topics() -> Iterator[Entry]:
    """Yield the topics of the language reference that help() shows; none if they are not
    installed."""
    for statement in _parse(LIBRARY / "pydoc_data" / "topics.py").body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for name, text in sorted(ast.literal_eval(statement.value).items()):
                title, body = split_docstring(text)
                yield Entry("topic", name, title.rstrip("*=-~^ "), body)


def _parse(path: Path) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _definitions(node: ast.AST) -> Iterator[_Definition]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Definition):
            yield child
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _definitions(child)


def _members(node: ast.AST, owner: str, module: str) -> Iterator[Entry]:
    for member in _definitions(node):
        name, docstring = f"{owner}.{member.name}", ast.get_docstring(member)
        is_special = owner != module and member.name.startswith("__") and member.name.endswith("__")
        if member.name.startswith("_") and not is_special:
            continue
        if isinstance(member, ast.ClassDef):
            yield from _entry("class", name, docstring, module)
            yield from _members(member, name, module)
        else:
            returns = f" -> {ast.unparse(member.returns)}" if member.returns else ""
            signature = f"({ast.unparse(member.args)}){returns}"
            yield from _entry(
                "function" if owner == module else "method", name, docstring, module, signature
            )


TABLES = ("class", "function", "method", "module", "topic")


def write(out: Path) -> dict[str, int]:
    """Write the SQLite database `out`, replacing what was there, and return the number of rows by
    table. The same interpreter gives the same rows each time. Modules with source are parsed, not
    imported; nothing is printed. A name that is defined twice (branches by platform) gets one row,
    with its first docstring. Raises SourceError if the file cannot be written."""
    counts = dict.fromkeys(TABLES, 0)
    with new_database(out) as connection:
        for table in TABLES:
            connection.execute(
                f'CREATE TABLE "{table}" (name TEXT NOT NULL PRIMARY KEY, summary TEXT NOT NULL,'
                " body TEXT, module TEXT, signature TEXT)"
            )
        for entry in _entries():
            statement = f'INSERT OR IGNORE INTO "{entry.table}" VALUES (?, ?, ?, ?, ?)'
            counts[entry.table] += connection.execute(statement, entry[1:]).rowcount
    return counts


_INDEX = """
[[indexes]]
name = "{name}"
table = "{table}"
key = "name"
text = ["summary", "body"]
payload = ["name", "module", "signature", "summary"]
"""


def scaffold(database: str) -> str:
    """Return a rag-index.toml with an index for each table of the SQLite file `database`, which
    stands beside it."""
    plural = {
        "module": "modules",
        "class": "classes",
        "function": "functions",
        "method": "methods",
        "topic": "topics",
    }
    head = (
        "# Python's own documentation\n# All other keys have defaults: `rag-index config` prints"
        f" them.\n\n[source]\nurl = {json.dumps(f'sqlite:///{database}')}  # read, never written;"
        " relative to this file\n\n[parallel]\nshard_documents = 600  # small, to show several"
        " shards; by default each is worth some seconds\n"
    )
    return head + "".join(_INDEX.format(name=name, table=table) for table, name in plural.items())


def _entries() -> Iterator[Entry]:
    for name, path in source_files():
        yield from read_module(name, path)
    yield from read_topics()
