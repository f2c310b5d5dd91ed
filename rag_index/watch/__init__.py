"""The watch: a process that repeats the ordinary run of each index when its source was written.

`follow` is the entry. `loop` looks at the source each second and starts runs, `kept_runs` carries
out the runs of one index, and `pace` decides how soon one run may follow another. This package
imports `etl`, `components` and `core`, and neither Prefect nor Dask.

Orders that must hold, and the tests (in tests/watch/test_loop.py) that fail if one does not:
- The look is taken before the run reads, and kept only if the run was complete. A later look that
  equals it moves the time up to which the index is complete, if the ledger has the index as
  complete by the kept look (`record_look`): test_what_another_process_forgot_is_not_claimed. If
  both fail: test_what_is_written_while_a_run_reads_is_found,
  test_what_a_failed_run_did_not_write_is_found.
- The lease of the project is taken before anything is recorded:
  test_a_project_is_watched_by_one_process_at_a_time.
- The settings file is read again before a run writes by other settings than the file has:
  test_a_watch_goes_on_with_changed_settings_and_has_all_written_by_them.
"""

from __future__ import annotations

import logging
import threading
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
    """Watch indexes until `stop` is set. If the settings file changes, go on with the new settings.

    Args:
        load: Reads the settings file.
        names: The names of the indexes; None for all.
        once: Return as soon as each index had a run that was complete or failed.
        began: Is called with each watch: the first one, and one for each change of the settings.
        changed: Is called with the settings when the state of an index in the ledger has changed.

    Return:
        Whether each index is indexed completely.

    Raises:
        UnknownIndex: If an index is not in the settings.
        SettingsError: If the settings are not valid at the start.
        IndexLocked: If the project is watched already.
        LedgerUnavailable: If the ledger does not answer.
        LedgerError: If the ledger cannot be used.
    """
    settings = load()
    while True:
        reload = _Reload(settings, load)
        current_names = [index.name for index in settings.named(names)]
        with closing(Ledger(settings.ledger_url)) as ledger:
            stop_or_reload = Stop(stop.is_set, reload)
            note_change = partial(changed, settings)
            watch = Watch(settings, current_names, ledger, stop_or_reload, changed=note_change)
            began(watch)
            is_complete = watch.run(once=once)
        if stop.is_set() or reload.found is None:
            return is_complete
        # The watch ended because the file has changed.
        settings = reload.found


class _Reload:
    """Condition that ends a watch: its settings file has changed, and the new settings are valid.

    `found` then has the new settings. In the meantime no run writes (`etl.opened`), because it
    could write documents that the new settings exclude.
    """

    def __init__(self, settings: Settings, load: Callable[[], Settings]) -> None:
        self.found: Settings | None = None
        self._settings = settings
        self._load = load
        self._seen: object = None
        """The stamp of the changed file, as of the last call."""
        self._due = 0.0
        """When the changed file is read; infinite once it was."""
        self._lock = threading.Lock()
        """The loop and the thread of each run call this object. While one of them looks at the
        file or reads it, the others go on."""

    def __call__(self) -> bool:
        if self._lock.acquire(blocking=False):
            try:
                if self.found is None and self._settings.is_outdated:
                    self._read_when_unchanged()
            finally:
                self._lock.release()
        return self.found is not None

    def _read_when_unchanged(self) -> None:
        """Read the changed file, once it has not changed for `LOOK_SECONDS`."""
        stamp = file_stamp(self._settings.path)
        if stamp != self._seen:
            # An editor has just written the file, and may write it again.
            self._seen = stamp
            self._due = time.monotonic() + LOOK_SECONDS
            return
        if time.monotonic() < self._due:
            return
        # A file that is not valid is read again after its next change only.
        self._due = float("inf")
        try:
            self.found = self._load()
            logger.info("%s has changed: the watch goes on with it", self._settings.path)
        except RagIndexError as error:
            logger.error("nothing is indexed until the settings are valid: %s", error)
