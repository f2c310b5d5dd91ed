"""How well this project uses Ollama servers. Each ratio takes both sides in turn in one run; median
and spread.

    python benchmarks/ollama_servers.py overhead [--documents 150] [--repeat 3] [--threads 1]
    python benchmarks/ollama_servers.py threads [--busy] [--documents 150] [--repeat 3]
    python benchmarks/ollama_servers.py hosts [--documents 20000] [--repeat 3]

overhead    end to end over a bare loop of the same requests threads     arrays of 16 texts for a
server of one thread over the serial script, by `rag-index benchmark` hosts       8 servers on
loopback over one of them, with 8 workers

`overhead` and `threads` start a real server (found or built as for the tests) with a model that
costs as much as nomic-embed-text: 12 layers, 768 dimensions, random weights. `threads --busy`
meanwhile keeps all processors busy with other work. `hosts` needs no Ollama: its servers imitate
one and take 10 ms per text.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import servicedesk
from rag_index.components.embedders.servers import ServerEmbedder
from rag_index.core.machine.resources import detect_machine
from rag_index.core.settings import load_settings
from tests.fakes.ollama import FakeOllama
from tests.live.models import NOMIC_SIZE, write_embedding_gguf
from tests.live.ollama_server import OllamaServer, find_ollama

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.core.settings import Settings

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
MODEL = "nomic-sized"
SECONDS_PER_TEXT = 0.01
OVERHEAD = "end to end over the bare loop"
QUIET = "one thread over the serial script, quiet"
BUSY = "one thread over the serial script, busy"
HOSTS = "8 hosts over 1 host, 8 workers"
GOALS = {OVERHEAD: 0.95, QUIET: 1.25, BUSY: 3.0, HOSTS: 7.0}


def say(name: str, ratios: list[float]) -> None:
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(
        f"{name}: {median(ratios):.3f} (median of {len(ratios)}, {spread}; goal {GOALS[name]})",
        flush=True,
    )


@contextmanager
def project(
    documents: int, *, hosts: list[str], model: str, more: str = "", short: bool = True
) -> Iterator[Path]:
    """Write a service desk of about this size, in `short` chunks of about 31 tokens. Yield its
    settings file."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rag-index.toml"
        servicedesk.write(Path(folder) / "desk.db", documents=documents)
        embedder = (
            f'[embedder]\nkind = "ollama"\nmodel = "{model}"\nhosts = {json.dumps(hosts)}\n{more}\n'
        )
        text = servicedesk.scaffold("desk.db")
        if short:
            text = text.replace(
                "\n[[indexes]]", "\n[[indexes]]\nchunk_chars = 150\nchunk_overlap = 0"
            )
        head, found, rest = text.partition("\n[[indexes]]")
        config.write_text(f"{head}\n{embedder}{found}{rest}")
        yield config


def run(config: Path, *arguments: str) -> float:
    """Return the seconds of a run by its report, without start-up and end. Each run has a new store
    and ledger."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAG_INDEX_")
        }
        environment |= {"RAG_INDEX_STORE__PATH": f"{folder}/qdrant"}
        environment |= {"RAG_INDEX_LEDGER__URL": f"sqlite:///{folder}/ledger.db"}
        done = subprocess.run(
            [*PROGRAM, "--config", str(config), "index-all", "--json", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"the run failed: {done.stdout}{done.stderr}")
    return sum(one["seconds"] for one in json.loads(done.stdout)["indexes"])


def distinct_chunks(settings: Settings) -> list[str]:
    """Return the texts that a run sends: the chunks of every index, equal texts once."""
    from rag_index.components.chunking.text_chunker import TextChunker
    from rag_index.components.sources import open_source

    texts: dict[str, None] = {}
    for index in settings.indexes:
        source, cursor, first = open_source(settings, index), None, True
        chunker = TextChunker(index.chunk_chars, index.chunk_overlap)
        while first or cursor is not None:
            page, first = source.page(cursor, 20_000), False
            texts.update(
                dict.fromkeys(
                    chunk for text in page.documents.texts for chunk in chunker.split(text)
                )
            )
            cursor = page.cursor
        source.close()
    return list(texts)


def bare_loop(settings: Settings, texts: list[str]) -> float:
    """Return the seconds for the same array requests alone, with the same settings."""
    embedder = ServerEmbedder(settings.embedder)
    embedder.identity()
    started = time.perf_counter()
    embedder.embed_documents(texts)
    seconds = time.perf_counter() - started
    embedder.close()
    return seconds


@contextmanager
def real_server() -> Iterator[OllamaServer]:
    program = find_ollama()
    if not isinstance(program, Path):
        sys.exit(program)
    with OllamaServer(program) as server:
        server.create(MODEL, write_embedding_gguf(server.folder / "nomic.gguf", **NOMIC_SIZE))
        yield server


def overhead(documents: int, repeat: int, threads: int) -> None:
    """Compare a run with the bare loop. The run has one worker, so that both send the server the
    same requests."""
    more = f"\nnum_thread = {threads}" if threads else ""
    with (
        real_server() as server,
        project(
            documents, hosts=[server.url], model=MODEL, more=f"batch_texts = 16{more}"
        ) as config,
    ):
        settings = load_settings(config)
        texts = distinct_chunks(settings)
        print(
            f"{documents} documents, {len(texts)} distinct chunks of"
            f" {sum(map(len, texts)) / len(texts):.0f} characters"
        )
        ratios = []
        for _ in range(repeat):
            bare, whole = bare_loop(settings, texts), run(config, "--workers", "1")
            ratios.append(bare / whole)
            print(
                f"  bare loop {bare:6.1f} s ({len(texts) / bare:.1f} texts/s), end to end"
                f" {whole:6.1f} s",
                flush=True,
            )
        say(OVERHEAD, ratios)


def spin() -> None:
    while True:
        sum(range(10_000))


@contextmanager
def other_work(processes: int) -> Iterator[None]:
    """Keep this many processors busy."""
    busy = [
        multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
        for _ in range(processes)
    ]
    for process in busy:
        process.start()
    try:
        yield
    finally:
        for process in busy:
            process.kill()


def threads(documents: int, repeat: int, busy: bool) -> None:
    """Compare a run with a server of one thread with the serial script, which leaves the server its
    own choice."""
    with ExitStack() as stack:
        server = stack.enter_context(real_server())
        config = stack.enter_context(
            project(documents, hosts=[server.url], model=MODEL, more="batch_texts = 16")
        )
        stack.enter_context(other_work(detect_machine().processors if busy else 0))
        command = [
            *PROGRAM,
            "--config",
            str(config),
            "benchmark",
            "--sample-size",
            str(documents),
            "--json",
        ]
        ratios = []
        for _ in range(repeat):
            printed = subprocess.run(
                [*command, "--set", "embedder.num_thread=1"], capture_output=True, check=True
            ).stdout
            report = json.loads(printed)
            ratios.append(report["parallel"][0]["speed_up"])
            print(
                f"  serial {report['serial']['seconds']:.1f} s,"
                f" {report['parallel'][0]['seconds']:.1f} s",
                flush=True,
            )
        say(BUSY if busy else QUIET, ratios)


def hosts(documents: int, repeat: int) -> None:
    """Compare 8 loopback servers with one of them, with 8 workers."""
    with ExitStack() as stack:
        servers = [stack.enter_context(loopback_server()) for _ in range(8)]
        ratios = []
        for _ in range(repeat):
            seconds = []
            for urls in (servers[:1], servers):
                with project(
                    documents, hosts=urls, model="fake-embed", more="batch_texts = 16", short=False
                ) as config:
                    seconds.append(run(config, "--workers", "8"))
            ratios.append(seconds[0] / seconds[1])
            print(f"  1 host {seconds[0]:6.1f} s, 8 hosts {seconds[1]:6.1f} s", flush=True)
        say(HOSTS, ratios)


@contextmanager
def loopback_server() -> Iterator[str]:
    """Run a loopback server in a process of its own and yield its address."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=serve, args=(theirs,), daemon=True
    )
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()


def serve(connection: multiprocessing.connection.Connection) -> None:
    with FakeOllama(seconds_per_text=SECONDS_PER_TEXT, dimension=64) as server:
        connection.send(server.url)
        connection.recv()


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the servers are stopped
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, size in (("overhead", 150), ("threads", 150), ("hosts", 20_000)):
        command = commands.add_parser(name)
        command.add_argument("--documents", type=int, default=size)
        command.add_argument("--repeat", type=int, default=3)
        if name == "overhead":
            command.add_argument(
                "--threads", type=int, default=1, help="threads of the server; 0: its own choice"
            )
        if name == "threads":
            command.add_argument("--busy", action="store_true")
    given = vars(parser.parse_args())
    {"overhead": overhead, "threads": threads, "hosts": hosts}[given.pop("command")](**given)


if __name__ == "__main__":
    main()
