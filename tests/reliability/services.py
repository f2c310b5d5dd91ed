"""The services that killed runs use: Prefect servers, Ollama (a real one if it is installed), and a Qdrant server."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol

import psutil

from rag_index.orchestration.api_server import temporary_server
from tests.fakes.ollama import FakeOllama
from tests.fakes.qdrant import FakeQdrant
from tests.live.models import write_embedding_gguf
from tests.live.ollama_server import OllamaServer, find_ollama

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ollama(Protocol):
    """A server that can be killed and started again on its port."""

    url: str

    def kill(self) -> None: ...
    def start(self) -> None: ...


class _Fake(FakeOllama):
    def kill(self) -> None:
        self.stop_listening()

    def start(self) -> None:
        self.listen()


class Services:
    """Services that start when a test first asks for them and stop at the end of the `with` block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self._ollama: Ollama | None = None
        self._model = ""
        self.real_ollama = False

    def __enter__(self) -> Services:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def ollama(self) -> Ollama:
        if self._ollama is None:
            program = find_ollama()
            if isinstance(program, str):
                self._ollama = self._stack.enter_context(_Fake())
                self._model = self._ollama.model
            else:
                server = self._stack.enter_context(OllamaServer(program, self.folder / "ollama"))
                self._model = server.create("tiny-embed", write_embedding_gguf(self.folder / "tiny.gguf"))
                self._ollama, self.real_ollama = server, True
        return self._ollama

    def settings(self, embedder: str, qdrant: FakeQdrant | None) -> str:
        """Return the sections of a settings file that name the services."""
        text = ""
        if embedder == "ollama":
            url = self.ollama.url
            text += f'[embedder]\nkind = "ollama"\nmodel = "{self._model}"\nhosts = ["{url}"]\nnum_thread = 1\n'
        if qdrant is not None:
            text += f'[store]\nurl = "{qdrant.url}"\n'
        return text


def kill_qdrant(qdrant: FakeQdrant, seconds: float) -> None:
    """Let clients see the server die, and come back after `seconds` with every point that it acknowledged."""
    fault = qdrant.break_next(times=None, cut=True)
    qdrant.stop()
    time.sleep(seconds)
    qdrant.faults.remove(fault)
    qdrant.start()


@contextmanager
def prefect_to_kill() -> Iterator[tuple[dict[str, str], psutil.Process]]:
    """Yield the variables and the process of a Prefect server that a test may kill."""
    me = psutil.Process()
    before = {child.pid for child in me.children()}
    with temporary_server() as variables:
        [server] = [
            c
            for c in me.children()
            if c.pid not in before and "rag_index.orchestration.api_server" in " ".join(c.cmdline())
        ]
        yield variables, server
