"""Which processes are Dask's workers: on Linux they are forked from one that has imported what they need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["command", "fork_servers", "workers_among"]

FORKED = "multiprocessing.forkserver"
SPAWNED = "spawn_main"


def workers_among(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """The workers of these, by command line and parent."""
    return [one for one in processes if SPAWNED in command(one) or (FORKED in command(one) and not _first(one))]


def fork_servers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that workers are forked from."""
    return [one for one in processes if FORKED in command(one) and _first(one)]


def command(process: psutil.Process) -> str:
    """The command line; nothing of a process that is gone."""
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def _first(process: psutil.Process) -> bool:
    """Whether it was started and not forked: its parent is something else."""
    try:
        parent = process.parent()
    except psutil.NoSuchProcess:
        return False
    return parent is None or FORKED not in command(parent)
