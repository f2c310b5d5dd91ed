"""What memory each process takes: its own, without files that it has mapped."""

from __future__ import annotations

import os
import re
import resource
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

__all__ = ["MemoryWatch", "peak_memory"]

EVERY = 0.1


class MemoryWatch:
    """The highest own memory in bytes of this process and its children while a `with` block runs, by name.

    `names` says what children are called, by process id; others are known by their command.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = {os.getpid(): "flow", **names}
        self._process = psutil.Process()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.peaks: dict[str, int] = {}

    def __enter__(self) -> MemoryWatch:
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self._look()

    def _look(self) -> None:
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                name = self._names.get(process.pid) or _kind(" ".join(process.cmdline()))
                if name:
                    self.peaks[name] = max(self.peaks.get(name, 0), _own_memory(process))
            except psutil.Error:
                continue


def peak_memory() -> int:
    """Bytes that this process had resident at most since it began its program."""
    with suppress(OSError):  # getrusage counts the process that started this one, too
        if found := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _kind(command: str) -> str:
    """What a process is that nobody named; nothing for those that are of no interest."""
    return "Prefect server" if "rag_index.orchestration.api_server" in command else ""


def _own_memory(process: psutil.Process) -> int:
    """RssAnon where /proc has it, else the resident set."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else int(process.memory_info().rss)
