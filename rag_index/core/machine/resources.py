"""Processors and memory that this process may use (affinity, cgroup limits), and how many workers
they allow."""

from __future__ import annotations

import math
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from rag_index.core.settings import EmbedderSettings, ParallelSettings, Settings

# dask.system reads the limits of one cgroup, and distributed.system those of the root. Both miss
# limits of a group in between, so this module reads the groups itself.
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
MB = 1_000_000
WORKER_MEMORY = {"local": 300 * MB, "ollama": 200 * MB, "openai": 200 * MB, "fastembed": 250 * MB}
"""Bytes that a worker process needs, by kind of embedder. `local` was measured with shards of 5
million characters. `ollama` and `openai` have no model in the process and small shards, and take 60
MB less. For `fastembed`, the memory of the model is added."""
PLUGIN_MEMORY = 800 * MB
"""The same for an embedder of a plug-in, in bytes. Assumed: its model is unknown."""
MEMORY_OF_WEIGHTS = 1.5
"""Bytes of memory per byte of weights: onnxruntime copies some while it loads them. Measured 1.0 to
1.4."""
UNKNOWN_WEIGHTS = 150 * MB
"""Assumed bytes of weights of a fastembed model that its list lacks."""
RESERVED_MEMORY = 700 * MB
"""Bytes for the flow's process and the Prefect server together."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that determine the number of workers."""

    affinity: int
    """Processors that this process may run on."""
    quota: float | None
    """Processors by the tightest cgroup quota; None if there is none."""
    memory: int
    """Bytes of memory that this process and its children may use."""

    @property
    def processors(self) -> int:
        """Return the minimum of affinity and quota, at least 1."""
        if self.quota is None:
            return max(1, self.affinity)
        return max(1, min(self.affinity, math.ceil(self.quota)))


def detect_machine(
    cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP, installed: int | None = None
) -> Machine:
    """Return the present resources of this machine; `installed` replaces its bytes of memory.

    The limits are those of the process's own cgroup and of every group above it. A container has
    its limit at the root, a systemd service with CPUQuota or MemoryMax some levels below.
    """
    # Each has the files of version 2 and of version 1. A limit that is no number is "max".
    quotas = []
    for group in _cgroup_folders("cpu", cgroup, membership):
        found = _numbers(group, ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
        # 150000 of each 100000 µs are 1.5 processors; a quota of -1 is no limit.
        if len(found) == 2 and min(found) > 0:
            quotas.append(found[0] / found[1])
    limits = [installed or int(psutil.virtual_memory().total)]
    for group in _cgroup_folders("memory", cgroup, membership):
        found = _numbers(group, ["memory.max"], ["memory.limit_in_bytes"])
        if found and found[0] > 0:
            limits.append(found[0])
    affinity = len(os.sched_getaffinity(0))
    return Machine(affinity, min(quotas, default=None), min(limits))


def choose_worker_count(
    parallel: ParallelSettings, worker_bytes: int, machine: Machine | None = None
) -> int:
    """Return how many workers a run starts: the number in the settings, or one less than the
    processors.

    Memory limits an automatic number, at `worker_bytes` each, or `worker_memory` of the settings.
    It is 0 only if there is no memory for one.
    """
    if parallel.workers != "auto":
        return parallel.workers
    machine = machine or detect_machine()
    available = max(0, machine.memory - RESERVED_MEMORY)
    fitting = available // memory_per_worker(parallel, worker_bytes)
    return min(max(1, machine.processors - 1), fitting)


def worker_count(settings: Settings) -> int:
    """Return how many workers a run of these settings starts; 0 only if there is no memory for
    one."""
    return choose_worker_count(settings.parallel, estimate_worker_memory(settings.embedder))


def memory_per_worker(parallel: ParallelSettings, estimate: int) -> int:
    """Return the bytes that each worker may use: `worker_memory` of the settings, or else the
    estimate."""
    if parallel.worker_memory == "auto":
        return estimate
    return parallel.worker_memory * MB


def estimate_worker_memory(embedder: EmbedderSettings) -> int:
    """Return the bytes that a worker process with this embedder is expected to need."""
    needed = WORKER_MEMORY.get(embedder.kind, PLUGIN_MEMORY)
    if embedder.kind != "fastembed":
        return needed
    return needed + round(MEMORY_OF_WEIGHTS * weights_of(embedder.model))


def weights_of(model: str) -> int:
    """Return the bytes of the weights of a fastembed model: of the files in its folder, or as
    fastembed's list has them. A folder may hold the model in several forms; the largest counts."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        sizes = Counter[Path]()
        for file in folder.rglob("*.onnx*"):  # model.onnx, and its data in model.onnx_data
            form = file.with_name(file.name.partition(".onnx")[0])
            sizes[form] += file.stat().st_size
        return max(sizes.values(), default=0) or UNKNOWN_WEIGHTS
    if find_spec("fastembed") is None:
        return UNKNOWN_WEIGHTS
    return _listed_weights().get(_short_name(model), UNKNOWN_WEIGHTS)


@cache
def _listed_weights() -> dict[str, int]:
    """Return the bytes of each model on fastembed's list, by its name without the owner."""
    from fastembed import TextEmbedding

    sizes: dict[str, int] = {}
    for entry in TextEmbedding.list_supported_models():
        sizes[_short_name(entry["model"])] = round(entry["size_in_GB"] * 1000 * MB)
    return sizes


def _short_name(model: str) -> str:
    """Return the name of a model without its owner: "bge-small-en" of "BAAI/bge-small-en"."""
    return model.lower().rsplit("/", 1)[-1]


def _cgroup_folders(controller: str, cgroup: Path, membership: Path) -> list[Path]:
    """Return the folders of the process's cgroups for a controller, up to the root."""
    folders = {cgroup, cgroup / controller}
    lines: list[str] = []
    with suppress(OSError):
        lines = membership.read_text().splitlines()
    for line in lines:
        # Version 2: "0::/system.slice/rag.service". Version 1: "4:cpu,cpuacct:/system.slice".
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroup / controller if controllers else cgroup
        own = top / path.lstrip("/")
        folders.update(folder for folder in (own, *own.parents) if folder.is_relative_to(top))
    return sorted(folders)


def _numbers(group: Path, *alternatives: list[str]) -> list[int]:
    """Return the numbers in files of a group: in those of the first alternative that can all be
    read."""
    for names in alternatives:
        with suppress(OSError, ValueError):
            words: list[str] = []
            for name in names:
                words += (group / name).read_text().split()
            return list(map(int, words))
    return []
