"""Run a flow from the command line: one Prefect API for the whole run, quiet logs, an end that leaves nothing."""

from __future__ import annotations

import logging
import os
import tomllib
from contextlib import AbstractContextManager, ExitStack, chdir, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.database.files import other_writer, private_folder
from rag_index.errors import SettingsError, TransientError
from rag_index.machine import collect_seldom, terminable
from rag_index.orchestration.api_server import ApiServer, prefect_api

if TYPE_CHECKING:
    from collections.abc import Callable

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

    `load` imports the flow and returns it: that takes a second or two, in which an API server starts if the environment
    names none. `home` is the folder where that keeps its data, for `keep_days`.

    Raises:
        BaseException: what ended the flow, where that is not the outcome of an index.
        TransientError: Prefect's API does not answer, or has gone.
    """
    import httpx

    with terminable(), collect_seldom(), ExitStack() as stack:
        quiet(home, verbose=verbose, keep_days=keep_days)
        stack.enter_context(trusted_folder())
        server = None  # Prefect's other settings are known once it is imported
        if "PREFECT_API_URL" not in os.environ:
            server = stack.enter_context(ApiServer())
        flow = load()
        try:
            with prefect_api(server):
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
                "was done: start it, or correct PREFECT_API_URL; without one, `index` runs without Prefect"
            ) from error
        return result


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
        quiet_workers()
        logging.raiseExceptions = False  # or Prefect writes each log that it could not send to standard error
    for name, value in values.items():
        os.environ.setdefault(name, value)


def quiet_workers() -> None:
    """Keep Dask from writing to the terminal, unless the user has said what it logs. Call it before its import."""
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "critical")


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
