"""The Dask workers of a run: a cluster of its own, started with the first shard, or an existing one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from multiprocessing import forkserver, resource_tracker
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefect.context import FlowRunContext

from rag_index.errors import NoWorkers, TerminalError, TransientError
from rag_index.machine.resources import WORKER_MEMORY, choose_worker_count, estimate_worker_memory, memory_per_worker
from rag_index.settings import ParallelSettings, Settings, run_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import LocalCluster

logger = logging.getLogger("rag_index.workers")
ALIKE = ("rag-index", "prefect", "distributed", "cloudpickle")
"""Packages whose versions must be the same in the flow and on workers, because tasks travel between them."""

CONNECT_SECONDS = 10
MESSAGES_KEPT = {"distributed.admin.low-level-log-length": 10}
"""Dask keeps the last messages of each connection for its developers, 1,000 by default. A message that submits a task
holds its shard, so that a long run would keep a thousand of these, about a megabyte each."""

OWN_CLUSTER: dict[str, Any] = {
    # Less of what Dask measures for its dashboard, which runs do not have. That wakes each process 50 to 100 times a
    # second, and with many workers it fills a core.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
    # A shard whose worker dies is run alone later: trying it on four workers first, as Dask would, only takes time.
    "distributed.scheduler.allowed-failures": 1,
    # Dask would give up a worker that is slow to restart, or dies twice, after 15 seconds.
    "distributed.deploy.lost-worker-timeout": "365 days",
    # A worker is ended for its memory only if the settings limit it: Dask's other measures hold work back.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 1.0,
    # Its pages have no password, and tell keys, calls and logs; Prefect's log would name one.
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.dashboard.link": "",
}


class Workers(AbstractContextManager["Workers"]):
    """The workers of a run, for the time of a `with` block. None are started before they are needed."""

    def __init__(self, settings: ParallelSettings, memory: int = WORKER_MEMORY["local"]) -> None:
        self._settings = settings
        self._memory = memory  # bytes that each worker is assumed to need
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
            self._starting = ThreadPoolExecutor(1, thread_name_prefix="cluster").submit(self._start)
        return self._starting

    def cluster(self) -> LocalCluster | str:
        """Return the cluster, started on first use, or the address of the one that the settings name.

        Raises:
            NoWorkers: the workers do not start.
        """
        if self._settings.address is None:
            return self.start().result()
        import dask

        self._config.enter_context(dask.config.set(_connection(self._settings)))
        return self._settings.address

    def _start(self, *, again: bool = True) -> LocalCluster:
        """Start the cluster, twice if need be: a worker that dies as it starts takes the whole cluster with it."""
        count = max(1, choose_worker_count(self._settings, self._memory))
        try:
            return self._local_cluster(count)
        except (RuntimeError, OSError, ImportError) as error:  # TimeoutError is an OSError; no semaphores, no import
            first: BaseException = error  # distributed wraps errors several times
            while first.__cause__ is not None:
                first = first.__cause__
            cause = (str(first).strip().splitlines() or [type(first).__name__])[0]
            if not again:
                raise NoWorkers(
                    f"the worker processes do not start ({cause}): check that there is memory for {count} of them, run "
                    "with fewer (--workers), or with --serial"
                ) from error
            logger.warning("the worker processes did not start (%s), trying once more", cause)
        return self._start(again=False)

    def _local_cluster(self, workers: int) -> LocalCluster:
        import dask
        from distributed import LocalCluster
        from distributed.security import Security

        # Dask imports modules from its scratch folder, which by default has a fixed name in the shared /tmp.
        scratch = self._config.enter_context(TemporaryDirectory(prefix="rag-index-", ignore_cleanup_errors=True))
        lasting = {**OWN_CLUSTER, **MESSAGES_KEPT, "temporary-directory": scratch}
        if _forked():
            lasting["distributed.worker.multiprocessing-method"] = "forkserver"
        self._config.enter_context(dask.config.set(lasting))
        return LocalCluster(
            n_workers=workers,
            preload=[*dask.config.get("distributed.worker.preload"), "tasks.embed"],  # or the first shard waits for it
            threads_per_worker=1,
            processes=True,
            security=Security.temporary(),  # a certificate for this cluster, and no connection without it
            dashboard_address="127.0.0.1:0",  # any free port; None would still take 8787, and warn
            scheduler_kwargs={"dashboard": False},
            memory_limit=memory_per_worker(self._settings, 0),  # 0: no limit
        )


def _forked() -> bool:
    """Start the process that workers are forked from, and return whether there is one.

    It has imported what workers need, so that each takes a tenth of a second to start, and to restart after a death,
    instead of the seconds of its imports. Only on Linux: elsewhere system libraries do not survive a fork.
    """
    if sys.platform != "linux":
        return False
    import dask

    # Dask's nannies do this before they start a process: the C library and OpenBLAS read it once, in that process.
    inherited = dask.config.get("distributed.nanny.pre-spawn-environ")
    os.environ.update({name: str(value) for name, value in inherited.items()})
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # or it would import from the folder in which the run was started
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed.nanny", "tasks.embed"])
    resource_tracker.ensure_running()  # first, because it unblocks the signal
    # Ctrl-C, or Prefect's SIGTERM to the whole group, ends the run, and the run its workers. If these ended by
    # themselves, Dask would start them again, and the end of the run would wait for that without end.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


_GIVEN: ContextVar[Workers | None] = ContextVar("the workers of this run", default=None)


@contextmanager
def given_workers(workers: Workers) -> Iterator[None]:
    """Give these workers to all flow runs within the block."""
    token = _GIVEN.set(workers)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def workers_of(settings: Settings) -> Workers:
    """Return the workers of these settings: as many as they say, or as this machine has room for."""
    return Workers(settings.parallel, estimate_worker_memory(settings.embedder))


@contextmanager
def run_workers(settings: Settings) -> Iterator[None]:
    """Give all flow runs within the block the same workers: those that it is within a block of already, or new ones."""
    if _GIVEN.get() is not None:
        yield
        return
    with workers_of(settings) as workers, given_workers(workers):
        yield


@contextmanager
def run_cluster() -> Iterator[LocalCluster | str]:
    """Give the cluster of this flow run: Prefect's task runner calls this for its first task.

    A flow that is deployed by itself has workers as its parameters say, which end with it.
    """
    if (given := _GIVEN.get()) is not None:
        yield given.cluster()
        return
    context = FlowRunContext.get()
    parameters = (context.parameters if context else None) or {}
    wanted = {name: parameters.get(name) for name in ("workers", "shard_documents")}
    with workers_of(run_settings(parameters.get("config"), **wanted)) as workers:
        yield workers.cluster()


def count_workers(settings: ParallelSettings) -> int:
    """Return how many worker threads the cluster at `address` has.

    Raises:
        TransientError: the cluster does not answer, or has no worker yet.
        TerminalError: a worker has another version of Python, or of one of `ALIKE`.
    """
    import dask
    from distributed import Client

    address = settings.address
    try:
        with (
            dask.config.set(_connection(settings)),
            Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client,
        ):
            threads: int = sum(client.nthreads().values())
            versions: dict[str, Any] = client.get_versions(packages=ALIKE)
    except (OSError, TimeoutError) as exc:
        raise TransientError(
            f"the Dask scheduler at {address} does not answer ({type(exc).__name__}); start it, or correct "
            "[parallel] address"
        ) from exc
    if not threads:
        raise TransientError(f"the Dask scheduler at {address} has no workers: dask worker {address} --nthreads 1")
    here = _releases(versions["client"])
    for worker, found in versions["workers"].items():
        there = _releases(found)
        for name, expected in here.items():
            if there[name] != expected:
                raise TerminalError(
                    f"the Dask worker {worker} has {name} {there[name]}, this flow {expected}: install the same on both"
                )
    return threads


def _releases(versions: dict[str, Any]) -> dict[str, str]:
    """Return what has to be the same: all of a package's version, and the first two numbers of Python's."""
    packages = versions["packages"]
    return {name: str(packages[name]) for name in ALIKE} | {"Python": ".".join(packages["python"].split(".")[:2])}


def _connection(settings: ParallelSettings) -> dict[str, Any]:
    # The scheduler's dashboard is open on its own machine at most: an empty link keeps it out of the log.
    config: dict[str, Any] = {"distributed.dashboard.link": "", **MESSAGES_KEPT}
    if settings.tls_ca_file is not None:
        config |= {
            "distributed.comm.require-encryption": True,
            "distributed.comm.tls.ca-file": str(settings.tls_ca_file),
            "distributed.comm.tls.client.cert": str(settings.tls_cert),
            "distributed.comm.tls.client.key": str(settings.tls_key),
        }
    return config


def flow_client() -> Any:
    """Return the client of this flow run's cluster (`distributed.Client`). Starts the cluster, and raises NoWorkers."""
    runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]
    return runner.client


def current_worker() -> Any:
    """Return the Dask worker that this runs in (`distributed.Worker`), or None outside a worker."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def worker_name() -> Any:
    """Return the name of the Dask worker that this runs in, or None outside a worker."""
    worker = current_worker()
    return None if worker is None else worker.name
