"""Docstrings of the standard library's modules written in C, which have no source files and are imported.

Importing these modules does nothing but load them. If a module in C implements a public one (`_io` implements `io`),
its entries are named after the public one.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import sys
import types
import warnings
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.samples.entries import Entry, is_public, make_entry, split_docstring
from rag_index.samples.stdlib_source import standard_library

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["compiled_modules", "inner_entries", "module_entries"]

_LEFT_OUT = frozenset({"readline"})
"""Loading readline can write to the terminal."""
_INNER = frozenset({"nt", "posix"})
"""Modules with public names that only implement `os`."""

_FUNCTIONS = (types.BuiltinFunctionType,)
_METHODS = {
    types.MethodDescriptorType: "method",
    types.ClassMethodDescriptorType: "class method",
    types.BuiltinFunctionType: "static method",
    types.GetSetDescriptorType: "property",
    types.MemberDescriptorType: "property",
}


def compiled_modules(with_source: Iterable[str]) -> list[str]:
    """Return the public modules of the standard library that are not in `with_source`, sorted."""
    left_out = {*with_source, *_LEFT_OUT, *_INNER}
    return sorted(name for name in sys.stdlib_module_names if is_public(name) and name not in left_out)


def module_entries(name: str) -> Iterator[Entry]:
    """Yield the entries of a public module in C; none if this interpreter does not have it."""
    module = _load(name)
    if module is None:
        return
    kind = "built-in" if name in sys.builtin_module_names else "extension"
    own = make_entry("module", name, module.__doc__, kind=kind)
    if own:
        yield own
    yield from _members(module, name, name, None)


def inner_entries(inner: str, public: str, names: frozenset[str] | None) -> Iterator[Entry]:
    """Yield what `public` re-exports from `inner` (`names`, or all for None), if `inner` is a C module behind it."""
    if inner in _INNER or inner.startswith("_"):
        module = _load(inner)
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


def _members(module: types.ModuleType, inner: str, public: str, names: frozenset[str] | None) -> Iterator[Entry]:
    """Yield functions and classes under their own names, so those that a program replaced in sys are still found."""
    owners = {inner, module.__name__, public, None}
    for _, value in sorted(vars(module).items()):
        if not isinstance(value, (*_FUNCTIONS, type)) or getattr(value, "__module__", None) not in owners:
            continue
        name = value.__name__
        if not is_public(name) or not (names is None or name in names):
            continue
        if isinstance(value, type):
            yield from _class(value, f"{public}.{name}", public)
        else:
            yield from _entry("function", f"{public}.{name}", value, public, "function")


def _class(value: type, name: str, module: str) -> Iterator[Entry]:
    yield from _entry("class", name, value, module, "exception" if issubclass(value, BaseException) else "class")
    for member, descriptor in sorted(vars(value).items()):
        inside = descriptor.__func__ if isinstance(descriptor, staticmethod) else descriptor
        kind = _METHODS.get(type(inside))
        if kind and is_public(member):
            yield from _entry("method", f"{name}.{member}", inside, module, kind)


def _entry(table: str, name: str, value: object, module: str, kind: str) -> Iterator[Entry]:
    """Yield an entry if there is a docstring; older ones begin with the call, as in `sleep(seconds)`."""
    docstring, signature = value.__doc__ or "", _signature(value)
    call, rest = split_docstring(docstring)
    if signature is None and rest and call.startswith(f"{name.rpartition('.')[2]}("):
        docstring, signature = rest, call
    entry = make_entry(table, name, docstring, module=module, signature=signature, kind=kind)
    if entry:
        yield entry


def _signature(value: object) -> str | None:
    """Return the signature that the C source declares.

    `inspect.signature` would evaluate defaults with whatever happens to be imported.
    """
    declared = getattr(value, "__text_signature__", None)
    return " ".join(re.sub(r"\$\w+(, /)?(, )?", "", declared).split()) if isinstance(declared, str) else None
