"""How long a process may be at one shard before it counts as hanging."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.settings import IndexSettings, Settings

MIN_SECONDS = 600.0
TIMES_SLOWER = 30.0
"""How many times slower than measured, or than assumed before anything was, a shard may be: machines get busy."""
MAX_TIMEOUTS = 4
"""Requests in a row that may use up their time limit before the wait for recovery begins: one, and three probes."""


def hang_limit(settings: Settings, index: IndexSettings, *, chars: int, chars_per_second: float) -> float:
    """Return `process_timeout`; if it is `auto`, ten minutes beyond all that the settings allow a shard to wait.

    A process that is ended although it does not hang costs little: its shard is run again in parts, which have a limit
    each. So this only has to be long enough for any single document.
    """
    given = settings.parallel.process_timeout
    if given != "auto":
        return given
    embedder = settings.embedder
    waits = TIMES_SLOWER * chars / max(1.0, chars_per_second)
    if embedder.kind == "ollama":
        waits += MAX_TIMEOUTS * embedder.timeout + embedder.wait_for_recovery
    if index.context is not None:
        waits += MAX_TIMEOUTS * index.context.timeout + embedder.wait_for_recovery
    return MIN_SECONDS + waits
