"""Displays of the progress of a run: a live bar in a terminal, and lines elsewhere."""

from __future__ import annotations

import atexit
import sys
import time
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.reports.progress import Progress

LINE_SECONDS = 5.0
MIN_BAR, MAX_BAR = 10, 30
"""Columns of the live bar."""


class Display(Protocol):
    """The interface of a display of progress."""

    def show(self, progress: Progress) -> None:
        """Display the current state. `Progress` calls this a few times per second at most."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """End the display with this sentence about the outcome."""


class Lines:
    """A display that prints a plain line every few seconds."""

    def __init__(
        self, stream: TextIO, *, interval: float = LINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interval = interval
        self._clock = clock
        self._last = clock() - interval

    def show(self, progress: Progress) -> None:
        """Print a line if the last one is old enough."""
        now = self._clock()
        if now - self._last >= self._interval:
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
        self._bar.update(
            self._task,
            completed=progress.done,
            total=progress.total or None,
            visible=True,
            index=index,
            headline=headline,
        )

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
