"""Hold answers of an index with `access = "database"` against what each caller selects, and print
what that costs.

    python benchmarks/rights.py --answers 200000 --seconds 600

Policies, rows and memberships change all the time, and connections are cut off. It ends with the
first wrong answer.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.search import Retriever
from tests.live.postgres import PostgresServer, find_postgres
from tests.project import WORDS, Project
from tests.search.rights import CLAIMS, World, live_through

ROWS, SEARCHES = 3000, 50


def price(world: World, chance: random.Random) -> None:
    """Print the milliseconds of searches, and of asking the database, for callers who see more and
    less."""
    world.add(chance, 1, ROWS)
    world.settings()
    world.index()
    for share in (1.0, 0.3, 0.01):
        world.run("DROP POLICY IF EXISTS share ON ticket")
        world.run(
            f"CREATE POLICY share ON ticket USING (id % 1000 < {share * 1000:.0f} AND {CLAIMS} IS"
            " NOT NULL)"
        )
        with Retriever.from_settings(world.project.config) as retriever:
            caller, found = world.caller(chance), []
            for _ in range(SEARCHES):
                query = " ".join(chance.choices(WORDS, k=3))
                found.append(dict(retriever.search_sync(query, groups=caller).timings_ms))
        rights, total = (
            statistics.median(one[name] for one in found) for name in ("access", "total")
        )
        print(
            f"{ROWS} rows, {share:.0%} to be seen: {rights:.1f} ms for rights, {total:.1f} ms in"
            " all (median)"
        )


def main() -> int:
    """Run the histories, then the price; return 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=60.0, help="when to stop at the latest")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    answers, until, seed = 0, time.monotonic() + given.seconds, given.seed
    programs = find_postgres()
    if not isinstance(programs, Path):
        print(programs)
        return 2
    with PostgresServer(programs) as server, tempfile.TemporaryDirectory() as folder:
        while answers < given.answers and time.monotonic() < until:
            with server.database() as name:
                world = World(server, name, Project(Path(folder) / name))
                live_through(world, random.Random(seed), min(given.answers - answers, 2000), until)
                world.close()
            answers, seed = answers + world.answers, seed + 1
            print(f"{answers:,} answers, {len(world.wrong)} wrong {world.wrong[:3]}", flush=True)
            if world.wrong:
                return 1
        with server.database() as name:
            world = World(server, name, Project(Path(folder) / name))
            price(world, random.Random(given.seed))
            world.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
