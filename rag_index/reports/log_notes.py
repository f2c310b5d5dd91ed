"""What embedders and writers of contexts log while they wait, as notes beside the progress."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOGGERS = tuple(map(logging.getLogger, ("rag_index.embedders", "rag_index.hosts", "rag_index.chunking.context")))


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
