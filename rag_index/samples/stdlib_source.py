"""Docstrings of the standard library's source files, which are parsed and never imported."""

from __future__ import annotations

import ast
import sys
import sysconfig
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.samples.entries import Entry, is_public, make_entry, split_docstring

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SourceModule", "read_module", "read_topics", "source_files"]

_LEFT_OUT = frozenset(
    {"antigravity", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tests", "this", "turtledemo"}
)
_ERROR_SUFFIXES = ("Error", "Exception", "Warning", "Interrupt", "Exit")

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class SourceModule:
    """The entries of one source file, and the names that it re-exports from modules that may be written in C."""

    name: str
    entries: list[Entry]
    reexports: list[tuple[str, frozenset[str] | None]]
    """Modules with the names that are imported from them and re-exported; None stands for all public names."""


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


def read_module(name: str, path: Path) -> SourceModule | None:
    """Parse one source file; return None if it cannot be read or is not valid in this version of Python."""
    tree = _parse(path)
    if tree is None:
        return None
    kind = "package" if path.name == "__init__.py" else "module"
    parent = name.rpartition(".")[0] or None
    own = make_entry("module", name, ast.get_docstring(tree), module=parent, kind=kind)
    entries = [own] if own else []
    statements = list(_statements(tree.body))
    for statement in statements:
        if isinstance(statement, _Definition) and is_public(statement.name):
            entries.extend(_definition(statement, name, name))
    return SourceModule(name, entries, list(_reexports(statements)))


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
    name = f"{owner}.{node.name}"
    if isinstance(node, ast.ClassDef):
        yield from _class(node, name, module)
        return
    table = "function" if owner == module else "method"
    signature, kind = _signature(node), _function_kind(node, table)
    entry = make_entry(table, name, ast.get_docstring(node), module=module, signature=signature, kind=kind)
    if entry:
        yield entry


def _class(node: ast.ClassDef, name: str, module: str) -> Iterator[Entry]:
    members = [member for member in _statements(node.body) if isinstance(member, _Definition)]
    initializers = [m for m in members if m.name == "__init__" and not isinstance(m, ast.ClassDef)]
    signature = _signature(initializers[0], skip_first=True) if initializers else None
    bases = [node.name, *(ast.unparse(base) for base in node.bases)]
    kind = "exception" if any(base.endswith(_ERROR_SUFFIXES) for base in bases) else "class"
    entry = make_entry("class", name, ast.get_docstring(node), module=module, signature=signature, kind=kind)
    if entry:
        yield entry
    for member in members:
        if is_public(member.name) or (member.name.startswith("__") and member.name.endswith("__")):
            yield from _definition(member, name, module)


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, *, skip_first: bool = False) -> str | None:
    if isinstance(node, ast.ClassDef):
        return None
    arguments = node.args
    if skip_first:
        positional = arguments.posonlyargs or arguments.args
        del positional[:1]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"({ast.unparse(arguments)}){returns}"


def _function_kind(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, table: str) -> str:
    decorators = {ast.unparse(decorator).rpartition(".")[2] for decorator in getattr(node, "decorator_list", ())}
    for kind, names in (
        ("property", {"property", "cached_property", "abstractproperty"}),
        ("class method", {"classmethod", "abstractclassmethod"}),
        ("static method", {"staticmethod", "abstractstaticmethod"}),
    ):
        if table == "method" and decorators & names:
            return kind
    return f"async {table}" if isinstance(node, ast.AsyncFunctionDef) else table


def _reexports(statements: list[ast.stmt]) -> Iterator[tuple[str, frozenset[str] | None]]:
    """Yield modules with the names that are re-exported from them: all by a star, or those that __all__ lists."""
    published = _names_in_all(statements)
    for statement in statements:
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            names = {alias.name for alias in statement.names if alias.asname in (None, alias.name)}
            if "*" in names:
                yield statement.module, None
            elif names & published:
                yield statement.module, frozenset(names & published)


def _names_in_all(statements: list[ast.stmt]) -> set[str]:
    """Return the names that the statements put into __all__."""
    names: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AugAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
                constants = (node.value for node in ast.walk(statement.value) if isinstance(node, ast.Constant))
                names.update(value for value in constants if isinstance(value, str))
    return names
