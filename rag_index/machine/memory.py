"""The memory that each process takes for itself, without the files that it has mapped."""

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

SAMPLE_SECONDS = 0.1


class MemoryWatch:
    """The peak of each process's own memory, in bytes by name, while a `with` block runs.

    It samples this process and its children. `names` gives the names of children by process id; of the others,
    only a Prefect server counts.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = {os.getpid(): "flow", **names}
        self._process = psutil.Process()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.peaks: dict[str, int] = {}

    def __enter__(self) -> MemoryWatch:
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        for process in [self._process, *self._process.children(recursive=True)]:
            try:
                name = self._names.get(process.pid)
                if name is None and "rag_index.orchestration.api_server" in process.cmdline():
                    name = "Prefect server"
                if name:
                    self.peaks[name] = max(self.peaks.get(name, 0), _own_memory(process))
            except psutil.Error:
                continue


def peak_memory() -> int:
    """Return the peak of this process's resident memory since it began its program, in bytes."""
    with suppress(OSError):  # psutil has no peak on Linux, and getrusage includes the process that started this one
        if match := re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()):
            return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _own_memory(process: psutil.Process) -> int:
    """Return the resident memory that is not shared; the whole resident set on systems that do not tell."""
    memory = process.memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))  # `shared` exists on Linux only
