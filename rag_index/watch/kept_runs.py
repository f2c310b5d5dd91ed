"""The ordinary runs of one index in a process that stays.

What is slow to open (source, ledger, store, embedder) stays open for the next run. A run ends early
after some seconds of embedding, so that the next one finds what has changed in the meantime, and at
its next commit if the watch is to end.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import WATCH
from rag_index.components.sources import Source, open_source, scan_settings
from rag_index.components.sources.digest import DigestSource
from rag_index.components.stores import open_store
from rag_index.core.machine import collect_seldom
from rag_index.core.recovery import PATIENCE
from rag_index.core.reports.progress import RunRecord
from rag_index.errors import RagIndexError, SettingsReplaced, TerminalError
from rag_index.etl.checks import RecentAnswers, ServiceChecks
from rag_index.etl.interruption import Interruption, RunPaused
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.quotes import described, without_messages

if TYPE_CHECKING:
    from rag_index.components.stores.protocol import Store
    from rag_index.core.reports.outcome import IndexOutcome
    from rag_index.core.settings import Settings
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan

logger = logging.getLogger("rag_index.watch")
EMBED_SECONDS = 30.0
"""Seconds of embedding after which a run ends, and the next one looks at the source again. Chosen;
docs/watching.md names it."""
ANSWER_SECONDS = 30.0
"""Seconds for which the next runs take a service's answer instead of asking again: a server may get
another model at any time. Chosen; nothing depends on it."""
GROWING_STAGES = ("embed", "wait", "submit", "commit", "workers", "erase")
"""Stages whose time grows with the number of changes, and `erase`, which comes once a day. The time
of all other stages decides the pace."""
_embedding = threading.Lock()
"""Held while this process embeds: its embedder serves one index at a time."""


class TakingTurns(Interruption):
    """Ends a run early: once it has embedded for `EMBED_SECONDS`, or if the watch is to end.

    A collection that was never complete is completed in one run, unless the watch is to end.
    """

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        self._may_pause = False
        self._embeds_since: float | None = None

    def on_scan_start(self, scan: Scan) -> None:
        self._may_pause = scan.target.collection.whole_in > 0

    def before_page(self) -> None:
        if self._is_stopped() or self._is_over():
            raise RunPaused

    def before_shard(self) -> None:
        self.before_page()
        if self._embeds_since is None:
            self._embeds_since = time.monotonic()

    def _is_over(self) -> bool:
        if not self._may_pause or self._embeds_since is None:
            return False
        return time.monotonic() - self._embeds_since >= EMBED_SECONDS


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run of a watch ended."""

    outcome: IndexOutcome
    error: RagIndexError | None
    paused: bool
    spent: float
    """The seconds that it took, without `GROWING_STAGES`."""
    documents: int
    """The number of documents in the source."""
    next_try: float | None = None
    """When the next failed document is tried again, in seconds since 1970; None if none is."""
    is_index_complete: bool = False
    """Whether the index is complete up to the look before the run: no document has failed or is
    held back."""

    @property
    def complete(self) -> bool:
        """Whether the run has read and written everything."""
        return self.error is None and not self.paused


@dataclass(frozen=True, slots=True)
class _IndexState:
    """What the ledger has of an index after a run. See the fields of `RunEnd`."""

    next_try: float | None = None
    is_complete: bool = False


class KeptRuns:
    """The runs of one index, and what stays open between them. For one thread at a time."""

    def __init__(self, settings: Settings, name: str, is_stopped: Callable[[], bool]) -> None:
        self.alias = settings.alias(name)
        # A run gives up soon if a service is unavailable: the watch itself waits and tries again.
        patience = {"wait": 0.0, "wait_for_recovery": PATIENCE}
        run_settings = settings.run.model_copy(update=patience)
        self._settings = settings.model_copy(update={"run": run_settings})
        self._name = name
        self._is_stopped = is_stopped
        self._source: Source | None = None
        self._ledger: Ledger | None = None
        self._store: Store | None = None
        self._steps: LocalSteps | None = None
        self._answers = RecentAnswers(ANSWER_SECONDS)
        self._has_written = False
        """Whether a run of this watch was without error, so that it wrote by these settings."""

    def run(self, looked_at: float) -> RunEnd:
        """Carry out the ordinary run of the index.

        All errors end in the returned object, so that no index stops the others.

        Args:
            looked_at: The time of the look at the source before this run, in seconds since 1970.
        """
        began = time.monotonic()
        record = RunRecord(self._name)
        state = _IndexState()
        error: RagIndexError | None = None
        try:
            state = self._run(record, looked_at)
            error = record.error
        except RagIndexError as raised:
            error = raised
        except Exception as raised:
            # Not one of our errors, such as a fault of a plug-in: ZeroDivisionError.
            logger.error("%s: %s", self._name, described(raised), exc_info=without_messages(raised))
            error = TerminalError(described(raised))
        self._close_after(error)
        seconds = record.stopwatch.seconds
        growing = sum(seconds[stage] for stage in GROWING_STAGES)
        spent = max(0.0, time.monotonic() - began - growing)
        # A run that pauses has not seen all documents of the total.
        documents = max(record.outcome.documents, record.progress.total)
        return RunEnd(
            outcome=record.outcome,
            error=error,
            paused=record.paused,
            spent=spent,
            documents=documents,
            next_try=state.next_try,
            is_index_complete=state.is_complete,
        )

    def let_go(self) -> None:
        """Let other processes write to the embedded store, if one waits for it, and close idle
        connections. No run may be under way."""
        if self._store is not None:
            self._store.let_go()

    def close(self) -> None:
        """Close everything. The next run opens it again."""
        opened = (self._source, self._store, self._steps, self._ledger)
        self._source = self._store = self._steps = self._ledger = None
        self._answers.clear()
        for resource in opened:
            # A broken connection may raise; the others are closed all the same.
            with suppress(Exception):
                if resource is not None:
                    resource.close()

    def _run(self, record: RunRecord, looked_at: float) -> _IndexState:
        """Run the index. Raises as `open_index`, or any error that `run_index` does not record."""
        opening = open_index(
            self._settings,
            self._name,
            RunOptions(),
            run_id=f"{WATCH}{self.alias}",
            keep=self._open(),
            looked_at=looked_at,
        )
        with collect_seldom(), opening as opened:
            self._require_own_settings(opened)
            if self._steps is None:
                self._steps = LocalSteps(self._settings, turn=_embedding)
            target = run_index(
                opened,
                self._steps,
                record,
                interruption=TakingTurns(self._is_stopped),
                checks=ServiceChecks(recent=self._answers),
            )
            if record.error is None:
                self._has_written = True
            if isinstance(self._source, DigestSource):
                # The rest of a burst and newer changes take turns. After a run that paused, the
                # next one reads only the buckets that changed since, and leaves the others to the
                # run after it.
                self._source.fresh_first = record.paused and not self._source.left
            if record.error is not None or target is None:
                return _IndexState()
            opened.store.hand_over()
            return self._read_state(opened, target, looked_at)

    def _read_state(self, opened: Opened, target: Target, looked_at: float) -> _IndexState:
        ledger = opened.ledger
        next_try = ledger.next_try(target.collection.id, ledger.clock())
        reached = ledger.reached().get(self.alias)
        # The time of an earlier run stays while a document is failed or held back.
        is_complete = reached is not None and reached.at >= looked_at
        return _IndexState(next_try, is_complete)

    def _open(self) -> tuple[Source, Ledger, Store]:
        """Open what is not open yet. A tuple, because `open_index` takes it."""
        settings = self._settings
        if self._ledger is None:
            self._ledger = Ledger(settings.ledger_url)
        if self._source is None:
            self._source = open_source(settings, settings.index(self._name))
        if self._store is None:
            self._store = open_store(settings.store, patience=PATIENCE)
        return self._source, self._ledger, self._store

    def _close_after(self, error: RagIndexError | None) -> None:
        """Close what the next run cannot use, or does not need."""
        if error is not None:
            # A connection may be broken.
            self.close()
        elif self._steps is not None and self._steps.has_started_workers:
            # The run was large enough for processes that embed. They are not kept.
            self._steps.close()
            self._steps = None

    def _require_own_settings(self, opened: Opened) -> None:
        """Raise SettingsReplaced if the index was written by other settings than this watch has.

        Example: this watch is on a second machine, whose settings file is an older one.
        """
        live = opened.live
        # The first run of a watch writes by its settings, whatever the index was written by.
        if live is None or not self._has_written:
            return
        if live.written_by == scan_settings(self._settings, opened.index):
            return
        raise SettingsReplaced(
            f"index {self._name} was last written by other settings than this watch has; "
            f"`rag-index index {self._name}` with those of {self._settings.path} lets it go on"
        )
