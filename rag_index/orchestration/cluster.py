"""The Dask workers of a run: a cluster of its own, started when the first shard is submitted, or one that is there."""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from importlib.metadata import version
from multiprocessing import forkserver
from typing import TYPE_CHECKING, Any

from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from rag_index.errors import NoWorkers, TerminalError, TransientError
from rag_index.machine.resources import WORKER_MEMORY, memory_each, worker_memory, workers_for
from rag_index.settings import run_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import LocalCluster
    from distributed.security import Security

    from rag_index.settings import ParallelSettings, Settings

__all__ = ["OwnWorkers", "Workers", "count_workers", "early_workers", "run_workers", "workers_of"]

logger = logging.getLogger("rag_index.workers")

ALIKE = ("rag-index", "prefect", "distributed", "cloudpickle")
"""Packages of which flow and workers must have the same version: tasks travel between them."""
CONNECT_SECONDS = 10


class Workers:
    """The workers of a run, for the time of a `with` block; none are started before they are needed."""

    def __init__(self, settings: ParallelSettings, memory: int = WORKER_MEMORY["local"]) -> None:
        self._settings = settings
        self._memory = memory  # bytes that each is taken to need
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
        """Prefect sends a flow's task runner with each task: without the cluster, which a worker has no use for."""
        return Workers, (self._settings, self._memory)

    def task_runner(self) -> TaskRunner[Any]:
        """Where a flow's mapped tasks run: the cluster's processes, or one thread of this one in a serial run."""
        if self._settings.serial:
            return ThreadPoolTaskRunner(max_workers=1)
        from prefect_dask.task_runners import DaskTaskRunner

        if self._settings.address:
            return DaskTaskRunner(address=self._settings.address, client_kwargs={"security": _security(self._settings)})
        return DaskTaskRunner(cluster_class=self.cluster)

    def start_early(self) -> None:
        """Begin to start the cluster, beside what else has to start; `cluster` waits for it."""
        if self._starting is None and not self._settings.serial and not self._settings.address:
            self._starting = ThreadPoolExecutor(1, thread_name_prefix="cluster").submit(self._start)

    def cluster(self) -> AbstractContextManager[LocalCluster]:
        """The cluster, started on first use; leaving the context given here does not stop it.

        Raises:
            NoWorkers: they do not start.
        """
        if self._starting is None:
            started = self._start()
            self._starting = Future()
            self._starting.set_result(started)
        return nullcontext(self._starting.result())

    def _start(self) -> LocalCluster:
        """A worker that dies as it starts (a machine short of memory) takes the whole cluster with it: once more."""
        count = workers_for(self._settings, self._memory)
        try:
            return self._local_cluster(count)
        except (RuntimeError, OSError, ImportError) as error:  # TimeoutError is an OSError; no semaphores, no import
            logger.warning("the worker processes did not start (%s), tried once more", _first_cause(error))
        try:
            return self._local_cluster(count)
        except (RuntimeError, OSError, ImportError) as error:
            raise NoWorkers(
                f"the worker processes do not start ({_first_cause(error)}): see that there is memory for {count} of "
                "them, or run with fewer (--workers), or with --serial"
            ) from error

    def _local_cluster(self, workers: int) -> LocalCluster:
        import dask
        from distributed import LocalCluster

        # A shard whose workers die is looked at alone: trying it on four of them first, as Dask would, only takes time.
        # Only ended for its memory, where settings bound it: Dask's other measures hold work back, or write it to disk.
        measures = {"target": False, "spill": False, "pause": False, "terminate": 1.0}
        config = {f"distributed.worker.memory.{name}": value for name, value in measures.items()}
        # A worker that is slow to start again, or dies twice, is no lost one: Dask would give it up after 15 seconds,
        # and look at this when one dies, so it holds as long as the workers do.
        lasting = {"distributed.deploy.lost-worker-timeout": "365 days"}
        if _forked():
            lasting["distributed.worker.multiprocessing-method"] = "forkserver"
        self._config.enter_context(dask.config.set(lasting))
        with dask.config.set({"distributed.scheduler.allowed-failures": 1, **config}):
            return LocalCluster(
                n_workers=workers,
                preload=[*dask.config.get("distributed.worker.preload"), "tasks.embed"],  # or the first shard waits
                threads_per_worker=1,
                processes=True,
                dashboard_address="127.0.0.1:0",  # its port is nobody's; None would still take 8787, and warn
                memory_limit=memory_each(self._settings, 0),  # 0: none
            )


def _forked() -> bool:
    """Start the process that workers are forked from, which has imported what they need: each then takes a tenth of a
    second to start, and again after a death, in place of the seconds of its imports. On Linux alone: elsewhere system
    libraries do not bear a fork."""
    if sys.platform != "linux":
        return False
    import dask

    # As Dask's nannies do before they start a process: the C library and OpenBLAS read it once, in that process.
    inherited = dask.config.get("distributed.nanny.pre-spawn-environ")
    os.environ.update({name: str(value) for name, value in inherited.items()})
    multiprocessing.get_context("forkserver").set_forkserver_preload(["distributed.nanny", "tasks.embed"])
    forkserver.ensure_running()
    return True


def _first_cause(error: BaseException) -> str:
    """What it comes from, in a line: distributed wraps an error several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


_EARLY: ContextVar[Workers | None] = ContextVar("early workers", default=None)


@contextmanager
def early_workers(settings: Settings) -> Iterator[None]:
    """Workers that start beside the Prefect server, for the flow that `run_workers` is called in within the block."""
    with workers_of(settings) as workers:
        workers.start_early()
        token = _EARLY.set(workers)
        try:
            yield
        finally:
            _EARLY.reset(token)


def workers_of(settings: Settings) -> Workers:
    """As many as the settings say, or as this machine has room for with their embedder."""
    return Workers(settings.parallel, worker_memory(settings.embedder))


def run_workers(settings: Settings) -> AbstractContextManager[Workers]:
    """The workers of this run: those that were started early for it, else new ones, not started yet."""
    early = _EARLY.get()
    return nullcontext(early) if early is not None else workers_of(settings)


class OwnWorkers(TaskRunner[Any]):
    """The task runner of a flow that is deployed by itself: workers as that run's own parameters say.

    A flow's task runner is made when its module is imported, and no parameter is known then: the workers are chosen
    when the first task is submitted. Inside `index_all` the flow is given that run's workers in place of these.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stack = ExitStack()
        self._chosen: TaskRunner[Any] | None = None

    def __reduce__(self) -> tuple[type[OwnWorkers], tuple[()]]:
        """As with `Workers`: nothing of it goes to a worker."""
        return OwnWorkers, ()

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        self._chosen = None
        super().__exit__(*error)

    def duplicate(self) -> OwnWorkers:
        """Another one, for one run."""
        return OwnWorkers()

    def submit(self, *arguments: Any, **options: Any) -> Any:
        """As the chosen task runner does."""
        return self._runner().submit(*arguments, **options)

    @property
    def client(self) -> Any:
        """The Dask client, None in a serial run. Starts the cluster."""
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
    """How many worker threads the cluster at `address` has.

    Raises:
        TransientError: it does not answer, or has no worker yet.
        TerminalError: a worker has another version of what has to be alike.
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
    """What has to agree: of Python the first two numbers, of packages all."""
    return ".".join(found.split(".")[:2]) if name == "Python" else found


def _security(settings: ParallelSettings) -> Security | None:
    """What a client of a cluster with TLS shows and demands; None where there is no TLS."""
    if settings.tls_ca_file is None:
        return None
    from distributed.security import Security

    return Security(
        require_encryption=True,
        tls_ca_file=str(settings.tls_ca_file),
        tls_client_cert=str(settings.tls_cert),
        tls_client_key=str(settings.tls_key),
    )
