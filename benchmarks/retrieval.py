"""The cost and the quality of searching several indexes at once. README.md quotes the results.

    python benchmarks/retrieval.py parallel [--repeat 20]
        five indexes of 100 ms each, at once and in turn
    python benchmarks/retrieval.py overhead [--repeat 300]
        fan-out, fusion and metrics beyond embed and store
    python benchmarks/retrieval.py desk [--documents 20000] [--queries 1000] [--folder DIR]
        five embedded collections: scanned, then with HNSW
    python benchmarks/retrieval.py one [--documents 66700] [--queries 213] [--folder DIR]
        one index: wall, CPU, stages

`desk --documents 214072` is the whole service desk. With `--folder`, existing indexes in the folder
are used again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.searches.fan_out import overhead, parallel
from benchmarks.searches.one_index import one
from benchmarks.searches.service_desk import desk


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in (("parallel", parallel), ("overhead", overhead), ("desk", desk)):
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--repeat", type=int, default=20 if name == "parallel" else 300)
        command.add_argument("--documents", type=int, default=20_000)
        command.add_argument("--queries", type=int, default=1000)
        command.add_argument("--folder", type=Path)
    command = commands.add_parser("one")
    command.set_defaults(run=one)
    command.add_argument("--documents", type=int, default=66_700)
    command.add_argument("--queries", type=int, default=213)
    command.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
