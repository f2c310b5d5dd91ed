"""Each promise of docs/reliability.md, docs/service.md and docs/watching.md names tests that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBERS = {"reliability": 18, "service": 16, "watching": 28}
PAGES = [(ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in NUMBERS]
PROMISES = [row for page in PAGES for row in re.findall(r"^\| \d+ \| (.*\.) \| (.*) \|$", page, re.MULTILINE)]
TESTS = sorted({name for _, tests in PROMISES for name in re.findall(r"`([^`]+)`", tests)})


def test_the_page_has_each_promise_with_tests():
    assert len(PROMISES) == sum(NUMBERS.values())
    for words, tests in PROMISES:
        assert words.endswith(".")
        assert "`tests/" in tests


@pytest.mark.parametrize("test", TESTS)
def test_every_test_that_is_named_exists(test):
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert names
    assert not name or name in names
