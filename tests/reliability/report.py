"""Try every promise of docs/reliability.md at length, and write what came of it into the page.

    python -m tests.reliability.report [--kills 50] [--seed N]     runs them: about three quarters of an hour
    python -m tests.reliability.report --junit FILE --junit FILE   takes what `.ci/run` has written of its tests

A kill or a test that ends wrong leaves the page as it is. Of promises whose tests are not among those of the files the
page says so.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.reliability.metrics import merged, table
from tests.reliability.promises import PROMISES, Promise, Tried

__all__ = ["NOT_TRIED", "PAGE", "NotTried", "page_with", "rows", "tried"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
KILLS = "tests/reliability/test_kill.py"
"""Its kills are those of the harness, and made by it here."""
KILLS_NOTED = "kills"
"""The property under which they note the summary of their kills, as JSON."""
NOT_TRIED = "not tried in this run"
BEGIN, END = "<!-- written by tests/reliability/report.py -->", "<!-- end -->"


class NotTried(Exception):
    """A test that shows a promise did not run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--junit", type=Path, action="append", metavar="FILE", help="of tests that ran already")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="reliability-"))
    files = given.junit or [_tested(folder)]
    found = {name: case for file in files for name, case in cases_of(file).items()}
    summaries = [case["kills"] for case in found.values() if case["kills"]]
    kills = merged(summaries if given.junit else [_killed(folder, given.kills, given.seed)])
    wrong = [*kills["problems"], *(name for name, case in found.items() if case["failed"])]
    if wrong:
        sys.exit("\n".join(["not as it should be:", *wrong]))
    text = rows(kills, found, when=dt.datetime.now(dt.UTC).date(), partial=bool(given.junit))
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    sys.stdout.write(text)


def _killed(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    file = folder / "kills.json"
    arguments = ["--kills", str(kills), "--seed", str(seed), "--json", str(file)]
    subprocess.run([sys.executable, "-m", "tests.reliability.harness", *arguments], cwd=ROOT, check=False)
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return made


def _tested(folder: Path) -> Path:
    file = folder / "junit.xml"
    named = list(dict.fromkeys(name for promise in PROMISES for name in promise.tests if name != KILLS))
    whole = [name for name in named if "::" not in name or name.partition("::")[0] not in named]
    subprocess.run(
        [sys.executable, "-m", "pytest", *whole, f"--junitxml={file}"],
        cwd=ROOT, check=False, env={**os.environ, "CI": "true"},  # nothing is skipped silently
    )  # fmt: skip
    return file


def cases_of(junit: Path) -> dict[str, dict[str, Any]]:
    """Each case of a test run, `tests/test_x.py::test_name[case]`: whether it failed, the numbers it noted, and the
    summary of its kills. Where tests ran in several processes, what they shared stands behind an @."""
    found = {}
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        if case.find("skipped") is not None:
            continue
        name = f"{case.attrib['classname'].replace('.', '/')}.py::{re.sub(r'@[^@]]*$', '', case.attrib['name'])}"
        noted = {p.attrib["name"]: p.attrib["value"] for p in case.iter("property")}
        kills = json.loads(noted.pop(KILLS_NOTED, "null"))
        found[name] = {
            "failed": case.find("failure") is not None or case.find("error") is not None,
            "noted": {key: float(value) for key, value in noted.items()},
            "kills": kills,
        }
    return found


def tried(promise: Promise, kills: dict[str, Any], found: dict[str, dict[str, Any]]) -> Tried:
    """What the tests of one promise came to.

    Raises:
        NotTried: a test that it names did not run.
    """
    noted: dict[str, list[float]] = {}
    of_it: set[str] = set()
    for named in promise.tests:
        mine = {name for name in found if name == named or name.startswith((f"{named}::", f"{named}["))}
        if not mine and named != KILLS:
            raise NotTried(f"{named} did not run: see what pytest says of it")
        of_it |= mine
    for name in of_it:
        for key, value in found[name]["noted"].items():
            noted.setdefault(key, []).append(value)
    return Tried(len(of_it), noted, kills)


def rows(kills: dict[str, Any], found: dict[str, dict[str, Any]], *, when: dt.date, partial: bool = False) -> str:
    """The part of the page that is written by this: the table of promises, and the one of what was killed."""
    lines = ["| | promise | shown by | last long run |", "|---:|---|---|---|"]
    for number, promise in enumerate(PROMISES, start=1):
        names = ", ".join(f"`{name}`" for name in promise.tests)
        try:
            figure = promise.figure(tried(promise, kills, found))
        except NotTried:
            if not partial:
                raise
            figure = NOT_TRIED
        lines.append(f"| {number} | {promise.words} | {names} | {figure} |")
    said = (
        f"rag-index {version('rag-index')}, {when:%d %B %Y}, {os.cpu_count()} processors, seed "
        f"{', '.join(map(str, kills['seeds']))}: "
        f"{len(found)} cases passed, {kills['kills']} kills in {kills['seconds'] / 60:.0f} minutes."
    )
    return "\n".join([said, "", *lines, "", "What was killed, and what came of it:", "", table(kills)]) + "\n"


def page_with(page: str, text: str) -> str:
    """The page with this text between its marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{text}{END}{tail}"


if __name__ == "__main__":
    main()
