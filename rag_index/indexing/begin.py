"""The beginning of a scan: the choice of its collection, and all that it works with."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import SourceUnavailable
from rag_index.indexing.bulk import begin_bulk, loads_first
from rag_index.indexing.commit import Committer
from rag_index.indexing.comparison import begin_comparison
from rag_index.indexing.delete_guard import DeleteGuard
from rag_index.indexing.reconcile import reconcile
from rag_index.indexing.scan import Scan
from rag_index.indexing.scan_progress import ScanProgress
from rag_index.indexing.scan_state import LedgerScanState
from rag_index.indexing.search_index import make_searchable
from rag_index.indexing.sharding import Sharder, first_rate, max_chars
from rag_index.indexing.target import Target
from rag_index.indexing.vector_reuse import VectorReuse, reusable
from rag_index.settings.index import CODE
from rag_index.sources import has_digests, scan_settings
from rag_index.stores import REST_REMEDY, server_collections

if TYPE_CHECKING:
    from rag_index.chunking import Chunker
    from rag_index.embedders import EmbedderIdentity
    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection, WatchRecord

logger = logging.getLogger("rag_index.indexing")


def begin_scan(
    run: IndexRun,
    identity: EmbedderIdentity,
    chunker: Chunker,
    *,
    documents: int | None,
    chars_per_second: float | None,
) -> Scan:
    """Choose the collection and prepare the scan. See `IndexRun.begin`."""
    ledger, store, index = run.ledger, run.store, run.index
    target = Target(ledger, store, run.alias, identity, chunker, bm25=bm25_model(index), index=index.name)
    known = run.alias in store.aliases() or bool(ledger.collections(run.alias))
    first = loads_first(run)
    rebuild = (run.options.full and known) or first
    collection = target.beside(allow_loss=run.options.allow_loss) if rebuild else target.current()
    if not (rebuild or reconcile(run, collection)):
        target.check_counts(collection)
    epoch = 0 if store.embedded else _raise_epoch(run, collection)
    _configure(run, collection)
    make_searchable(store, collection.name, identity, index.indexed_fields)
    guard = DeleteGuard(ledger, collection, run.settings.run.delete_guard)
    if not run.options.single:
        guard.note_size()
    reuse = reusable(index.name, ledger, store, run.alias, identity) if rebuild else None
    if reuse is None and index.kind == CODE and guard.any_documents:
        reuse = VectorReuse(index.name, ledger, store, collection, own=True)
    ledger.begin_scan()
    expected = _expected(run) if documents is None else documents
    watch = ledger.watch(run.alias)
    scan = Scan(
        run=run,
        identity=identity,
        chunker=chunker,
        collection=collection,
        rebuild=rebuild,
        first=first,
        epoch=epoch,
        guard=guard,
        sharder=_sharder(run, chars_per_second or first_rate(identity.kind, index, collection.chars_per_second)),
        committer=Committer(index.name, ledger, store, collection),
        state=LedgerScanState(
            run.source, index, ledger, collection.id,
            full=rebuild or _must_read_all(run, watch), retry=run.options.retry_failed, single=run.options.single,
            settings=scan_settings(run.settings, index), digests=has_digests(run.settings, index),
        ),
        reuse=reuse,
        comparison=begin_comparison(run, collection, watch, rebuild=rebuild),
        _progress=ScanProgress(any_failures=ledger.count_failures(collection.id) > 0),
        bulk=begin_bulk(run, collection, published_later=rebuild),  # last: from here on, the end of the run undoes it
    )  # fmt: skip
    run.progress.start(expected)
    return scan


def _configure(run: IndexRun, collection: Collection) -> None:
    """Give a server's collection what `[store.server]` says, and say what cannot be done and what is slow."""
    server = server_collections(run.store)
    if server is None:
        return
    run.outcome.say(server.configure(collection.name))
    if reason := server.fallback():
        slow = f"{reason}, so points are sent over REST, which is slower: {REST_REMEDY}"
        logger.warning("%s", slow)
        if run.settings.store.server.grpc_port is not None:
            run.outcome.say(slow)  # somebody means it to be used


def _must_read_all(run: IndexRun, watch: WatchRecord | None) -> bool:
    """Return whether a watch leaves so much to this run that rows which `changed_since` would leave unread count."""
    if run.options.single or watch is None:
        return False
    return watch.full_number is not None or run.ledger.count_waiting(run.alias) > run.settings.watch.burst_documents


def _raise_epoch(run: IndexRun, collection: Collection) -> int:
    """Write a new epoch into a server's collection and return it. A new ledger starts at 1: exceed what is there."""
    earlier = run.store.metadata(collection.name).get("epoch") or 0
    epoch = max(run.lease.epoch, int(earlier) + 1)
    run.store.set_metadata(collection.name, {"epoch": epoch})
    return epoch


def _sharder(run: IndexRun, chars_per_second: float) -> Sharder:
    parallel, index = run.settings.parallel, run.index
    return Sharder(
        index.name,
        documents=None if parallel.shard_documents == "auto" else parallel.shard_documents,
        seconds=parallel.shard_seconds,
        min_documents=parallel.min_shard_documents,
        max_documents=parallel.max_shard_documents,
        chars_per_second=chars_per_second,
        workers=run.metrics.workers,
        max_chars=max_chars(index),
    )


def _expected(run: IndexRun) -> int:
    """Return how many documents the source has; 0 if it cannot say now, because the scan retries longer than this."""
    try:
        return run.source.count()
    except SourceUnavailable:
        return 0
