"""A server that speaks Ollama's API and OpenAI's /v1/embeddings on loopback, with faults that a
test injects.

    with FakeOllama() as server:
        server.fault("status", times=2, code=503)
        ServerEmbedder(EmbedderSettings(kind="ollama", model=server.model, hosts=[server.url]))

It listens on real sockets and keeps connections open. Each vector depends only on its text
(`vector_of`). Faults:

    status          an error status: code, words=… (`{texts}` in them stands for what was sent),
    headers={…}, html=False hang            no answer for seconds=… (by default until the server
    stops) reset           a connection that is reset in the middle of the answer kill_client
    SIGKILL for the process that sent the request half            half of the answer, then the end
    of the connection drip            the answer, one byte per `seconds` (0.1 by default) html
    status 200 with a web page few             one vector fewer than texts nan, null, zero,
    dimension   bad vectors for the texts with the marker, or for all texts

    generated       another answer of /api/generate: response=… (any JSON), done_reason=…

Each fault applies to the next `times` requests (all by default) that have a text containing
`marker` (any text by default), on `path` (those that embed by default; None for all paths).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil

TOO_LONG = "the input length exceeds the context length"
OPENAI = "/v1/embeddings"
EMBED = ("/api/embed", OPENAI)
ROW_FAULTS = ("nan", "null", "zero", "dimension")


@functools.lru_cache(maxsize=100_000)
def vector_of(text: str, dimension: int = 8) -> tuple[float, ...]:
    """Return the unit vector that a FakeOllama returns for a text."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    vector = np.random.default_rng(seed).standard_normal(dimension)
    return tuple((vector / np.linalg.norm(vector)).astype(np.float32).tolist())


@dataclass(slots=True)
class Fault:
    kind: str
    times: float
    marker: str | None
    path: str | tuple[str, ...] | None
    options: dict

    def hits(self, path: str, texts: list[str]) -> bool:
        paths = (self.path,) if isinstance(self.path, str) else self.path
        marked = self.marker is None or any(self.marker in text for text in texts)
        return self.times > 0 and (paths is None or path in paths) and marked


@dataclass(slots=True)
class Request:
    """One request in the log."""

    path: str
    texts: list[str]
    body: dict
    at: float
    client: tuple[str, int]
    in_flight: int = 1
    """Number of requests to the model in flight when this one arrived, including itself."""


@dataclass
class FakeOllama:
    """A fake Ollama server, which listens inside its `with` block. Public attributes may change
    while it runs."""

    model: str = "fake-embed"
    dimension: int = 8
    digest: str = "d1" * 32
    """Digest of the weights. The manifest's digest in /api/tags is derived from it and from the
    port."""
    context_length: int = 2048
    max_chars: int | None = None
    """Longer texts are refused with 400, or truncated unless `truncate` is false, as by the real
    server."""
    max_texts: int | None = None
    """/v1/embeddings refuses requests with more texts."""
    capabilities: tuple[str, ...] = ("embedding",)
    """What /api/show says that the model can do."""
    api_key: str = ""
    """/v1/embeddings refuses requests without this key, if there is one."""
    base64: str = "float32"
    """How /v1/embeddings answers a request for base64: with numbers of this type, or "refused" or
    "ignored"."""
    seconds_per_text: float = 0.0
    concurrent: bool = False
    """Whether /api/embed works on several requests at once; a real Ollama does not."""
    seconds_per_answer: float = 0.0
    """Duration of a request to /api/generate."""
    together: int = 0
    """Requests for the model's work wait, until this many of them have been under way at once."""
    chars_per_token: float = 4.0
    """Characters per token, for the number of prompt tokens that /api/generate returns (at most
    num_ctx)."""
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    _faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock, self._turn = threading.RLock(), threading.Lock()
        self._over, self._crowded = threading.Event(), threading.Event()
        self._connections: set[socket.socket] = set()
        self._in_flight = 0
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> FakeOllama:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_listening()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def settings(self) -> str:
        """The settings of an embedder on this server, as TOML to which more keys can be added."""
        return f'[embedder]\nkind = "ollama"\nmodel = "{self.model}"\nhosts = ["{self.url}"]\n'

    def listen(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        handler = type("Handler", (_Handler,), {"fake": self})
        self._over.clear()
        self._server = _Server(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop_listening(self) -> None:
        """Refuse new connections, and reset the open ones."""
        if self._server is None:
            return
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):  # a reset, as of a dying process
                    connection.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    connection.shutdown(socket.SHUT_RDWR)

    def restart(self, **changed: object) -> None:
        """Stop, change attributes (digest=…, dimension=…), and listen again."""
        self.stop_listening()
        for name, value in changed.items():
            setattr(self, name, value)
        self.listen()

    def fault(
        self, kind: str, *, times=float("inf"), marker: str | None = None, path=EMBED, **options
    ) -> None:
        with self._lock:
            self._faults.append(Fault(kind, times, marker, path, options))

    def clear(self) -> None:
        """Remove all faults, and empty the log."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def embeds(self) -> list[Request]:
        """Return the requests to embed in the log."""
        with self._lock:
            return [request for request in self.requests if request.path in EMBED]

    def generates(self) -> list[Request]:
        """Return the requests in the log to generate more than one token; those for one token are
        probes."""
        with self._lock:
            found = [request for request in self.requests if request.path == "/api/generate"]
        return [one for one in found if one.body.get("options", {}).get("num_predict", 0) > 1]

    # Called by the handler

    def take_fault(self, path: str, texts: list[str]) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if fault.hits(path, texts):
                    fault.times -= 1
                    return fault
        return None

    def embed(self, texts: list[str], *, truncate: bool, fault: Fault | None) -> tuple[int, dict]:
        if self.max_chars is not None:
            if not truncate and any(len(text) > self.max_chars for text in texts):
                return 400, {"error": TOO_LONG}
            texts = [text[: self.max_chars] for text in texts]
        with nullcontext() if self.concurrent else self._turn:
            self._over.wait(self.seconds_per_text * len(texts))
        rows = [list(vector_of(text, self.dimension)) for text in texts]
        if fault is not None and fault.kind in ROW_FAULTS:
            marker = fault.marker or ""
            rows = [
                _broken(fault.kind, row) if marker in text else row
                for text, row in zip(texts, rows, strict=True)
            ]
        if fault is not None and fault.kind == "few":
            rows.pop()
        return 200, {
            "model": self.model,
            "embeddings": rows,
            "total_duration": 1,
            "prompt_eval_count": len(texts),
        }

    def generate(self, prompt: str, options: dict, *, fault: Fault | None) -> dict:
        """Return an answer that depends only on the prompt and the seed."""
        if options.get("num_predict") != 1:
            self._over.wait(self.seconds_per_answer)
        given = fault.options if fault is not None and fault.kind == "generated" else {}
        number = hashlib.blake2b(
            f"{prompt}{options.get('seed')}".encode(), digest_size=4
        ).hexdigest()
        said = {"response": f"Context {number} of the passage.", "done_reason": "stop"} | given
        tokens = min(int(len(prompt) / self.chars_per_token), options.get("num_ctx", 10**9))
        return {"model": self.model, "done": True, "prompt_eval_count": tokens, **said}


@contextmanager
def ended_by(fake: FakeOllama, marker: str, *, back_after: float = 1.0) -> Iterator[list[int]]:
    """Let a text with this marker end the server, which is back after so many seconds; give the
    number of requests that it had got by each of its deaths."""
    ended, deaths = threading.Event(), []
    fake.fault("hang", marker=marker)
    before = sum(any(marker in text for text in one.texts) for one in fake.embeds())

    def deadly() -> None:
        while not ended.is_set():
            sent = sum(any(marker in text for text in one.texts) for one in fake.embeds())
            if sent - before > len(deaths):
                deaths.append(len(fake.embeds()))
                fake.stop_listening()
                time.sleep(back_after)
                fake.listen()
            time.sleep(0.01)

    thread = threading.Thread(target=deadly)
    thread.start()
    try:
        yield deaths
    finally:
        ended.set()
        thread.join()


def pack(row: list[float], kind: str = "float32") -> str:
    """Return a row as servers write it in base64, as numbers of this kind."""
    return base64.b64encode(np.asarray(row, kind).tobytes()).decode()


def _broken(kind: str, row: list[float]) -> list:
    if kind == "zero":
        return [0.0] * len(row)
    if kind == "dimension":
        return [*row, 0.5]
    return [float("nan") if kind == "nan" else None, *row[1:]]


class _Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Ignore clients that went away."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    fake: FakeOllama

    def setup(self) -> None:
        super().setup()
        with self.fake._lock:
            self.fake._connections.add(self.connection)

    def finish(self) -> None:
        with self.fake._lock:
            self.fake._connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(
            json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        )

    def _answer(self, body: dict) -> None:
        fake, path = self.fake, self.path.split("?")[0]
        given = body.get("prompt" if path == "/api/generate" else "input", [])
        texts = [given] if isinstance(given, str) else given
        self._texts = texts
        embeds = path in (*EMBED, "/api/generate")
        with fake._lock:
            fake._in_flight += embeds
            if fake.together and fake._in_flight >= fake.together:
                fake._crowded.set()
            fake.requests.append(
                Request(path, texts, body, time.monotonic(), self.client_address, fake._in_flight)
            )
        try:
            if embeds and fake.together:
                fake._crowded.wait(120)
            fault = fake.take_fault(path, texts)
            if fault is not None and self._fails_before_work(fault):
                return
            status, answer = self._work(path, body, texts, fault)
            if fake._over.is_set():  # a stopped process sends no answer
                self.close_connection = True
            else:
                self._send(status, json.dumps(answer).encode(), fault)
        finally:
            with fake._lock:
                fake._in_flight -= embeds

    def _fails_before_work(self, fault: Fault) -> bool:
        """Return whether the fault has replaced the answer."""
        options = fault.options
        if fault.kind == "hang":
            self.fake._over.wait(options.get("seconds", 3600))
        elif fault.kind == "kill_client":  # a document that kills its worker
            for connection in psutil.net_connections("tcp4"):
                port = connection.laddr.port if connection.laddr else None
                if port == self.client_address[1] and connection.pid not in (None, os.getpid()):
                    psutil.Process(connection.pid).kill()
            self.close_connection = True
        elif fault.kind == "html":
            self._send(200, b"<!doctype html><title>Sign in</title>", kind="text/html")
        elif fault.kind == "status":
            words = options.get("words", "injected").replace("{texts}", " ".join(self._texts))
            body = f"<h1>{words}</h1>" if options.get("html") else json.dumps({"error": words})
            self._send(options["code"], body.encode(), headers=options.get("headers", {}))
        return fault.kind in ("kill_client", "html", "status")

    def _work(
        self, path: str, body: dict, texts: list[str], fault: Fault | None
    ) -> tuple[int, dict]:
        fake = self.fake
        if path == "/api/tags":
            name = fake.model if ":" in fake.model else f"{fake.model}:latest"
            manifest = hashlib.sha256(f"{fake.digest} on {fake.port}".encode()).hexdigest()
            entry = {
                "name": name,
                "model": name,
                "digest": manifest,
                "size": 1,
                "details": {"family": "nomic-bert"},
            }
            return 200, {"models": [entry] if fake.model else []}
        if path == OPENAI:
            return self._openai(body, texts, fault)
        if path not in ("/api/embed", "/api/show", "/api/generate"):
            return 404, {"error": "404 page not found"}
        if body.get("model", "").removesuffix(":latest") != fake.model.removesuffix(":latest"):
            return 404, {"error": f"model '{body.get('model')}' not found"}
        if path == "/api/show":
            information = {
                "general.architecture": "nomic-bert",
                "nomic-bert.context_length": fake.context_length,
            }
            information["nomic-bert.embedding_length"] = fake.dimension
            able = {"capabilities": list(fake.capabilities)}
            return 200, {
                **able,
                "model_info": information,
                "modelfile": f"# A\nFROM /models/blobs/sha256-{fake.digest}\n",
            }
        if path == "/api/generate":
            return 200, fake.generate(body.get("prompt", ""), body.get("options", {}), fault=fault)
        return fake.embed(texts, truncate=body.get("truncate") is not False, fault=fault)

    def _openai(self, body: dict, texts: list[str], fault: Fault | None) -> tuple[int, dict]:
        fake = self.fake
        if fake.api_key and self.headers.get("Authorization") != f"Bearer {fake.api_key}":
            given = (self.headers.get("Authorization") or "nothing").split()[-1]
            return 401, {
                "error": {
                    "message": f"Incorrect API key provided: {given}",
                    "code": "invalid_api_key",
                }
            }
        if body.get("model") != fake.model:
            return 404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}}
        if fake.max_texts and len(texts) > fake.max_texts:
            words = f"batch size {len(texts)} > maximum allowed batch size {fake.max_texts}"
            return 422, {"message": words, "type": "Validation"}
        status, answer = fake.embed(texts, truncate=False, fault=fault)
        if status != 200:
            return status, {
                "error": {
                    "message": f"This model's maximum context length is {fake.max_chars} tokens"
                }
            }
        if fake.base64 == "refused" and "encoding_format" in body:
            return 400, {
                "error": {
                    "message": "encoding_format is not supported",
                    "code": "unsupported_parameter",
                }
            }
        packs = fake.base64 in ("float32", "float64") and body.get("encoding_format") == "base64"
        rows = [
            pack(row, fake.base64) if packs and None not in row else list(row)
            for row in answer["embeddings"]
        ]
        data = [{"index": number, "embedding": row} for number, row in enumerate(rows)]
        return 200, {
            "object": "list",
            "model": fake.model,
            "data": data[::-1],
            "usage": {"prompt_tokens": 1},
        }

    def _send(
        self, status: int, body: bytes, fault=None, *, kind="application/json", headers=()
    ) -> None:
        truncated = fault is not None and fault.kind in ("reset", "half")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        if fault is not None and fault.kind == "drip":
            for number in range(len(body)):
                self.wfile.write(body[number : number + 1])
                if self.fake._over.wait(fault.options.get("seconds", 0.1)):
                    break
        else:
            self.wfile.write(body[: len(body) // 2] if truncated else body)
        self.wfile.flush()
        if truncated:
            if fault.kind == "reset":
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
            self.close_connection = True
