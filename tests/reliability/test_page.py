"""Each promise of docs/reliability.md, and those of the service and the watch, name tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUMBERS = {"docs/reliability.md": 18, "tests/reliability/promises.md": 16 + 28}
PAGES = [(ROOT / name).read_text(encoding="utf-8") for name in NUMBERS]
PROMISES = [row for page in PAGES for row in re.findall(r"^\| \d+ \| (.*\.) \| (.*) \|$", page, re.MULTILINE)]
TESTS = sorted({name for _, tests in PROMISES for name in re.findall(r"`([^`]+)`", tests)})


def test_the_page_has_each_promise_with_tests():
    assert len(PROMISES) == sum(NUMBERS.values())
    for words, tests in PROMISES:
        assert words.endswith(".")
        assert "`tests/" in tests


@cache
def names_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {name for name in named if name.startswith("test_")}


def test_every_test_that_is_named_exists():
    for test in TESTS:
        file, _, name = test.partition("::")
        assert names_of(file), test
        assert not name or name in names_of(file), test
