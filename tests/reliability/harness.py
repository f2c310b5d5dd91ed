"""Kill runs with SIGKILL at random moments, run once more, and compare the result with a clean index.

    python -m tests.reliability.harness --kills 50 --seed 1 [--json FILE]

prints a table of the kills. `bench` describes one kill.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.reliability.bench import Bench
from tests.reliability.cases import Trial, long_cases
from tests.reliability.metrics import line, summary, table
from tests.reliability.services import Services


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=800)
    parser.add_argument("--only", help="kill this target only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary to this file")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    from rag_index.orchestration.api_server import send_pending_logs, temporary_server
    from rag_index.orchestration.launch import quiet

    for name in [name for name in os.environ if name.startswith(("RAG_INDEX_", "PREFECT_"))]:
        del os.environ[name]
    quiet(folder / "prefect")
    trials: list[Trial] = []
    started = time.monotonic()
    with temporary_server() as variables, Services(folder) as services:
        os.environ.update(variables)
        bench = Bench(folder, services, given.documents)
        for case in long_cases(given.kills, given.seed):
            if given.only and case.target != given.only:
                continue
            trials.append(bench.trial_in_time(case))
            print(line(len(trials), trials[-1]), flush=True)
            metrics = summary(trials, seed=given.seed, seconds=time.monotonic() - started)
            if given.json:  # after each: a long run that is stopped keeps what it found
                given.json.write_text(json.dumps(metrics, indent=1) + "\n")
        send_pending_logs()
    if not trials:
        sys.exit(f"none of the first {given.kills} kills has the target {given.only}: raise --kills")
    print(table(metrics))
    print(json.dumps(metrics, indent=1))
    if metrics["problems"]:
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
