"""Documents per second end to end, compared with the bare embedder in the same run, on the service
desk sample.

    python benchmarks/throughput.py [--documents 20000,214072] [--workers N] [--repeat 1]

For each size, this prints: the rate of the bare embedder (the same chunks, in as many processes;
once as a script would call the model, and once as ours does, which is faster), the rate end to end
from the first fetch to the last ledger row, the time before and after that (start-up), the seconds
of a second run in which nothing changed, and the peak private memory of each process (RssAnon,
which leaves out the mapped files of the store).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import servicedesk

from rag_index.core.machine.resources import WORKER_MEMORY, choose_worker_count
from rag_index.core.settings import ParallelSettings, Settings, load_settings
from tests.reliability.victim import in_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
FLOW = """
import json
from flows.index_all import index_all
from rag_index.orchestration.prefect_api import result_of
print(json.dumps(result_of(index_all(return_state=True)).to_json()))
"""


def texts_of(settings: Settings) -> list[list[str]]:
    """Return the chunks of every index, page by page, as a run would embed them."""
    from rag_index.components.chunking.text_chunker import TextChunker
    from rag_index.components.sources import open_source

    parts = []
    for index in settings.indexes:
        source, cursor, first = open_source(settings, index), None, True
        chunker = TextChunker(index.chunk_chars, index.chunk_overlap)
        while first or cursor is not None:
            page, first = source.page(cursor, 20_000), False
            parts.append([chunk for text in page.documents.texts for chunk in chunker.split(text)])
            cursor = page.cursor
        source.close()
    return parts


def bare(
    parts: list[list[str]],
    workers: int,
    embed: Callable[[list[str]], float],
    take: Callable[[float], object] = lambda answer: None,
) -> float:
    """Return the seconds that `embed` alone needs for all texts in `workers` processes, without
    start-up.

    `take` gets what `embed` returns for each batch.
    """
    texts = [text for part in parts for text in part]
    size = max(1, min(5000, len(texts) // (4 * workers)))
    batches = [texts[i : i + size] for i in range(0, len(texts), size)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(embed, [["warm up"]] * workers * 4, chunksize=1)
        started = time.perf_counter()
        for answer in pool.imap_unordered(embed, batches):
            take(answer)
        return time.perf_counter() - started


def embed(texts: list[str]) -> int:
    """Embed and discard. This is the fastest way we know to run this model."""
    from rag_index.components.embedders import open_embedder
    from rag_index.core.settings import EmbedderSettings

    if not hasattr(embed, "model"):
        embed.model = open_embedder(EmbedderSettings())
    return len(embed.model.embed_documents(sorted(set(texts))))


def embed_as_a_script(texts: list[str]) -> int:
    """Embed as a script would: with wordllama's own `embed`, on a batch of texts in their order."""
    import wordllama

    if not hasattr(embed_as_a_script, "model"):
        folder = Path(wordllama.__file__).parent
        embed_as_a_script.model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
    return len(embed_as_a_script.model.embed(texts, norm=True))


class Watch(threading.Thread):
    """Peak RssAnon in MB and CPU seconds of a process and its children, by the kind of process.

    It looks every `interval` seconds. Looking at many processes takes time that they could use.
    """

    def __init__(self, pid: int, interval: float = 0.2) -> None:
        super().__init__(daemon=True)
        self.interval = interval
        self.peaks: dict[str, float] = defaultdict(float)
        self.course: list[tuple[float, dict[str, float]]] = []
        """The CPU seconds until each look, with its time in seconds since 1970."""
        self.now: dict[str, float] = {}
        self._cpu: dict[tuple[str, int], float] = {}
        self._process = psutil.Process(pid)

    def run(self) -> None:
        while True:
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            now: dict[str, float] = {}
            for process in family:
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                    name = kind(" ".join(process.cmdline()))
                    times = process.cpu_times()
                except (OSError, psutil.Error):
                    continue
                if match := re.search(r"RssAnon:\s+(\d+) kB", status):
                    now[name] = max(now.get(name, 0.0), int(match[1]) / 1024)
                    self.peaks[name] = max(self.peaks[name], now[name])
                self._cpu[name, process.pid] = times.user + times.system
            self.now = now
            self.course.append((time.time(), self.cpu))
            self.looked()
            time.sleep(self.interval)

    def looked(self) -> None:
        """Do nothing; a watch that notes more begins here. `now` has the memory of each kind of
        process."""

    @property
    def cpu(self) -> dict[str, float]:
        sums: dict[str, float] = defaultdict(float)
        for (name, _), seconds in self._cpu.items():
            sums[name] += seconds
        return dict(sums)


@contextmanager
def running_prefect(cpu: dict[str, float]) -> Iterator[dict[str, str]]:
    """Start a Prefect server and yield the variables that lead to it; at the end add its CPU
    seconds to `cpu`.

    With them `run` runs the flow, and otherwise the command.
    """
    from tests.prefect_api import temporary_server

    with temporary_server() as variables:
        servers = [
            one
            for one in psutil.Process().children()
            if kind(" ".join(one.cmdline())) == "Prefect server"
        ]
        before = sum(sum(one.cpu_times()[:2]) for one in servers)
        yield variables
        cpu["Prefect server"] = sum(sum(one.cpu_times()[:2]) for one in servers) - before


def kind(command: str) -> str:
    """Return which of our processes has this command line."""
    for part, name in (
        ("prefect.server.api.server", "Prefect server"),
        ("spawn_main", "worker"),
        ("multiprocessing.forkserver", "worker"),
        ("resource_tracker", "tracker"),
    ):
        if part in command:
            return name
    return "flow"


def run(
    config: Path,
    *arguments: str,
    interval: float = 0.2,
    watching: Callable[[int], Watch] | None = None,
    **more: str,
) -> tuple[dict, float, Watch]:
    """Run `index-all` with `more` in its environment, which may name a Prefect server for the flow.
    Return its report, wall seconds and a watch of its processes."""
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PREFECT_", "RAG_INDEX_"))
    }
    environment |= more
    command = [*PROGRAM, "--config", str(config), "index-all", "--json", *arguments]
    if "PREFECT_API_URL" in more:
        command = [sys.executable, "-P", "-c", FLOW]
        environment |= in_environment(arguments) | {"RAG_INDEX_CONFIG": str(config)}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    watch = Watch(process.pid, interval) if watching is None else watching(process.pid)
    watch.start()
    try:
        output, _ = process.communicate()
    except BaseException:  # somebody stops the benchmark
        process.terminate()
        process.communicate()
        raise
    if process.returncode:
        sys.exit(f"the run failed: {output}")
    return json.loads(output), time.perf_counter() - started, watch


def measure(documents: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rag-index.toml"
        servicedesk.write(Path(folder) / "desk.db", documents=documents)
        config.write_text(servicedesk.scaffold("desk.db"))
        parts = texts_of(load_settings(config))
        chunks = sum(map(len, parts))
        seconds, script = bare(parts, workers, embed), bare(parts, workers, embed_as_a_script)
        del parts
        report, wall, watch = run(config, "--workers", str(workers))
        indexing = sum(one["seconds"] for one in report["indexes"])
        again, wall_again, _ = run(config, "--workers", str(workers))
        compared = sum(one["seconds"] for one in again["indexes"])
        if any(one["new"] or one["changed"] for one in again["indexes"]):
            sys.exit("the second run found changes, although nothing changed")
    print(
        f"\n{documents:,} documents, {chunks:,} chunks, {workers}"
        f" worker{'s' if workers > 1 else ''}"
    )
    print(
        f"  wordllama's own embed, alone      {documents / script:9,.0f} documents/s  "
        f" {script:6.1f} s"
    )
    print(
        f"  our embedder, alone               {documents / seconds:9,.0f} documents/s  "
        f" {seconds:6.1f} s"
    )
    print(
        f"  end to end                        {documents / indexing:9,.0f} documents/s  "
        f" {indexing:6.1f} s"
    )
    print(f"  end to end / wordllama's own      {script / indexing:9.2f}")
    print(f"  end to end / our embedder         {seconds / indexing:9.2f}")
    print(
        f"  whole command                     {documents / wall:9,.0f} documents/s   {wall:6.1f} s"
    )
    print(f"  start-up and end                  {wall - indexing:9.1f} s")
    print(
        f"  nothing changed, beyond start-up  {compared:9.1f} s   ({documents / compared:,.0f}"
        " documents/s)"
    )
    print(f"  nothing changed, whole command    {wall_again:9.1f} s")
    for name, peak in sorted(watch.peaks.items()):
        print(f"  {name:<16} peak private memory {peak:6.0f} MB, CPU {watch.cpu[name]:6.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", default="20000,214072")
    parser.add_argument(
        "--workers",
        type=int,
        default=choose_worker_count(ParallelSettings(), WORKER_MEMORY["local"]),
    )
    parser.add_argument("--repeat", type=int, default=1)
    arguments = parser.parse_args()
    for size in map(int, arguments.documents.split(",")):
        for _ in range(arguments.repeat):
            measure(size, arguments.workers)


if __name__ == "__main__":
    main()
