"""What a run costs, beside another version of rag-index on the same texts, in turns.

    python benchmarks/beside.py OTHER/.venv/bin/python [--documents 63905] [--repeat 3] [--qdrant
    URL]

Prints, as medians with their spread, the seconds of processors of all processes and those of the
clock, for this version and for the other one, and the median ratio of each pair: a plain first run,
one in which nothing changed, and one in which 1% did, spread over the table; and the same as a flow
at a Prefect server that runs already, with the embedded store; with `--qdrant` also with that
server, whose own processors are not counted.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import uuid
from collections import defaultdict
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from local import prose
from startup import Cost, cost

from rag_index.orchestration.launch import own_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local import Desk

FLOW = ("-P", "-m", "flows.index_all")
PLAIN = ("-P", "-m", "rag_index", "index-all")


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Let commands see these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def change(made: Desk, to: str) -> None:
    """Change one document of a hundred to a text that no run has seen."""
    with closing(sqlite3.connect(made.folder / "pydocs.db")) as db, db:
        db.execute(
            "UPDATE excerpt SET body = substr(body, 1, 300) || ? WHERE id % 100 = 7",
            (f" {to} {uuid.uuid4()}",),
        )


def runs(made: Desk, python: str, qdrant: str | None) -> Iterator[tuple[str, Cost]]:
    """Run an index from the start and again, plainly and as a flow, and yield what each costs."""
    for store in ["", qdrant] if qdrant else [""]:
        for way, command in (("plain", PLAIN), ("flow", FLOW)):
            made.reset()
            server = {
                "RAG_INDEX_STORE__URL": store,
                "RAG_INDEX_PROJECT": f"beside-{uuid.uuid4().hex[:8]}",
            }
            with environment(**server if store else {}):
                for when in ("first run", "nothing changed", "1% changed"):
                    if when == "1% changed":
                        change(made, store + way)
                    yield (
                        f"{way}, {'a server' if store else 'embedded'}, {when}",
                        cost(python, *command),
                    )


def say(name: str, costs: dict[str, list[Cost]]) -> None:
    """Print the costs of one kind of run in both versions."""
    ours, theirs = costs["this"], costs["other"]
    cells = [name]
    for of in ("cpu", "wall"):
        pairs = [(getattr(a, of), getattr(b, of)) for a, b in zip(ours, theirs, strict=True)]
        for values in zip(*pairs, strict=True):
            cells.append(f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})")
        cells.append(f"{median(a / b for a, b in pairs):.2f}")
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other")
    parser.add_argument("--documents", type=int, default=63_905)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--qdrant")
    given = parser.parse_args()
    costs: dict[str, dict[str, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(environment(PREFECT_HOME=home, PREFECT_LOGGING_LEVEL="ERROR"))
        url, password = stack.enter_context(own_server())
        made = stack.enter_context(prose(given.documents))
        api = {
            "PREFECT_API_URL": url,
            "PREFECT_API_AUTH_STRING": password,
            "RAG_INDEX_CONFIG": str(made.config),
        }
        stack.enter_context(environment(**api))
        for number in range(given.repeat):
            versions = [("this", sys.executable), ("other", given.other)]
            for version, python in versions[:: 1 if number % 2 else -1]:
                for name, spent in runs(made, python, given.qdrant):
                    costs[name][version].append(spent)
    print("| run | CPU s now | before | ratio | wall s now | before | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, found in costs.items():
        say(name, found)


if __name__ == "__main__":
    main()
