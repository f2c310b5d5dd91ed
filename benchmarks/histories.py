"""Hold every answer that claims a time against what had been committed by then, for as long as one
wishes.

    python benchmarks/histories.py [--ways sqlite postgresql] [--seconds 600] [--writers 50]
                                   [--searchers 4] [--rate 2] [--kill 60] [--qdrant URL]

Writers change tickets and customers of a service desk, with joins, changes of keys, deletes and
transactions that are rolled back, `--rate` transactions a second each. The watch is killed every
`--kill` seconds. Half of the searches demand the time of a commit that has just returned. It prints
a line of JSON for each way, and ends with 1 if an answer was wrong: something is missing, older
than claimed, deleted before, or was never committed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.reliability.chaos.desk import WAYS, open_desk
from tests.reliability.chaos.trial import Trial


def main() -> None:
    parser = argparse.ArgumentParser(description="Check what answers claim.")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=["sqlite", "postgresql"])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--writers", type=int, default=50)
    parser.add_argument("--searchers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2.0)
    parser.add_argument("--kill", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--qdrant", help="a Qdrant server to write to, in place of the embedded store"
    )
    given = parser.parse_args()
    wrong = False
    for way in given.ways:
        with ExitStack() as stack:
            folder = Path(
                stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            )
            services = f'[store]\nurl = "{given.qdrant}"' if given.qdrant else ""
            desk, _ = open_desk(stack, folder, way, tickets=25 * given.writers, services=services)
            trial = Trial(
                desk,
                writers=given.writers,
                searchers=given.searchers,
                rate=given.rate,
                seed=given.seed,
            )
            found = trial.run(
                kills=int(given.seconds / given.kill), seconds=given.seconds, nights=False
            )
        print(json.dumps({"way": way, **found}), flush=True)
        wrong = wrong or bool(found["violations"])
    sys.exit(int(wrong))


if __name__ == "__main__":
    main()
