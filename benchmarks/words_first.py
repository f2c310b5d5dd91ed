"""When a first run can be searched: by words, and as a whole, beside one that only embeds.

    python benchmarks/words_first.py [--documents 20000] [--seconds-per-text 0.05] [--store
    http://127.0.0.1:6333]

The server embeds one text after another, as Ollama on a processor. Printed are the seconds from the
start of the run to the first right answer by words, to the one for which every document is there,
and to its end, with the pass by words and without, and the processor seconds of each command.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from feeding import Kind, project, running, texts

from rag_index.errors import RagIndexError
from rag_index.search import Retriever

PROGRAM = "from rag_index.cli import main; main()"
WITHOUT = f"import rag_index.etl.words_first as w; w.WORTH_SECONDS = 1e12; {PROGRAM}"
POLL_SECONDS = 0.5


def found(
    config: Path, run: subprocess.Popen[bytes], keys: list[int], began: float
) -> dict[int, float]:
    """Return when each of these documents was the first hit for its name, until all were or the run
    ended."""
    at: dict[int, float] = {}
    with Retriever.from_settings(config) as retriever:
        while run.poll() is None and len(at) < len(keys):
            for key in set(keys) - set(at):
                with suppress(RagIndexError):
                    hits = retriever.search_sync(f"T{key:06d}", limit=1).hits
                    if hits and hits[0].document_id == str(key) and hits[0].highlights:
                        at[key] = time.monotonic() - began
            time.sleep(POLL_SECONDS)
    return at


def measure(arguments: argparse.Namespace, program: str) -> str:
    count = arguments.documents
    kind = Kind(0.0, arguments.seconds_per_text, "/api/embed", "ollama", at_once=1, texts=1)
    named = [f"T{number:06d} {text}" for number, text in enumerate(texts(count), 1)]
    store = f'[store]\nurl = "{arguments.store}"\n' if arguments.store else ""
    keys = [count // 2 + 37, count - 123, count - 3]
    with running(kind, floats=False) as url, project(url, kind, named, store) as config:
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("RAG_INDEX_")
        }
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        command = [sys.executable, "-c", program, "--config", str(config), "index-all"]
        run = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if program == PROGRAM and len(at := found(config, run, keys, began)) == len(keys):
            print(
                f"first {min(at.values()):.1f} s, every document {max(at.values()):.1f} s, ",
                end="",
                flush=True,
            )
        if code := run.wait():
            sys.exit(f"the run failed: exit code {code}")
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        if arguments.store:
            drop = [
                sys.executable,
                "-c",
                PROGRAM,
                "--config",
                str(config),
                "drop",
                "texts",
                "--yes",
            ]
            subprocess.run(drop, check=True, env=environment, stdout=subprocess.DEVNULL)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"end {seconds:.1f} s, {cpu:.1f} CPU s"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--seconds-per-text", type=float, default=0.05)
    parser.add_argument(
        "--store", default="", help="the URL of a Qdrant server; by default the embedded store"
    )
    arguments = parser.parse_args()
    for name, program in (("with the pass", PROGRAM), ("without", WITHOUT)):
        print(f"{name}: ", end="", flush=True)
        print(measure(arguments, program), flush=True)


if __name__ == "__main__":
    main()
