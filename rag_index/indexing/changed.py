"""Changed documents, brought up to date in this process: single ones at once, or a batch of the ledger's inbox.

The steps, the order of writes, the lease and the ledger are those of any run. What the source no longer has is deleted.
What a batch needs and is slow to open stays open from batch to batch; lease and store are opened for each, so that
other runs come in between.
"""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import decode_payload, encode_payload
from rag_index.documents.keys import decode_key, document_id, key_parts, possible_keys
from rag_index.embedders import open_embedder
from rag_index.errors import IndexLocked, RagIndexError, SettingsError, StoreBusy, StoreRestored
from rag_index.indexing.run import Opened, RunOptions, open_run
from rag_index.indexing.steps import Here
from rag_index.ledger import Ledger
from rag_index.ledger.lease import holder
from rag_index.ledger.runs import BATCH, SINGLE
from rag_index.machine.garbage import collect_seldom
from rag_index.sources import SingleDocumentSource, open_source
from rag_index.sources.sql import SqlSource
from rag_index.sources.tables import look_up_columns
from rag_index.stores import Condition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rag_index.chunking import Chunker
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.scan import Scan
    from rag_index.ledger import WaitingChange, WaitingLookUp
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import EmbedderSettings, Settings
    from rag_index.sources import Source, SourcePage

CONDITION_VALUES = 100
"""Values of one condition that the store is asked for."""
FIRST_DOCUMENTS, MIN_DOCUMENTS = 200, 20
"""The size of the first batch of an index, and of the smallest."""
BATCH_SECONDS = 2.0
"""How long a batch should read and embed: later changes and other runs wait for it. What it costs besides, such as the
copy of a large collection, gets no smaller with fewer documents."""
MAX_GROWTH = 4
"""How many times as large as the one before a batch may be."""
IDENTITY_SECONDS = 30.0
"""How long the identity of an embedder is believed; a server may get another model at any time."""


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`.

    A document that failed before is tried again, however often it was tried. Raises SettingsError, before anything is
    written, if an id cannot be one, if neither source nor index has it, or if the index's source cannot be asked for
    single documents; otherwise raises as `open_run`. Every other error of ours ends in the outcome.
    """
    embedder = settings.embedder.model_copy(update={"wait_for_recovery": settings.run.wait})
    options, run_id = RunOptions(retry_failed=True, single=True), f"{SINGLE}{uuid.uuid4()}"
    patient = settings.model_copy(update={"embedder": embedder})
    with (
        open_run(patient, name, options, run_id=run_id) as run,
        closing(NamedDocuments(list(dict.fromkeys(ids)))) as steps,
    ):
        outcome = run.execute(steps)
        if isinstance(run.error, SettingsError):
            raise run.error
        return outcome


class NamedDocuments(Here):
    """The steps of a run over a few documents, whose ids are given: the rest of the index stays as it is."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._ids = ids
        self.page: SourcePage
        self.gone: list[str] = []

    def begin(self, run: IndexRun) -> Scan | None:
        """Read the documents, and begin a scan of them alone. Raises SettingsError before anything is written."""
        name = run.index.name
        if not isinstance(run.source, SingleDocumentSource):
            raise SettingsError(
                f"index {name}: its source cannot be asked for single documents; "
                f"`rag-index index {name}` brings all of it up to date"
            )
        with run.stopwatch.stage("fetch"):
            self.page = run.source.documents(self._ids)
            columns = run.index.key_columns or ["id"]  # without columns an id is the key itself
            keys = {given: possible_keys(key_parts(given, columns)) for given in self._ids}
            live = run.ledger.collection(run.store.aliases().get(run.alias, ""))
            known = (
                set() if live is None else _known_keys(run.ledger, live.id, [k for some in keys.values() for k in some])
            )
            there = {*self.page.documents.keys, *(failure.key for failure in self.page.unreadable)}
            self.check(name, keys, known | there)
            self.gone = sorted(known - there)
        run.choose_embedder()
        embedder = self._given = self.embedder(run)
        return run.begin(self.identity(embedder), self.chunker(run), workers=1, documents=len(self._ids))

    def close(self) -> None:
        """Close the embedder."""
        if self._given is not None:
            self._given.close()

    def check(self, index: str, keys: Mapping[str, Iterable[str]], found: set[str]) -> None:
        """Raise SettingsError if neither the source nor the index has a document: somebody has named it.

        `keys` are the typed keys that each id may stand for, and `found` those that either has.
        """
        for given, possible in keys.items():
            if found.isdisjoint(possible):
                raise SettingsError(
                    f"index {index}: neither the source nor the index has a document {given}; nothing was done"
                )

    def embedder(self, run: IndexRun) -> Embedder:
        """Return the embedder of the index."""
        return open_embedder(run.settings.embedder)

    def identity(self, embedder: Embedder) -> EmbedderIdentity:
        """Return what the embedder is."""
        return embedder.identity()

    def chunker(self, run: IndexRun) -> Chunker:
        """Return the chunker of the index."""
        return run.open_chunker()

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the documents."""
        return self.page

    def delete(self, scan: Scan) -> None:
        """Delete those of the documents that the source no longer has: whoever names them wants it."""
        scan.delete(self.gone)

    def publish(self, scan: Scan) -> None:
        """Verify that the store holds what the ledger says."""
        scan.verify()


def _known_keys(ledger: Ledger, collection_id: int, keys: Sequence[str]) -> set[str]:
    """Return which of these documents a collection has, or lists as failed."""
    return {*ledger.known(collection_id, keys), *ledger.failures(collection_id, keys)}


def look_up(run: IndexRun, *, limit: int) -> None:
    """Put documents into the inbox in place of the look-ups there, of which at most `limit` are done.

    Documents that are more than a burst are left to an ordinary run, which is then asked for. The run has to hold the
    lease of the index. Raises as its source, store and ledger do.
    """
    wanted = run.ledger.waiting_look_ups(run.alias, limit)
    columns: dict[str, list[WaitingLookUp]] = {}
    for one in wanted:
        columns.setdefault(one.column, []).append(one)
    for column, asked in columns.items():
        changed_at = min(one.changed_at for one in asked)
        found = _find(run, column, [decode_key(one.value) for one in asked])
        if found is None:
            run.ledger.need_full_scan(run.alias)
            found = set()
        run.ledger.replace_look_ups(run.alias, asked, ((document_id(key), changed_at) for key in found))


def _find(run: IndexRun, column: str, values: Sequence[Any]) -> set[str] | None:
    """Return the typed keys of the documents to read again; None if they are too many, or cannot be found."""
    if not isinstance(run.source, SqlSource) or column not in look_up_columns(run.index):
        return None  # the settings were changed after the change arrived
    most = run.settings.watch.burst_documents
    found: set[str] = set()
    for keys in (run.source.keys_with(column, values), _keys_in_store(run, column, values)):
        for key in keys:
            found.add(key)
            if len(found) > most:
                return None
    return found


def _keys_in_store(run: IndexRun, column: str, values: Sequence[Any]) -> Iterator[str]:
    """Yield the typed keys of the documents that had one of the values when they were indexed."""
    collection = run.store.aliases().get(run.alias)
    if collection is None or column not in run.index.payload:
        return
    stored = [decode_payload(encode_payload({column: value}))[column] for value in values]
    for first in range(0, len(stored), CONDITION_VALUES):
        wanted = Condition(column, "any", stored[first : first + CONDITION_VALUES])
        for point in run.store.scroll(collection, conditions=[wanted]):
            yield str(point.payload[RESERVED_KEY]["key"])


@dataclass(frozen=True, slots=True)
class Applied:
    """How a batch, or a run in its place, ended: with its outcome, or with the error that ended it."""

    outcome: IndexOutcome | None
    error: RagIndexError | None = None


class BatchIndexer:
    """What stays open between batches: the ledger, the sources, the embedder and the chunkers. Used by one thread."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._ledger: Ledger | None = None
        self._sources: dict[str, Source] = {}
        self._chunkers: dict[str, Chunker] = {}
        self._embedders: dict[str, Embedder] = {}
        """By model: that of an index may have an adapted table."""
        self._identities: dict[Embedder, tuple[EmbedderIdentity, float]] = {}
        self._sizes: dict[str, int] = {}
        """How many documents of each index fit into a batch."""

    def index(self, name: str) -> Applied:
        """Bring a batch of the documents that wait for the index `name` up to date, and take them out of the inbox.

        It has as many documents as are read and embedded in about BATCH_SECONDS, at most `batch_documents`. Look-ups
        that wait are done before. What waits stays there if an error of ours ends the batch, which is returned:
        IndexLocked and StoreBusy if another run holds the index, and whatever source, embedder, store and ledger raise.
        """
        try:
            keep = self._opened(name)
            run_id = f"{BATCH}{self._settings.alias(name)}"
            with (
                collect_seldom(),
                open_run(self._settings, name, RunOptions(single=True), run_id=run_id, keep=keep) as run,
            ):
                applied = self._index(run)
        except RagIndexError as error:
            applied = Applied(None, error)
        if applied.error is not None and not isinstance(applied.error, IndexLocked | StoreBusy):
            self.close()  # a connection may be broken
        return applied

    def locked(self, name: str) -> RagIndexError | None:
        """Return the error that a batch or a run would end with at once, because another run holds the index."""
        try:
            ledger, alias = self._opened(name).ledger, self._settings.alias(name)
            if holder(ledger, alias) is not None:
                return IndexLocked(f"index {alias} is being written by another run: wait until it is done, or stop it")
        except RagIndexError:
            self.close()
        return None

    def close(self) -> None:
        """Close everything. The next batch opens it again."""
        opened = (*self._sources.values(), *self._embedders.values(), *([self._ledger] if self._ledger else ()))
        self._ledger, self._sources, self._chunkers, self._embedders, self._identities = None, {}, {}, {}, {}
        for one in opened:
            one.close()

    def _index(self, run: IndexRun) -> Applied:
        size = self._size(run.index.name)
        steps = _Batch(self, size)
        outcome = run.execute(steps)
        if run.error is None:
            spent = run.stopwatch.seconds
            self._adapt(run.index.name, len(steps.changes), size, spent["fetch"] + spent["embed"])
        elif isinstance(run.error, StoreRestored):
            run.ledger.need_full_scan(run.alias)
        return Applied(outcome, run.error)

    def _size(self, name: str) -> int:
        """Return how many documents of an index the next batch may have."""
        return min(self._sizes.get(name, FIRST_DOCUMENTS), self._settings.watch.batch_documents)

    def _adapt(self, name: str, documents: int, size: int, seconds: float) -> None:
        """Choose the size of the next batch after one of so many documents, of which there might have been `size`.

        They were read and embedded in `seconds`. One that was not full says nothing of larger ones, unless it took too
        long already.
        """
        if documents and (documents == size or seconds > BATCH_SECONDS):
            fitting = documents * BATCH_SECONDS / max(seconds, BATCH_SECONDS / MAX_GROWTH)
            self._sizes[name] = max(MIN_DOCUMENTS, round(fitting))

    def chunker(self, run: IndexRun) -> Chunker:
        """Return the chunker of an index."""
        if run.index.name not in self._chunkers:
            self._chunkers[run.index.name] = run.open_chunker()
        return self._chunkers[run.index.name]

    def _opened(self, name: str) -> Opened:
        if self._ledger is None:
            self._ledger = Ledger(self._settings.ledger_url)
        if name not in self._sources:
            self._sources[name] = open_source(self._settings, self._settings.index(name))
        return Opened(self._sources[name], self._ledger)

    def embedder(self, settings: EmbedderSettings) -> Embedder:
        """Return the embedder. One that is down fails at once: what waits is kept in the inbox."""
        if settings.model not in self._embedders:
            opened = open_embedder(settings.model_copy(update={"wait_for_recovery": 0.0}))
            self._embedders[settings.model] = opened
        return self._embedders[settings.model]

    def identity(self, embedder: Embedder) -> EmbedderIdentity:
        """Return the identity of the embedder, which is asked for it every `IDENTITY_SECONDS` if it is a server."""
        now, known = self._clock(), self._identities.get(embedder)
        if known is None or (self._settings.embedder.on_servers and now - known[1] >= IDENTITY_SECONDS):
            known = self._identities[embedder] = embedder.identity(), now
        return known[0]


class _Batch(NamedDocuments):
    """The steps of a batch: at most `size` of the documents that wait, after look-ups, which may add some."""

    def __init__(self, opened: BatchIndexer, size: int) -> None:
        super().__init__([])
        self._opened, self._size = opened, size
        self.changes: list[WaitingChange] = []

    def begin(self, run: IndexRun) -> Scan | None:
        """Read what waits, and begin a scan of it; None if nothing does."""
        look_up(run, limit=self._size)
        self.changes = run.ledger.waiting_changes(run.alias, self._size)
        self._ids = [change.document_id for change in self.changes]
        scan = super().begin(run) if self.changes else None
        if scan is not None and run.index.parts and scan.guard.may_lose_parts(self.page.documents.keys):
            run.count_parts()
        return scan

    def check(self, index: str, keys: Mapping[str, Iterable[str]], found: set[str]) -> None:
        """Do nothing: a document that neither source nor index has was added and deleted meanwhile."""

    def embedder(self, run: IndexRun) -> Embedder:
        """Return the embedder of the index."""
        return self._opened.embedder(run.settings.embedder)

    def identity(self, embedder: Embedder) -> EmbedderIdentity:
        """Return what the embedder is."""
        return self._opened.identity(embedder)

    def chunker(self, run: IndexRun) -> Chunker:
        """Return the chunker of the index."""
        return self._opened.chunker(run)

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has, unless the delete guard refuses: nobody has named it."""
        scan.delete_changed(self.gone, seen=self.page.documents.keys)

    def publish(self, scan: Scan) -> None:
        """Take the changes out of the inbox, which may move the position of the index on."""
        ledger, alias = scan.run.ledger, scan.run.alias
        with ledger.transaction():
            ledger.remove_changes(alias, self.changes)
            ledger.note_written(alias, scan.collection.id)
