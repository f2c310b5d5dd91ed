"""What commands cost beside the work itself: processor seconds of all their processes, and the time to a first shard.

    python benchmarks/startup.py [--documents N] [--repeat N]

Prints, as median and spread, for `--version`, `--help`, `status`, and for `index-all` over prose (Python's
documentation in excerpts of 400 characters, SQLite, embedded store) where nothing has changed and where 1% has: the
processor seconds of the command and all processes that it waits for, the ratio to those of `--version`, and the seconds
of the clock. Then for first runs: the seconds from the command to the first embedded text over those that Prefect's
server takes to answer, both in turn. No Prefect server is named: this is what a user has by default.
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

from local import HOOKS, SERVER, prose, run_code

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local import Desk

PROGRAM = str(Path(sys.executable).parent / "rag-index")
GOALS = {
    "--version": "none",
    "--help": "under 0.3",
    "status": "under 0.3",
    "nothing changed": "at most 2.5, and 2 s of the clock beyond --version",
    "1% changed": "at most 1.5 times nothing changed",
}


class Cost(NamedTuple):
    """The seconds of a command: of processors, in all its processes, and of the clock."""

    cpu: float
    wall: float


def cost(*arguments: str) -> Cost:
    """Run a command of the program and return its cost. Exits if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen([PROGRAM, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"rag-index {' '.join(arguments)} ended with {process.returncode}")
    return Cost(used.ru_utime + used.ru_stime, time.perf_counter() - started)


def commands(made: Desk) -> Iterator[tuple[str, Cost]]:
    """Run each command once, and yield its name and cost."""
    given = ["--config", str(made.config)]
    yield "--version", cost("--version")
    yield "--help", cost("--help")
    yield "status", cost(*given, "status")
    yield "nothing changed", cost(*given, "index-all")
    with sqlite3.connect(made.folder / "pydocs.db") as db:
        db.execute("UPDATE excerpt SET body = substr(body, 2) || 'x' WHERE id % 100 = 0")
    yield "1% changed", cost(*given, "index-all")


def first_text(made: Desk) -> float:
    """Return the seconds from the command to the first embedded text, over those of the start of Prefect's server."""
    first = made.folder / "first"
    first.unlink(missing_ok=True)
    server = run_code(SERVER, PREFECT_HOME=str(made.folder / ".prefect"))
    started = time.time()
    made.reset().index(workers=None, PYTHONPATH=HOOKS, BENCHMARK_FIRST=str(first))
    return (float(first.read_text()) - started) / server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=64_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("PREFECT_") or name == "PYTHONDONTWRITEBYTECODE"]:
        del os.environ[name]
    costs: dict[str, list[Cost]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as home, prose(given.documents) as made:
        run_code(SERVER, PREFECT_HOME=home)  # it makes its tables at its first start
        made.index(workers=None)
        for _ in range(given.repeat):
            for name, one in commands(made):
                costs[name].append(one)
        firsts = [first_text(made) for _ in range(min(3, given.repeat))]
    for name, all_costs in costs.items():
        cpu, wall = [one.cpu for one in all_costs], [one.wall for one in all_costs]
        ratio = median(one.cpu / version.cpu for one, version in zip(all_costs, costs["--version"], strict=True))
        print(
            f"{name}: {median(cpu):.2f} s of processors ({min(cpu):.2f} to {max(cpu):.2f}), {ratio:.1f} times "
            f"--version, {median(wall):.2f} s of the clock; goal: {GOALS[name]}",
            flush=True,
        )
    print(f"first embedded text over Prefect's server: {median(firsts):.2f} ({min(firsts):.2f} to {max(firsts):.2f}); "
          "goal: at most 1")  # fmt: skip


if __name__ == "__main__":
    main()
