"""The Dask client of the flow that runs."""

from __future__ import annotations

from typing import Any

from prefect.context import FlowRunContext

__all__ = ["flow_client"]


def flow_client() -> Any:
    """Its task runner's client (`distributed.Client`), None where there is no cluster. Starts the cluster."""
    context = FlowRunContext.get()
    return getattr(context.task_runner, "client", None) if context else None
