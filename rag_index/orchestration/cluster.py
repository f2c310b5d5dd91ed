"""The Dask workers of a run: a cluster of its own, started with the first shard, or an existing one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import signal
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from multiprocessing import forkserver, resource_tracker
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from rag_index.errors import NoWorkers, TerminalError, TransientError
from rag_index.machine.resources import WORKER_MEMORY, choose_worker_count, estimate_worker_memory, memory_per_worker
from rag_index.settings import run_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import LocalCluster
    from distributed.security import Security

    from rag_index.settings import ParallelSettings, Settings

logger = logging.getLogger("rag_index.workers")
ALIKE = ("rag-index", "prefect", "distributed", "cloudpickle")
"""Packages whose versions must be the same in the flow and on workers, because tasks travel between them."""

CONNECT_SECONDS = 10
MESSAGES_KEPT = {"distributed.admin.low-level-log-length": 10}
"""Dask keeps the last messages of each connection for its developers, 1,000 by default. A message that submits a task
holds its shard, so that a long run would keep a thousand of these, about a megabyte each."""

UNOBSERVED: dict[str, Any] = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "2s",
}
"""Less of what Dask measures for its dashboard, which runs do not have. That wakes each process 50 to 100 times a
second, and with many workers it fills a core."""


class Workers:
    """The workers of a run, for the time of a `with` block. None are started before they are needed."""

    def __init__(self, settings: ParallelSettings, memory: int = WORKER_MEMORY["local"]) -> None:
        self._settings = settings
        self._memory = memory  # bytes that each worker is assumed to need
        self._starting: Future[LocalCluster] | None = None
        self._config = ExitStack()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        starting, self._starting = self._starting, None
        if starting is not None and starting.exception() is None:
            starting.result().close()
        self._config.close()

    def __reduce__(self) -> tuple[type[Workers], tuple[ParallelSettings, int]]:
        """Leave the cluster out: Prefect sends the task runner with each task, and a worker has no use for it."""
        return Workers, (self._settings, self._memory)

    def task_runner(self) -> TaskRunner[Any]:
        """Return where mapped tasks run: the cluster's processes, or one thread of this process in a serial run."""
        if self._settings.serial:
            return ThreadPoolTaskRunner(max_workers=1)
        from prefect_dask.task_runners import DaskTaskRunner

        if self._settings.address:
            import dask

            # The scheduler's dashboard is open on its own machine at most: an empty link keeps it out of the log.
            self._config.enter_context(dask.config.set({"distributed.dashboard.link": "", **MESSAGES_KEPT}))
            return DaskTaskRunner(address=self._settings.address, client_kwargs={"security": _security(self._settings)})
        return DaskTaskRunner(cluster_class=self.cluster)

    def start_early(self) -> None:
        """Start the cluster in the background, while other things start; `cluster` waits for it."""
        alone = self._settings.serial or self._settings.address or not choose_worker_count(self._settings, self._memory)
        if not alone:
            self._begin_start()

    def wait_early(self) -> None:
        """Wait until the cluster that was started early is there, or has failed to start, which `cluster` raises."""
        if self._starting is not None:
            self._starting.exception()

    def _begin_start(self) -> Future[LocalCluster]:
        if self._starting is None:
            self._starting = ThreadPoolExecutor(1, thread_name_prefix="cluster").submit(self._start)
        return self._starting

    def cluster(self) -> AbstractContextManager[LocalCluster]:
        """Return the cluster, started on first use. Leaving the context that is returned does not stop it.

        Raises:
            NoWorkers: the workers do not start.
        """
        return nullcontext(self._begin_start().result())

    def _start(self) -> LocalCluster:
        """Start the cluster, twice if need be: a worker that dies as it starts takes the whole cluster with it."""
        count = max(1, choose_worker_count(self._settings, self._memory))
        try:
            return self._local_cluster(count)
        except (RuntimeError, OSError, ImportError) as error:  # TimeoutError is an OSError; no semaphores, no import
            logger.warning("the worker processes did not start (%s), trying once more", _first_cause(error))
        try:
            return self._local_cluster(count)
        except (RuntimeError, OSError, ImportError) as error:
            raise NoWorkers(
                f"the worker processes do not start ({_first_cause(error)}): check that there is memory for {count} of "
                "them, run with fewer (--workers), or with --serial"
            ) from error

    def _local_cluster(self, workers: int) -> LocalCluster:
        import dask
        from distributed import LocalCluster
        from distributed.security import Security

        # A shard whose worker dies is run alone later: trying it on four workers first, as Dask would, only takes time.
        # A worker is ended for its memory only if the settings limit it: Dask's other measures hold work back.
        measures = {"target": False, "spill": False, "pause": False, "terminate": 1.0}
        config = {f"distributed.worker.memory.{name}": value for name, value in measures.items()}
        # Dask would give up a worker that is slow to restart, or dies twice, after 15 seconds. It reads this when a
        # worker dies, so it has to be set as long as the workers live.
        lasting: dict[str, Any] = {"distributed.deploy.lost-worker-timeout": "365 days", **MESSAGES_KEPT}
        lasting |= UNOBSERVED | self._closed_to_others()
        if _forked():
            lasting["distributed.worker.multiprocessing-method"] = "forkserver"
        self._config.enter_context(dask.config.set(lasting))
        with dask.config.set({"distributed.scheduler.allowed-failures": 1, **config}):
            return LocalCluster(
                n_workers=workers,
                preload=[
                    *dask.config.get("distributed.worker.preload"),
                    "tasks.embed",
                ],  # imported early, or the first shard waits
                threads_per_worker=1,
                processes=True,
                security=Security.temporary(),  # a certificate for this cluster, and no connection without it
                dashboard_address="127.0.0.1:0",  # any free port; None would still take 8787, and warn
                scheduler_kwargs={"dashboard": False},
                memory_limit=memory_per_worker(self._settings, 0),  # 0: no limit
            )

    def _closed_to_others(self) -> dict[str, Any]:
        """Return Dask's settings that keep other users out of what TLS does not cover.

        Dask imports modules from its scratch folder, which by default has a fixed name in the shared /tmp. Its pages
        have no password, and tell keys, calls and logs.
        """
        scratch = self._config.enter_context(TemporaryDirectory(prefix="rag-index-", ignore_cleanup_errors=True))
        return {
            "temporary-directory": scratch,
            "distributed.scheduler.http.routes": [],
            "distributed.worker.http.routes": [],
            "distributed.dashboard.link": "",  # or Prefect's log names a page that does not exist
        }


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
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C ends the run, and the run its workers
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return True


def _first_cause(error: BaseException) -> str:
    """Return the first cause of an error in one line: distributed wraps errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_EARLY: ContextVar[Workers | None] = ContextVar("early workers", default=None)


@contextmanager
def early_workers(workers: Workers) -> Iterator[None]:
    """Give these workers to the flow that calls `run_workers` within the block."""
    token = _EARLY.set(workers)
    try:
        yield
    finally:
        _EARLY.reset(token)


def workers_of(settings: Settings) -> Workers:
    """Return the workers of these settings: as many as they say, or as this machine has room for."""
    return Workers(settings.parallel, estimate_worker_memory(settings.embedder))


def run_workers(settings: Settings) -> AbstractContextManager[Workers]:
    """Return the workers of this run: those that were started early for it, otherwise new ones, not started yet."""
    early = _EARLY.get()
    return nullcontext(early) if early is not None else workers_of(settings)


class OwnWorkers(TaskRunner[Any]):
    """The task runner of a flow that is deployed by itself, with workers as the run's own parameters say.

    A flow's task runner is made when its module is imported, before any parameter is known, so the workers are chosen
    when the first task is submitted. Inside `index_all` the flow is given the workers of that run instead.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stack = ExitStack()
        self._chosen: TaskRunner[Any] | None = None

    def __reduce__(self) -> tuple[type[OwnWorkers], tuple[()]]:
        """Leave everything out, as `Workers.__reduce__` does."""
        return OwnWorkers, ()

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        self._chosen = None
        super().__exit__(*error)

    def duplicate(self) -> OwnWorkers:
        """Return another one, for one run."""
        return OwnWorkers()

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """Submit a task to the chosen task runner."""
        return self._runner().submit(*arguments, **options)

    @property
    def client(self) -> Any:
        """The Dask client, or None in a serial run. Starts the cluster."""
        return getattr(self._runner(), "client", None)

    def _runner(self) -> TaskRunner[Any]:
        if self._chosen is None:
            context = FlowRunContext.get()
            given = (context.parameters if context else None) or {}
            wanted = {name: given.get(name) for name in ("workers", "shard_documents", "serial")}
            settings = run_settings(given.get("config"), **wanted)
            workers = self._stack.enter_context(workers_of(settings))
            self._chosen = self._stack.enter_context(workers.task_runner())
        return self._chosen


def count_workers(settings: ParallelSettings) -> int:
    """Return how many worker threads the cluster at `address` has.

    Raises:
        TransientError: the cluster does not answer, or has no worker yet.
        TerminalError: a worker has another version of one of `ALIKE`.
    """
    from distributed import Client

    address = settings.address
    try:
        with Client(address, security=_security(settings), timeout=CONNECT_SECONDS, set_as_default=False) as client:
            threads: int = sum(client.nthreads().values())
            there: dict[str, dict[str, Any]] = {name: client.run(version, name, on_error="return") for name in ALIKE}
            there["Python"] = client.run(platform.python_version, on_error="return")
    except (OSError, TimeoutError) as exc:
        raise TransientError(
            f"the Dask scheduler at {address} does not answer ({type(exc).__name__}); start it, or correct "
            "[parallel] address"
        ) from exc
    if not threads:
        raise TransientError(f"the Dask scheduler at {address} has no workers: dask worker {address} --nthreads 1")
    here = {name: version(name) for name in ALIKE} | {"Python": platform.python_version()}
    for name, expected in here.items():
        for worker, found in there[name].items():
            if isinstance(found, BaseException) or _release(name, found) != _release(name, expected):
                said = "none" if isinstance(found, BaseException) else found
                raise TerminalError(
                    f"the Dask worker {worker} has {name} {said}, this flow {expected}: install the same on both"
                )
    return threads


def _release(name: str, found: str) -> str:
    """Return the part of a version that has to be the same: the first two numbers of Python's, all of a package's."""
    return ".".join(found.split(".")[:2]) if name == "Python" else found


def _security(settings: ParallelSettings) -> Security | None:
    """Return the TLS settings of a client, or None if the cluster has no TLS."""
    if settings.tls_ca_file is None:
        return None
    from distributed.security import Security

    return Security(
        require_encryption=True,
        tls_ca_file=str(settings.tls_ca_file),
        tls_client_cert=str(settings.tls_cert),
        tls_client_key=str(settings.tls_key),
    )


def flow_client() -> Any:
    """Return the task runner's client (`distributed.Client`), or None if there is no cluster. Starts the cluster."""
    context = FlowRunContext.get()
    return getattr(context.task_runner, "client", None) if context else None


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
