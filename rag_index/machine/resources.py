"""What this machine has: processors by affinity and cgroup quota, memory by cgroup limit, and so many workers."""

from __future__ import annotations

import functools
import math
import os
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.settings import EmbedderSettings, ParallelSettings

__all__ = [
    "Machine",
    "cpu_count",
    "load",
    "memory_each",
    "memory_limit",
    "survey",
    "worker_count",
    "worker_memory",
    "workers_for",
]

_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_MEMORY = Path("/proc/meminfo")
MB = 1_000_000
WORKER_MEMORY = {"local": 300 * MB, "ollama": 200 * MB, "sentence-transformers": 800 * MB}
"""What a worker process needs, by kind of embedder. Measured: `local` with shards of 5 million characters; `ollama`,
which has no model in the process, 60 MB less and small shards. Not measured: torch, and beside it the weights."""
UNKNOWN_WEIGHTS = 500 * MB
"""Of a sentence-transformers model that is no folder here: a name as on the model hub does not say how large it is."""
OWN_MEMORY = 700 * MB
"""Of the flow's process and the Prefect server together."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What decides the number of workers."""

    affinity: int
    """Processors that this process may be put on."""
    quota: float | None
    """Processors by the tightest cgroup quota."""
    memory: int | None
    """Bytes of memory that this process and its children may use, None where nobody knows."""
    memory_is_limited: bool
    """Whether a cgroup says so, and not the machine's size."""
    load: float | None
    """Processes that run or wait to run, on average of the last minute, in the whole machine."""

    @property
    def processors(self) -> int:
        """The least of affinity and quota, at least 1."""
        return max(1, self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota)))

    def workers(self, each: int) -> int:
        """One less than the processors, and no more than have `each` bytes; at least 1."""
        return max(1, min(self.processors - 1, self.workers_in_memory(each)))

    def workers_in_memory(self, each: int) -> int:
        """How many of so many bytes have room beside the flow and the Prefect server."""
        return sys.maxsize if self.memory is None else max(0, self.memory - OWN_MEMORY) // each


def survey(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP, meminfo: Path = _MEMORY) -> Machine:
    """Look at this machine as it is now.

    Limits are those of the process's own cgroup and of all above it: in a container there is one at the root, for a
    systemd service with CPUQuota or MemoryMax some folders below.
    """
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        affinity = os.cpu_count() or 1
    quotas = [quota for group in _groups("cpu", cgroup, membership) if (quota := _quota(group)) is not None]
    limits = [limit for group in _groups("memory", cgroup, membership) if (limit := _memory(group)) is not None]
    installed = _installed(meminfo)
    limit = min(limits, default=None)
    limited = limit is not None and (installed is None or limit < installed)
    return Machine(affinity, min(quotas, default=None), limit if limited else installed, limited, load())


def cpu_count(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP) -> int:
    """Processors that this process may use: the least of affinity and cgroup quotas (v2 or v1), at least 1."""
    return survey(cgroup, membership).processors


def memory_limit(cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP, meminfo: Path = _MEMORY) -> int | None:
    """Bytes of memory that this process may use: the least of the machine's and of cgroup limits; None: not known."""
    return survey(cgroup, membership, meminfo).memory


def load() -> float | None:
    """The load average of the last minute; None where the system has none."""
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def worker_count(
    setting: int | str,
    cgroup: Path = _CGROUP,
    membership: Path = _MEMBERSHIP,
    *,
    each: int = WORKER_MEMORY["local"],
) -> int:
    """The setting, or one less than the processors there are, as far as memory goes at `each` bytes; at least 1."""
    return setting if isinstance(setting, int) else survey(cgroup, membership).workers(each)


def workers_for(parallel: ParallelSettings, each: int, machine: Machine | None = None) -> int:
    """How many workers a run has, at least 1: as the settings say, or one less than the processors.

    Not more than there is memory for at `each` bytes, and than the load leaves room for, where settings bound these.
    """
    machine = machine or replace(survey(), load=_load_at_first())
    each = memory_each(parallel, each)
    if parallel.memory != "auto":
        machine = replace(machine, memory=min(parallel.memory * MB, machine.memory or sys.maxsize))
    count = machine.workers(each) if parallel.workers == "auto" else parallel.workers
    if parallel.memory != "auto":
        count = min(count, machine.workers_in_memory(each))
    if parallel.max_load is not None and machine.load is not None:
        count = min(count, int(parallel.max_load - machine.load))
    return max(1, count)


def memory_each(parallel: ParallelSettings, needed: int) -> int:
    """Bytes that each worker may have: what the settings say, else what it is taken to need."""
    return needed if parallel.worker_memory == "auto" else parallel.worker_memory * MB


@functools.cache
def _load_at_first() -> float | None:
    """The load before this process's workers are part of it: the run and its cluster are to count alike."""
    return load()


def worker_memory(embedder: EmbedderSettings) -> int:
    """Bytes that a worker process with this embedder is taken to need."""
    needed = WORKER_MEMORY[embedder.kind]
    if embedder.kind != "sentence-transformers":
        return needed
    folder = Path(embedder.model)
    files = sorted(folder.rglob("*.safetensors")) or sorted(folder.rglob("*.bin"))
    return needed + (sum(file.stat().st_size for file in files) or UNKNOWN_WEIGHTS)


def _groups(controller: str, cgroup: Path, membership: Path) -> list[Path]:
    """The folders of the groups of this process, up to the root: version 2, and the controller's of version 1."""
    found = {cgroup, cgroup / controller}
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroup / controller if controllers else cgroup
        own = top / path.lstrip("/")
        found.update(folder for folder in (own, *own.parents) if folder.is_relative_to(top))
    return sorted(found)


def _memory(group: Path) -> int | None:
    """Bytes that a group may use (v2, else v1), None where there is no limit."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit = int((group / name).read_text())
        except (OSError, ValueError):  # "max"
            continue
        return limit if limit > 0 else None
    return None


def _installed(meminfo: Path) -> int | None:
    """Bytes of memory that the machine has."""
    try:
        found = re.search(r"^MemTotal:\s+(\d+) kB", meminfo.read_text(), re.M)
        if found:
            return int(found[1]) * 1024
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _quota(group: Path) -> float | None:
    """Processors by the CFS quota of a group, None where there is no limit."""
    try:
        limit, period = (group / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_v1 = int((group / "cpu.cfs_quota_us").read_text())
        period_v1 = int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return limit_v1 / period_v1 if limit_v1 > 0 and period_v1 > 0 else None
