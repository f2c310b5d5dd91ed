"""The Dask client of the flow that is running."""

from __future__ import annotations

from typing import Any

from prefect.context import FlowRunContext

__all__ = ["flow_client", "worker_name"]


def flow_client() -> Any:
    """Return the task runner's client (`distributed.Client`), or None if there is no cluster. Starts the cluster."""
    context = FlowRunContext.get()
    return getattr(context.task_runner, "client", None) if context else None


def worker_name() -> Any:
    """Return the name of the Dask worker that this runs in, or None outside a worker."""
    from distributed import get_worker

    try:
        return get_worker().name
    except ValueError:
        return None
