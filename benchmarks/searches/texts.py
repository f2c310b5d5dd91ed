"""Texts that are on every machine, each with a query that its author wrote: a docstring's summary finds the rest.

docstrings   the docstrings of the standard library, without their summaries
functions    the source of the standard library's functions, without their docstrings
packages     the docstrings of the installed packages, without their summaries
"""

from __future__ import annotations

import ast
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rag_index.first_run.samples.pydocs import split_docstring

if TYPE_CHECKING:
    from collections.abc import Iterator

SETS = ("docstrings", "functions", "packages")
MIN_TEXT, MIN_QUERY, MAX_QUERY = 80, 20, 300
"""Characters."""
_ELSEWHERE = {"site-packages", "test", "tests", "idlelib", "lib2to3", "_vendor"}

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module


@dataclass(frozen=True, slots=True)
class KnownText:
    """A text and the query that should find it."""

    name: str
    query: str
    text: str


def known_texts(which: str) -> list[KnownText]:
    """Return the texts of a set. Each is there once, and so is each query that is not empty."""
    found = {text.text: text for text in _texts(which)}.values()
    asked = Counter(text.query for text in found)
    return [text if asked[text.query] == 1 else KnownText(text.name, "", text.text) for text in found]


def _texts(which: str) -> Iterator[KnownText]:
    root = Path(np.__file__).parents[1] if which == "packages" else Path(sysconfig.get_paths()["stdlib"])
    for name, lines, node in _definitions(root):
        docstring = ast.get_docstring(node)
        query, body = split_docstring(docstring or "")
        text = _without_docstring(lines, node) if which == "functions" else body
        if text and len(text) >= MIN_TEXT and MIN_QUERY <= len(query) <= MAX_QUERY:
            yield KnownText(name, query, text)


def _definitions(root: Path) -> Iterator[tuple[str, list[str], Documented]]:
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        if _ELSEWHERE.intersection(place.parts):
            continue
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, Documented):
                yield f"{place}:{getattr(node, 'lineno', 0)}", source.splitlines(), node


def _without_docstring(lines: list[str], node: Documented) -> str | None:
    """Return the source of a function that has more than a docstring; None for anything else."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2 or not node.end_lineno:
        return None
    docstring = node.body[0]
    return "\n".join([*lines[node.lineno - 1 : docstring.lineno - 1], *lines[docstring.end_lineno : node.end_lineno]])
