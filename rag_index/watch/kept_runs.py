"""The ordinary runs of one index, in a process that stays: what a run is slow to open is kept for the next one. A run
looks again after it has embedded for a while, and ends at its next commit if the watch is to end."""

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
from rag_index.components.sources.hints import restless_column
from rag_index.components.sources.sql import SqlSource
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
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan

logger = logging.getLogger("rag_index.watch")
EMBED_SECONDS = 30.0
"""After so much embedding a run ends, and the next one looks what has changed meanwhile."""
BELIEVED_SECONDS = 30.0
"""How long what a service said is believed: a server may get another model at any time."""
PAID_STAGES = ("embed", "wait", "submit", "commit", "workers", "erase")
"""The stages that grow with what has changed, and one that comes once a day. The others are the price of a run."""
_embedding = threading.Lock()
"""Held while this process embeds, whose embedder serves one index at a time."""


class TakingTurns(Interruption):
    """Ends a run once it has embedded for a while, so that the next one looks what has changed meanwhile, and as soon
    as the watch is to end. A collection that was never complete is completed without a pause."""

    def __init__(self, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        self._may_pause = False
        self._embeds_since: float | None = None

    def begin(self, scan: Scan) -> None:
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
    price: float
    """The seconds that it took besides what grows with the changes."""
    next_try: float | None = None
    """When a document that failed is to be tried again; None if none is."""
    claims: bool = False
    """Whether the index is complete by the look before the run: no document has failed or is held back."""
    restless: str = ""
    """The column that is another one each time that it is read, if it makes most of the index another one."""

    @property
    def complete(self) -> bool:
        """Whether the run has read and written everything."""
        return self.error is None and not self.paused


class KeptRuns:
    """The runs of one index, and what stays open between them. For one thread at a time."""

    def __init__(self, settings: Settings, name: str, stopped: Callable[[], bool]) -> None:
        self.alias = settings.alias(name)
        run = settings.run.model_copy(update={"wait": 0.0, "wait_for_recovery": PATIENCE})  # the watch backs off
        self._settings = settings.model_copy(update={"run": run})
        self._name, self._stopped = name, stopped
        self._source: Source | None = None
        self._ledger: Ledger | None = None
        self._store: Store | None = None
        self._steps: LocalSteps | None = None
        self._answers = RecentAnswers(BELIEVED_SECONDS)
        self._wrote = False
        self._changed_most = 0
        """How many runs one after the other have changed most of the index."""

    def run(self, looked_at: float) -> RunEnd:
        """Carry out the ordinary run of the index, after a look at its source at that time."""
        began, record, next_try, claims = time.monotonic(), RunRecord(self._name), None, False
        error: RagIndexError | None = None
        try:
            given, run_id, keep = (self._settings, self._name, RunOptions()), f"{WATCH}{self.alias}", self._open()
            opening = open_index(*given, run_id=run_id, keep=keep, looked_at=looked_at)
            with collect_seldom(), opening as opened:
                self._require_own(opened)
                self._steps = self._steps or LocalSteps(self._settings, turn=_embedding)
                target = run_index(
                    opened,
                    self._steps,
                    record,
                    interruption=TakingTurns(self._stopped),
                    checks=ServiceChecks(recent=self._answers),
                )
                error, self._wrote = record.error, self._wrote or record.error is None
                if isinstance(self._source, DigestSource):  # what is left, and what changes meanwhile, take turns
                    self._source.fresh_first = record.paused and not self._source.left
                if error is None and target is not None:
                    opened.store.hand_over()
                    next_try = opened.ledger.next_try(target.collection.id, opened.ledger.clock())
                    reached = opened.ledger.reached().get(self.alias)
                    claims = reached is not None and reached.at >= looked_at
        except RagIndexError as raised:
            error = raised
        except Exception as raised:  # not one of ours: the other indexes do not pay for it
            logger.error("%s: %s", self._name, described(raised), exc_info=without_messages(raised))
            error = TerminalError(described(raised))
        if error is not None:
            self.close()  # a connection may be broken
        elif self._steps is not None and self._steps.has_started_workers:  # processes that embed are not kept
            self._steps.close()
            self._steps = None
        restless = self._restless(record.outcome) if error is None else ""
        paid = sum(record.stopwatch.seconds[stage] for stage in PAID_STAGES)
        price = max(0.0, time.monotonic() - began - paid)
        return RunEnd(record.outcome, error, record.paused, price, next_try, claims, restless)

    def _restless(self, outcome: IndexOutcome) -> str:
        changed = outcome.changed + outcome.payload_only
        self._changed_most = self._changed_most + 1 if 2 * changed > outcome.documents else 0
        if self._changed_most < 2 or not isinstance(self._source, SqlSource):
            return ""
        return restless_column(self._settings, self._settings.index(self._name))

    def let_go(self) -> None:
        """Let other processes write to the embedded store, if they wait for that, and close what is idle. No run may be
        under way."""
        if self._store is not None:
            self._store.let_go()

    def close(self) -> None:
        """Close everything. The next run opens it again."""
        opened = (self._source, self._store, self._steps, self._ledger)
        self._source = self._store = self._steps = self._ledger = None
        self._answers.clear()
        for one in opened:
            with suppress(Exception):
                if one is not None:
                    one.close()

    def _open(self) -> tuple[Source, Ledger, Store]:
        settings = self._settings
        self._ledger = self._ledger or Ledger(settings.ledger_url)
        self._source = self._source or open_source(settings, settings.index(self._name))
        self._store = self._store or open_store(settings.store, patience=PATIENCE)
        return self._source, self._ledger, self._store

    def _require_own(self, opened: Opened) -> None:
        """Raise SettingsReplaced if others write the index by other settings than this watch has written it by."""
        live, settings = opened.live, self._settings
        if self._wrote and live and live.written_by != scan_settings(settings, opened.index):
            raise SettingsReplaced(
                f"index {self._name} was last written by other settings than this watch has; `rag-index index "
                f"{self._name}` with those of {settings.path} lets it go on"
            )
