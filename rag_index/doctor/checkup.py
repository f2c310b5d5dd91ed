"""A check-up: ledger, store and embedder opened once, and each index looked at under its lock."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.chunking import open_chunker
from rag_index.database.urls import is_file
from rag_index.doctor.collection_state import CollectionState
from rag_index.doctor.compare import point_findings, see_source, see_store
from rag_index.doctor.findings import Advice, Diagnosis, Finding, counted
from rag_index.doctor.scratch import Scratch
from rag_index.doctor.settings_advice import settings_advice
from rag_index.documents.keys import document_id
from rag_index.embedders import open_embedder
from rag_index.errors import (
    EmbedderError,
    EmbedderUnavailable,
    LedgerError,
    LedgerUnavailable,
    RagIndexError,
    StoreBusy,
    StoreError,
)
from rag_index.indexing.target import Target
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.sources import open_source
from rag_index.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.chunking import Chunker
    from rag_index.doctor.compare import Work
    from rag_index.embedders import EmbedderIdentity
    from rag_index.ledger import Collection
    from rag_index.settings import IndexSettings, Settings
    from rag_index.stores import Store

__all__ = ["Checkup", "Resources", "damaged_ledger", "examine", "ledger_damage", "locked", "open_all"]

PAGE_ROWS = 5000
DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a check-up holds open. `identity` is None where the embedder did not answer; `silence` is why."""

    settings: Settings
    ledger: Ledger
    store: Store
    scratch: Scratch
    identity: EmbedderIdentity | None
    silence: str = ""


class Checkup:
    """One index, under its lock: what ledger, store and source say of it."""

    def __init__(self, resources: Resources, index: IndexSettings) -> None:
        self.resources = resources
        self.index = index
        self.alias = resources.settings.alias(index.name)
        self.source_read = False
        self.silence = ""

    def state(self) -> CollectionState:
        """How ledger and store stand to each other now."""
        resources = self.resources
        fits = None
        if resources.identity is not None and (chunker := self._chunker()) is not None:
            fits = Target(resources.ledger, resources.store, self.alias, resources.identity, chunker).fits
        keep = resources.settings.store.keep_previous
        return CollectionState.look(
            self.index.name, self.alias, resources.ledger, resources.store, keep=keep, fits=fits
        )

    def _chunker(self) -> Chunker | None:
        """Who cuts; None where the model that writes contexts does not answer (`silence`)."""
        try:
            return open_chunker(self.resources.settings, self.index)
        except (EmbedderUnavailable, EmbedderError) as error:
            self.silence = str(error)
            return None

    def look(self) -> Diagnosis:
        """All that is wrong, and advice. Raises what may pass, and what a ledger raises."""
        found = Diagnosis()
        state = self.state()
        found.findings += state.findings()
        self.resources.scratch.clear()
        current = state.current
        work = self._see_source(current, found)
        if current is not None:
            self._see_store(current, found)
            self._see_failed(current, found)
        self._advise(state, work, found)
        if self.silence:
            said = f"what writes contexts does not answer, so settings and chunks were not compared: {self.silence}"
            found.advice.append(Advice(self.index.name, said))
        return found

    def _see_source(self, current: Collection | None, found: Diagnosis) -> Work | None:
        settings, resources = self.resources.settings, self.resources
        self.source_read = False
        try:
            source = open_source(settings, self.index)
            try:
                rows = min(settings.source.page_rows, PAGE_ROWS)
                work = see_source(resources.scratch, resources.ledger, source, current.id if current else -1, rows)
            finally:
                source.close()
        except (LedgerError, LedgerUnavailable):
            raise
        except RagIndexError as error:
            remedy = "correct it; until then the index stays as it is"
            found.findings.append(Finding(self.index.name, "unreadable_source", 1, str(error), remedy))
            return None
        self.source_read = True
        return work

    def _see_store(self, current: Collection, found: Diagnosis) -> None:
        resources = self.resources
        try:
            see_store(resources.scratch, resources.ledger, resources.store, self.index.name, current)
        except StoreBusy:
            raise
        except StoreError as error:
            found.findings.append(
                Finding(
                    self.index.name, "unreadable_collection", 1, str(error),
                    "restore the store from a backup; or `rag-index doctor --repair` builds the index anew beside it",
                    (current.name,),
                )
            )  # fmt: skip
            return
        found.findings += point_findings(self.index.name, resources.scratch, current)

    def _see_failed(self, current: Collection, found: Diagnosis) -> None:
        failed = self.resources.scratch.failed(current.id)
        if failed.count:
            name, keys = self.index.name, failed.keys
            reasons = self.resources.ledger.failures(current.id, keys[:1])
            why = "; ".join(f"the first for: {failure.reason}" for failure in reasons.values())
            examples = tuple(map(document_id, keys))
            found.findings.append(
                Finding(
                    name, "failed_documents", failed.count,
                    f"{counted(failed.count, 'document', examples)} could not be indexed, {why}",
                    f"`rag-index failed {name}` lists them; mend them in the source, then `rag-index retry-failed "
                    f"{name}`, which --repair does too", examples,
                )
            )  # fmt: skip

    def _advise(self, state: CollectionState, work: Work | None, found: Diagnosis) -> None:
        name = self.index.name
        if state.live is None and not found.findings:
            found.advice.append(Advice(name, f"nothing is indexed yet: `rag-index index {name}` does"))
        elif work is not None and state.current is not None and str(work):
            found.advice.append(
                Advice(name, f"{work} since the last run: for the next one, or `rag-index index {name}` now")
            )
        for collection in state.unfinished if state.live is not None else ():
            said = f"the rebuild {collection.name} is not finished: `rag-index rebuild {name}` goes on with it"
            found.advice.append(Advice(name, said))


def examine(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Look at these indexes, at all where none are named. Nothing is changed but the locks.

    Raises UnknownIndex, IndexLocked, StoreBusy, and TransientError where store or ledger do not answer.
    """
    indexes = settings.named(names)
    if damage := ledger_damage(settings):
        return Diagnosis([damaged_ledger(settings, damage)])
    diagnosis = Diagnosis()
    with open_all(settings) as resources:
        for index in indexes:
            with locked(resources, index):
                found = Checkup(resources, index).look()
            diagnosis.findings += found.findings
            diagnosis.advice += found.advice
        if resources.silence:
            said = f"the embedder does not answer, so settings and vectors were not compared: {resources.silence}"
            diagnosis.advice.append(Advice(None, said))
    diagnosis.advice += settings_advice(settings, indexes)
    return diagnosis


@contextmanager
def open_all(settings: Settings) -> Iterator[Resources]:
    """Ledger, store and the embedder's identity, in the order in which a run takes them."""
    with ExitStack() as stack:
        ledger: Any = stack.enter_context(_closing(Ledger(settings.ledger_url)))
        store: Any = stack.enter_context(_closing(open_store(settings.store, wait=settings.run.wait)))
        identity, silence = _identity(settings)
        yield Resources(settings, ledger, store, Scratch(ledger), identity, silence)


@contextmanager
def locked(resources: Resources, index: IndexSettings) -> Iterator[IndexLease]:
    """Hold an index's lock, so that no run of it is under way. Raises IndexLocked."""
    with IndexLease(resources.ledger, resources.settings.alias(index.name), f"doctor-{uuid.uuid4()}") as lock:
        yield lock


def ledger_damage(settings: Settings) -> str:
    """What SQLite says of a ledger's file that it cannot read; empty where it can, or where there is none yet."""
    url = settings.ledger_url
    if not is_file(url):
        return ""
    try:
        ledger = Ledger(url)
        try:
            with ledger.transaction() as connection:
                said = str(connection.scalar(sa.text("PRAGMA quick_check(1)")))
            return "" if said == "ok" else said
        finally:
            ledger.close()
    except LedgerError as error:
        origin = getattr(error.__cause__, "orig", None)
        if getattr(origin, "sqlite_errorcode", 0) & 0xFF not in DAMAGED:
            raise
        return str(origin)


def damaged_ledger(settings: Settings, damage: str) -> Finding:
    """The finding of a ledger that cannot be read: no index can be looked at before it is mended."""
    file = str(settings.ledger_url.database)
    return Finding(
        None, "damaged_ledger", 1, f"the ledger {file} is damaged: {' '.join(damage.split())}",
        "restore it from a backup; or `rag-index doctor --repair` sets it aside and makes it anew from the store, with "
        "no embedding", (file,),
    )  # fmt: skip


def _identity(settings: Settings) -> tuple[EmbedderIdentity | None, str]:
    embedder = open_embedder(settings.embedder.model_copy(update={"wait_for_recovery": 0.0}))
    try:
        return embedder.identity(), ""
    except RagIndexError as error:
        return None, str(error)
    finally:
        embedder.close()


@contextmanager
def _closing(thing: Any) -> Iterator[Any]:
    try:
        yield thing
    finally:
        thing.close()
