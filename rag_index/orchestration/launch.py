"""Runs of the command line: without Prefect, or as a flow in this process. Starting Prefect alone takes longer than
most runs have to do. Either way logs are quiet."""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
from contextlib import AbstractContextManager, ExitStack, chdir, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.core.connections import tls_context, why_failed
from rag_index.core.files import other_writer, private_folder, unwritable
from rag_index.core.machine import collect_seldom, terminable
from rag_index.core.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.core.reports.progress import captured_logs, open_display
from rag_index.core.reports.record import RunRecord
from rag_index.errors import RagIndexError, SettingsError, TransientError
from rag_index.etl.checks import ServiceChecks
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.plain import Plainly
from rag_index.etl.run import execute
from rag_index.orchestration.prefect_api import send_pending_logs, temporary_server
from rag_index.search.evaluation.gate import SearchHooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.care.benchmark import BenchmarkReport
    from rag_index.core.settings import IndexSettings, Settings

T = TypeVar("T")
logger = logging.getLogger("rag_index.runs")
UNREACHABLE = "Failed to reach API at "
"""What Prefect says, in a RuntimeError, of a server that does not answer at the start."""


def launch(load: Callable[[], Callable[..., Any]], home: Path, *, verbose: bool = False, **parameters: Any) -> Any:
    """Run a flow in this process with `parameters` and return what its final state holds. `load` imports the flow and
    returns it. The API is the one that Prefect's own settings name. If they name none, a temporary server is started,
    whose database is in `home`. Raises what ended the flow, where that is not the outcome of an index, and
    TransientError if Prefect's API does not answer, or has gone."""
    import httpx

    with terminable(), collect_seldom(), trusted_folder(), ExitStack() as stack:
        quiet(verbose=verbose)
        _make_prefect_home(home)
        tls_context()  # Prefect reads the same certificates, and says less of a file that has none
        flow, page = stack.enter_context(_with_api(load, home, verbose=verbose))
        from prefect.exceptions import MissingResult  # no earlier: see trusted_folder

        stack.callback(send_pending_logs)
        try:
            state = flow(**parameters, return_state=True)
            sys.stderr.write(f"rag-index: {page(state.state_details.flow_run_id)}\n")
            result = state.result(raise_on_failure=False)
            if isinstance(result, BaseException):
                raise result
        except httpx.TransportError as error:
            raise TransientError(
                f"the Prefect server no longer answers ({error}); what was indexed is kept: check that the server "
                "runs, then run again"
            ) from error
        except MissingResult as error:  # the answer was lost, and the next one does not have what the state carried
            raise TransientError(
                "the run has ended, and an answer of the Prefect server about that was lost: `rag-index status` says "
                "how it ended"
            ) from error
        except RuntimeError as error:
            if not str(error).startswith(UNREACHABLE):
                raise
            url = str(error).removeprefix(UNREACHABLE).rstrip("/")
            why = why_failed(error, url) or "start it, or correct PREFECT_API_URL"
            raise TransientError(
                f"the Prefect server at {url} does not answer, so nothing was done: {why}, or leave out --prefect"
            ) from error
        return result


def _make_prefect_home(home: Path) -> None:
    """Create Prefect's own folder, which has the profiles, with the folders above it: Prefect creates no folder above
    it, and warns. If it cannot be created, there are no profiles to read, and `home` takes its place."""
    usual = os.environ.get("PREFECT_HOME") or "~/.prefect"
    try:
        Path(usual).expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: nobody knows this user's home
        make_folder(home)
        os.environ["PREFECT_HOME"] = str(home)


@contextmanager
def _with_api(load: Callable[[], T], home: Path, *, verbose: bool) -> Iterator[tuple[T, Callable[[object], str]]]:
    """Give what `load` imports, and a function that says where a flow run is shown. A server starts meanwhile."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

    def page(run_id: object) -> str:
        url = PREFECT_UI_URL.value()  # a temporary server, perhaps that of a watch, has none
        return (
            f"this run is shown at {url}/runs/flow-run/{run_id}" if url
            else f"`PREFECT_HOME={home} prefect server start` shows this run at /runs/flow-run/{run_id}"
        )  # fmt: skip

    if PREFECT_API_URL.value():
        yield load(), page
        return
    make_folder(home)
    with temporary_server(home, verbose=verbose) as wait:
        flow, found = load(), wait()
        api = {name: found[name.name] for name in (PREFECT_API_URL, PREFECT_API_AUTH_STRING, PREFECT_UI_URL)}
        with temporary_settings(api):
            yield flow, page


def trusted_folder() -> AbstractContextManager[None]:
    """Leave the current folder for the time of the block if other users can write there. Prefect obeys a
    `prefect.toml`, `.env` or `pyproject.toml` in the folder in which it is imported. These can name a configuration of
    logging, which names what to call. Give it the root folder, in which no other user leaves files."""
    return chdir("/") if other_writer(Path()) else nullcontext()


def quiet(*, verbose: bool = False) -> None:
    """Set what Prefect and Dask read from the environment on import, unless the user has set it."""
    values = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
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
        raise SettingsError(unwritable(folder, error, "set `data` to another folder")) from error


def run_plainly(settings: Settings, indexes: Sequence[IndexSettings], options: RunOptions) -> RunReport:
    """Bring these indexes up to date with their source; one that fails does not stop the others."""
    began, report, checks = time.monotonic(), RunReport(), ServiceChecks(settings.run.wait)
    with terminable(), collect_seldom(), closing(Plainly(settings)) as steps:
        for index in indexes:
            report.indexes.append(_run_index(settings, index, options, steps, checks))
    report.seconds = time.monotonic() - began
    return report


def benchmark_plainly(
    settings: Settings, *, index: str, sample_size: int, workers: list[int], change: str | None
) -> BenchmarkReport:
    """Compare the serial way with each number of workers, or value of a setting, as the flow `benchmark` does."""
    from rag_index.care.benchmark import open_bench

    with terminable(), open_bench(settings, index, sample_size) as bench:
        ways, run_id = bench.ways(workers, change), str(uuid.uuid4())
        bench.run_serially(run_id)
        for way in ways:
            with bench.begun(way, run_id) as begun, closing(Plainly(way.settings)) as steps:
                bench.measure(way, begun, steps)
    return bench.report


def _run_index(
    settings: Settings, index: IndexSettings, options: RunOptions, steps: Plainly, checks: ServiceChecks
) -> IndexOutcome:
    try:
        hooks, record = hooks_of(settings, index, options), RunRecord(index.name, logger)
        record.progress.displays = [open_display()]
        with open_index(settings, index.name, options, run_id=str(uuid.uuid4())) as opened:
            with captured_logs(record.progress.note_later):
                try:
                    execute(opened, steps, record, hooks=hooks, checks=checks)
                except Exception as error:  # not one of ours: the other indexes do not pay for it
                    logger.error("%s: %s", type(error).__name__, error, exc_info=True)
                    checks.index_failed(error, embedder_only=False)
            record.progress.finish(record.outcome.sentence(reason=False))
        if settings.run.metrics_file is not None:
            from rag_index.care.index_status import try_to_write_metrics  # it imports more than most runs need

            try_to_write_metrics(settings)
        return record.outcome
    except RagIndexError as error:
        return failed_to_start(index.name, error)


def hooks_of(settings: Settings, index: IndexSettings, options: RunOptions) -> SearchHooks:
    """Return what a run asks by search. Made first: a mistake in golden queries must not wait until all is embedded."""
    return SearchHooks(settings, index, options.full and not options.allow_loss)
