"""The long-running watch of sources: each batch of changes is indexed in the ordinary way. Here is how a watch is
opened, and how it indexes: batches here, an ordinary run as a command."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.ledger import Ledger
from rag_index.core.files import file_stamp
from rag_index.core.reports.outcome import IndexOutcome
from rag_index.errors import RagIndexError
from rag_index.etl.changed import Applied, BatchIndexer
from rag_index.watch.changes.opening import open_feeds
from rag_index.watch.loop import LOOK_SECONDS, Stop, Watch

if TYPE_CHECKING:
    from rag_index.core.settings import Settings

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
logger = logging.getLogger("rag_index.watch")


class PlainRunner:
    """How the batches of a watch, and the runs that take their place, are carried out."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._batches = BatchIndexer(settings)

    def index_changes(self, name: str, waiting: int) -> Applied:
        """Index a batch of what waits in the inbox for this index."""
        return self._batches.index(name)

    def begin_run(self, name: str) -> OrdinaryRun:
        """Start a run over all documents as a process of its own. Raises IndexLocked."""
        if (locked := self._batches.locked(name)) is not None:
            raise locked  # starting a command takes seconds
        self._batches.close()  # the run needs the memory
        return OrdinaryRun(self._settings, name)

    def close(self) -> None:
        """Close what is kept open between batches."""
        self._batches.close()


class OrdinaryRun:
    """An ordinary run of an index that takes the place of its batches: `rag-index index NAME`, in a process of its
    own."""

    def __init__(self, settings: Settings, name: str) -> None:
        self._name = name
        self._printed = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - `_end` closes it
        command = [*PROGRAM, "--config", str(settings.path), "index", name, "--json"]
        # a group of its own: Ctrl-C in a terminal tells the watch, which tells the run
        self._process = subprocess.Popen(command, stdout=self._printed, process_group=0)

    def applied(self) -> Applied | None:
        """Return how the run ended; None while it is under way."""
        return None if self._process.poll() is None else self._end()

    def stop(self) -> Applied:
        """Tell the run to stop, wait until it has, and return how it ended."""
        self._process.terminate()
        self._process.wait()
        return self._end()

    def _end(self) -> Applied:
        with self._printed as printed:
            printed.seek(0)
            text = printed.read()
        try:
            found = json.loads(text)
        except ValueError:
            found = {"error": f"`rag-index index {self._name}` ended with {self._process.returncode}"}
        if "error" in found:
            return Applied(None, RagIndexError.of_class(found.get("error_class", ""), str(found["error"])))
        values = found["indexes"][0]
        outcome = IndexOutcome(self._name, state=values["state"], message=values.get("message", ""))
        outcome.error_class = values.get("error_class", "")
        return Applied(outcome, outcome.error)


@contextmanager
def open_watch(
    settings: Settings,
    names: Sequence[str] | None,
    runner: PlainRunner,
    stop: Stop,
    *,
    changed: Callable[[], None] = lambda: None,
) -> Iterator[Watch]:
    """Open a watch of these indexes (None: all). `changed` is called when its state in the ledger has changed. An index
    whose changes are not seen, because something is missing in its source, keeps no other from being watched. Raises
    UnknownIndex, SettingsError, SourceUnavailable, SourceError, and what the ledger raises."""
    indexes = settings.named(names)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
        feeds = stack.enter_context(closing(open_feeds(settings, indexes, ledger)))
        for note in feeds.notes:
            logger.warning("%s", note)
        watched = [index.name for index in indexes if index.name not in feeds.unwatched]
        yield Watch(settings, watched, feeds, ledger, runner, stop, changed=changed)


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
    raise as `Watch.run` and `open_watch`."""
    settings, patient = load(), False
    while True:
        reload = _Reload(settings, load)
        told = Stop(stop.is_set, reload)
        with (
            closing(PlainRunner(settings)) as runner,
            open_watch(settings, names, runner, told, changed=partial(changed, settings)) as watch,
        ):
            began(watch)
            caught_up = watch.run(once=once, patient=patient)
        if stop.is_set() or reload.found is None:
            return caught_up
        settings, patient = reload.found, True


class _Reload:
    """Whether the file of some settings has changed, is written no more, and is valid: `found` is what it says then.
    Until it is, a batch writes nothing (`etl.run`): what a change would close must not stay open."""

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
