"""All that a watch holds open: the ledger and the feed."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from rag_index.changes.opening import open_feed
from rag_index.ledger import Ledger
from rag_index.watch.loop import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.settings import Settings
    from rag_index.watch.loop import Runner
    from rag_index.watch.stop import Stop

logger = logging.getLogger("rag_index.watch")


@contextmanager
def open_watch(
    settings: Settings,
    names: Sequence[str] | None,
    runner: Runner,
    stop: Stop,
    *,
    changed: Callable[[], None] = lambda: None,
) -> Iterator[Watch]:
    """Open a watch of these indexes (None: all). `changed` is called when its state in the ledger has changed.

    An index whose changes are not seen, because something is missing in its source, keeps no other from being watched.

    Raises UnknownIndex, SettingsError, SourceUnavailable, SourceError and what the ledger raises.
    """
    indexes = settings.named(names)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
        feed = stack.enter_context(closing(open_feed(settings, indexes, ledger)))
        for note in feed.notes:
            logger.warning("%s", note)
        watched = [index.name for index in indexes if index.name not in feed.unwatched]
        problems = feed.check()
        if watched and all(name in problems for name in watched):
            raise problems[watched[0]]
        yield Watch(settings, watched, feed, ledger, runner, stop, problems=problems, changed=changed)
