"""promises.md: each promise names tests that exist, and docs/reliability.md has those of runs in
short."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUMBER = 17 + 15 + 17
"""The promises of runs, of the service and of the watch."""
PAGE = (Path(__file__).parent / "promises.md").read_text(encoding="utf-8")
PROMISES = re.findall(r"^\| \d+ \| (.*\.) \| (.*) \|$", PAGE, re.MULTILINE)
TESTS = sorted({name for _, tests in PROMISES for name in re.findall(r"`([^`]+)`", tests)})


def test_the_page_has_each_promise_with_tests():
    assert len(PROMISES) == NUMBER
    short = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert re.findall(r"^(\d+)\. \*\*", short, re.MULTILINE) == [
        str(number) for number in range(1, 18)
    ]
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
