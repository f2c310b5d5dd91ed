"""Processors and memory that this process may use, by affinity and cgroup limits, and the workers
that they allow."""

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

# dask.system reads the limits of one cgroup only, and distributed.system those of the root only:
# both miss limits that are set on a group in between, so the groups are read here.
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
MB = 1_000_000
WORKER_MEMORY = {"local": 300 * MB, "ollama": 200 * MB, "openai": 200 * MB, "fastembed": 250 * MB}
"""Bytes that a worker process needs, by kind of embedder. `local` is measured with shards of 5
million characters; `ollama`, which has no model in the process like `openai`, takes 60 MB less and
has small shards. To that of `fastembed` the memory of the model is added."""
PLUGIN_MEMORY = 800 * MB
MEMORY_OF_WEIGHTS = 1.5
"""Bytes of memory for a byte of weights: onnxruntime has a copy of some while it loads them.
Measured 1.0 to 1.4."""
UNKNOWN_WEIGHTS = 150 * MB
"""Assumed weights of a model of fastembed whose name is not on its list."""
RESERVED_MEMORY = 700 * MB
"""Bytes for the flow's process and the Prefect server together."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The facts that decide the number of workers."""

    affinity: int
    """Processors that this process may run on."""
    quota: float | None
    """Processors by the tightest cgroup quota; None without one."""
    memory: int
    """Bytes of memory that this process and its children may use."""

    @property
    def processors(self) -> int:
        """Return the minimum of affinity and quota, at least 1."""
        return max(
            1, self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota))
        )


def detect_machine(
    cgroup: Path = _CGROUP, membership: Path = _MEMBERSHIP, installed: int | None = None
) -> Machine:
    """Return the resources of this machine as they are now; `installed` replaces its bytes of
    memory. The limits are those of the process's own cgroup and of every group above it. A
    container has its limit at the root, a systemd service with CPUQuota or MemoryMax some levels
    below."""
    cpu_groups, memory_groups = (
        _cgroup_folders(name, cgroup, membership) for name in ("cpu", "memory")
    )
    # The files of version 2, and of version 1. A limit that is no number is "max".
    cpu = [
        _numbers(group, ["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
        for group in cpu_groups
    ]
    quotas = [found[0] / found[1] for found in cpu if len(found) == 2 and min(found) > 0]
    limits = [_numbers(group, ["memory.max"], ["memory.limit_in_bytes"]) for group in memory_groups]
    installed = installed or int(psutil.virtual_memory().total)
    memory = min([installed, *(found[0] for found in limits if found and found[0] > 0)])
    affinity = len(os.sched_getaffinity(0))
    return Machine(affinity, min(quotas, default=None), memory)


def choose_worker_count(
    parallel: ParallelSettings, worker_bytes: int, machine: Machine | None = None
) -> int:
    """Return how many workers a run starts: as the settings say, or one less than the processors.
    Memory bounds an automatic number, at `worker_bytes` each unless the settings give
    `worker_memory`. It is 0 only if memory has room for none."""
    if parallel.workers != "auto":
        return parallel.workers
    machine, worker_bytes = machine or detect_machine(), memory_per_worker(parallel, worker_bytes)
    fitting = max(0, machine.memory - RESERVED_MEMORY) // worker_bytes
    return min(max(1, machine.processors - 1), fitting)


def worker_count(settings: Settings) -> int:
    """Return how many workers a run of these settings starts; 0 only if memory has room for
    none."""
    return choose_worker_count(settings.parallel, estimate_worker_memory(settings.embedder))


def memory_per_worker(parallel: ParallelSettings, estimate: int) -> int:
    """Return the bytes that each worker may have: `worker_memory` of the settings, or else the
    estimate."""
    return estimate if parallel.worker_memory == "auto" else parallel.worker_memory * MB


def estimate_worker_memory(embedder: EmbedderSettings) -> int:
    """Return the bytes that a worker process with this embedder is expected to need."""
    needed = WORKER_MEMORY.get(embedder.kind, PLUGIN_MEMORY)
    if embedder.kind != "fastembed":
        return needed
    return needed + round(MEMORY_OF_WEIGHTS * weights_of(embedder.model))


def weights_of(model: str) -> int:
    """Return the bytes of the weights of a model of fastembed: those of its folder, or as its list
    has them.

    A folder may have the model in several forms: then the largest counts.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        sizes = Counter[Path]()
        for file in folder.rglob("*.onnx*"):  # model.onnx, and its data in model.onnx_data
            sizes[file.with_name(file.name.partition(".onnx")[0])] += file.stat().st_size
        return max(sizes.values(), default=0) or UNKNOWN_WEIGHTS
    if find_spec("fastembed") is None:
        return UNKNOWN_WEIGHTS
    return _listed_weights().get(model.lower().rsplit("/", 1)[-1], UNKNOWN_WEIGHTS)


@cache
def _listed_weights() -> dict[str, int]:
    """Return the size of each model on fastembed's list, by its name without the owner."""
    from fastembed import TextEmbedding

    listed = TextEmbedding.list_supported_models()
    return {
        entry["model"].lower().rsplit("/", 1)[-1]: round(entry["size_in_GB"] * 1000 * MB)
        for entry in listed
    }


def _cgroup_folders(controller: str, cgroup: Path, membership: Path) -> list[Path]:
    folders = {cgroup, cgroup / controller}
    lines: list[str] = []
    with suppress(OSError):
        lines = membership.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = cgroup / controller if controllers else cgroup
        own = top / path.lstrip("/")
        folders.update(folder for folder in (own, *own.parents) if folder.is_relative_to(top))
    return sorted(folders)


def _numbers(group: Path, *ways: list[str]) -> list[int]:
    """Return the numbers in the files of a group: those of the first way in which all can be
    read."""
    for names in ways:
        with suppress(OSError, ValueError):
            return [int(word) for name in names for word in (group / name).read_text().split()]
    return []
