"""docs/reliability.md: its tables are kept by hand, and name tests that exist and a long run that lost nothing."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.reliability.cases import NAMES
from tests.reliability.page import written

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
PROMISES = [row.split(" | ") for row in re.findall(r"^\| \d+ \| (.*) \|$", PAGE, re.MULTILINE)]
TESTS = sorted({name for _, tests, _ in PROMISES for name in re.findall(r"`([^`]+)`", tests)})


def test_the_page_has_each_promise_with_tests_and_a_result():
    assert len(PROMISES) == 14
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


def test_the_page_is_written_from_what_was_counted(tmp_path):
    """Each promise has the number of its cases, and only figures that one of its tests counted."""
    cases = []
    for test in TESTS:
        file, _, name = test.partition("::")
        found = f'<testcase classname="{file.removesuffix(".py").replace("/", ".")}" name="{name or "test_any"}[x]">'
        counts = {"test_every_step.py": ("deaths", 12), "test_source_changes.py": ("rows_missed", 3)}
        key, value = counts.get(Path(file).name, ("unknown", 1))
        cases.append(f'{found}<properties><property name="{key}" value="{value}"/></properties></testcase>')
    results = tmp_path / "results.xml"
    results.write_text(f"<testsuite>{''.join(cases)}</testsuite>")
    kill = {"kills": 7, "documents_lost": 5, "documents_stale": 0, "embedded_again_beyond_a_window": 0}
    kills = {
        **kill,
        "gone_seconds_at_most": 0.5,
        "seeds": [4],
        "by_target": {"flow": {**kill, "gone_seconds_at_most": 0.5}},
    }
    page = written(PAGE, [results], kills)
    assert "deaths at a write: 12, of 7 kills documents lost: 5, stale: 0" in page
    assert "rows missed: 3 |" in page
    assert "| all | 7 | 5 | 0 | 0 | 0.5 s |" in page
    assert page.count("documents lost: ") == 1, "nothing is said that was not counted"
    results.write_text(results.read_text().replace("</testcase>", "<failure/></testcase>", 1))
    with pytest.raises(ValueError, match="failed or did not run"):
        written(PAGE, [results], kills)
