"""Prefect's API as a run uses it: it waits for the server where it can do nothing else, and nowhere else for long."""

from __future__ import annotations

import math
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect.context import SettingsContext


PAUSE_SECONDS = 2.0


def is_deployed() -> bool:
    """Return whether this is called in a run of a deployment, or in a flow of one."""
    import httpx
    from prefect import runtime

    try:
        return bool(runtime.deployment.id)
    except httpx.TransportError:  # Prefect asks the server only about runs that are no deployment's
        return False


def wait_for_api() -> None:
    """Wait until Prefect's server answers: in a deployed run as long as it takes, else as long as Prefect's clients do.

    Call it where a run can do nothing else: before it reports what is committed already, and before its next index.
    """
    from prefect import get_client
    from prefect.logging import get_run_logger
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

    began, told = time.monotonic(), False
    patience = math.inf if is_deployed() else 2.0 ** (1 + PREFECT_CLIENT_MAX_RETRIES.value())
    with impatient(), get_client(sync_client=True) as client:
        while _is_away(error := client.api_healthcheck()) and time.monotonic() - began < patience:
            if not told:
                get_run_logger().warning("Prefect's server does not answer (%s): the run waits for it", error)
                told = True
            time.sleep(PAUSE_SECONDS)
    if told:
        get_run_logger().info("the run has waited %.0f s for Prefect's server", time.monotonic() - began)


def _is_away(error: Exception | None) -> bool:
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


_IMPATIENT: ContextVar[tuple[Any, Any] | None] = ContextVar("impatient settings", default=None)


def impatient() -> SettingsContext:
    """Return Prefect's settings without retries and with a short time limit, made once a run: that takes 0.1 s."""
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES

    context = get_settings_context()
    made = _IMPATIENT.get()
    if made is None or made[0] is not context.settings:
        updates: Any = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}
        made = (context.settings, context.settings.copy_with_update(updates))
        _IMPATIENT.set(made)
    return SettingsContext(profile=context.profile, settings=made[1])


def send_pending_logs() -> None:
    """Send logs and events that are still waiting. What no server takes is dropped: exit would retry it for hours."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    services: Any = EventsWorker
    running = [(service._loop, service._task) for service in tuple(services._instances.values())]
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
    for loop, task in running:
        if loop is not None and task is not None:
            loop.call_soon_threadsafe(task.cancel)
