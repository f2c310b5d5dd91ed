"""A feed whose changes a test gives, and a watch in a thread."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager, nullcontext

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import holder, lease_name
from rag_index.components.ledger.tables import Position
from rag_index.errors import RagIndexError
from rag_index.etl.changed import Applied
from rag_index.watch import PlainRunner
from rag_index.watch.changes import DocumentChange, Received
from rag_index.watch.changes.opening import OpenedFeeds
from rag_index.watch.loop import Stop, Watch


class ListFeed:
    """A feed of what a test says; it keeps a change until it is acknowledged."""

    def __init__(self, *served: str) -> None:
        self.served = served or ("notes",)
        self._changes: list[DocumentChange] = []
        self._lock = threading.Lock()
        self._arrived = threading.Event()
        self.overflow: list[str] = []
        self.error: RagIndexError | None = None
        self.problems: dict[str, RagIndexError] = {}

    def give(self, *ids: str, index: str = "notes") -> None:
        with self._lock:
            self._changes += [DocumentChange(index, one, time.time()) for one in ids]
        self._arrived.set()

    def check(self) -> dict[str, RagIndexError]:
        return self.problems

    def receive(self, limit: int) -> Received:
        if self.error is not None:
            raise self.error
        with self._lock:
            self._arrived.clear()
            some, more = self._changes[:limit], len(self._changes) > limit
            through = {} if more else {name: Position(time.time(), how="queue") for name in self.served}
            return Received(some, len(some), more, tuple(self.overflow), through=through)

    def acknowledge(self, received: Received) -> None:
        with self._lock:
            del self._changes[: received.position]
            self.overflow = []

    def wait(self, seconds: float) -> None:
        self._arrived.wait(seconds)

    def backlog(self) -> int | None:
        return len(self._changes)

    def close(self) -> None:
        pass


def watch_of(project, feed, ledger, runner, stop, *, names=("notes",), **arguments):
    """Return a watch of indexes whose changes a feed gives; more feeds, by their index, may be given in its place."""
    feeds = [(one, [name]) for name, one in feed.items()] if isinstance(feed, dict) else [(feed, names)]
    names = [name for _, some in feeds for name in some]
    return Watch(project.settings, names, OpenedFeeds(feeds), ledger, runner, stop, **arguments)


class EndedRun:
    """An ordinary run that has ended, or will have once `end` is set."""

    def __init__(self, applied: Applied, end: threading.Event | None = None) -> None:
        self.end = end
        self._applied = applied

    def applied(self) -> Applied | None:
        return self._applied if self.end is None or self.end.is_set() else None

    def stop(self) -> Applied:
        return self._applied


def is_watched(ledger, project):
    """Return whether a process watches the project now."""
    return holder(ledger, lease_name(project)) is not None


@contextmanager
def in_a_thread(run, stop):
    """Run a function in a thread until the block ends, which sets `stop`, and raise its error."""
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run)
        try:
            yield
        finally:
            stop.set()
            wait([running], 60)
        running.result(0)


@contextmanager
def watched(project, feed, *, runner=None, **arguments):
    """Watch a project in a thread for the time of the block; yield the ledger. An error of the watch is raised."""
    url, stop = project.settings.ledger_url, Stop()
    made = nullcontext(runner) if runner else closing(PlainRunner(project.settings))
    with closing(Ledger(url)) as ledger, closing(Ledger(url)) as own, made as runner:
        watch = watch_of(project, feed, own, runner, stop, **arguments)
        with in_a_thread(watch.run, stop):
            yield ledger
