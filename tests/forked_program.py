"""The program in a process of its own, forked from one that has imported it.

A short command spends most of its processor time on imports, and the tests start hundreds of them.
What a command reads when it is imported is the same in both ways: a process is only forked for the
environment of Prefect, Dask and Python that it was started with. Tests of imports, of signals and
of the processes of a run start the program themselves.
"""

from __future__ import annotations

import atexit
import fcntl
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
import traceback
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
ROOT = Path(__file__).parent.parent
Ended = subprocess.CompletedProcess[str]
READ_ON_IMPORT = (
    "PREFECT_",
    "DASK_",
    "PYTHON",
    "LC_",
    "LANG",
    "OMP_",
    "OPENBLAS_",
    "GRPC_",
    "LD_",
    "MALLOC_",
)
"""How the names of variables begin that Python or a library reads when it is imported."""
ALWAYS = (
    "qdrant_client",
    "sqlalchemy.dialects.sqlite",
    "rag_index.care.doctor",
    "rag_index.etl.run",
    "rag_index.etl.changed",
    "rag_index.orchestration.launch",
    "rag_index.search",
    "rag_index.components.stores.edge.store",
    "rag_index.care.plan",
)


def without_api() -> dict[str, str]:
    """Return the environment of a user without a Prefect server."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def run_program(
    arguments: Sequence[str], environment: Mapping[str, str], *, timeout: float = 120
) -> Ended:
    """Run the program to its end, as `subprocess.run` does: with its output, and killed after
    `timeout` seconds."""
    return _run({"arguments": list(arguments)}, [*PROGRAM, *arguments], environment, timeout)


def run_code(code: str, environment: Mapping[str, str], *arguments: str) -> Ended:
    """Run a piece of Python to its end in such a process, with these arguments."""
    command = [sys.executable, "-c", code, *arguments]
    return _run({"code": code, "arguments": list(arguments)}, command, environment, 120)


def _run(
    what: dict[str, Any], command: list[str], environment: Mapping[str, str], timeout: float
) -> Ended:
    read = _read_on_import(environment)
    common = read == _read_on_import(os.environ) or not any(
        name.startswith("PREFECT_") for name, _ in read
    )
    if sys.platform != "linux" or not common:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=environment, check=False
        )
    return _parent(read, os.getpid()).run(
        command, {**what, "environment": dict(environment)}, timeout
    )


def _read_on_import(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(one for one in environment.items() if one[0].startswith(READ_ON_IMPORT)))


@lru_cache(maxsize=3)
def _parent(read_on_import: tuple[tuple[str, str], ...], _process: int) -> _Parent:
    return _Parent(dict(read_on_import))


@dataclass
class Started:
    """A process that runs, and how it ended."""

    pid: int
    _answers: socket.socket

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code."""
        self._answers.settimeout(timeout)
        with self._answers:
            return int(self._answers.recv(100))


def start_in_terminal(
    code: str, arguments, environment: Mapping[str, str], terminal: int, output: int
) -> Started:
    """Start the program, or a piece of Python with these arguments, in a session of its own: its
    errors and what it asks for are those of `terminal`, which Ctrl-C is typed into."""
    what = {"arguments": list(arguments), "terminal": True, "environment": dict(environment)}
    parent = _parent(_read_on_import(environment), os.getpid())
    return parent.start({**what, "code": code} if code else what, output, terminal)


class _Parent:
    """A process to fork from. It ends when this process does, however: then our end of the socket
    closes."""

    def __init__(self, read_on_import: dict[str, str]) -> None:
        others = {
            name: value for name, value in os.environ.items() if not name.startswith(READ_ON_IMPORT)
        }
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from tests.forked_program import serve; serve({theirs.fileno()})",
            ],
            env=others | read_on_import,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        weakref.finalize(self, _end_parent, self._control, process)

    def run(self, command: list[str], what: dict[str, Any], timeout: float) -> Ended:
        pipes = [os.pipe(), os.pipe()]
        started = self.start(what, *(write for _, write in pipes))
        for _, write in pipes:
            os.close(write)
        texts = ["", ""]
        given = [(read, texts, number) for number, (read, _) in enumerate(pipes)]
        readers = [threading.Thread(target=_read, args=one, daemon=True) for one in given]
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + timeout
        for reader in readers:
            reader.join(max(0, deadline - time.monotonic()))
        if any(reader.is_alive() for reader in readers):
            os.kill(started.pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(command, timeout, texts[0], texts[1])
        return subprocess.CompletedProcess(command, started.wait(), *texts)

    def start(self, what: dict[str, Any], output: int, errors: int) -> Started:
        answers, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"folder": str(Path.cwd()), **what}).encode()
        socket.send_fds(self._control, [request], [theirs.fileno(), output, errors])
        theirs.close()
        return Started(int(answers.recv(100)), answers)


def _end_parent(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.wait()


def _read(descriptor: int, texts: list[str], number: int) -> None:
    with open(descriptor, encoding="utf-8") as pipe:
        texts[number] = pipe.read()


def serve(descriptor: int) -> None:
    """Fork a process for each request, and tell its number and then how it ended."""
    from rag_index import cli
    from rag_index.components.embedders import local
    from tests.read_once import (
        copy_schemas_quickly,
        keep_model,
        leave_vectors_on_disk,
        trust_one_certificate,
    )

    for module in [f"rag_index.cli.{name}" for name in set(cli.COMMANDS.values())] + list(ALWAYS):
        importlib.import_module(module)
    keep_model()
    copy_schemas_quickly()
    leave_vectors_on_disk()
    trust_one_certificate()
    local.load_table()
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as control, selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    _answer(selector, key)
                    continue
                request, descriptors, *_ = socket.recv_fds(control, 1 << 20, 3)
                if not request:
                    return
                pid = os.fork()
                if pid == 0:
                    selector.close()
                    control.close()
                    _become(json.loads(request), descriptors)
                answers = socket.socket(fileno=descriptors[0])
                for other in descriptors[1:]:
                    os.close(other)
                with suppress(OSError):
                    answers.send(str(pid).encode())
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, answers))


def _answer(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    pid, answers = key.data
    selector.unregister(key.fd)
    os.close(key.fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with answers, suppress(OSError):
        answers.send(str(code).encode())


def _become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Be the program, or run the code: with these standard streams, this environment, in this
    folder."""
    answers, output, errors = descriptors
    os.close(answers)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    if "terminal" in request:
        os.setsid()
        fcntl.ioctl(errors, termios.TIOCSCTTY, 0)
        os.dup2(errors, 0)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    os.close(output)
    os.close(errors)
    for name in os.environ.keys() - request["environment"].keys():
        del os.environ[name]
    os.environ.update(request["environment"])
    time.tzset()
    os.chdir(request["folder"])
    gc.unfreeze()
    from rag_index.cli import main

    code: object = 1
    try:
        if "code" in request:
            sys.argv = ["-c", *request.get("arguments", ())]
            exec(request["code"], {"__name__": "__main__"})
            code = 0
        else:
            main(request["arguments"])
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    _end(code if isinstance(code, int) else 0)


def _end(code: int) -> NoReturn:
    """End as Python does, except for the destruction of modules: that would copy the memory of the
    parent."""
    threading._shutdown()
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    with suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)
