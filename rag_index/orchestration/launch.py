"""Run a flow from the command line: one Prefect API for the whole run, quiet logs, an end that leaves nothing."""

from __future__ import annotations

import logging
import os
import tomllib
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, chdir, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.database.files import other_writer, private_folder
from rag_index.errors import SettingsError, TransientError
from rag_index.machine import collect_seldom
from rag_index.orchestration.api_server import ApiServer, prefect_api
from rag_index.orchestration.signals import terminable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import Settings

UNREACHABLE = "Failed to reach API at "
"""What Prefect says, in a RuntimeError, of a server that does not answer at the start."""
DAY = 86_400.0
MAX_KEEP_DAYS = 36_500.0


def launch(
    load: Callable[[], Callable[..., Any]],
    home: Path,
    *,
    verbose: bool = False,
    keep_days: float = 90.0,
    **parameters: Any,
) -> Any:
    """Run a flow in this process with `parameters` and return what its final state holds.

    The arguments are those of `FlowStart`. Raises as `FlowStart.call`.
    """
    with terminable(), collect_seldom(), FlowStart(load, home, verbose=verbose, keep_days=keep_days) as start:
        return start.call(**parameters)


class FlowStart(AbstractContextManager["FlowStart"]):
    """The start of a flow from the command line: an API server, Prefect's modules and, if wanted, workers.

    `begin` returns at once and leaves the start to a thread. Leaving a `with` block ends what was started.

    `load` imports the flow and returns it: that takes a second or two, in which the server starts. `home` is the folder
    where a temporary API server keeps its data, for `keep_days`. Give `early` where workers will be needed for certain:
    they then start beside the API server.
    """

    def __init__(
        self,
        load: Callable[[], Callable[..., Any]],
        home: Path,
        *,
        verbose: bool = False,
        keep_days: float = 90.0,
        early: Settings | None = None,
    ) -> None:
        self._load, self._home, self._verbose, self._early = load, home, verbose, early
        self._keep_days = keep_days
        self._stack = ExitStack()
        self._server: ApiServer | None = None
        self._given: AbstractContextManager[None] = nullcontext()
        self._flow: Future[Callable[..., Any]] | None = None

    def __exit__(self, *error: object) -> None:
        if self._server is not None and self._flow is not None and not self._flow.done():
            self._server.end()  # nobody waits for its answer any more
        self.wait()
        self._stack.close()  # workers first: they send the server what they have logged

    def begin(self) -> Future[Callable[..., Any]]:
        """Start everything beside what this process does next, once. The future has the flow."""
        if self._flow is not None:
            return self._flow
        quiet(self._home, verbose=self._verbose, keep_days=self._keep_days)
        self._stack.enter_context(trusted_folder())
        if "PREFECT_API_URL" not in os.environ:  # Prefect's other settings are known once it is imported
            self._server = self._stack.enter_context(ApiServer())
        self._flow = ThreadPoolExecutor(1, "start of the flow").submit(self._prepare)
        return self._flow

    @property
    def begun(self) -> bool:
        """Whether the start has begun."""
        return self._flow is not None

    @property
    def ready(self) -> bool:
        """Whether the start has ended, well or not, so that `call` need not wait for it."""
        return self._flow is not None and self._flow.done()

    def wait(self) -> None:
        """Wait until a start that has begun has ended, well or not."""
        if self._flow is not None:
            wait([self._flow])

    def call(self, **parameters: Any) -> Any:
        """Run the flow with `parameters` and return what its final state holds.

        Raises:
            BaseException: what ended the flow, where that is not the outcome of an index.
            TransientError: Prefect's API does not answer, or has gone.
        """
        import httpx

        flow = self.begin().result()
        try:
            with self._given, prefect_api(self._server):
                result = flow(**parameters, return_state=True).result(raise_on_failure=False)
                if isinstance(result, BaseException):
                    raise result
        except httpx.TransportError as error:
            raise TransientError(
                f"the Prefect server no longer answers ({error}); what was indexed is kept: check that the server "
                "runs, then run again"
            ) from error
        except RuntimeError as error:
            if not str(error).startswith(UNREACHABLE):
                raise
            raise TransientError(
                f"the Prefect server at {str(error).removeprefix(UNREACHABLE).rstrip('/')} does not answer, so nothing "
                "was done: start it, or correct PREFECT_API_URL; without one, a run starts a server of its own"
            ) from error
        return result

    def _prepare(self) -> Callable[..., Any]:
        flow = self._load()  # first: two threads that import parts of distributed at once get in each other's way
        if self._early is not None:
            from rag_index.orchestration.cluster import given_workers, workers_of

            workers = self._stack.enter_context(workers_of(self._early))
            workers.start()
            self._given = given_workers(workers)
        if self._server is not None:
            self._server.wait()
        if self._early is not None:
            wait([workers.start()])
        return flow


def trusted_folder() -> AbstractContextManager[None]:
    """Leave the current folder for the time of the block if other users can write there.

    Prefect obeys a `prefect.toml`, `.env` or `pyproject.toml` in the folder in which it is imported. These can name a
    configuration of logging, which names what to call. Give it the root folder, in which nobody leaves files.
    """
    return chdir("/") if other_writer(Path()) else nullcontext()


def quiet(home: Path, *, verbose: bool = False, keep_days: float = 90.0) -> None:
    """Set what Prefect and Dask read from the environment on import, unless the user has set it."""
    values = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    if "PREFECT_API_URL" not in os.environ:
        make_folder(home)
        kept = str(min(keep_days, MAX_KEEP_DAYS) * DAY)
        values |= {"PREFECT_HOME": str(home), "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": kept}
    if not verbose:
        values["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        values["PREFECT_LOGGING_INTERNAL_LEVEL"] = "CRITICAL"
        values["DASK_LOGGING__DISTRIBUTED"] = "critical"
        logging.raiseExceptions = False  # or Prefect writes each log that it could not send to standard error
    for name, value in values.items():
        os.environ.setdefault(name, value)


def make_folder(folder: Path) -> None:
    """Make a folder in `data` that other users cannot read. Raises SettingsError if that is impossible."""
    try:
        private_folder(folder)
    except OSError as error:
        raise SettingsError(
            f"{folder} cannot be created: {error.strerror}; set `data` to a folder that can be written"
        ) from error


def names_api(home: Path) -> bool:
    """Return whether the environment or a profile of Prefect names an API. Prefect is not imported for it.

    `home` is the folder of Prefect where the environment names none.
    """
    if "PREFECT_API_URL" in os.environ:
        return True
    home = Path(os.environ.get("PREFECT_HOME") or home)
    try:
        file = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
        profiles = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # Prefect will say so
        return False
    active = os.environ.get("PREFECT_PROFILE") or profiles.get("active")
    return "PREFECT_API_URL" in profiles.get("profiles", {}).get(active, {})
