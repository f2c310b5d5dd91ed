"""A real Ollama server for tests: a process of their own, or one that runs on this machine
already."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

from ollama import Client

from tests.ports import free_port
from tests.waiting import START_SECONDS

ROOT = Path(__file__).parents[2]
USUAL_ADDRESS = "http://127.0.0.1:11434"
NO_PROGRAM = "there is no real Ollama: none is on the PATH, and .ci/build-ollama has built none"


def find_ollama() -> Path | str:
    """Return the program from the PATH or of an earlier .ci/build-ollama, or the reason why there
    is none.

    It builds none: that takes minutes, in which a test would reach its time limit.
    """
    if found := shutil.which("ollama"):
        return Path(found)
    built = subprocess.run(
        [ROOT / ".ci" / "build-ollama", "--find"], stdout=subprocess.PIPE, check=False, text=True
    )
    return Path(built.stdout.strip()) if built.returncode == 0 else NO_PROGRAM


def answers(url: str) -> bool:
    """Return whether an Ollama answers at this address."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{url}/api/version", timeout=2
        ) as got:
            return "version" in json.load(got)
    except (OSError, ValueError):
        return False


class RunningOllama:
    """A server of the person who runs the tests. Their models get names of their own, and are gone
    after the block."""

    def __init__(self, url: str = USUAL_ADDRESS) -> None:
        self.url = url
        self._client = Client(url, trust_env=False)
        self._created: list[str] = []

    def __enter__(self) -> RunningOllama:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._created:
            self._client.delete(name)

    def create(self, name: str, gguf: Path) -> str:
        """Make a model from a GGUF file, and return its name."""
        name = f"rag-index-test-{uuid.uuid4().hex[:12]}-{name}"
        self._client.create(name, files={gguf.name: self._client.create_blob(gguf)})
        self._created.append(name)
        return name


class OllamaServer:
    """One server process that runs until the `with` block ends. `start` after `stop` or `kill` uses
    the same port."""

    def __init__(self, program: Path, folder: Path | None = None, *, port: int = 0) -> None:
        self.program = program
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="ollama-"))
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> OllamaServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server does not run")
        return self._process.pid

    @property
    def log(self) -> str:
        """Return the server's output so far."""
        path = self.folder / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start, and wait until it answers."""
        if self._process is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            how = {
                "env": self._environment(),
                "stdout": log,
                "stderr": log,
                "start_new_session": True,
            }
            self._process = subprocess.Popen([self.program, "serve"], **how)
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.url):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.program} does not start:\n{self.log[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as a service manager would, with its models unloaded."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self.kill()

    def kill(self) -> None:
        """Kill it and the processes that run its models with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def create(self, name: str, gguf: Path) -> str:
        """Make a model from a GGUF file, and return its name."""
        modelfile = gguf.with_suffix(".Modelfile")
        modelfile.write_text(f"FROM {gguf.absolute()}\n")
        done = subprocess.run(
            [self.program, "create", name, "-f", modelfile],
            env=self._environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ollama create {name}: {done.stderr[-1000:]}\n{self.log[-2000:]}")
        return name

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.folder),
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": str(self.folder / "models"),
        }
