"""Processes that search the shards of an embedded store, so that no search can hold up the process that asks.

A call of the engine holds Python's GIL from beginning to end, and nothing interrupts it: a filter on fields without a
payload index may take seconds, and a disk that does not answer takes for ever. In a service, everything else would
stand still. So its calls are made in a child process, which is ended when one takes longer than the time limit. One
process answers everything as long as no call takes long. While one does, another process answers the others.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, cast

from rag_index.components.stores.edge.collection_reader import CollectionReader
from rag_index.errors import RagIndexError, SearchTimedOut, StoreError

MAX_PROCESSES = 4
SLOW_SEARCH_SECONDS, SLOW_LOAD_SECONDS = 0.25, 3.0
"""After this time of a call, or of loading a shard for it, the calls that wait get another process."""
LOAD_SECONDS = 600.0
"""How long a shard may take to be loaded, before which nothing can be searched in it."""
ENDING_SECONDS = 2.0
"""A process whose parent has died ends itself so long after a time limit."""
SEARCH_COMMAND = f"import sys; sys.path[:] = sys.argv[3:]; from {__name__} import main; main()"


class SearchProcesses:
    """The processes of one reader, whose calls may take `timeout` seconds each. Safe to use from several threads."""

    def __init__(self, timeout: float) -> None:
        self._timeout = min(timeout, LOAD_SECONDS)
        self._changed = threading.Condition()
        self._processes = [_Process(self._timeout)]
        self._idle = list(self._processes)
        self._closed = False

    def reader(self, name: str, folder: Path, dimension: int, *, sparse: bool = False) -> CollectionReader:
        """Return what reads a shard in these processes. Its calls raise SearchTimedOut, too."""
        return cast("CollectionReader", _RemoteReader(self, (name, folder, dimension, sparse)))

    def call(self, shard: _Shard, method: str, *args: Any, **options: Any) -> Any:
        """Return what a method of the shard's CollectionReader returns, and raise what it raises.

        Raises SearchTimedOut if the call takes too long, or the calls before it, and StoreError if the process dies.
        """
        process = self._take()
        try:
            return process.call(shard, method, args, options)
        except RagIndexError:
            raise
        except BaseException as exc:
            code = process.kill()  # nobody may get the answer to another's question
            if self._closed:
                raise StoreError("the store is closed") from exc
            if isinstance(exc, TimeoutError):
                raise SearchTimedOut(f"timed out after {self._timeout:g} s") from exc
            if isinstance(exc, EOFError | OSError):
                message = f"the process that searches {shard[0]} ended (exit code {code})"
                raise StoreError(f"{message}: check free memory and disk space") from exc
            raise
        finally:
            with self._changed:
                self._idle.append(process)
                self._changed.notify()

    def close(self) -> None:
        """End the processes, whatever they are doing. Calls under way raise StoreError."""
        with self._changed:
            self._closed = True
            for process in self._processes:
                process.kill()
            self._changed.notify_all()

    def _take(self) -> _Process:
        """Return a process that does nothing else; a new one, if each of them has been busy for some time."""
        deadline = time.monotonic() + self._timeout
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                while self._idle:
                    process = self._idle.pop()
                    if process.alive:
                        process.slow_at = now + SLOW_SEARCH_SECONDS
                        return process
                    self._processes.remove(process)  # killed from outside, perhaps for memory
                due = max((one.slow_at for one in self._processes), default=now)
                if now >= deadline:
                    raise SearchTimedOut(f"timed out after {self._timeout:g} s behind searches that take long")
                if now >= due and len(self._processes) < MAX_PROCESSES:
                    self._processes.append(_Process(self._timeout))
                    self._idle.append(self._processes[-1])
                else:
                    self._changed.wait(min(due if due > now else deadline, deadline) - now)
        raise StoreError("the store is closed")


_Shard = tuple[str, Path, int, bool]
"""Name, folder, dimension, and whether there are sparse vectors."""


class _RemoteReader:
    def __init__(self, processes: SearchProcesses, shard: _Shard) -> None:
        self._processes, self._shard = processes, shard

    def __getattr__(self, method: str) -> Any:
        return partial(self._processes.call, self._shard, method)

    def close(self) -> None:
        """Do nothing: each process closes, before its next call, the shards whose folders are gone."""


class _Process:
    """A child process, used by one thread at a time. `slow_at` is when its call begins to take long."""

    def __init__(self, timeout: float) -> None:
        self.slow_at = time.monotonic()
        self._timeout = timeout
        self._loaded: set[Path] = set()
        self._connection, theirs = Pipe()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", SEARCH_COMMAND, str(theirs.fileno()), str(timeout), *sys.path],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()], process_group=0,  # Ctrl-C ends the parent, and the parent ends this
        )  # fmt: skip
        theirs.close()

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def call(self, shard: _Shard, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if shard[1] not in self._loaded:
            self.slow_at = time.monotonic() + SLOW_LOAD_SECONDS
            self._ask((shard, "load", (), {}), LOAD_SECONDS)
            self._loaded = {shard[1], *filter(Path.exists, self._loaded)}
            self.slow_at = time.monotonic() + SLOW_SEARCH_SECONDS
        return self._ask((shard, method, args, options), self._timeout) if method != "load" else None

    def kill(self) -> int | None:
        """End the process, which writes nothing that is needed, and return its exit code."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):  # a disk that does not answer holds it back
            self._child.wait(ENDING_SECONDS)
        return self._child.returncode

    def _ask(self, request: tuple[Any, ...], seconds: float) -> Any:
        self._connection.send(request)
        if not self._connection.poll(seconds):
            raise TimeoutError
        answer = self._connection.recv()
        if isinstance(answer, RagIndexError):
            raise answer
        return answer


def main() -> None:
    """Answer calls until the parent closes its end: the main function of the child."""
    connection, timeout = Connection(int(sys.argv[1])), float(sys.argv[2])
    readers: dict[Path, CollectionReader] = {}
    with suppress(EOFError, ConnectionError):
        while True:
            (name, folder, dimension, sparse), method, args, options = connection.recv()
            seconds = LOAD_SECONDS if method == "load" else timeout
            signal.setitimer(signal.ITIMER_REAL, seconds + ENDING_SECONDS)  # SIGALRM ends it if the parent has died
            for gone in [one for one in readers if not one.exists()]:
                with suppress(StoreError):
                    readers.pop(gone).close()
            reader = readers.setdefault(folder, CollectionReader(name, folder, dimension, sparse=sparse))
            try:
                found = getattr(reader, method)(*args, **options)
                answer = list(found) if isinstance(found, Iterator) else found
            except RagIndexError as error:
                answer = error
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
