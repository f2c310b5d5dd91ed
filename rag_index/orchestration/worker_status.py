"""What each worker is doing: its requests in flight and the services that it waits for, for the flow's progress.

It travels by Dask's event log, once a second and only when something changed. An embedder in the process has no
requests.
"""

from __future__ import annotations

import threading
import time
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from rag_index.orchestration.dask_client import current_worker, flow_client
from rag_index.outages import Outage, outages

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.reports.progress import Progress

TOPIC = "rag-index-status"
INTERVAL_SECONDS = 1.0


def forward_status(in_flight: Callable[[], int]) -> None:
    """Send this worker's status to the flow from now on. Call it once; outside a worker it does nothing."""
    worker = current_worker()
    if worker is None:
        return
    threading.Thread(target=_send, args=(worker, in_flight), daemon=True, name="status").start()


def subscribe_status(progress: Progress) -> None:
    """Give the status of all workers to the progress, from another thread. Starts the cluster."""
    client = flow_client()
    if client is None:
        return

    def receive(event: Any) -> None:
        status = event[1]
        found = tuple(Outage(*fields) for fields in status["outages"])
        progress.set_process(status["worker"], requests=status["requests"], outages=found)

    client.subscribe_topic(TOPIC, receive)


def _send(worker: Any, in_flight: Callable[[], int]) -> None:
    last: tuple[int, tuple[Outage, ...]] = (0, ())
    while worker.status not in (Status.closing, Status.closed):
        time.sleep(INTERVAL_SECONDS)
        if (now := (in_flight(), outages())) != last:
            last = now
            found = [list(astuple(outage)) for outage in now[1]]
            worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})
