"""Run a flow from the command line: one Prefect API for the whole run, quiet logs, an end that leaves nothing."""

from __future__ import annotations

import logging
import os
import stat
from contextlib import AbstractContextManager, chdir, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.database.private import private_folder
from rag_index.errors import SettingsError, TransientError
from rag_index.machine.garbage import collect_seldom
from rag_index.orchestration.api_server import ApiServer, prefect_api
from rag_index.orchestration.signals import terminable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import Settings

__all__ = ["launch", "quiet", "trusted_folder"]

UNREACHABLE = "Failed to reach API at "
"""What Prefect says, in a RuntimeError, of a server that does not answer at the start."""


def launch(
    load: Callable[[], Callable[..., Any]],
    home: Path,
    *,
    verbose: bool = False,
    early: Settings | None = None,
    **parameters: Any,
) -> Any:
    """Run a flow in this process with `parameters` and return what its final state holds.

    `load` imports the flow and returns it. It is called while the API server starts, because either takes a second or
    two. `home` is the folder where a temporary API server keeps its data. Give `early` where workers will be needed
    for certain: they then start beside the API server.

    Raises:
        BaseException: what ended the flow, where that is not the outcome of an index.
        TransientError: Prefect's API does not answer, or has gone.
    """
    quiet(home, verbose=verbose)
    with trusted_folder(), terminable(), collect_seldom(), _likely_server() as server:
        import httpx

        flow = load()
        try:
            with _early_workers(early), prefect_api(server):
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


def trusted_folder() -> AbstractContextManager[None]:
    """Leave the current folder for the time of the block if other users can write there.

    Prefect obeys a `prefect.toml`, `.env` or `pyproject.toml` in the folder in which it is imported. These can name a
    configuration of logging, which names what to call. Give it the root folder, in which nobody leaves files.
    """
    here = Path().stat()
    trusted = here.st_uid in (0, os.geteuid()) and not here.st_mode & stat.S_IWOTH
    return nullcontext() if trusted else chdir("/")


def _early_workers(settings: Settings | None) -> AbstractContextManager[None]:
    if settings is None:
        return nullcontext()
    from rag_index.orchestration.cluster import early_workers

    return early_workers(settings)


def quiet(home: Path, *, verbose: bool = False) -> None:
    """Set what Prefect and Dask read from the environment on import, unless the user has set it."""
    values = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    if "PREFECT_API_URL" not in os.environ:
        _make_folder(home)
        values["PREFECT_HOME"] = str(home)
    if not verbose:
        values["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        values["PREFECT_LOGGING_INTERNAL_LEVEL"] = "CRITICAL"
        values["DASK_LOGGING__DISTRIBUTED"] = "critical"
        logging.raiseExceptions = False  # or Prefect writes each log that it could not send to standard error
    for name, value in values.items():
        os.environ.setdefault(name, value)


def _make_folder(home: Path) -> None:
    try:
        private_folder(home)
    except OSError as error:
        raise SettingsError(
            f"{home} cannot be created: {error.strerror}; set `data` to a folder that can be written"
        ) from error


def _likely_server() -> AbstractContextManager[ApiServer | None]:
    """Start a server now, unless the environment names one.

    Prefect's own settings, in files of several kinds, are only known once Prefect is imported, which takes a second.
    """
    return nullcontext() if "PREFECT_API_URL" in os.environ else ApiServer()
