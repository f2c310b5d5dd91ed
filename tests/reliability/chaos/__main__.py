"""The command: a trial of a size that is given, which prints what it found as JSON."""

import argparse
import json
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.reliability.chaos.desk import WAYS, open_desk
from tests.reliability.chaos.trial import Trial


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Kill a watch and what it needs while a source changes."
    )
    parser.add_argument("--way", choices=WAYS, default="postgresql")
    parser.add_argument("--operations", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--tickets", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    with ExitStack() as stack:
        desk, what = open_desk(stack, folder, given.way, tickets=given.tickets)
        trial = Trial(
            desk, operations=given.operations, seed=given.seed, writers=given.threads, **what
        )
        print(json.dumps({"way": given.way, **trial.run(kills=given.kills)}, indent=1))


if __name__ == "__main__":
    main()
