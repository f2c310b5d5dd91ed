"""What files import, and that no pattern takes the square of the time for a text that somebody else
wrote."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from graphlib import TopologicalSorter
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import grimp
import pytest

import rag_index
from rag_index.components.chunking.text_chunker import TextChunker
from rag_index.components.sources.text import read_text
from tests.etl.plain import run_plain
from tests.project import Project

IMPORTED_AT_THE_END = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
"""
COMMAND = "from rag_index.cli import main; main()"
FLOW = (
    "import runpy; sys.argv = ['flows.index_all']; runpy.run_module('flows.index_all',"
    " run_name='__main__')"
)
OWN = re.compile(
    r"rag_index\.(?:cli|core\.settings|first_run|search\.frameworks|search\.evaluation\.measures"
    r"|watch\.changes\.watched_tables|care\.effective_settings)\b"
)
"""Packages whose patterns read what the user or the project wrote, or the first 1,500 characters of
a value."""
BOUNDED = {
    "_GENERATED",
    "_COMMENT",
    "_MARKERS",
    "_ATTRIBUTE",
    "_OPENING",  # 2,000 characters at most
    "TOO_LONG",
    "TOO_MANY",
    "NO_MODEL",
    "CRASHED",
    "STRICT_MODE",
    "_SECRET_VALUE",
    "_PART",  # of an error or a path
    "_LIKE_NAME",  # the first characters of a word
    "_ELEMENTS",
    "_THINKING",  # only of a text that fits as a whole
}
ANCHORED = {
    "PERMITS",
    "PLACE",
    "RESTRICTS",
    "_CODE",
    "_EMAIL",
    "_JSON",
    "_LANGUAGES",
    "_MAIL",
    "_NAME_OF_PROGRAMS",
    "_OPAQUE",
    "_OPENED",
}
"""Patterns that functions are given which only look whether they fit from the beginning."""
LONGEST = 100_000
"""Characters. What takes the square of the time shows it at a quarter of that."""
UNITS = [
    " ",
    "&nbsp;",
    "[a_b",
    "[url=",
    "[b]",
    "<a ",
    "<a b='",
    "<!--",
    "\n ",
    "*",
    "`",
    "<s>",
    "[code]",
]


@pytest.mark.long
@pytest.mark.parametrize("program", [COMMAND, FLOW])
def test_a_night_loads_nothing_of_search_or_watch(tmp_path, program):
    """Unless an index has a gate, or is to learn what its scores mean, as at the end of its first
    run."""
    project = Project(tmp_path / "project").fill(3)
    run_plain(project)
    given = os.environ | {
        "RAG_INDEX_CONFIG": str(project.config),
        "PREFECT_LOGGING_TO_API_ENABLED": "0",
    }
    command = [sys.executable, "-c", IMPORTED_AT_THE_END + program, "index-all"]
    ended = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    [modules] = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith('["')]
    assert "rag_index.etl.run" in modules
    assert not [
        name
        for name in modules
        if name.startswith(("rag_index.search", "rag_index.watch", "rag_index.first"))
    ]


@pytest.mark.long
def test_a_worker_imports_what_embeds_and_writes_and_no_more():
    program = [
        sys.executable,
        "-c",
        "import json, sys, tasks.etl; print(json.dumps(sorted(sys.modules)))",
    ]
    modules = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    came_along = {name.split(".")[1] for name in modules if name.startswith("rag_index.")}
    assert came_along == {"errors", "quotes", "redaction", "core", "components", "etl"}
    assert "qdrant_client" not in modules, "the store may be embedded"


def test_no_files_import_each_other_in_a_circle():
    """Imports for types count. The error names the circle."""
    graph = grimp.build_graph("rag_index", "flows", "tasks", cache_dir=None)
    TopologicalSorter(
        {file: graph.find_modules_directly_imported_by(file) for file in graph.modules}
    ).prepare()


def patterns() -> Iterator[tuple[str, re.Pattern[Any]]]:
    for found in pkgutil.walk_packages(rag_index.__path__, "rag_index."):
        if found.name.endswith("__main__") or OWN.match(found.name):
            continue
        for name, value in sorted(vars(importlib.import_module(found.name)).items()):
            for number, one in enumerate(value if isinstance(value, tuple) else [value]):
                if isinstance(one, re.Pattern) and name not in BOUNDED:
                    yield f"{found.name}.{name}.{number}", one


def sample(tree: Any) -> list[str]:
    """Return texts that a parsed pattern takes, one for each of its first branches."""
    texts = [""]
    for kind, value in tree:
        more = [""]
        if kind is _parser.LITERAL:
            more = [chr(value)]
        elif kind is _parser.IN:
            more = [next((chr(one) for name, one in value if name is _parser.LITERAL), "a")]
        elif kind in (_parser.MAX_REPEAT, _parser.MIN_REPEAT, _parser.POSSESSIVE_REPEAT):
            more = sample(value[2])[:3]
        elif kind is _parser.BRANCH:
            more = [text for branch in value[1] for text in sample(branch)[:2]]
        elif kind in (_parser.SUBPATTERN, _parser.ATOMIC_GROUP):
            more = sample(value[-1] if kind is _parser.SUBPATTERN else value)
        elif kind in (_parser.ANY, _parser.NOT_LITERAL):
            more = ["a"]
        texts = [text + one for text in texts for one in more][:60]
    return texts


def seconds(work: Callable[[str], object], unit: str, length: int) -> float:
    text = unit * (length // len(unit))
    began = time.process_time()
    work(text)
    return time.process_time() - began


def is_linear(work: Callable[[str], object], unit: str, length: int) -> bool:
    """Return whether one of three tries shows it: a busy machine makes measurements too long, and
    none too short."""
    return any(seconds(work, unit, 4 * length) < 8 * seconds(work, unit, length) for _ in range(3))


def test_each_pattern_takes_linear_time_for_what_it_almost_fits():
    for name, pattern in patterns():
        check_almost_fits(name, pattern)


def check_almost_fits(name: str, pattern: re.Pattern[Any]) -> None:
    is_bytes, (module, own) = isinstance(pattern.pattern, bytes), name.rsplit(".", 2)[:2]
    source = inspect.getsource(importlib.import_module(module))
    is_searched = re.search(rf"\b{own}\.(?:sub|search|findall|finditer|split)\(", source)
    is_anchored = own in ANCHORED or (
        not is_searched and re.search(rf"\b{own}\.(?:full)?match\(", source)
    )
    whole = sample(
        _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE if is_bytes else pattern.flags)
    )
    units = {text[:end] for text in whole for end in range(1, min(len(text), 12) + 1)} | {
        " ",
        "\n",
        "a",
        "(",
    }
    units |= {text[:-1] + text[-2:-1] * 5 for text in whole if len(text) > 1}

    def work(text: str) -> None:
        given: Any = text.encode() if is_bytes else text
        pattern.fullmatch(given)
        pattern.match(given) if is_anchored else pattern.sub(given[:0], given)

    for unit in sorted(units):
        if seconds(work, unit, 4000) > 0.004:
            assert is_linear(work, unit, 4000), (name, unit)


@pytest.mark.parametrize(
    "form",
    [
        "html",
        "auto",
        *(pytest.param(form, marks=pytest.mark.long) for form in ("bbcode", "markdown")),
    ],
)
@pytest.mark.parametrize("unit", UNITS)
def test_a_long_text_of_anything_is_read_and_split_in_linear_time(form, unit):
    """Four times the text takes less than eight times the time, at the first length that takes some
    time."""
    chunker = TextChunker(1000, 100)

    def work(text):
        return chunker.split(read_text(f"x{text}<pre>x{text}x</pre>", form))

    lengths = (LONGEST // 128, LONGEST // 32, LONGEST // 16, LONGEST // 4)
    slow = next((length for length in lengths if seconds(work, unit, length) > 0.02), 0)
    assert not slow or is_linear(work, unit, slow), (unit, slow)
