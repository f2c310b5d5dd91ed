"""docs/reliability.md: its tables are kept by hand, and name tests that exist and a long run that lost nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.reliability.cases import NAMES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = [row.split(" | ") for row in re.findall(r"^\| \d+ \| (.*) \|$", PAGE, re.MULTILINE)]
TESTS = sorted({name for _, tests, _ in PROMISES for name in re.findall(r"`([^`]+)`", tests)})


def test_the_page_has_each_promise_with_tests_and_a_result():
    assert len(PROMISES) == 13
    for words, tests, result in PROMISES:
        assert words.endswith(".")
        assert "`tests/" in tests
        assert int(re.search(r"\d[\d,]*", result)[0].replace(",", "")) > 0, result


@pytest.mark.parametrize("test", TESTS)
def test_every_test_that_is_named_exists(test):
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    assert names
    assert not name or name in names


def test_the_table_of_kills_has_every_target():
    rows = re.findall(r"^\| (.*?) \| \d+ \| \d+ \| \d+ \| \d+ \| [\d.]+ s \|$", PAGE, re.MULTILINE)
    assert rows == [*NAMES.values(), "all"]


def test_the_last_long_run_lost_nothing():
    [killed] = re.findall(r"^\| all \| (.*) \|$", PAGE, re.MULTILINE)
    kills, lost, stale, again, gone = killed.split(" | ")
    assert int(kills) >= 50
    assert (lost, stale, again) == ("0", "0", "0")
    assert float(gone.removesuffix(" s")) < 10
