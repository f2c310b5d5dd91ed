"""The long-running watch of sources: the ordinary run of each index, repeated whenever its source may have changed. It
goes on with its settings when their file has changed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.ledger import Ledger
from rag_index.core.files import file_stamp
from rag_index.errors import RagIndexError
from rag_index.watch.loop import LOOK_SECONDS, Stop, Watch

if TYPE_CHECKING:
    from rag_index.core.settings import Settings

logger = logging.getLogger("rag_index.watch")


def follow(
    load: Callable[[], Settings],
    names: Sequence[str] | None,
    stop: Stop,
    *,
    once: bool = False,
    began: Callable[[Watch], None] = lambda watch: None,
    changed: Callable[[Settings], None] = lambda settings: None,
) -> bool:
    """Watch these indexes (None: all) by the settings that `load` returns, and by others when their file has changed.
    `began` is called with each watch, `changed` with the settings when the state in the ledger has changed. Return and
    raise as `Watch.run`; raises UnknownIndex, SettingsError, and what the ledger raises."""
    settings = load()
    while True:
        reload = _Reload(settings, load)
        names_now = [index.name for index in settings.named(names)]
        with closing(Ledger(settings.ledger_url)) as ledger:
            told = Stop(stop.is_set, reload)
            watch = Watch(settings, names_now, ledger, told, changed=partial(changed, settings))
            began(watch)
            complete = watch.run(once=once)
        if stop.is_set() or reload.found is None:
            return complete
        settings = reload.found


class _Reload:
    """Whether the file of some settings has changed, is written no more, and is valid: `found` is what it says then.
    Until it is, nothing is written (`etl.opened`): what a change would close must not stay open."""

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self.found: Settings | None = None
        self._settings, self._load = settings, load
        self._seen: object = None
        self._due = 0.0

    def __call__(self) -> bool:
        if self.found is None and self._settings.is_outdated:
            if (stamp := file_stamp(self._settings.path)) != self._seen:
                self._seen, self._due = stamp, time.monotonic() + LOOK_SECONDS
            elif time.monotonic() >= self._due:
                self._due = float("inf")
                try:
                    self.found = self._load()
                    logger.info("%s has changed: the watch goes on with it", self._settings.path)
                except RagIndexError as error:
                    logger.error("nothing is indexed until the settings are valid: %s", error)
        return self.found is not None
