"""The watch over services that the flow's own process waits for: its one thread may be blocked in a library."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING

from rag_index.outages import outages
from rag_index.reports.processes import FLOW

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    from rag_index.outages import Outage
    from rag_index.reports.progress import Progress

INTERVAL_SECONDS = 1.0


@contextmanager
def watched_outages(
    progress: Progress, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> Iterator[None]:
    """Show who does not answer beside the progress, for the time of the block, and log it once with the run."""
    over = threading.Event()

    def watch() -> None:
        known: dict[str, Outage] = {}
        while not over.wait(INTERVAL_SECONDS):
            progress.set_process(FLOW, outages=outages())
            now = {outage.service: outage for outage in progress.outages}
            for service in now.keys() - known.keys():
                logger.warning("%s", now[service].sentence())
            for service in known.keys() - now.keys():
                logger.info("%s answers, or is not asked any more", service)
            progress.tick()  # whatever the flow's thread does meanwhile, such as building a search index
            known = now

    context = copy_context()  # displays talk to Prefect, which finds the run in the context
    threading.Thread(target=context.run, args=(watch,), daemon=True, name="outages").start()
    try:
        yield
    finally:
        over.set()
