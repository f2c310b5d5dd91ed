"""Changed documents, brought up to date in this process: single ones at once, or a batch of the ledger's inbox. The
steps, the order of writes, the lease and the ledger are those of any run. What the source no longer has is deleted.
What a batch needs and is slow to open stays open from batch to batch; lease and store are opened for each, so that
other runs come in between."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.components.chunking import Chunker, open_chunker
from rag_index.components.embedders import EmbedderIdentity, identify
from rag_index.components.ledger import Ledger, WaitingChange, WaitingLookUp
from rag_index.components.ledger.runs import BATCH, SINGLE, holder
from rag_index.components.sources import Source, SourcePage, open_source, scan_settings
from rag_index.components.sources.source_tables import look_up_columns
from rag_index.components.sources.sql import SqlSource
from rag_index.components.stores import find_live
from rag_index.components.stores.protocol import Condition
from rag_index.core.documents.batches import RESERVED_KEY, DocumentBatch
from rag_index.core.documents.canonical import decode_payload, encode_payload
from rag_index.core.documents.keys import decode_key, document_id, key_parts, possible_keys
from rag_index.core.machine import collect_seldom
from rag_index.core.recovery import with_retries
from rag_index.core.reports.record import RunRecord
from rag_index.errors import IndexLocked, RagIndexError, SettingsError, SettingsReplaced, StoreBusy, StoreRestored
from rag_index.etl.delete_guard import DeleteGuard
from rag_index.etl.deletes import count_parts_of, delete_some
from rag_index.etl.key_types import require_same_types
from rag_index.etl.opened import Opened, RunOptions, open_index
from rag_index.etl.plain import Plainly
from rag_index.etl.publish import counted
from rag_index.etl.run import AllDocuments, erase_if_due, execute
from rag_index.etl.scan import Scan, begin
from rag_index.etl.tombstones import let_in, without_erased

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.core.reports.outcome import IndexOutcome
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.etl.checks import ServiceChecks
    from rag_index.etl.publish import Hooks
    from rag_index.etl.steps import Steps

CONDITION_VALUES = 100
FIRST_BATCH_DOCUMENTS, MIN_BATCH_DOCUMENTS = 200, 20
BATCH_SECONDS = 2.0
"""How long a batch should read and embed: later changes and other runs wait for it. What it costs besides, such as the
copy of a large collection, gets no smaller with fewer documents."""
MAX_BATCH_GROWTH = 4
IDENTITY_SECONDS = 30.0
"""How long the identity of an embedder is believed; a server may get another model at any time."""


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`. A document that failed
    before is tried again, however often it was tried. Raises SettingsError, before anything is written, if an id cannot
    be one, if neither source nor index has it, or if the index's source cannot be asked for single documents; otherwise
    raises as `open_index`. Every other error of ours ends in the outcome."""
    options, run_id = RunOptions(retry_failed=True), f"{SINGLE}{uuid.uuid4()}"
    with (
        closing(_Kept(settings, wait=settings.run.wait)) as kept,
        open_index(kept.settings, name, options, run_id=run_id, single=True) as opened,
    ):
        record = RunRecord(name)
        execute(opened, kept.steps, record, documents=NamedDocuments(kept, list(dict.fromkeys(ids))))
        if isinstance(record.error, SettingsError):
            raise record.error
        return record.outcome


class _Kept:
    """What stays open between batches: the ledger, the sources, the chunkers and what embeds. Used by one thread. An
    embedder that is down fails after `wait` seconds."""

    def __init__(self, settings: Settings, *, wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        run = settings.run.model_copy(update={"wait_for_recovery": wait})
        self.settings, self._clock = settings.model_copy(update={"run": run}), clock
        self._ledger: Ledger | None = None
        self._sources: dict[str, Source] = {}
        self._chunkers: dict[str, Chunker] = {}
        self._identity: tuple[EmbedderIdentity, float] | None = None
        self.steps = Plainly(serially(self.settings))

    def opened(self, name: str) -> tuple[Source, Ledger]:
        self._ledger = self._ledger or Ledger(self.settings.ledger_url)
        if name not in self._sources:
            self._sources[name] = open_source(self.settings, self.settings.index(name))
        return self._sources[name], self._ledger

    def chunker(self, index: IndexSettings) -> Chunker:
        if index.name not in self._chunkers:
            self._chunkers[index.name] = open_chunker(self.settings, index)
        return self._chunkers[index.name]

    def identity(self) -> EmbedderIdentity:
        """Return the identity of the embedder, for which a server is asked every `IDENTITY_SECONDS`."""
        now, known = self._clock(), self._identity
        if known is None or (self.settings.embedder.on_servers and now - known[1] >= IDENTITY_SECONDS):
            known = self._identity = identify(self.settings.embedder), now
        return known[0]

    def close(self) -> None:
        """Close everything. The next batch opens it again."""
        opened = (*self._sources.values(), self.steps, self._ledger)
        self._ledger, self._sources, self._chunkers, self._identity = None, {}, {}, None
        self.steps = Plainly(serially(self.settings))
        for one in opened:
            if one is not None:
                one.close()


def serially(settings: Settings) -> Settings:
    """Return the settings of a run that embeds in its own process: a few documents pay for no other."""
    return settings.model_copy(update={"parallel": settings.parallel.model_copy(update={"serial": True})})


class NamedDocuments(AllDocuments):
    """A few documents, whose ids a person has named: the rest of the index stays as it is."""

    named = True

    def __init__(self, kept: _Kept, ids: Sequence[str]) -> None:
        self._kept = kept
        self._ids = ids
        self.page = SourcePage(DocumentBatch.empty(), None)
        self._gone: list[str] = []
        self._seen: list[str] = []

    def begin(self, opened: Opened, steps: Steps, record: RunRecord, checks: ServiceChecks) -> Scan | None:
        """Read the documents, and begin a run of them alone. Raises SettingsError before anything is written."""
        name, ledger = opened.index.name, opened.ledger
        read: Callable[[Sequence[str]], SourcePage] | None = getattr(opened.source, "documents", None)
        if read is None:
            raise SettingsError(
                f"index {name}: its source cannot be asked for single documents; "
                f"`rag-index index {name}` brings all of it up to date"
            )
        find_live(opened.store, opened.alias)  # before anything is written into a collection of another project
        with record.stopwatch.stage("fetch"):
            self.page = read(self._ids)
            columns = opened.index.key_columns or ["id"]  # without columns an id is the key itself
            keys = {given: possible_keys(key_parts(given, columns)) for given in self._ids}
            known: set[str] = set()
            if live := opened.live:
                require_same_types(opened, live, self.page)
                possible = [key for some in keys.values() for key in some]
                known = {*ledger.known(live.id, possible), *ledger.failures(live.id, possible)}
            if self.named:  # a person wants them back, although they were erased
                let_in(ledger, opened.store, opened.settings, opened.index, self.page.documents.keys)
            self.page = without_erased(ledger, opened.settings, opened.index, self.page)
            there = {*self.page.documents.keys, *(failure.key for failure in self.page.unreadable)}
            if self.named and (lost := [given for given, some in keys.items() if (known | there).isdisjoint(some)]):
                raise SettingsError(
                    f"index {name}: neither the source nor the index has a document {lost[0]}; nothing was done"
                )
            self._gone, self._seen = sorted(known - there), sorted(there)
        identity, chunker = self._kept.identity(), self._kept.chunker(opened.index)
        return begin(opened, record, identity, chunker, documents=len(self._ids))

    def pages(self, opened: Opened, steps: Steps, record: RunRecord) -> Iterator[SourcePage]:
        """Yield the documents, which `begin` has read."""
        yield self.page

    def end(self, opened: Opened, scan: Scan, steps: Steps, record: RunRecord, hooks: Hooks | None) -> None:
        """Delete those of the documents that the source no longer has, and verify the store."""
        delete = partial(delete_some, opened, scan, record, gone=self._gone, seen=self._seen, named=self.named)
        with_retries(delete, opened.settings.run.wait_for_recovery)
        if (rate := scan.diff.sharder.measured) is not None:
            opened.ledger.update_collection(scan.target.collection.id, chars_per_second=rate)
        self.publish(opened, scan, record)
        if self.named:
            erase_if_due(opened, scan.target, steps, record)

    def publish(self, opened: Opened, scan: Scan, record: RunRecord) -> None:
        """Verify that the store holds what the ledger says."""
        with record.stopwatch.stage("publish"):
            with_retries(partial(counted, opened, scan.target), opened.settings.run.wait_for_recovery)


class _Batch(NamedDocuments):
    """A batch: at most `size` of the documents that wait, after look-ups, which may add some. A document that neither
    source nor index has was added and deleted meanwhile."""

    named = False

    def __init__(self, kept: _Kept, size: int) -> None:
        super().__init__(kept, [])
        self._size = size
        self.changes: list[WaitingChange] = []

    def begin(self, opened: Opened, steps: Steps, record: RunRecord, checks: ServiceChecks) -> Scan | None:
        """Read what waits, and begin a run of it; return None if nothing does. Raises SettingsReplaced if the
        collection was last written by other settings than those of the watch."""
        settings, index, source = opened.settings, opened.index, opened.source
        if opened.live is not None and opened.live.written_by != scan_settings(settings, index):
            raise SettingsReplaced(
                f"index {index.name} was last written by other settings than this watch has; `rag-index index "
                f"{index.name}` with those of {settings.path} lets it go on"
            )
        look_up(opened, limit=self._size)
        self.changes = opened.ledger.waiting_changes(opened.alias, self._size)
        self._ids = [change.document_id for change in self.changes]
        if isinstance(source, SqlSource):  # a part may name its document by other bytes
            self._ids = list(dict.fromkeys([*self._ids, *source.same_ids(self._ids)]))
        if not self.changes or (scan := super().begin(opened, steps, record, checks)) is None:
            return None
        if index.parts and DeleteGuard.of(opened, scan).may_lose_parts(self.page.documents.keys):
            count_parts_of(opened)
        return scan

    def publish(self, opened: Opened, scan: Scan, record: RunRecord) -> None:
        """Take the changes out of the inbox, which may move the position of the index on."""
        ledger, alias = opened.ledger, opened.alias
        with ledger.transaction():
            ledger.remove_changes(alias, self.changes)
            ledger.note_written(alias, scan.target.collection.id)


def look_up(opened: Opened, *, limit: int) -> None:
    """Replace at most `limit` look-ups in the inbox by the documents that they find. If they find more than a burst, an
    ordinary run is asked for instead. The run has to hold the lease of the index. Raises as its source, store and
    ledger do."""
    ledger, alias = opened.ledger, opened.alias
    columns: dict[str, list[WaitingLookUp]] = {}
    for one in ledger.waiting_look_ups(alias, limit):
        columns.setdefault(one.column, []).append(one)
    for column, asked in columns.items():
        changed_at = min(one.changed_at for one in asked)
        found = _find(opened, column, [decode_key(one.value) for one in asked])
        if found is None:
            ledger.need_full_scan(alias)
            found = set()
        ledger.replace_look_ups(alias, asked, ((document_id(key), changed_at) for key in found))


def _find(opened: Opened, column: str, values: Sequence[Any]) -> set[str] | None:
    """Return the typed keys of the documents to read again; None if there are too many, or none can be found."""
    source = opened.source
    if not isinstance(source, SqlSource) or column not in look_up_columns(opened.index):
        return None  # the settings were changed after the change arrived
    most = opened.settings.watch.burst_documents
    found: set[str] = set()
    for keys in (source.keys_with(column, values), _keys_in_store(opened, column, values)):
        for key in keys:
            found.add(key)
            if len(found) > most:
                return None
    return found


def _keys_in_store(opened: Opened, column: str, values: Sequence[Any]) -> Iterator[str]:
    collection = opened.store.aliases().get(opened.alias)
    if collection is None or column not in opened.index.payload:
        return
    stored = [decode_payload(encode_payload({column: value}))[column] for value in values]
    for first in range(0, len(stored), CONDITION_VALUES):
        wanted = Condition(column, "any", stored[first : first + CONDITION_VALUES])
        for point in opened.store.scroll(collection, conditions=[wanted]):
            yield str(point.payload[RESERVED_KEY]["key"])


@dataclass(frozen=True, slots=True)
class Applied:
    """How a batch, or a run in its place, ended: with its outcome, or with the error that ended it."""

    outcome: IndexOutcome | None
    error: RagIndexError | None = None


class BatchIndexer(_Kept):
    """Indexes batches of what waits in the inbox, and keeps open what they need. Used by one thread."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, wait=0.0)  # what waits is kept in the inbox
        self._sizes: dict[str, int] = {}

    def index(self, name: str) -> Applied:
        """Bring a batch of the documents that wait for the index `name` up to date, and take them out of the inbox.

        It has as many documents as are read and embedded in about BATCH_SECONDS, at most `batch_documents`. Look-ups
        that wait are done before. What waits stays there if an error of ours ends the batch, which is returned:
        IndexLocked and StoreBusy if another run holds the index, and whatever source, embedder, store and ledger raise.
        """
        run_id, options = f"{BATCH}{self.settings.alias(name)}", RunOptions()
        size = min(self._sizes.get(name, FIRST_BATCH_DOCUMENTS), self.settings.watch.batch_documents)
        try:
            keep = self.opened(name)
            opening = open_index(self.settings, name, options, run_id=run_id, single=True, keep=keep)
            with collect_seldom(), opening as opened:
                batch, record = _Batch(self, size), RunRecord(name)
                execute(opened, self.steps, record, documents=batch)
                applied = Applied(record.outcome, record.error)
                if record.error is None:
                    documents, spent = len(batch.changes), record.stopwatch.seconds
                    seconds = spent["fetch"] + spent["embed"]
                    # a batch that was not full says nothing of larger ones, unless it took too long already
                    if documents and (documents == size or seconds > BATCH_SECONDS):
                        fitting = documents * BATCH_SECONDS / max(seconds, BATCH_SECONDS / MAX_BATCH_GROWTH)
                        self._sizes[name] = max(MIN_BATCH_DOCUMENTS, round(fitting))
                elif isinstance(record.error, StoreRestored):
                    opened.ledger.need_full_scan(opened.alias)
        except RagIndexError as error:
            applied = Applied(None, error)
        if applied.error is not None and not isinstance(applied.error, IndexLocked | StoreBusy):
            self.close()  # a connection may be broken
        return applied

    def locked(self, name: str) -> RagIndexError | None:
        """Return the error that a batch or a run would end with at once, because another run holds the index."""
        try:
            alias = self.settings.alias(name)
            if holder(self.opened(name)[1], alias) is not None:
                return IndexLocked(f"index {alias} is being written by another run: wait until it is done, or stop it")
        except RagIndexError:
            self.close()
        return None
