"""What commands cost beside the work itself: processor seconds of all their processes, and the time
to a first text.

    python benchmarks/startup.py [--documents N] [--repeat N]

Prints, as median and spread, for `--version`, `--help`, `status`, and for `index-all` over prose
(Python's documentation in excerpts of 400 characters, SQLite, embedded store) where nothing has
changed and where 1% has: the processor seconds of the command and all processes that it waits for,
the ratio to those of `--version`, and the seconds of the clock. The same for a Python that imports
SQLAlchemy or pydantic and nothing else, which `status` cannot do without. Then for first runs: the
seconds from the command to the first embedded text over those that Prefect's server takes to
answer, both in turn; such a run is stopped after its first text. No Prefect server is named: this
is what a user has by default.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from local import HOOKS, prose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local import Desk

PROGRAM = str(Path(sys.executable).parent / "rag-index")
SERVER = """
import time
from tests.prefect_api import temporary_server
started = time.perf_counter()
with temporary_server():
    print(time.perf_counter() - started)
"""
NOTHING, SOME = "nothing changed", "1% changed"
LIBRARIES = {
    "importing SQLAlchemy": "import sqlalchemy",
    "importing pydantic": "from pydantic import BaseModel",
}
GOALS = {
    "--help": "under 0.3 s of processors",
    "status": "under 0.3 s of processors",
    NOTHING: "at most 2.5 s of processors, and 2 s of the clock beyond --version",
    SOME: f"at most 1.5 times {NOTHING}",
}
FIRST_TEXT_SECONDS = 300
"""When a first run that has embedded nothing counts as failed."""


class Cost(NamedTuple):
    """The seconds of a command: of processors, in all its processes, and of the clock."""

    cpu: float
    wall: float


def cost(*arguments: str) -> Cost:
    """Run a command and return its cost. Exits if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=errors)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(arguments)} ended with {process.returncode}: {errors.read()}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - started)


def commands(made: Desk) -> Iterator[tuple[str, Cost]]:
    """Run each command once, and yield its name and cost."""
    given = [PROGRAM, "--config", str(made.config)]
    yield "--version", cost(PROGRAM, "--version")
    yield "--help", cost(PROGRAM, "--help")
    yield "status", cost(*given, "status")
    for name, code in LIBRARIES.items():
        yield name, cost(sys.executable, "-c", code)
    yield NOTHING, cost(*given, "index-all")
    with sqlite3.connect(made.folder / "pydocs.db") as db:
        db.execute("UPDATE excerpt SET body = substr(body, 2) || 'x' WHERE id % 100 = 0")
    yield SOME, cost(*given, "index-all")


def first_text(made: Desk) -> float:
    """Return the seconds from the command to its first embedded text. The run is stopped then."""
    first = made.folder / "first"
    first.unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": HOOKS, "BENCHMARK_FIRST": str(first)}
    started = time.time()
    with subprocess.Popen(
        [PROGRAM, "--config", str(made.reset().config), "index-all"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        while not (first.exists() and first.stat().st_size):
            if process.poll() is not None or time.time() - started > FIRST_TEXT_SECONDS:
                process.kill()
                sys.exit("a first run embedded nothing")
            time.sleep(0.02)
        process.terminate()
    return float(first.read_text()) - started


def server_seconds(home: str) -> float:
    """Return the seconds from the start of Prefect's server to its first answer."""
    environment = {**os.environ, "PREFECT_HOME": home, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    return float(subprocess.check_output([sys.executable, "-c", SERVER], env=environment))


def say(costs: dict[str, list[Cost]]) -> None:
    """Print what the commands cost, with the goals."""
    for name, all_costs in costs.items():
        cpu = [one.cpu for one in all_costs]
        versions = list(zip(all_costs, costs["--version"], strict=True))
        ratio = median(one.cpu / version.cpu for one, version in versions)
        beyond = median(one.wall - version.wall for one, version in versions)
        print(
            f"{name}: {median(cpu):.2f} s of processors ({min(cpu):.2f} to {max(cpu):.2f}),"
            f" {ratio:.1f} times --version, {beyond:.2f} s of the clock beyond it; goal:"
            f" {GOALS.get(name, 'none')}"
        )
    ratios = [
        some.cpu / nothing.cpu for some, nothing in zip(costs[SOME], costs[NOTHING], strict=True)
    ]
    print(
        f"{SOME} over {NOTHING}: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=64_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    for name in [
        name
        for name in os.environ
        if name.startswith("PREFECT_") or name == "PYTHONDONTWRITEBYTECODE"
    ]:
        del os.environ[name]
    costs: dict[str, list[Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home, prose(given.documents) as made:
        made.index(workers=None)
        for _ in range(given.repeat):
            for name, one in commands(made):
                costs[name].append(one)
        say(costs)
        server_seconds(home)  # it makes its tables at its first start
        firsts = [(server_seconds(home), first_text(made)) for _ in range(min(3, given.repeat))]
    ratios = [text / server for server, text in firsts]
    print(
        f"first embedded text: {median(text for _, text in firsts):.2f} s; over Prefect's server:"
        f" {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); goal: at most 1"
    )


if __name__ == "__main__":
    main()
