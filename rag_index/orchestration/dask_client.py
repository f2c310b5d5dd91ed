"""The Dask client of the flow that is running."""

from __future__ import annotations

from typing import Any

from prefect.context import FlowRunContext


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
