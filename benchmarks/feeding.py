"""How much of an embedding server's time a first run uses, beside a bare loop of requests to the
same server.

    python benchmarks/feeding.py [one-by-one|batches|both] [--documents 3200,12000] [--workers 4]
    [--repeat 1]

The servers are real ones on loopback, which take the time that was measured on a large GPU and
embed nothing:

one-by-one  as Ollama: 18 ms a request and 4.05 ms a text, one text after another
batches     as one that batches, slowed so that two cores follow: 90 ms a request and 1 ms a text

Each line has the texts per second of the bare loop and of the run, from the first request with
several texts to the last answer for a document, the share of that time in which the server was
busy, and the run's advice.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import uvicorn

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
DIMENSION = 768
MEAN_WORDS = 60
MODEL = "nomic-embed-text"


@dataclass(frozen=True)
class Kind:
    """A server, by the seconds of a request and of a text, and how a bare loop and a run ask it."""

    latency: float
    text: float
    route: str
    embedder: str
    at_once: int
    texts: int


KINDS = {
    "one-by-one": Kind(0.018, 0.00405, "/api/embed", "ollama", at_once=2, texts=40),
    "batches": Kind(0.09, 0.001, "/v1/embeddings", "openai", at_once=8, texts=128),
}


@dataclass
class Server:
    """An ASGI application with the routes of Ollama and OpenAI that takes its time for each
    request, one by one."""

    kind: Kind
    floats: bool = False
    """Whether vectors are numbers in JSON although base64 is asked for."""
    free_at: float = 0.0
    log: list[tuple[float, float, float, int]] = field(default_factory=list)
    """When each request came, was begun and was answered, and its number of texts."""

    def __post_init__(self) -> None:
        rows = np.random.default_rng(1).standard_normal((512, DIMENSION)).astype(np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        self._rows = [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in rows]
        self._packed = [orjson.dumps(base64.b64encode(row).decode()) for row in rows]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        answer = await self._answer(scope["path"], orjson.loads(body or b"{}"))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(answer)).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, path: str, body: Any) -> bytes:
        if path == "/api/embed":
            return (
                b'{"model":"m","embeddings":['
                + b",".join(await self._embed(body["input"], self._rows))
                + b"]}"
            )
        if path == "/v1/embeddings":
            packed = body.get("encoding_format") == "base64" and not self.floats
            rows = await self._embed(body["input"], self._packed if packed else self._rows)
            data = b",".join(
                b'{"index":%d,"embedding":%s}' % (i, row) for i, row in enumerate(rows)
            )
            return b'{"object":"list","data":[' + data + b'],"model":"m"}'
        if path.startswith("/stats/"):
            return orjson.dumps(self._stats(int(path.removeprefix("/stats/"))))
        if path == "/api/tags":
            one = {
                "name": MODEL,
                "model": MODEL,
                "digest": "a" * 64,
                "size": 1,
                "modified_at": "2026-01-01T00:00:00Z",
            }
            return orjson.dumps({"models": [one]})
        show = {
            "modelfile": f"FROM /x/sha256-{'b' * 64}\n",
            "model_info": {"bert.context_length": 2048},
            "details": {},
        }
        return orjson.dumps({"version": "0.17.4"} if path == "/api/version" else show)

    async def _embed(self, texts: list[str] | str, rows: list[bytes]) -> list[bytes]:
        texts, now = [texts] if isinstance(texts, str) else texts, time.monotonic()
        begins = max(now + self.kind.latency, self.free_at)
        self.free_at = begins + self.kind.text * len(texts)
        self.log.append((now, begins, self.free_at, len(texts)))
        await asyncio.sleep(self.free_at - now)
        return [rows[zlib.crc32(text.encode()) % len(rows)] for text in texts]

    def _stats(self, count: int) -> dict[str, Any]:
        """Return what was done from the first request with several texts until so many texts were
        embedded, and begin anew.

        What a first run asks afterwards, to calibrate the search, is not counted.
        """
        first = next((place for place, one in enumerate(self.log) if one[3] > 1), len(self.log))
        log, self.log = self.log[first:], []
        embedded = 0
        for place, (_, _, _, texts_of_request) in enumerate(log):
            # A single text compares models.
            embedded += texts_of_request if texts_of_request > 1 else 0
            if embedded >= count:
                log = log[: place + 1]
                break
        seconds = log[-1][2] - log[0][0] if log else 0.0
        busy, texts = sum(end - begin for _, begin, end, _ in log), sum(one[3] for one in log)
        course = [
            [round(at - log[0][0], 3), round(begin - log[0][0], 3), round(end - log[0][0], 3), n]
            for at, begin, end, n in log
        ]
        return {
            "seconds": seconds,
            "busy": busy,
            "texts": texts,
            "requests": len(log),
            "course": course,
        }


def serve(connection: multiprocessing.connection.Connection, kind: Kind, floats: bool) -> None:
    """Serve until the process is ended, and tell the port."""

    async def run() -> None:
        server = uvicorn.Server(
            uvicorn.Config(Server(kind, floats), port=0, log_level="error", lifespan="off")
        )
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        connection.send(server.servers[0].sockets[0].getsockname()[1])
        await serving

    asyncio.run(run())


@contextmanager
def running(kind: Kind, *, floats: bool) -> Iterator[str]:
    """Run a server in a process of its own, and yield its address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, kind, floats), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()


def texts(count: int) -> list[str]:
    """Return this many texts of about 400 characters."""
    chance = random.Random(count)
    words = [
        "".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(2, 10)))
        for _ in range(5000)
    ]
    sizes = [chance.randint(MEAN_WORDS // 2, 3 * MEAN_WORDS // 2) for _ in range(count)]
    return [" ".join(chance.choices(words, k=size)) for size in sizes]


@contextmanager
def project(url: str, kind: Kind, documents: list[str], more: str = "") -> Iterator[Path]:
    """Write a database of these documents, and yield the settings file of an index of them."""
    with tempfile.TemporaryDirectory() as folder:
        with sqlite3.connect(Path(folder) / "texts.db") as database:
            database.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, body TEXT)")
            database.executemany(
                "INSERT INTO texts (body) VALUES (?)", [(one,) for one in documents]
            )
        database.close()
        config = Path(folder) / "rag-index.toml"
        config.write_text(
            f'project = "feeding"\n[source]\nurl = "sqlite:///texts.db"\n'
            f'[embedder]\nkind = "{kind.embedder}"\nmodel = "{MODEL}"\nhosts = ["{url}"]\n{more}\n'
            '[[indexes]]\nname = "texts"\ntable = "texts"\nkey = "id"\ntext = "body"\n'
        )
        yield config


async def bare(url: str, kind: Kind, documents: list[str]) -> None:
    """Send all texts in requests of one size, so many at a time, and throw the answers away once
    they are read."""
    waiting = [documents[i : i + kind.texts] for i in range(0, len(documents), kind.texts)]

    async def ask() -> None:
        while waiting:
            body = orjson.dumps(
                {"model": MODEL, "input": waiting.pop(), "encoding_format": "base64"}
            )
            orjson.loads((await client.post(url + kind.route, content=body)).content)

    async with httpx.AsyncClient(timeout=120) as client:
        await asyncio.gather(*(ask() for _ in range(kind.at_once)))


def stats(url: str, count: int) -> dict[str, Any]:
    return dict(httpx.get(f"{url}/stats/{count}").json())


def measure(name: str, count: int, arguments: argparse.Namespace) -> None:
    kind, documents = KINDS[name], texts(count)
    with (
        running(kind, floats=arguments.floats) as url,
        project(url, kind, documents, arguments.settings.replace("\\n", "\n")) as config,
    ):
        asyncio.run(bare(url, kind, documents))
        alone = stats(url, count)
        workers = ["--workers", str(arguments.workers)] if arguments.workers else []
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("RAG_INDEX_")
        }
        command = [
            *PROGRAM,
            "--config",
            str(config),
            "index-all",
            "--json",
            *arguments.option,
            *workers,
        ]
        began = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        wall = time.monotonic() - began
        if done.returncode:
            sys.exit(f"the run failed: {done.stdout}{done.stderr}")
        found = stats(url, count)
        report = [*PROGRAM, "--config", str(config), "status", "--report"]
        advice = subprocess.run(
            report, capture_output=True, text=True, check=True, env=environment
        ).stdout
    if arguments.course:
        Path(arguments.course).write_text(json.dumps(found["course"]))
    advice = advice.strip().splitlines()[-1].strip()
    rate, best = count / found["seconds"], count / alone["seconds"]
    print(
        f"{name}, {count:,} documents{' '.join(['', *arguments.option, *workers])}: "
        f"bare loop {best:.0f} texts/s; run {rate:.0f} texts/s, {rate / best:.2f} of it,\n"
        f"  busy {found['busy'] / found['seconds']:.3f} of {found['seconds']:.1f} s, "
        f"{found['requests']} requests, whole command {wall:.1f} s\n  "
        f"{advice}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", nargs="?", default="both", choices=[*KINDS, "both"])
    parser.add_argument("--documents", default="3200,12000")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument(
        "--settings", default="", help="more lines for the section [embedder] and after it"
    )
    parser.add_argument(
        "--option", action="append", default=[], help="an option of index-all, such as --serial"
    )
    parser.add_argument("--floats", action="store_true", help="have the server answer no base64")
    parser.add_argument("--course", help="a file for the times of all requests of the last run")
    arguments = parser.parse_args()
    for name in KINDS if arguments.server == "both" else [arguments.server]:
        for count in map(int, arguments.documents.split(",")):
            for _ in range(arguments.repeat):
                measure(name, count, arguments)


if __name__ == "__main__":
    main()
