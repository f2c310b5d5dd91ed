"""What embedders and writers of contexts log while they wait (a host that is down, a requested pause), for the flow.

The package logs to `rag_index`. A worker forwards such lines to Dask's event log, and the flow subscribes to them there
and shows them beside the progress. In a serial run they are in the same process already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.orchestration.dask_client import current_worker, flow_client
from rag_index.reports.log_notes import LOGGERS, LogNotes

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC = "rag-index"


def forward_logs() -> None:
    """Forward what a worker logs to Dask's event log. Call it once; outside a worker it does nothing."""
    worker = current_worker()
    if worker is None:
        return
    handler = LogNotes(lambda line: worker.log_event(TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)


def subscribe_logs(say: Callable[[str], None]) -> None:
    """Give what workers log to `say`, which is called from another thread. Starts the cluster."""
    client = flow_client()
    if client is not None:
        client.subscribe_topic(TOPIC, lambda event: say(str(event[1])))
