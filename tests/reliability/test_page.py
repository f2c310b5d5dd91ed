"""docs/reliability.md: each promise with its tests, all of which are there, and figures that a long run has written."""

from __future__ import annotations

import ast
import datetime as dt
import re
from pathlib import Path

import pytest

from tests.reliability.metrics import merged
from tests.reliability.promises import PROMISES
from tests.reliability.report import NOT_TRIED, PAGE, NotTried, page_with, rows, tried

ROOT = Path(__file__).parents[2]
FIGURES = {
    "kills": 25, "documents_lost": 0, "documents_stale": 0, "embedded_again_beyond_a_window": 0,
    "gone_seconds_at_most": 0.5,
}  # fmt: skip
KILLS = {**FIGURES, "seeds": [3], "seconds": 1200, "problems": [], "by_target": {"flow": FIGURES}}


def functions_of(file: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}


def written() -> list[list[str]]:
    """The rows of the page's table of promises."""
    found = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [[number, *rest.split(" | ")] for number, rest in found]


def test_every_test_that_is_named_is_there():
    for promise in PROMISES:
        for named in promise.tests:
            file, _, name = named.partition("::")
            there = functions_of(ROOT / file)
            assert any(test.startswith("test_") for test in there)
            assert not name or name in there, named


def test_the_page_has_each_promise_with_its_tests_and_a_figure():
    page = written()
    assert [row[0] for row in page] == [str(number) for number in range(1, len(PROMISES) + 1)]
    assert len(PROMISES) == 13
    for (_, words, names, figure), promise in zip(page, PROMISES, strict=True):
        assert words == promise.words
        assert re.findall(r"`([^`]+)`", names) == list(promise.tests)
        assert figure == NOT_TRIED or int(re.search(r"\d[\d,]*", figure)[0].replace(",", "")) > 0, figure


def test_the_last_long_run_lost_nothing():
    [killed] = re.findall(r"^\| all \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    kills, lost, stale, again, gone = killed.split(" | ")
    assert int(kills) >= 50
    assert (lost, stale, again) == ("0", "0", "0")
    assert float(gone.removesuffix(" s")) < 10


def test_the_command_writes_between_the_marks_and_nowhere_else():
    found = {
        f"{named if '::' in named else named + '::test_any'}[{case}]": {"failed": False, "noted": {"deaths": 7.0}}
        for promise in PROMISES for named in promise.tests for case in "ab"
    }  # fmt: skip
    text = rows(merged([KILLS, KILLS]), found, when=dt.date(2026, 1, 2))
    page = PAGE.read_text(encoding="utf-8")
    new = page_with(page, text)
    assert new != page
    assert "02 January 2026" in new
    assert "50 kills in 40 minutes" in new
    assert "| the flow's process | 50 | 0 | 0 | 0 | 0.5 s |" in new
    assert page_with(new, text) == new
    assert (new.partition("|")[0][:200], new[-500:]) == (page.partition("|")[0][:200], page[-500:])


def test_a_test_that_did_not_run_is_said():
    with pytest.raises(NotTried, match=r"test_every_step\.py did not run"):
        tried(PROMISES[0], KILLS, {})
