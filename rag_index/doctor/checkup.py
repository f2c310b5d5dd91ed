"""A check-up: what source, ledger and store hold of an index is compared under its lock, and told as findings.

Ledger, store and embedder are opened once for all indexes. A ledger that cannot be read is a finding of its own.
"""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.changes.opening import feed_health
from rag_index.chunking import open_chunker
from rag_index.database.urls import is_file
from rag_index.doctor.collection_state import CollectionState
from rag_index.doctor.findings import Advice, Diagnosis, Finding, count_phrase, kept_history, trash_bytes
from rag_index.doctor.settings_advice import settings_advice
from rag_index.documents.keys import document_id
from rag_index.embedders import identify
from rag_index.embedders.adapted import settings_for
from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import (
    EmbedderError,
    EmbedderUnavailable,
    LedgerError,
    LedgerUnavailable,
    RagIndexError,
    SettingsError,
    StoreBusy,
    StoreError,
    StoreRefused,
)
from rag_index.evaluation.gate import check_gate
from rag_index.indexing.delete_guard import held_back
from rag_index.indexing.diff import diff
from rag_index.indexing.reconcile import Scratch, compare_points
from rag_index.indexing.target import Target, recognised
from rag_index.ledger import Channels, Ledger, reconciled_by, unwanted_indexes
from rag_index.ledger.lease import IndexLease
from rag_index.sources import open_source
from rag_index.stores import REST_REMEDY, open_store, server_collections

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.chunking import Chunker
    from rag_index.embedders import EmbedderIdentity
    from rag_index.indexing.reconcile import Matches
    from rag_index.ledger import Collection
    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources import Source
    from rag_index.stores import Store

MAX_PAGE_ROWS = 5000
BETTER_WEIGHT = (
    "one alone finds more than both; `rag-index evaluate --tune-fusion` chooses [retrieve] dense_weight by your own "
    "queries, and `rag-index adapt` or another embedder may know these texts better"
)
DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """Numbers of documents that the next run would index or delete; none of them is wrong."""

    new: int
    changed: int
    gone: int

    def __str__(self) -> str:
        counts = ((self.new, "new"), (self.changed, "changed"), (self.gone, "gone"))
        return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def scan_source(scratch: Scratch, ledger: Ledger, source: Source, collection_id: int, rows: int) -> SourceChanges:
    """Record the source's documents, and those with text that the ledger has as empty; return what the next run does.

    That leaves documents out that were given up. Pages have `rows` documents. Raises what a source raises.
    """
    source.check()
    new = changed = 0
    any_failures = ledger.count_failures(collection_id) > 0
    cursor: Any = None
    while True:
        page = source.page(cursor, rows)
        documents = page.documents
        known = ledger.known(collection_id, documents.keys)
        failed = ledger.failures(collection_id, documents.keys) if any_failures else {}
        scratch.add_source_keys([*documents.keys, *(failure.key for failure in page.unreadable)])
        scratch.add_not_empty(
            key
            for key, text, text_hash in zip(documents.keys, documents.texts, documents.text_hashes, strict=True)
            if text and (row := known.get(key)) and not (row.chunks or row.pending) and row.text_hash == text_hash
        )
        page_diff = diff(documents, known, failed)
        new += page_diff.new
        changed += len(page_diff.to_embed) - page_diff.new + len(page_diff.payload_only) + len(page_diff.emptied)
        cursor = page.cursor
        if cursor is None:
            return SourceChanges(new, changed, scratch.count_gone(collection_id))


def point_findings(index: str, scratch: Scratch, collection: Collection) -> Iterator[Finding]:
    """Yield the findings about a collection's points, after both scans or after the store's alone."""
    cid, name = collection.id, collection.name
    remedy = (
        f"`rag-index doctor --repair` embeds them again; so does `rag-index rebuild {index}`, with all other documents"
    )
    for kind, found, problem in (
        (
            "missing_documents",
            scratch.wrong(cid, "missing"),
            f"without a point in {name}, although the ledger has them as committed",
        ),
        (
            "wrong_chunks",
            scratch.wrong(cid, "miscounted"),
            f"with another number of chunks in {name} than in the ledger",
        ),
        (
            "wrong_payloads",
            scratch.wrong(cid, "altered"),
            f"whose payload in {name} does not match the ledger's hashes",
        ),
        (
            "missing_words",
            scratch.wrong(cid, "wordless"),
            f"with a point in {name} that lacks the sparse vector of its words",
        ),
        ("unknown_documents", scratch.unknown_documents(), f"in the source and in {name}, but not in the ledger"),
    ):
        if found.count:
            yield _document_finding(index, kind, found, problem, remedy)
    if (orphans := scratch.orphans()).count:
        examples = tuple(_display_key(key) for key in orphans.keys)
        points = count_phrase(orphans.count, "point", examples)
        yield Finding(
            index, "orphan_points", orphans.count, f"{points} in {name} that neither ledger nor source explains",
            "`rag-index doctor --repair` deletes them", examples,
        )  # fmt: skip
    if (pending := scratch.pending(cid)).count:
        problem = "still pending because a run ended while it wrote them"
        remedy = f"`rag-index index {index}` writes them again; so does `rag-index doctor --repair`"
        yield _document_finding(index, "pending_documents", pending, problem, remedy)


def _document_finding(index: str, kind: str, found: Matches, problem: str, remedy: str) -> Finding:
    examples = tuple(_display_key(key) for key in found.keys)
    message = f"{count_phrase(found.count, 'document', examples)} {problem}"
    return Finding(index, kind, found.count, message, remedy, examples)


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
    scratch: Scratch
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
        """Why the model that writes contexts did not answer."""

    def state(self) -> CollectionState:
        """Return the state of the index's collections now."""
        resources = self.resources
        fits = None
        if resources.identity is not None and (chunker := self._chunker()) is not None:
            places = (resources.ledger, resources.store, self.alias)

            def fits(collection: Collection) -> bool:
                identity = _identity_of(collection, resources)
                if identity is None:
                    return False
                return Target(*places, recognised(identity, *places), chunker, bm25_model(self.index)).fits(collection)

        keep = resources.settings.store.keep_previous
        return CollectionState.read(
            self.index.name, self.alias, resources.ledger, resources.store, keep=keep, fits=fits
        )

    def _chunker(self) -> Chunker | None:
        """Return the chunker, or None if the model that writes contexts does not answer."""
        try:
            return open_chunker(self.resources.settings, self.index)
        except (EmbedderUnavailable, EmbedderError) as error:
            self.context_error = str(error)
            return None

    def diagnose(self) -> Diagnosis:
        """Return all findings and advice. Raises transient errors, and what a ledger raises."""
        diagnosis = Diagnosis()
        state = self.state()
        diagnosis.findings += state.findings()
        self.resources.scratch.clear()
        current = state.current
        changes = self._scan_source(current, diagnosis)
        if current is not None:
            self._scan_store(current, diagnosis)
            self._report_failed(current, diagnosis)
        self._check_gate(diagnosis)
        self._advise(state, changes, diagnosis)
        if self.context_error:
            message = (
                "the model that writes contexts does not answer, so settings and chunks were not compared: "
                f"{self.context_error}"
            )
            diagnosis.advice.append(Advice(self.index.name, message))
        return diagnosis

    def _scan_source(self, current: Collection | None, diagnosis: Diagnosis) -> SourceChanges | None:
        """Scan the source and return what changed, or None if it cannot be read, which is a finding."""
        settings, resources = self.resources.settings, self.resources
        self.source_read = False
        try:
            with closing(open_source(settings, self.index)) as source:
                rows = min(settings.source.page_rows, MAX_PAGE_ROWS)
                collection_id = current.id if current else -1
                changes = scan_source(resources.scratch, resources.ledger, source, collection_id, rows)
        except (LedgerError, LedgerUnavailable):
            raise
        except RagIndexError as error:
            remedy = "correct it; until then the index stays as it is"
            diagnosis.findings.append(Finding(self.index.name, "unreadable_source", 1, str(error), remedy))
            return None
        self.source_read = True
        return changes

    def _scan_store(self, current: Collection, diagnosis: Diagnosis) -> None:
        """Scan the points of the live collection and add findings about them."""
        resources, name = self.resources, self.index.name
        try:
            for tallies, orphans in compare_points(resources.ledger, resources.store, name, current):
                resources.scratch.add_tallies(tallies)
                resources.scratch.add_orphans(orphans)
        except (StoreBusy, StoreRefused):  # the collection may be in order: nobody could look
            raise
        except StoreError as error:
            diagnosis.findings.append(
                Finding(
                    self.index.name, "unreadable_collection", 1, str(error),
                    "restore the store from a backup; or `rag-index doctor --repair` builds a new collection beside it",
                    (current.name,),
                )
            )  # fmt: skip
            return
        if difference := resources.ledger.different_commits(current, resources.store.commit_mark(current.name)):
            remedy = f"{reconciled_by(name)}; so does `rag-index doctor --repair`"
            diagnosis.findings.append(Finding(name, "restored", 1, difference, remedy, (current.name,)))
        diagnosis.findings += point_findings(name, resources.scratch, current)

    def _report_failed(self, current: Collection, diagnosis: Diagnosis) -> None:
        """Add a finding about the failed documents that the ledger lists."""
        failed = self.resources.scratch.failed(current.id)
        if failed.count:
            name, keys = self.index.name, failed.keys
            failures = self.resources.ledger.failures(current.id, keys[:1])
            reason = "; ".join(f"reason of the first: {failure.reason}" for failure in failures.values())
            examples = tuple(map(document_id, keys))
            diagnosis.findings.append(
                Finding(
                    name, "failed_documents", failed.count,
                    f"{count_phrase(failed.count, 'document', examples)} could not be indexed; {reason}",
                    f"list them with `rag-index failed {name}` and correct them in the source; then run `rag-index "
                    f"retry-failed {name}`, which --repair does too", examples,
                )
            )  # fmt: skip

    def _check_gate(self, diagnosis: Diagnosis) -> None:
        """Add a finding about a golden file that the gate cannot use: the next rebuild would refuse to start."""
        try:
            check_gate(self.resources.settings, self.index)
        except SettingsError as error:
            remedy = "correct it, or remove the table; until then a rebuild ends at its start"
            diagnosis.findings.append(Finding(self.index.name, "unusable_gate", 1, str(error), remedy))

    def _advise(self, state: CollectionState, changes: SourceChanges | None, diagnosis: Diagnosis) -> None:
        """Add advice about work that the next run would do."""
        name = self.index.name
        if state.live is None and not diagnosis.findings:
            diagnosis.advice.append(Advice(name, f"nothing is indexed yet; run `rag-index index {name}`"))
        elif changes is not None and state.current is not None and str(changes):
            message = f"{changes} since the last run; the next run indexes that, or `rag-index index {name}` does now"
            diagnosis.advice.append(Advice(name, message))
        if state.current is not None and (held := self.resources.ledger.count_held(state.current.id)):
            diagnosis.advice.append(Advice(name, held_back(held, name)))
        channels = Channels.decode(state.current.channels) if state.current is not None else None
        weight = self.resources.settings.dense_weight
        if channels is not None and channels.dense_weight == weight and channels.one_is_better:
            diagnosis.advice.append(Advice(name, f"{channels}: {BETTER_WEIGHT}"))
        for collection in state.unfinished if state.live is not None else ():
            message = f"the rebuild {collection.name} is not finished; `rag-index rebuild {name}` resumes it"
            diagnosis.advice.append(Advice(name, message))


def examine(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, or all if `names` is empty. Nothing but the locks is changed.

    Raises UnknownIndex, IndexLocked, StoreBusy, StoreRefused if a server may not be read, and TransientError if store
    or ledger do not answer.
    """
    indexes = settings.named(names)
    if damage := ledger_damage(settings):
        return Diagnosis([damaged_ledger(settings, damage)])
    diagnosis, trash = Diagnosis(), trash_bytes(settings)
    with open_resources(settings) as resources:
        diagnosis.kept = kept_history(settings, resources.ledger, trash=trash)
        for index in indexes:
            with lock_index(resources, index):
                found = Checkup(resources, index).diagnose()
            diagnosis.findings += found.findings
            diagnosis.advice += found.advice
        others = unwanted_indexes(settings, resources.ledger, resources.store.aliases())
        diagnosis.advice += [Advice(index, sentence) for index, sentence in others.items()]
        server = server_collections(resources.store)
        if server is not None and (reason := server.fallback()):
            diagnosis.advice.append(Advice(None, f"{reason}, so runs write over REST, which is slower: {REST_REMEDY}"))
        if error := resources.embedder_error:
            message = f"the embedder does not answer, so settings and vectors were not compared: {error}"
            diagnosis.advice.append(Advice(None, message))
        diagnosis.advice += settings_advice(settings, indexes)
        _check_feed(settings, resources.ledger, diagnosis)
    return diagnosis


def _check_feed(settings: Settings, ledger: Ledger, diagnosis: Diagnosis) -> None:
    """Add findings about the log or the queue by which a watch learns of changes."""
    health = feed_health(settings, ledger)
    remedy = "until then changes are found by the next run, or `rag-index index` now"
    diagnosis.findings += [Finding(None, "broken_feed", 1, problem, remedy) for problem in health.broken]
    diagnosis.advice += [Advice(None, warning) for warning in health.warnings]


@contextmanager
def open_resources(settings: Settings) -> Iterator[Resources]:
    """Open ledger and store, then ask the embedder for its identity: the order in which a run does it."""
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        closing(open_store(settings.store, wait=settings.run.wait)) as store,
    ):
        identity, error = _identify(settings)
        yield Resources(settings, ledger, store, Scratch(ledger), identity, error)


@contextmanager
def lock_index(resources: Resources, index: IndexSettings) -> Iterator[IndexLease]:
    """Hold an index's lock, so that no run writes it meanwhile. Raises IndexLocked."""
    with IndexLease(resources.ledger, resources.settings.alias(index.name), f"doctor-{uuid.uuid4()}") as lease:
        yield lease


def ledger_damage(settings: Settings) -> str:
    """Return SQLite's words about a ledger file that it cannot read; "" if it can, or if there is no such file."""
    url = settings.ledger_url
    if not is_file(url):
        return ""
    try:
        with closing(Ledger(url)) as ledger, ledger.transaction() as connection:
            answer = str(connection.scalar(sa.text("PRAGMA quick_check(1)")))
        return "" if answer == "ok" else answer
    except LedgerError as error:
        origin = getattr(error.__cause__, "orig", None)
        if getattr(origin, "sqlite_errorcode", 0) & 0xFF not in DAMAGE_CODES:
            raise
        return str(origin)


def damaged_ledger(settings: Settings, damage: str) -> Finding:
    """Return the finding about a ledger that cannot be read; no index can be examined before it is repaired."""
    file = str(settings.ledger_url.database)
    return Finding(
        None, "damaged_ledger", 1, f"the ledger {file} is damaged: {' '.join(damage.split())}",
        "restore it from a backup; or `rag-index doctor --repair` renames it and makes a new one from the store, "
        "without embedding", (file,),
    )  # fmt: skip


def _identity_of(collection: Collection, resources: Resources) -> EmbedderIdentity | None:
    """Return the identity of the embedder with the collection's own table; None if that cannot be used."""
    embedder = resources.settings.embedder
    own = settings_for(embedder, collection.embedder)
    if own == embedder:
        return resources.identity
    try:
        return identify(own)
    except EmbedderError:
        return None


def _identify(settings: Settings) -> tuple[EmbedderIdentity | None, str]:
    """Return the embedder's identity, or None and the reason."""
    try:
        return identify(settings.embedder), ""
    except RagIndexError as error:
        return None, str(error)
