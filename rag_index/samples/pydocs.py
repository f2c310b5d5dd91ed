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
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

from rag_index.samples import new_database, settings_file


@dataclass(frozen=True, slots=True)
class Entry:
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
    kind: str | None = None
    """Its kind within the table: package, extension, exception, property, async function and so on."""


def _entries_of(table: str, name: str, docstring: str | None, **more: str | None) -> Iterator[Entry]:
    """Yield an entry, unless the docstring is missing or empty; `more` has its other fields."""
    summary, body = split_docstring(docstring or "")
    if summary:
        yield Entry(table, name, summary, body, **more)


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
_ERROR_SUFFIXES = ("Error", "Exception", "Warning", "Interrupt", "Exit")
_DECORATORS = {
    "property": {"property", "cached_property", "abstractproperty"},
    "class method": {"classmethod", "abstractclassmethod"},
    "static method": {"staticmethod", "abstractstaticmethod"},
}
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
    kind = "package" if path.name == "__init__.py" else "module"
    parent = name.rpartition(".")[0] or None
    entries = list(_entries_of("module", name, ast.get_docstring(tree), module=parent, kind=kind))
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
                yield Entry("topic", name, title.rstrip("*=-~^ "), body, kind="topic")


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
        decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list}
        kinds = [kind for kind, names in _DECORATORS.items() if table == "method" and decorators & names]
        kind = [*kinds, f"async {table}" if isinstance(node, ast.AsyncFunctionDef) else table][0]
        yield from _entries_of(table, name, docstring, module=module, signature=_signature(node), kind=kind)
        return
    members = [member for member in _statements(node.body) if isinstance(member, _Definition)]
    initializers = [m for m in members if m.name == "__init__" and not isinstance(m, ast.ClassDef)]
    signature = _signature(initializers[0], skip_first=True) if initializers else None
    bases = [node.name, *(ast.unparse(base) for base in node.bases)]
    kind = "exception" if any(base.endswith(_ERROR_SUFFIXES) for base in bases) else "class"
    yield from _entries_of("class", name, docstring, module=module, signature=signature, kind=kind)
    for member in members:
        if is_public(member.name) or (member.name.startswith("__") and member.name.endswith("__")):
            yield from _definition(member, name, module)


def _signature(node: _Function, *, skip_first: bool = False) -> str:
    arguments = copy.deepcopy(node.args)
    if skip_first:
        del (arguments.posonlyargs or arguments.args)[:1]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}"


_LEFT_OUT_COMPILED = ("readline", "nt", "posix")
"""Loading the first can write to the terminal; the others only implement `os`."""
_IMPORT = re.compile(r"^[ \t]*from (nt|posix|_\w+) import (\*?)", re.M)
_METHODS = {
    types.MethodDescriptorType: "method",
    types.ClassMethodDescriptorType: "class method",
    types.BuiltinFunctionType: "static method",
    types.GetSetDescriptorType: "property",
    types.MemberDescriptorType: "property",
}


def module_entries(name: str) -> Iterator[Entry]:
    """Yield the entries of a public module in C; none if this interpreter does not have it."""
    module = _load(name)
    if module is None:
        return
    kind = "built-in" if name in sys.builtin_module_names else "extension"
    yield from _entries_of("module", name, module.__doc__, kind=kind)
    yield from _members(module, name, name, None)


def reexported_entries(public: str, path: Path) -> Iterator[Entry]:
    """Yield what a source file re-exports from modules in C: all by a star, or names that it has in quotes too."""
    text = path.read_text(encoding="utf-8", errors="replace")
    for inner, star in dict.fromkeys(_IMPORT.findall(text)):
        module = _load(inner)
        names = None if star else {name for name in dir(module) if re.search(rf"""["']{name}["']""", text)}
        if module is not None:
            yield from _members(module, inner, public, names)


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
    if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
        return False
    folder = Path(spec.loader.path).parent
    return folder.is_relative_to(standard_library()) or folder == Path(sys.base_prefix) / "DLLs"


def _members(module: types.ModuleType, inner: str, public: str, names: set[str] | None) -> Iterator[Entry]:
    """Yield functions and classes under their own names, so those that a program replaced in sys are still found."""
    owners = {inner, module.__name__, public, None}
    for _, value in sorted(vars(module).items()):
        if not isinstance(value, types.BuiltinFunctionType | type) or getattr(value, "__module__", None) not in owners:
            continue
        name = value.__name__
        if not is_public(name) or not (names is None or name in names):
            continue
        if isinstance(value, type):
            yield from _compiled_class(value, f"{public}.{name}", public)
        else:
            yield from _entry("function", f"{public}.{name}", value, public, "function")


def _compiled_class(value: type, name: str, module: str) -> Iterator[Entry]:
    yield from _entry("class", name, value, module, "exception" if issubclass(value, BaseException) else "class")
    for member, descriptor in sorted(vars(value).items()):
        inside = descriptor.__func__ if isinstance(descriptor, staticmethod) else descriptor
        kind = _METHODS.get(type(inside))
        if kind and is_public(member):
            yield from _entry("method", f"{name}.{member}", inside, module, kind)


def _entry(table: str, name: str, value: object, module: str, kind: str) -> Iterator[Entry]:
    """Yield an entry if there is a docstring; older ones begin with the call, as in `sleep(seconds)`.

    The signature is the one that the C source declares: `inspect.signature` would evaluate defaults with whatever
    happens to be imported.
    """
    docstring, declared = value.__doc__ or "", getattr(value, "__text_signature__", None)
    signature = " ".join(re.sub(r"\$\w+(, /)?(, )?", "", declared).split()) if isinstance(declared, str) else None
    call, rest = split_docstring(docstring)
    if signature is None and rest and call.startswith(f"{name.rpartition('.')[2]}("):
        docstring, signature = rest, call
    yield from _entries_of(table, name, docstring, module=module, signature=signature, kind=kind)


TABLES = ("class", "function", "method", "module", "topic")
_COLUMNS = ("name", "summary", "body", "module", "signature", "kind")


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
                " module TEXT, signature TEXT, kind TEXT)"
            )
        for entry in _entries():
            values = [getattr(entry, column) for column in _COLUMNS]
            statement = f'INSERT OR IGNORE INTO "{entry.table}" VALUES (?, ?, ?, ?, ?, ?)'
            counts[entry.table] += connection.execute(statement, values).rowcount
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
    for name, path in sources.items():
        yield from reexported_entries(name, path)
    for name in sorted(sys.stdlib_module_names - {*sources, *_LEFT_OUT_COMPILED}):
        if is_public(name):
            yield from module_entries(name)
    yield from read_topics()
