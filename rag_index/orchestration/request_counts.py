"""How many requests to the embedder are under way: from the workers to the flow, which shows it beside the progress.

By Dask's event log, once a second and only where the number changed; an embedder in the process has none.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from rag_index.orchestration.client import flow_client

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["count_requests", "forward_requests"]

TOPIC = "rag-index-requests"
EVERY = 1.0


def forward_requests(in_flight: Callable[[], int]) -> None:
    """In a worker: tell the flow from now on. Elsewhere nothing is done; call it once."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return
    threading.Thread(target=_tell, args=(worker, in_flight), daemon=True, name="requests").start()


def count_requests(told: Callable[[int], None]) -> None:
    """In the flow: give the number of all workers together to `told`, from another thread. Starts the cluster."""
    client = flow_client()
    if client is None:
        return
    by_worker: dict[str, int] = {}

    def count(event: Any) -> None:
        by_worker[event[1]["worker"]] = event[1]["requests"]
        told(sum(by_worker.values()))

    client.subscribe_topic(TOPIC, count)


def _tell(worker: Any, in_flight: Callable[[], int]) -> None:
    last = 0
    while worker.status not in (Status.closing, Status.closed):
        time.sleep(EVERY)
        if (now := in_flight()) != last:
            last = now
            worker.log_event(TOPIC, {"worker": worker.address, "requests": now})
