"""Prefect's API as a run uses it: a run waits for the server only where it can do nothing else
(`wait_for_api`), and makes all other requests without retries (`impatient`)."""

from __future__ import annotations

import time
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State
    from prefect.context import SettingsContext

API_PAUSE_SECONDS = 2.0
"""Seconds between two health checks of the server. Chosen; nothing depends on it."""
RECORDED_SECONDS = 15.0
"""Seconds without a change after which a server that ends has recorded all it will. Chosen; nothing
depends on it."""
RECORDED_PAUSE_SECONDS = 0.3
"""Seconds between two looks at the recorded tasks. Chosen; nothing depends on it."""
_IMPATIENT: ContextVar[tuple[Any, Any] | None] = ContextVar("impatient settings", default=None)


class RunFailed(Exception):
    """The data of a flow's Failed state. It is an exception because Prefect's engine raises it.
    `result` is the report of the run."""

    def __init__(self, message: str, result: Any) -> None:
        super().__init__(message)
        self.result = result


def result_of(state: State[Any]) -> Any:
    """Return the report in the final state of a flow, whether it failed or not."""
    data = getattr(state.data, "result", state.data)
    return data.result if isinstance(data, RunFailed) else data


def wait_for_api() -> None:
    """Wait until Prefect's server answers, for as long as Prefect's clients do.

    Call it where a run can do nothing else: before it reports what is committed already, and before
    its next index. `ApiOutage` reports a longer wait.
    """
    from prefect import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

    began = time.monotonic()
    # The sum of the delays of Prefect's clients: 2, 4, 8, … seconds.
    patience = 2.0 ** (1 + PREFECT_CLIENT_MAX_RETRIES.value())
    with impatient(), get_client(sync_client=True) as client:
        while is_away(client.api_healthcheck()) and time.monotonic() - began < patience:
            time.sleep(API_PAUSE_SECONDS)


def is_away(error: Exception | None) -> bool:
    """Return whether an error of Prefect's client means that its server is unavailable."""
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


def impatient() -> SettingsContext:
    """Return Prefect's settings without retries and with a short time limit."""
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES

    context = get_settings_context()
    # They are made once a run, which takes 0.1 s.
    made = _IMPATIENT.get()
    if made is None or made[0] is not context.settings:
        updates: Any = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}
        made = (context.settings, context.settings.copy_with_update(updates))
        _IMPATIENT.set(made)
    return SettingsContext(profile=context.profile, settings=made[1])


def run_api_settings() -> SettingsContext:
    """Return Prefect's settings during a run.

    Its clients retry after the statuses 500 and 504 as they do after 502 and 503. They do not
    request the server's version, as the flow has done: each worker process would do so before its
    first task, which would fail if the server is unavailable at that moment.
    """
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import (
        PREFECT_CLIENT_RETRY_EXTRA_CODES,
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED,
    )

    context = get_settings_context()
    codes = {*PREFECT_CLIENT_RETRY_EXTRA_CODES.value(), 500, 504}
    updates: Any = {
        PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False,
        PREFECT_CLIENT_RETRY_EXTRA_CODES: codes,
    }
    return SettingsContext(
        profile=context.profile, settings=context.settings.copy_with_update(updates)
    )


def api_settings() -> dict[str, Any]:
    """Return Prefect's settings in the form that a task on a worker gets, for `why_no_api`."""
    with impatient() as context:
        return context.serialize()


def why_no_api(settings: dict[str, Any]) -> str:
    """Return why tasks in this process could not report to Prefect's API, and what to set; "" if
    they can."""
    import httpx
    from prefect import get_client
    from prefect.context import SettingsContext
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    with SettingsContext(**settings):
        url = PREFECT_API_URL.value()
        if not url:
            return ""
        try:
            with get_client(sync_client=True) as client:
                client.read_flows(limit=1)
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            if status not in (401, 403):
                return ""
            return (
                f"is refused by Prefect's API at {url} ({status}): set PREFECT_API_KEY, or"
                " PREFECT_API_AUTH_STRING, where the flow runs"
            )
        except (httpx.HTTPError, RuntimeError) as error:
            name = type(error).__name__
            return (
                f"does not reach Prefect's API at {url} ({name}), to which its tasks report: set"
                " PREFECT_API_URL, where the flow runs, to an address that the worker reaches"
            )
    return ""


def send_pending_logs() -> None:
    """Send logs and events that are still waiting, and drop those that fail: at the exit of the
    process, Prefect would retry these for hours."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    services: Any = EventsWorker
    running = [(service._loop, service._task) for service in tuple(services._instances.values())]
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
    for loop, task in running:
        if loop is not None and task is not None:
            loop.call_soon_threadsafe(task.cancel)


def wait_until_recorded(run_id: UUID) -> None:
    """Wait until Prefect's server has recorded the final states of all tasks of a flow run and its
    subflows.

    It records them some time after it receives them. If it ends before, it writes the rest without
    a retry.
    """
    import httpx
    from prefect import get_client
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.sorting import TaskRunSort
    from prefect.exceptions import PrefectException

    before, changed = None, time.monotonic()
    this = {"any_": [run_id]}
    runs = FlowRunFilter.model_validate({"operator": "or_", "id": this, "parent_flow_run_id": this})
    with (
        suppress(httpx.HTTPError, PrefectException, OSError),
        impatient(),
        get_client(sync_client=True) as client,
    ):
        while time.monotonic() - changed < RECORDED_SECONDS:
            latest = client.read_task_runs(
                flow_run_filter=runs, sort=TaskRunSort.EXPECTED_START_TIME_DESC
            )
            known = {(task.id, task.state_id) for task in latest}
            # Done if nothing changes between two looks and all tasks have ended.
            if known != before:
                before, changed = known, time.monotonic()
            elif all(task.state and task.state.is_final() for task in latest):
                return
            time.sleep(RECORDED_PAUSE_SECONDS)
