"""How many requests to the embedder are in flight: from the workers to the flow, which shows it beside the progress.

The counts travel by Dask's event log, once a second and only when a number changed. An embedder in the process has no
requests.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from rag_index.orchestration.dask_client import current_worker, flow_client

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["forward_request_counts", "subscribe_request_counts"]

TOPIC = "rag-index-requests"
INTERVAL_SECONDS = 1.0


def forward_request_counts(in_flight: Callable[[], int]) -> None:
    """Send this worker's count to the flow from now on. Call it once; outside a worker it does nothing."""
    worker = current_worker()
    if worker is None:
        return
    threading.Thread(target=_send, args=(worker, in_flight), daemon=True, name="requests").start()


def subscribe_request_counts(set_count: Callable[[int], None]) -> None:
    """Give the count of all workers together to `set_count`, from another thread. Starts the cluster."""
    client = flow_client()
    if client is None:
        return
    by_worker: dict[str, int] = {}

    def add_up(event: Any) -> None:
        by_worker[event[1]["worker"]] = event[1]["requests"]
        set_count(sum(by_worker.values()))

    client.subscribe_topic(TOPIC, add_up)


def _send(worker: Any, in_flight: Callable[[], int]) -> None:
    last = 0
    while worker.status not in (Status.closing, Status.closed):
        time.sleep(INTERVAL_SECONDS)
        if (now := in_flight()) != last:
            last = now
            worker.log_event(TOPIC, {"worker": worker.address, "requests": now})
