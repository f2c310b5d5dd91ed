"""Kill runs with SIGKILL at random moments, run once more, and compare the result with a clean index.

    python -m tests.reliability.harness --kills 50 --seed 1

prints a line for each kill, and a table. `bench` describes one kill.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.reliability.bench import Bench
from tests.reliability.cases import NAMES, Trial, long_cases
from tests.reliability.services import Services


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=800)
    parser.add_argument("--only", help="kill this target only")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    from rag_index.orchestration.api_server import send_pending_logs, temporary_server
    from rag_index.orchestration.launch import quiet

    for name in [name for name in os.environ if name.startswith(("RAG_INDEX_", "PREFECT_"))]:
        del os.environ[name]
    quiet(folder / "prefect")
    trials: list[Trial] = []
    with temporary_server() as variables, Services(folder) as services:
        os.environ.update(variables)
        bench = Bench(folder, services, given.documents)
        for case in long_cases(given.kills, given.seed):
            if given.only in (None, case.target):
                trials.append(bench.trial_in_time(case))
                print(f"{len(trials)}. {trials[-1]}", flush=True)
        send_pending_logs()
    print(table(trials))
    if any(trial.problems for trial in trials):
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


def table(trials: list[Trial]) -> str:
    """Return a table with a line for each target, and one for all."""
    rows = {name: [trial for trial in trials if trial.case.target == target] for target, name in NAMES.items()}
    lines = [
        "| killed | kills | documents lost | stale | embedded again beyond a window | last process gone after |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, some in {**rows, "all": trials}.items():
        if some:
            counts = (
                len(some),
                *(sum(getattr(one, what) for one in some) for what in ("lost", "stale", "beyond_window")),
            )
            gone = max(trial.gone_seconds or 0.0 for trial in some)
            lines.append(f"| {name} | {' | '.join(map(str, counts))} | {gone:.1f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
