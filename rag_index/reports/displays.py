"""Displays of the progress of a run: a live bar in a terminal, and lines elsewhere."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Protocol, TextIO

from rag_index.outages import outages
from rag_index.reports.progress import FLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.outages import Outage
    from rag_index.reports.progress import Progress

LINE_SECONDS = 5.0
MIN_BAR, MAX_BAR = 10, 30
LOGGERS = tuple(map(logging.getLogger, ("rag_index.embedders", "rag_index.hosts", "rag_index.chunking.context")))
INTERVAL_SECONDS = 1.0


class Display(Protocol):
    """The interface of a display of progress."""

    def show(self, progress: Progress) -> None:
        """Display the current state. `Progress` calls this a few times per second at most."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """End the display with this sentence about the outcome."""


class Lines:
    """A display that prints a plain line every few seconds."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._last = clock() - LINE_SECONDS

    def show(self, progress: Progress) -> None:
        """Print a line if the last one is old enough."""
        now = self._clock()
        if now - self._last >= LINE_SECONDS:
            self._last = now
            print(progress.sentence(), file=self._stream, flush=True)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Print the last line."""
        print(sentence, file=self._stream, flush=True)


class Bar:
    """A display that draws a live bar in a terminal: a line that fits any width, and a second one with details."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress
        from rich.text import Text

        self._console = Console(file=stream)
        self._column = BarColumn(bar_width=MAX_BAR)
        texts = [TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in ("index", "headline")]
        self._bar = RichProgress(texts[0], self._column, texts[1], console=self._console)
        self._task = self._bar.add_task("", total=None, visible=False, index="", headline="")
        self._details = Text(no_wrap=True, overflow="ellipsis")
        self._live = Live(Group(self._bar, self._details), console=self._console, transient=True)
        self._live.start()
        atexit.register(self._live.stop)  # the terminal gets its cursor back however the run ends

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        index, self._column.bar_width, headline = fit(progress.index, progress.headline(), self._console.width)
        self._details.plain = progress.details()
        done, total = progress.done, progress.total or None
        self._bar.update(self._task, completed=done, total=total, visible=True, index=index, headline=headline)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Replace the bar by a line."""
        self._live.stop()
        atexit.unregister(self._live.stop)
        print(sentence, file=self._console.file, flush=True)


def fit(index: str, headline: str, width: int) -> tuple[str, int, str]:
    """Return name, columns of the bar and headline so that they fit into a line: the headline is the last to give."""
    free = width - 2  # a space on both sides of the bar
    if len(index) + MIN_BAR + len(headline) > free:
        headline = headline.replace(" documents", "", 1)
    room = max(8, free - MIN_BAR - len(headline))
    index = index if len(index) <= room else f"{index[: room - 1]}…"
    return index, min(MAX_BAR, max(1, free - len(index) - len(headline))), headline


def open_display(stream: TextIO | None = None) -> Display:
    """Return a bar if the stream (standard error by default) is a terminal, and lines if not."""
    stream = stream or sys.stderr
    return Bar(stream) if stream.isatty() else Lines(stream)


class LogNotes(logging.Handler):
    """A handler that gives each warning to `say`."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say the message of a record."""
        self._say(record.getMessage())


@contextmanager
def captured_logs(say: Callable[[str], None]) -> Iterator[None]:
    """Give what this process logs to `say`, which may be called from any thread."""
    handler = LogNotes(say)
    for logger in LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in LOGGERS:
            logger.removeHandler(handler)


@contextmanager
def watched_outages(
    progress: Progress, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]
) -> Iterator[None]:
    """Show who does not answer beside the progress, for the time of the block, and log it once with the run."""

    def look() -> Sequence[Outage]:
        progress.set_process(FLOW, outages=outages())
        progress.tick()  # whatever the flow's thread does meanwhile, such as building a search index
        return progress.outages

    with said_outages(lambda sentence: logger.warning("%s", sentence), look=look):
        yield


@contextmanager
def said_outages(say: Callable[[str], object], *, look: Callable[[], Sequence[Outage]] = outages) -> Iterator[None]:
    """Say who does not answer, once an outage, for the time of the block. A thread looks once a second."""
    ended = threading.Event()

    def watch() -> None:
        known: set[str] = set()
        while not ended.wait(INTERVAL_SECONDS):
            now = {outage.service: outage for outage in look()}
            for service in now.keys() - known:
                say(now[service].sentence())
            known = set(now)

    context = copy_context()  # displays talk to Prefect, which finds the run in the context
    threading.Thread(target=context.run, args=(watch,), daemon=True, name="outages").start()
    try:
        yield
    finally:
        ended.set()
