"""A sample that every machine has: the documentation of the Python interpreter that runs.

    module, class, function, method     docstrings of the standard library
    topic                               chapters of the language reference

`class` is a reserved word in many grammars, so code that builds SQL from a table's name has to quote it.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib.util
import inspect
import io
import re
import sys
import sysconfig
import types
import warnings
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
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
    """Yield dotted name and file of each public module that has source, in order of name within its package."""
    library = standard_library()
    for name in sorted(sys.stdlib_module_names):
        if is_public(name) and name not in _LEFT_OUT:
            yield from _module_files(name, library / name)


def _module_files(name: str, place: Path) -> Iterator[tuple[str, Path]]:
    if (place / "__init__.py").is_file():
        yield name, place / "__init__.py"
        children = {path.stem if path.suffix == ".py" else path.name for path in place.iterdir()}
        for child in sorted(children):
            if child.isidentifier() and is_public(child) and child not in _LEFT_OUT:
                yield from _module_files(f"{name}.{child}", place / child)
    elif place.with_suffix(".py").is_file():
        yield name, place.with_suffix(".py")


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
    initializers = [m for m in members if m.name == "__init__" and not isinstance(m, ast.ClassDef)]
    signature = _signature(initializers[0], skip_first=True) if initializers else None
    yield from _entry("class", name, docstring, module, signature)
    for member in members:
        if is_public(member.name) or (member.name.startswith("__") and member.name.endswith("__")):
            yield from _definition(member, name, module)


def _signature(node: _Function, *, skip_first: bool = False) -> str:
    arguments = copy.deepcopy(node.args)
    if skip_first:
        del (arguments.posonlyargs or arguments.args)[:1]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}"


_METHODS = (
    types.MethodDescriptorType, types.ClassMethodDescriptorType, types.BuiltinFunctionType,
    types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


def compiled_entries(name: str, public: str) -> Iterator[Entry]:
    """Yield the entries of a module in C under a public name; none if this interpreter does not have it."""
    if (module := _load(name)) is None:
        return
    yield from _entry("module", public, module.__doc__)
    owners = {name, module.__name__, public, None}
    for _, value in sorted(vars(module).items()):
        if not isinstance(value, types.BuiltinFunctionType | type) or getattr(value, "__module__", None) not in owners:
            continue
        if is_public(value.__name__):  # its own name, so one that a program replaced in sys is still found
            inside = f"{public}.{value.__name__}"
            yield from _compiled("class" if isinstance(value, type) else "function", inside, value, public)


def _load(name: str) -> types.ModuleType | None:
    """Import a module in C of the standard library without output; return None if there is none or if it fails.

    A file of the same name elsewhere on sys.path is never run.
    """
    quiet = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(quiet),
        contextlib.redirect_stderr(quiet),
    ):
        warnings.simplefilter("ignore")
        try:
            return importlib.import_module(name) if _is_compiled(name) else None
        except Exception:  # noqa: BLE001 - whatever an incomplete build raises, the module is left out
            return None


def _is_compiled(name: str) -> bool:
    if name in sys.builtin_module_names:
        return True
    spec = importlib.util.find_spec(name) if name in sys.stdlib_module_names else None
    loader = None if spec is None else spec.loader
    return isinstance(loader, ExtensionFileLoader) and Path(loader.path).is_relative_to(standard_library())


def _compiled(table: str, name: str, value: object, module: str) -> Iterator[Entry]:
    """Yield an entry if there is a docstring, and those of the methods; older ones begin with the call.

    The signature is the one that the C source declares: `inspect.signature` would evaluate defaults with whatever
    happens to be imported.
    """
    docstring, declared = value.__doc__ or "", getattr(value, "__text_signature__", None)
    signature = " ".join(re.sub(r"\$\w+(, /)?(, )?", "", declared).split()) if isinstance(declared, str) else None
    call, rest = split_docstring(docstring)
    if signature is None and rest and call.startswith(f"{name.rpartition('.')[2]}("):
        docstring, signature = rest, call
    yield from _entry(table, name, docstring, module, signature)
    for member, descriptor in sorted(vars(value).items()) if isinstance(value, type) else ():
        method = descriptor.__func__ if isinstance(descriptor, staticmethod) else descriptor
        if isinstance(method, _METHODS) and is_public(member):
            yield from _compiled("method", f"{name}.{member}", method, module)


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
    """Yield all entries, source files first: if a name is defined in Python and in C, the one in Python counts."""
    sources = dict(source_files())
    for name, path in sources.items():
        yield from read_module(name, path)
    for name in sorted(sys.stdlib_module_names - {"readline"}):  # loading it can write to the terminal
        public = "os" if name == "posix" else name.lstrip("_")
        if public == name or public in sources:
            yield from compiled_entries(name, public)
    yield from read_topics()
