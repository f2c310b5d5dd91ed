"""Finding Dask's workers among processes: on Linux they are forked from a process that did their
imports."""

from collections.abc import Iterable

import psutil

FORKED = "multiprocessing.forkserver"
SPAWNED = "spawn_main"


def workers_among(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the workers among these processes, by command line and parent."""
    return [
        one
        for one in processes
        if SPAWNED in command(one) or (FORKED in command(one) and not _was_started(one))
    ]


def fork_servers(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Return the processes that workers are forked from."""
    return [one for one in processes if FORKED in command(one) and _was_started(one)]


def command(process: psutil.Process) -> str:
    """Return the command line; empty if the process has ended."""
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""


def _was_started(process: psutil.Process) -> bool:
    """Return whether the process was started rather than forked: its parent is no fork server."""
    try:
        parent = process.parent()
    except psutil.NoSuchProcess:
        return False
    return parent is None or FORKED not in command(parent)
