"""The Dask workers of a run: a cluster of its own, started with the first shard, or an existing
one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from multiprocessing import forkserver, resource_tracker
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rag_index.core.machine import given, in_thread
from rag_index.core.machine.resources import (
    WORKER_MEMORY,
    choose_worker_count,
    estimate_worker_memory,
    memory_per_worker,
)
from rag_index.errors import NoWorkers, TerminalError, TransientError, one_line
from rag_index.orchestration.prefect_api import api_settings, run_api_settings, why_no_api

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from distributed import LocalCluster
    from prefect.task_runners import TaskRunner

    from rag_index.core.settings import ParallelSettings, Settings

logger = logging.getLogger("rag_index.workers")
SAME_VERSIONS = ("rag-index", "distributed", "cloudpickle")
"""Packages whose versions must be the same in the run and on workers, because shards are pickled
between them."""

CONNECT_SECONDS = 10
"""Seconds for a connection to a scheduler. Chosen; nothing depends on it."""
NO_MEMORY_LIMIT = 0
"""Bytes: Dask takes 0 for no limit."""
MESSAGES_KEPT = {"distributed.admin.low-level-log-length": 10}
"""Dask keeps the last messages of each connection for its developers, 1,000 by default. A message
that submits a task holds its shard, so that a long run would keep a thousand of these, about a
megabyte each."""

OWN_CLUSTER: dict[str, Any] = {
    **MESSAGES_KEPT,
    # Less of what Dask measures for its dashboard, which runs do not have. That wakes each process
    # 50 to 100 times a second, and with many workers it fills a core.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    # A shard whose worker dies is run alone later: trying it on four workers first, as Dask would,
    # only takes time.
    "distributed.scheduler.allowed-failures": 1,
    # Dask would give up a worker that is slow to restart, or dies twice, after 15 seconds.
    "distributed.deploy.lost-worker-timeout": "365 days",
    # A worker without a heartbeat for so long is frozen: it is ended, and its shards go to others.
    "distributed.scheduler.worker-ttl": "30s",
    # A worker is ended for its memory only if the settings limit it: Dask's other measures hold
    # work back.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # Dask's pages have no password, and show keys, calls and logs; Prefect's log would name them.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.dashboard.link": "",
}
CONNECTION: dict[str, Any] = {"distributed.dashboard.link": "", **MESSAGES_KEPT}
"""For a cluster that the run has not started. An empty link keeps its dashboard out of the log."""
PRELOAD = "tasks.etl"
"""The module that workers import before their first shard. The fork server imports it once for all
workers."""
CUT_OFF = (
    "Failed to communicate with scheduler during heartbeat",
    "Closed comm %r while trying to write",
)
"""How the messages of Dask begin that report, with a page of traceback, a connection that ended with
its cluster."""


class Workers(AbstractContextManager["Workers"]):
    """The workers of a run, which end with a `with` block. They start with the first shard."""

    def __init__(
        self,
        settings: ParallelSettings,
        memory: int = WORKER_MEMORY["local"],
        *,
        on_servers: bool = False,
    ) -> None:
        """Choose the number of workers.

        Args:
            memory: The bytes that each worker is assumed to need.
            on_servers: Whether the model is on servers. Then workers only call them, for two shards
                at a time.
        """
        self._settings = settings
        self._at_a_time = 2 if on_servers else 1
        self.count = max(1, choose_worker_count(settings, memory))
        """The number of workers: that of the settings, or one less than the processors, as far as
        there is memory."""
        self._starting: Future[LocalCluster] | None = None
        self._config = ExitStack()

    def __exit__(self, *error: object) -> None:
        starting, self._starting = self._starting, None
        if starting is not None and starting.exception() is None:
            starting.result().close()
        self._config.close()

    def start(self) -> Future[LocalCluster]:
        """Start a cluster in the background, once."""
        if self._starting is None:
            self._starting = in_thread(partial(self._start, self.count), "cluster")
        return self._starting

    def cluster(self) -> LocalCluster | str:
        """Return the cluster, started on first use, or the address that the settings name. Raises
        NoWorkers if the workers do not start."""
        if self._settings.address is None:
            return self.start().result()
        import_dask()
        import dask

        self._config.enter_context(dask.config.set(CONNECTION))
        return self._settings.address

    def _start(self, count: int, *, again: bool = True) -> LocalCluster:
        """Start the cluster. It is tried twice, since one worker that dies as it starts ends the
        cluster."""
        import_dask()
        try:
            return self._local_cluster(count)
        except Exception as error:
            # Distributed wraps errors several times.
            first: BaseException = error
            while first.__cause__ is not None:
                first = first.__cause__
            cause = (str(first).strip().splitlines() or [type(first).__name__])[0]
            if not again:
                raise NoWorkers(
                    f"the worker processes do not start ({cause}): check that there is memory for"
                    f" {count} of them, run with fewer (--workers), or with --serial"
                ) from error
            logger.warning("the worker processes did not start (%s), trying once more", cause)
        return self._start(count, again=False)

    def _local_cluster(self, workers: int) -> LocalCluster:
        import dask
        from distributed import LocalCluster
        from distributed.security import Security

        # Dask imports modules from its scratch folder, which by default has a fixed name in the
        # shared /tmp.
        scratch = self._config.enter_context(
            TemporaryDirectory(prefix="rag-index-", ignore_cleanup_errors=True)
        )
        # Settings that a person made for Dask are for other clusters: this one has Dask's defaults,
        # and ours.
        lasting = {
            **dask.config.merge(*dask.config.defaults),
            **OWN_CLUSTER,
            "temporary-directory": scratch,
        }
        self._config.enter_context(dask.config.set(lasting))
        if _forked():
            self._config.enter_context(
                dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"})
            )
        logging.getLogger("distributed.scheduler").addFilter(_is_of_use)
        memory_limit = memory_per_worker(self._settings, NO_MEMORY_LIMIT)
        return LocalCluster(
            n_workers=workers,
            # Or the first shard waits for the imports.
            preload=[PRELOAD, __name__],
            # Half of them embed, and the others wait for the store.
            threads_per_worker=2 * self._at_a_time,
            resources={"embed": self._at_a_time},
            processes=True,
            # A certificate for this cluster, and no connection without it.
            security=Security.temporary(),
            # There is no dashboard; None would still take port 8787, and warn.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            memory_limit=memory_limit,
        )


def dask_setup(worker: object) -> None:
    """Prepare a worker, in which Dask calls this."""
    logging.getLogger("distributed.worker").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    """Drop Dask's messages about lost connections. A worker without a scheduler exits, and the run
    reports a lost scheduler itself."""
    return not str(record.msg).startswith(CUT_OFF)


def _forked() -> bool:
    """Start the process that workers are forked from. Return whether there is one.

    It has imported what workers need. So a worker starts, and restarts after its death, in a tenth
    of a second and not in the seconds of its imports. This is for Linux alone: elsewhere system
    libraries do not survive a fork.
    """
    if sys.platform != "linux":
        return False
    import dask

    # Dask's nannies do this before they start a process: the C library and OpenBLAS read it once,
    # in that process.
    inherited = dask.config.get("distributed.nanny.pre-spawn-environ")
    os.environ.update({name: str(value) for name, value in inherited.items()})
    # Or it would import from the folder in which the run was started.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed.nanny", PRELOAD])
    # Before the signals are blocked, because it unblocks them.
    resource_tracker.ensure_running()
    # Ctrl-C, or Prefect's SIGTERM to the process group, ends the run, and the run ends its workers.
    # If these ended by themselves, Dask would start them again, and the end of the run would wait
    # for that without end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


_GIVEN: ContextVar[Workers | None] = ContextVar("the workers of this run", default=None)


@contextmanager
def run_workers(settings: Settings) -> Iterator[Workers]:
    """Give all flow runs within the block the same workers: those of an outer block, or new ones."""
    workers = _GIVEN.get()
    # The run of an index within a run over several.
    if workers is not None:
        yield workers
        return
    memory = estimate_worker_memory(settings.embedder)
    on_servers = settings.embedder.on_servers
    with (
        Workers(settings.parallel, memory, on_servers=on_servers) as new,
        given(_GIVEN, new),
        run_api_settings(),
    ):
        yield new


@contextmanager
def run_cluster() -> Iterator[LocalCluster | str]:
    """Give Prefect's task runner the cluster of this flow run's workers, when it submits its first
    task."""
    workers = _GIVEN.get()
    if workers is None:
        raise NoWorkers("this flow run was given no workers")
    yield workers.cluster()


def task_runner() -> TaskRunner[Any]:
    """Return Dask's task runner. If Dask cannot be imported, return Prefect's own: the run reports
    why it has no workers."""
    try:
        import_dask()
    except NoWorkers:
        from prefect.task_runners import ThreadPoolTaskRunner

        return ThreadPoolTaskRunner()
    from prefect_dask.task_runners import DaskTaskRunner

    return DaskTaskRunner(cluster_class=run_cluster)


def import_dask() -> None:
    """Import Dask. Raises NoWorkers if Dask's own settings prevent that."""
    try:
        import distributed  # noqa: F401
    except Exception as error:
        raise NoWorkers(
            f"Dask cannot be imported ({one_line(error)}): correct its own settings"
        ) from error


def count_workers(settings: ParallelSettings) -> int:
    """Return how many worker threads the cluster at `address` has.

    There are none yet if the cluster starts them with its first work.

    Raises:
        NoWorkers: Dask cannot be imported.
        TransientError: The cluster does not answer.
        TerminalError: A worker has another version of Python, or of one of `SAME_VERSIONS`, or
            cannot reach Prefect's API.
    """
    import_dask()
    import dask
    from distributed import Client

    address = settings.address
    try:
        with (
            dask.config.set(CONNECTION),
            Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client,
        ):
            threads: int = sum(client.nthreads().values())
            versions: dict[str, Any] = client.get_versions(packages=SAME_VERSIONS)
            answers: dict[str, str] = client.run(why_no_api, api_settings())
    except OSError as exc:
        raise TransientError(
            f"the Dask scheduler at {address} does not answer ({type(exc).__name__}); start it, or"
            " correct [parallel] address"
        ) from exc
    of_flow = _releases(versions["client"])
    for worker, found in versions["workers"].items():
        of_worker = _releases(found)
        for name, expected in of_flow.items():
            if of_worker[name] != expected:
                raise TerminalError(
                    f"the Dask worker {worker} has {name} {of_worker[name]}, this flow {expected}:"
                    " install the same on both"
                )
    for worker, why in answers.items():
        if why:
            raise TerminalError(f"the Dask worker {worker} {why}")
    return threads


def _releases(versions: dict[str, Any]) -> dict[str, str]:
    """Return the versions that have to be the same: of each package all of it, and of Python the
    first two numbers, such as "3.11"."""
    packages = versions["packages"]
    releases = {name: str(packages[name]) for name in SAME_VERSIONS}
    python = packages["python"].split(".")
    releases["Python"] = ".".join(python[:2])
    return releases
