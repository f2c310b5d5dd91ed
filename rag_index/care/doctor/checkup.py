"""A check-up: what source, ledger and store hold of an index is compared under its lock, and told as findings. Ledger,
store and embedder are opened once for all indexes. A ledger that cannot be read is a finding of its own."""

from __future__ import annotations

import datetime as dt
import sqlite3
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index import errors
from rag_index.care.doctor.collection_state import Advice, CollectionState, Diagnosis, Finding, count_phrase, finding
from rag_index.components.chunking import Chunker, open_chunker
from rag_index.components.embedders import EmbedderIdentity, identify
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.components.ledger import Collection, Ledger, unwanted_indexes
from rag_index.components.ledger.runs import CHECK_UP, IndexLease
from rag_index.components.sources import Source, all_pages, open_source
from rag_index.components.sources.left_behind import left_behind
from rag_index.components.sources.policies import RowPolicies
from rag_index.components.sources.sql import SqlSource
from rag_index.components.stores import REST_REMEDY, on_server, open_own_store
from rag_index.core.database import is_file
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.outcome import count_of
from rag_index.etl.collection import mismatch, recognised
from rag_index.etl.delete_guard import held_back
from rag_index.etl.reconcile import Scratch, compare_points
from rag_index.etl.tombstones import without_erased
from rag_index.search.evaluation.gate import check_gate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import IndexSettings, Settings

MAX_PAGE_ROWS = 5000
DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
PROBLEMS = {
    "missing_documents": "without a point in {name}, although the ledger has them as committed",
    "wrong_chunks": "with another number of chunks in {name} than in the ledger",
    "wrong_payloads": "whose payload in {name} does not match the ledger's hashes",
    "unknown_documents": "in the source and in {name}, but not in the ledger",
    "pending_documents": "still pending because a run ended while it wrote them",
    "orphan_points": "in {name} that neither ledger nor source explains",
}


def _display_key(key: str) -> str:
    """Return a key as searches show it; text that is not a key is returned as it is."""
    try:
        return document_id(key)
    except (ValueError, LookupError, StopIteration):
        return key


@dataclass(frozen=True, slots=True)
class Resources:
    """Everything that a check-up holds open. If the embedder did not answer, `identity` is None."""

    settings: Settings
    ledger: Ledger
    store: Store
    identity: EmbedderIdentity | None
    embedder_error: str = ""


class Checkup:
    """The examination of one index, whose lock the caller holds."""

    def __init__(self, resources: Resources, index: IndexSettings) -> None:
        self.resources = resources
        self.index = index
        self.alias = resources.settings.alias(index.name)
        self.source_read = False
        self.context_error = ""
        self.scratch: Scratch

    def state(self) -> CollectionState:
        """Return the state of the index's collections now."""
        resources, fits = self.resources, None
        if resources.identity is not None:
            try:
                fits = partial(self._fits, open_chunker(resources.settings, self.index), resources.identity)
            except (errors.EmbedderUnavailable, errors.EmbedderError) as error:
                self.context_error = str(error)
        keep = resources.settings.store.keep_previous
        return CollectionState.read(
            self.index.name, self.alias, resources.ledger, resources.store, keep=keep, fits=fits
        )

    def _fits(self, chunker: Chunker, identity: EmbedderIdentity, collection: Collection) -> bool:
        places = (self.resources.ledger, self.resources.store, self.alias)
        return not mismatch(collection, recognised(identity, *places), chunker, bm25_model(self.index))

    def diagnose(self) -> Diagnosis:
        """Return all findings and advice. Raises transient errors, and what a ledger raises."""
        diagnosis = Diagnosis()
        state = self.state()
        diagnosis.findings += state.findings()
        ledger = self.resources.ledger
        scratch = self.scratch = Scratch(ledger, self.alias)
        self._scan_source(state.current, diagnosis)
        if (current := state.current) is not None:
            self._scan_store(current, diagnosis)
            if (failed := scratch.failed(current.id)).count:
                failures = ledger.failures(current.id, failed.keys[:1]).values()
                reason = "; ".join(f"reason of the first: {failure.reason}" for failure in failures)
                examples = [*map(document_id, failed.keys)]
                message = f"{count_phrase(failed.count, 'document', examples)} could not be indexed; {reason}"
                found = finding(self.index.name, "failed_documents", message, examples, count=failed.count)
                diagnosis.findings.append(found)
        try:
            check_gate(self.resources.settings, self.index)  # the next rebuild would refuse to start
        except errors.SettingsError as error:
            diagnosis.findings.append(finding(self.index.name, "unusable_gate", str(error)))
        self._advise(state, diagnosis)
        return diagnosis

    def _scan_source(self, current: Collection | None, diagnosis: Diagnosis) -> None:
        """Record the source's documents, and those with text that the ledger has as empty. That the source cannot be
        read is a finding."""
        settings, ledger, scratch = self.resources.settings, self.resources.ledger, self.scratch
        self.source_read = False
        try:
            with closing(open_source(settings, self.index)) as source:
                source.check()
                self._look_at_policies(source, diagnosis)
                for whole in all_pages(source, min(settings.source.page_rows, MAX_PAGE_ROWS)):
                    page = without_erased(ledger, settings, self.index, whole)
                    documents = page.documents
                    known = ledger.known(current.id if current else -1, documents.keys)
                    scratch.add_source_keys([*documents.keys, *(failure.key for failure in page.unreadable)])
                    texts = zip(documents.keys, documents.texts, documents.text_hashes, strict=True)
                    scratch.add_not_empty(
                        key
                        for key, text, text_hash in texts
                        if text and (row := known.get(key)) and not (row.chunks or row.pending)
                        if row.text_hash == text_hash
                    )
                self.source_read = True
        except (errors.LedgerError, errors.LedgerUnavailable):
            raise
        except errors.RagIndexError as error:
            diagnosis.findings.append(finding(self.index.name, "unreadable_source", str(error)))

    def _look_at_policies(self, source: Source, diagnosis: Diagnosis) -> None:
        """Add what everybody would see for whom it is not as a finding; advise of what the reader does not see."""
        policies = source.row_policies() if isinstance(source, SqlSource) else RowPolicies()
        if warning := policies.warning(access=self.index.access is not None):
            diagnosis.findings.append(finding(self.index.name, "ignored_policies", warning))
        diagnosis.advice += [Advice(self.index.name, note) for note in policies.notes()]

    def _scan_store(self, current: Collection, diagnosis: Diagnosis) -> None:
        ledger, store, scratch = self.resources.ledger, self.resources.store, self.scratch
        index, name, cid = self.index.name, current.name, current.id
        try:
            for tallies, orphans in compare_points(ledger, store, index, current):
                scratch.add_tallies(tallies)
                scratch.add_orphans(orphans)
        except (errors.StoreBusy, errors.StoreRefused):  # the collection may be in order: it could not be read
            raise
        except errors.StoreError as error:
            diagnosis.findings.append(finding(index, "unreadable_collection", str(error), [name]))
            return
        if difference := ledger.different_commits(current, store.commit_mark(name)):
            diagnosis.findings.append(finding(index, "restored", difference, [name]))
        found = {
            "missing_documents": scratch.wrong(cid, "missing"),
            "wrong_chunks": scratch.wrong(cid, "miscounted"),
            "wrong_payloads": scratch.wrong(cid, "altered"),
            "unknown_documents": scratch.unknown_documents(),
            "pending_documents": scratch.pending(cid),
            "orphan_points": scratch.orphans(),
        }
        for kind, wrong in found.items():
            if wrong.count:
                examples = [*map(_display_key, wrong.keys)]
                noun = count_phrase(wrong.count, "point" if kind == "orphan_points" else "document", examples)
                message = f"{noun} {PROBLEMS[kind].format(name=name)}"
                diagnosis.findings.append(finding(index, kind, message, examples, count=wrong.count))

    def _advise(self, state: CollectionState, diagnosis: Diagnosis) -> None:
        """Add advice about work that the next run would do, and about what was not compared."""
        name, resources = self.index.name, self.resources
        messages = []
        if state.live is None and not diagnosis.kinds(name) - {"ignored_policies"}:
            messages.append(f"nothing is indexed yet; run `rag-index index {name}`")
        if state.current is not None and state.current.held:
            messages.append(held_back(state.current.held, name))
        pending = resources.ledger.pending_erasures(self.alias)
        if pending.since is not None:
            count, since = len(pending.hashes), dt.datetime.fromtimestamp(pending.since, dt.UTC)
            texts = f"texts of {count_of(count, 'deleted or changed document')}"
            message = f"the store's files may keep {texts} since {since:%Y-%m-%d %H:%M} UTC"
            if resources.settings.store.erase or pending.named:  # they are to be erased
                diagnosis.findings.append(finding(name, "pending_erasures", message, count=count))
            else:
                messages.append(f"{message}; `rag-index erase {name}` leaves no file with them")
        messages += (
            f"the rebuild {collection.name} is not finished; `rag-index rebuild {name}` resumes it"
            for collection in (state.unfinished if state.live is not None else ())
        )
        if self.context_error:
            messages.append(
                "the model that writes contexts does not answer, so settings and chunks were not compared: "
                f"{self.context_error}"
            )
        diagnosis.advice += [Advice(name, message) for message in messages]


def examine(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, or all if `names` is empty. Nothing but the locks is changed. Raises UnknownIndex,
    IndexLocked, StoreBusy, StoreRefused if a server may not be read, and TransientError if store or ledger do not
    answer."""
    indexes = settings.named(names)
    if damage := ledger_damage(settings):
        return Diagnosis([damage])
    diagnosis = Diagnosis()
    with open_resources(settings) as resources:
        for index in indexes:
            with lock_index(resources, index):
                found = Checkup(resources, index).diagnose()
            diagnosis.findings += found.findings
            diagnosis.advice += found.advice
        others = unwanted_indexes(settings, resources.ledger, resources.store.aliases())
        diagnosis.advice += [Advice(index, sentence) for index, sentence in others.items()]
        messages = []
        server = on_server(resources.store)
        if server is not None and (reason := server.fallback()):
            messages.append(f"{reason}, so runs write over REST, which is slower: {REST_REMEDY}")
        if error := resources.embedder_error:
            messages.append(f"the embedder does not answer, so settings and vectors were not compared: {error}")
        diagnosis.advice += [Advice(None, message) for message in messages]
        diagnosis.findings += [finding(None, "left_behind", sentence) for sentence in left_behind(settings)]
        diagnosis.findings.sort(key=lambda one: one.kind != "ignored_policies")
    return diagnosis


@contextmanager
def open_resources(settings: Settings) -> Iterator[Resources]:
    """Open ledger and store, then ask the embedder for its identity: the order in which a run does it."""
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        closing(open_own_store(settings)) as store,
    ):
        identity, unanswered = None, ""
        try:
            identity = identify(settings.embedder)
        except errors.RagIndexError as error:
            unanswered = str(error)
        yield Resources(settings, ledger, store, identity, unanswered)


def lock_index(resources: Resources, index: IndexSettings) -> IndexLease:
    """Return the lock of an index, which raises IndexLocked. While a block holds it, no run writes the index."""
    return IndexLease(resources.ledger, resources.settings.alias(index.name), f"{CHECK_UP}{uuid.uuid4()}")


def ledger_damage(settings: Settings) -> Finding | None:
    """Return the finding about a ledger file that SQLite cannot read, before whose repair no index can be examined."""
    url = settings.ledger_url
    if not is_file(url):
        return None
    try:
        with closing(Ledger(url)) as ledger, ledger.transaction() as connection:
            damage = str(connection.scalar(sa.text("PRAGMA quick_check(1)")))
    except errors.LedgerError as error:
        origin = getattr(error.__cause__, "orig", None)
        if getattr(origin, "sqlite_errorcode", 0) & 0xFF not in DAMAGE_CODES:
            raise
        damage = str(origin)
    file = str(url.database)
    message = f"the ledger {file} is damaged: {' '.join(damage.split())}"
    return finding(None, "damaged_ledger", message, [file]) if damage != "ok" else None
