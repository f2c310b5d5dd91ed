"""What embedders and writers of contexts say while they wait (a host that is down, a pause asked for), or where a
cache of theirs is lost: from wherever they run to the flow.

The package logs to `rag_index`. A worker hands such lines to Dask's event log, the flow reads them there and shows
them beside the progress; in a serial run they are in the same process already.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag_index.orchestration.client import flow_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["forward_logs", "subscribe_logs", "captured_logs"]

TOPIC = "rag-index"
LOGGERS = tuple(map(logging.getLogger, ("rag_index.embedders", "rag_index.chunking.context")))


class _Handler(logging.Handler):
    """Gives each line to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(record.getMessage())


@contextmanager
def captured_logs(say: Callable[[str], None]) -> Iterator[None]:
    """Give what is said in this process to `say`, which may be called from any thread."""
    handler = _Handler(say)
    for logger in LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in LOGGERS:
            logger.removeHandler(handler)


def forward_logs() -> None:
    """In a worker: hand what is said to Dask's event log. Elsewhere nothing is done; call it once."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:
        return
    handler = _Handler(lambda line: worker.log_event(TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)


def subscribe_logs(say: Callable[[str], None]) -> None:
    """In the flow: give what workers say to `say`, which is called from another thread. Starts the cluster."""
    client = flow_client()
    if client is not None:
        client.subscribe_topic(TOPIC, lambda event: say(str(event[1])))
