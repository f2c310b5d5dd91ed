"""Kill runs with SIGKILL at random moments of the work, run once more, and hold the result against a clean index.

    python -m tests.reliability.harness --kills 50 --seed 1 [--json FILE]

prints the table of docs/reliability.md. `bench` says what one kill is.
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
    parser.add_argument("--only", help="this target alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    from rag_index.orchestration.api_server import send_what_waits, temporary_server
    from rag_index.orchestration.launch import quiet

    for name in [name for name in os.environ if name.startswith(("RAG_INDEX_", "PREFECT_"))]:
        del os.environ[name]
    quiet(folder / "prefect")
    trials: list[Trial] = []
    started = time.monotonic()
    with temporary_server() as url, Services(folder) as services:
        os.environ["PREFECT_API_URL"] = url
        bench = Bench(folder, services, given.documents)
        for case in long_cases(given.kills, given.seed):
            if given.only and case.target != given.only:
                continue
            trials.append(bench.soon(case))
            print(line(len(trials), trials[-1]), flush=True)
            figures = summary(trials, seed=given.seed, seconds=time.monotonic() - started)
            if given.json:  # after each: a long run that is stopped keeps what it found
                given.json.write_text(json.dumps(figures, indent=1) + "\n")
        send_what_waits()
    if not trials:
        sys.exit(f"no kill of {given.only} among the first {given.kills}: raise --kills")
    print(table(figures))
    print(json.dumps(figures, indent=1))
    if figures["problems"]:
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
