"""A watch in a thread of this process, and what it has seen and done."""

import threading
from contextlib import closing, contextmanager
from functools import partial

import pytest

from rag_index.components.ledger import Ledger
from rag_index.components.sources.hints import Hints
from rag_index.core.settings import load_settings
from rag_index.etl import local_steps
from rag_index.etl.sharding import Sharder
from rag_index.watch import follow
from rag_index.watch.loop import Stop
from tests.waiting import eventually

ALIAS = "test_notes"


@pytest.fixture(autouse=True)
def embed_here(monkeypatch):
    """Embed in this process: a child takes seconds to start, and `tests.flows.test_failures` has
    it."""
    monkeypatch.setattr(local_steps, "worker_count", lambda settings: 0)
    monkeypatch.setattr(Sharder, "_is_suspect", lambda sharder, documents: False)


class Following:
    """What a watch that is under way has done: `looks` counts its looks."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.looks = 0

    def record(self, alias=ALIAS):
        return self.ledger.watch(alias)

    def at(self, alias=ALIAS):
        """By when the index is complete, as the ledger has it; 0 if it never was."""
        reached = self.ledger.reached().get(alias)
        return reached.at if reached else 0.0

    def looked(self, times=3):
        """Wait until the watch has looked as often again."""
        wanted = self.looks + times
        eventually(lambda: self.looks >= wanted)

    def settled(self, alias=ALIAS):
        """Wait until the watch has found that nothing was written since a complete run."""
        eventually(
            lambda: (one := self.ledger.reached().get(alias)) and one.how == "watch",
            lambda: self.record(alias),
        )


@contextmanager
def following(project, config=None, *, pace=0.02, names=None):
    """Watch a project for the time of the block, which looks more often than once a second."""
    stop, config, errors = Stop(), config or project.config, []
    with (
        pytest.MonkeyPatch.context() as patch,
        closing(Ledger(project.settings.ledger_url)) as ledger,
    ):
        found, look = Following(ledger), Hints.look

        def counted(self):
            seen = look(self)
            found.looks += 1
            return seen

        patch.setattr(Hints, "look", counted)
        for name in ("LOOK_SECONDS", "FIRST_PAUSE", "CLAIM_SECONDS", "NOTE_SECONDS"):
            patch.setattr(f"rag_index.watch.loop.{name}", pace)
        patch.setattr("rag_index.watch.pace.REST_FACTOR", 0.0)

        def run():
            try:
                follow(partial(load_settings, config), names, stop)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()
    if errors:
        raise errors[0]
