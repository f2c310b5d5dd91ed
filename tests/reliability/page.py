"""Write what a long run found into docs/reliability.md: its two tables, and the commit that they describe."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.reliability.metrics import table

__all__ = ["PAGE", "run_named_tests", "written"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
ROW = re.compile(r"^(\| *\d+ \| .*? \| (.*) \| )(.*?)( \|)$", re.MULTILINE)
WORDS = {
    "copies_put_back": "copies put back and noticed",
    "deaths": "deaths at a write",
    "documents_lost": "documents lost",
    "rows_missed": "rows missed",
    "searches": "searches",
    "searches_failed": "searches failed or empty",
}
"""The properties that tests count, as the page calls them."""


def run_named_tests(file: Path) -> None:
    """Run every test that the page names, the long ones too, and write their results into `file`."""
    names = sorted(
        {name for _, tests, _, _ in ROW.findall(PAGE.read_text()) for name in re.findall(r"`([^`]+)`", tests)}
    )
    command = [sys.executable, "-m", "pytest", "-q", "-m", "long or not long", f"--junitxml={file}", *names]
    subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "PREFECT_API_URL": ""})


def written(page: str, results: list[Path], kills: dict[str, Any]) -> str:
    """Return the page with the results of these files, and of the kills.

    Raises ValueError if a test of a promise failed or did not run.
    """
    cases = [case for file in results for case in ElementTree.parse(file).iter("testcase")]
    page = ROW.sub(lambda row: row[1] + _result(row[2], cases, kills) + row[4], page)
    start, end = page.index("| killed | kills |"), page.index("\n\n## How it is tested")
    page = page[:start] + table(kills) + page[end:]
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    day = dt.datetime.now(tz=dt.UTC).strftime("%-d %B %Y")
    sentence = (
        f"The last long run: commit {commit.stdout.strip()}, {day}, {os.cpu_count()} processors, seed "
        f"{', '.join(map(str, kills['seeds']))}; {len(cases):,} cases, with {kills['kills']} kills."
    )
    return re.sub(r"^The last long run: .*$", sentence, page, flags=re.MULTILINE)


def _result(tests: str, cases: list[ElementTree.Element], kills: dict[str, Any]) -> str:
    """Return what the tests of a promise counted."""
    counted: Counter[str] = Counter()
    number = 0
    for name in re.findall(r"`([^`]+)`", tests):
        file, _, function = name.partition("::")
        module = file.removesuffix(".py").replace("/", ".")
        found = [
            case
            for case in cases
            if case.get("classname") == module and (not function or case.get("name", "").partition("[")[0] == function)
        ]
        if not found or any(case.find(end) is not None for case in found for end in ("failure", "error")):
            raise ValueError(f"{name} failed or did not run")
        number += sum(case.find("skipped") is None for case in found)
        for case in found:
            for one in case.iter("property"):
                if (key := one.get("name", "")) in WORDS:
                    counted[key] += int(str(one.get("value")))
    parts = [f"{number:,} cases", *(f"{WORDS[key]}: {counted[key]:,}" for key in WORDS if key in counted)]
    if "test_kill.py" in tests:
        again = kills["embedded_again_beyond_a_window"]
        parts.append(f"of {kills['kills']} kills documents lost: {kills['documents_lost']}")
        parts.append(f"stale: {kills['documents_stale']}, embedded again beyond a window of shards: {again}")
    return ", ".join(parts)
