"""What a run costs beyond the local embedder. Each ratio takes both sides in turn in one run;
median and spread.

    python benchmarks/local.py COMMAND [--documents N] [--workers N] [--repeat N] [--server URL]

    workers     two workers over one, without start-up; and the same for the bare embedder framework
    documents/s end to end with an embedder that answers at once, without start-up memory
    private memory (RssAnon) of each process with N documents over that with a tenth of them; the
    same for
                documents/s; the larger run also builds a search index (HNSW), in a process of its
                own
    prose       first run on real prose, whole command, with default settings, with `--workers` and,
                if `--server` is given, on that Qdrant server, over wordllama's own `embed` in one
                process; and the same of the seconds of CPU of all processes but the server's

The documents are the service desk sample (memory) or prose: Python's documentation in one index, in
excerpts of 400 characters from different places. "Without start-up" means minus the seconds of the
same run over a quarter of the documents, measured in turn, for the documents that it has more:
whatever both start, neither counts. `workers` and `framework` measure the flow, which runs against
a Prefect server that they start, so that it is the flow from its beginning; the others measure the
command as a user has it. The bare embedder is ours (`throughput.embed`). Each command prints its
goal. The embedder of `framework` gets into all processes of a run through `hooks/sitecustomize.py`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

import servicedesk
from throughput import bare, embed, embed_as_a_script, run, texts_of

from rag_index.care.index_status import run_reports
from rag_index.core.machine.resources import WORKER_MEMORY, choose_worker_count
from rag_index.core.settings import ParallelSettings, load_settings
from rag_index.first_run.samples import pydocs
from tests.prefect_api import temporary_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOOKS = str(Path(__file__).parent / "hooks")
EXCERPT_CHARS = 400


class RunCost(NamedTuple):
    """The cost of a run: seconds without start-up, of the whole command, of CPU; private memory by
    process in MB."""

    seconds: float
    wall: float
    cpu: float
    memory: dict[str, float]


@dataclass
class Desk:
    """A source and its settings file. `reset` deletes its indexes."""

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "rag-index.toml"

    def reset(self) -> Desk:
        """Delete the indexes."""
        shutil.rmtree(self.folder / ".rag-index", ignore_errors=True)
        return self

    def index(self, *, workers: int | None, **environment: str) -> RunCost:
        """Run `index-all`. If `workers` is None, the run decides, as by default: little work needs
        no cluster."""
        arguments = () if workers is None else ("--workers", str(workers))
        report, wall, watch = run(self.config, *arguments, **environment)
        seconds = sum(one["seconds"] for one in report["indexes"])
        return RunCost(seconds, wall, sum(watch.cpu.values()), dict(watch.peaks))

    def bare(self, workers: int) -> float:
        """Return the seconds of the bare embedder."""
        return bare(texts_of(load_settings(self.config)), workers, embed)


@contextmanager
def desk(documents: int) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory() as folder:
        servicedesk.write(Path(folder) / "desk.db", documents=documents)
        made = Desk(Path(folder))
        made.config.write_text(servicedesk.scaffold("desk.db"))
        yield made


@contextmanager
def prose(documents: int) -> Iterator[Desk]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "pydocs.db"
        pydocs.write(source)
        made = Desk(Path(folder))
        settings = pydocs.scaffold("pydocs.db")
        made.config.write_text(
            settings.replace("shard_documents = 600", 'shard_documents = "auto"')
        )
        text = "\n".join(chunk for part in texts_of(load_settings(made.config)) for chunk in part)
        step = max(1, (len(text) - EXCERPT_CHARS) // documents)
        with sqlite3.connect(source) as db:
            db.execute("CREATE TABLE excerpt (id INTEGER PRIMARY KEY, body TEXT)")
            excerpts = (
                (number, text[number * step : number * step + EXCERPT_CHARS])
                for number in range(documents)
            )
            db.executemany("INSERT INTO excerpt VALUES (?, ?)", excerpts)
        index = '[[indexes]]\nname = "excerpts"\ntable = "excerpt"\nkey = "id"\ntext = "body"\n'
        made.config.write_text(f'[source]\nurl = "sqlite:///pydocs.db"\n{index}')
        yield made


def beyond(small: Desk, large: Desk, workers: int, **environment: str) -> float:
    """Return the seconds of a first run of the large desk minus those of the small one, which
    starts as much."""
    sides = [side.reset().index(workers=workers, **environment).seconds for side in (small, large)]
    return sides[1] - sides[0]


def few(given: argparse.Namespace) -> int:
    """Return how many documents the smaller of two runs has: enough to start workers."""
    return int(given.documents) // 4


def more(given: argparse.Namespace) -> int:
    """Return how many documents the larger of two runs has beyond the smaller one."""
    return int(given.documents) - few(given)


def say(what: str, values: list[float], goal: str) -> None:
    spread = f"median of {len(values)}, {min(values):,.3f} to {max(values):,.3f}"
    print(f"{what}: {median(values):,.3f} ({spread}); goal: {goal}", flush=True)


def workers(given: argparse.Namespace) -> None:
    ratios, alone = [], []
    with prose(few(given)) as small, prose(given.documents) as large:
        for _ in range(given.repeat):
            one, two = (beyond(small, large, count, **given.prefect) for count in (1, 2))
            ratios.append(one / two)
            alone.append(large.bare(1) / large.bare(2))
    say("two workers over one", ratios, "at least 1.7")
    say("the bare embedder in two processes over one", alone, "none, this depends on the machine")


def framework(given: argparse.Namespace) -> None:
    hooked = {"PYTHONPATH": HOOKS, "BENCHMARK_AT_ONCE": "1", **given.prefect}
    with prose(few(given)) as small, prose(given.documents) as large:
        seconds = [beyond(small, large, given.workers, **hooked) for _ in range(given.repeat)]
        stages = [stage_seconds(made) for made in (small, large)]
    rates = [more(given) / took for took in seconds]
    say("documents/s with an embedder that answers at once", rates, "at least 20,000 on two cores")
    each = {
        name: (busy - stages[0].get(name, 0.0)) / more(given) * 1e6
        for name, busy in stages[1].items()
    }
    print(
        "the flow's process in the last pair, without start-up, in µs a document: "
        + ", ".join(f"{name} {micro:.0f}" for name, micro in each.items() if round(micro))
    )


def stage_seconds(made: Desk) -> dict[str, float]:
    """Return the seconds of each stage of the flow's process in the last run."""
    settings = load_settings(made.config)
    (report,) = run_reports(settings, settings.indexes)
    stages: dict[str, float] = report["metrics"]["stages"]
    return stages


def memory(given: argparse.Namespace) -> None:
    ratios: dict[str, list[float]] = defaultdict(list)
    rates = []
    with desk(given.documents // 10) as small, desk(given.documents) as large:
        for _ in range(given.repeat):
            less, all_ = (side.reset().index(workers=given.workers) for side in (small, large))
            rates.append(10 * less.seconds / all_.seconds)
            for name, peak in all_.memory.items():
                ratios[name].append(peak / less.memory[name])
    for name, values in sorted(ratios.items()):
        say(
            f"private memory of {name}, {given.documents:,} documents over a tenth",
            values,
            "at most 1.3",
        )
    say("documents/s, the same comparison", rates, "at least 0.9")


def real_prose(given: argparse.Namespace) -> None:
    walls: dict[str, list[float]] = defaultdict(list)
    with prose(given.documents) as made:
        texts = texts_of(load_settings(made.config))
        for _ in range(given.repeat):
            alone = bare(texts, 1, embed_as_a_script)
            ways: list[tuple[str, int | None, dict[str, str]]] = [("default settings", None, {})]
            ways += [(f"--workers {count}", count, {}) for count in {given.workers, 2}]
            if given.server:
                place = {
                    "RAG_INDEX_STORE__URL": given.server,
                    "RAG_INDEX_PROJECT": f"prose-{time.time_ns()}",
                }
                ways.append(("a Qdrant server", None, place))
            for name, workers, environment in ways:
                cost = made.reset().index(workers=workers, **environment)
                walls[f"{name}: seconds of the whole command"].append(cost.wall / alone)
                walls[f"{name}: seconds of CPU"].append(cost.cpu / alone)
    for name, ratios in walls.items():
        goal = "at most 1.2" if "server" in name else "at most 0.9"
        say(
            f"{name} over those of wordllama's own embed",
            ratios,
            goal if "whole" in name else "none",
        )


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], int]] = {
    "workers": (workers, 64_000),
    "framework": (framework, 214_072),
    "memory": (memory, 1_000_000),
    "prose": (real_prose, 64_000),
}

FLOW = ("workers", "framework")
"""Commands that measure the flow: without a Prefect server, a command begins plainly, whatever
`--workers` says."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--documents", type=int)
    parser.add_argument(
        "--workers",
        type=int,
        default=choose_worker_count(ParallelSettings(), WORKER_MEMORY["local"]),
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--server", metavar="URL", help="a Qdrant server that prose writes to as well"
    )
    given = parser.parse_args()
    command, documents = COMMANDS[given.command]
    given.documents = given.documents or documents
    with (
        tempfile.TemporaryDirectory() as home
    ):  # for the Prefect servers started here; runs have their own
        os.environ.update(PREFECT_HOME=home, PREFECT_SERVER_ANALYTICS_ENABLED="false")
        with temporary_server() if given.command in FLOW else nullcontext({}) as given.prefect:
            command(given)


if __name__ == "__main__":
    main()
