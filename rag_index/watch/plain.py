"""The batches of a watch without Prefect: in this process; an ordinary run is a command of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from rag_index.errors import IndexLocked, RagIndexError, TransientError
from rag_index.indexing.changed import Applied, BatchIndexer
from rag_index.reports.outcome import IndexOutcome

if TYPE_CHECKING:
    from rag_index.settings import Settings
    from rag_index.watch.stop import Stop

__all__ = ["PlainRunner"]

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
LOOK_SECONDS = 0.5


class PlainRunner:
    """The `Runner` of a watch without Prefect."""

    def __init__(self, settings: Settings, stop: Stop) -> None:
        self._settings = settings
        self._stop = stop
        self._batches = BatchIndexer(settings)

    def index_changes(self, name: str, waiting: int) -> Applied:
        """As `Runner.index_changes`."""
        return self._batches.index(name)

    def index_whole(self, name: str) -> Applied:
        """As `Runner.index_whole`: `rag-index index NAME`, which is told to stop when the watch is."""
        locked = self._batches.locked(name)
        self._batches.close()  # the run needs the memory
        if locked is not None:
            return Applied(None, locked)  # starting a command takes seconds
        command = [*PROGRAM, "--config", str(self._settings.path), "index", name, "--json"]
        # a group of its own: Ctrl-C in a terminal tells the watch, which tells the run
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as run:
            while run.poll() is None:
                if self._stop.wait(LOOK_SECONDS):
                    run.terminate()
                    break
            printed = run.communicate()[0]
        return _applied(name, run.returncode, printed)

    def close(self) -> None:
        """Close what is kept open between batches."""
        self._batches.close()


def _applied(name: str, code: int, printed: str) -> Applied:
    """Return how the command ended."""
    try:
        found = json.loads(printed)
    except ValueError:
        found = {"error": f"`rag-index index {name}` ended with {code}"}
    if "error" in found:
        return Applied(None, TransientError(str(found["error"])))
    values = found["indexes"][0]
    outcome = IndexOutcome(name, state=values["state"], message=values.get("message", ""))
    outcome.documents, outcome.seconds = values["documents"], values["seconds"]
    outcome.new, outcome.changed, outcome.deleted = values["new"], values["changed"], values["deleted"]
    outcome.unchanged, outcome.failed = values["unchanged"], values["failed"]
    return Applied(outcome, None if outcome.state != "failed" else _error(outcome.message))


def _error(message: str) -> RagIndexError:
    """Return the error of a run that failed: another run may hold the index, otherwise it is tried again."""
    return IndexLocked(message) if "is being written by" in message else TransientError(message)
