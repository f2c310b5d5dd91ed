"""The watch over services that this process waits for: its one thread may be blocked in a library."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING

from rag_index.outages import outages
from rag_index.reports.processes import FLOW

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.outages import Outage
    from rag_index.reports.progress import Progress

INTERVAL_SECONDS = 1.0


@contextmanager
def watched_outages(
    progress: Progress, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> Iterator[None]:
    """Show who does not answer beside the progress, for the time of the block, and log it once with the run."""

    def look() -> Sequence[Outage]:
        progress.set_process(FLOW, outages=outages())
        progress.tick()  # whatever the flow's thread does meanwhile, such as building a search index
        return progress.outages

    def over(service: str) -> None:
        logger.info("%s answers, or is not asked any more", service)

    with _watched(look, lambda outage: logger.warning("%s", outage.sentence()), over):
        yield


@contextmanager
def said_outages(say: Callable[[str], object]) -> Iterator[None]:
    """Say who does not answer, once an outage, for the time of the block: for what shows no progress."""
    with _watched(outages, lambda outage: say(outage.sentence()), lambda _: None):
        yield


@contextmanager
def _watched(
    look: Callable[[], Sequence[Outage]], begun: Callable[[Outage], object], over: Callable[[str], object]
) -> Iterator[None]:
    """Look once a second in a thread, for the time of the block; say when an outage has begun and when it is over."""
    ended = threading.Event()

    def watch() -> None:
        known: dict[str, Outage] = {}
        while not ended.wait(INTERVAL_SECONDS):
            now = {outage.service: outage for outage in look()}
            for service in now.keys() - known.keys():
                begun(now[service])
            for service in known.keys() - now.keys():
                over(service)
            known = now

    context = copy_context()  # displays talk to Prefect, which finds the run in the context
    threading.Thread(target=context.run, args=(watch,), daemon=True, name="outages").start()
    try:
        yield
    finally:
        ended.set()
