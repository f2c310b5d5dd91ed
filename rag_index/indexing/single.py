"""Single documents, brought up to date at once (a ticket just closed): in this process, with no cluster, no Prefect.

The steps, the order of writes, the lock and the ledger are those of any run. What the source has no more is deleted.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from rag_index.documents.keys import key_parts, possible_keys
from rag_index.embedders import open_embedder
from rag_index.errors import RagIndexError, SettingsError
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.points import write_shard
from rag_index.indexing.run import RunOptions, open_run
from rag_index.ledger.runs import SINGLE
from rag_index.sources import GivesSingleDocuments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import Shard
    from rag_index.embedders import Embedder
    from rag_index.indexing.run import IndexRun
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import Settings
    from rag_index.sources import SourcePage

__all__ = ["index_documents"]


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`.

    One that failed before is tried again, however often it was. Raises SettingsError before anything is written
    where an id cannot be one, where neither source nor index has it, and where the index's source cannot be asked for
    single documents; else as `open_run` does, and every other error of ours ends in the outcome.
    """
    with open_run(settings, name, RunOptions(retry_failed=True), run_id=f"{SINGLE}{uuid.uuid4()}") as run:
        run.workers = run.metrics.workers = 1
        try:
            _bring_up_to_date(run, list(dict.fromkeys(ids)))
        except SettingsError as error:
            run.fail(error)
            raise
        except RagIndexError as error:
            return run.fail(error)
        except BaseException as error:
            run.fail(error)
            raise
        return run.finish()


def _bring_up_to_date(run: IndexRun, ids: list[str]) -> None:
    settings, source = run.settings.embedder, run.source
    if not isinstance(source, GivesSingleDocuments):
        raise SettingsError(
            f"index {run.index.name}: its source cannot be asked for single documents; "
            f"`rag-index index {run.index.name}` brings all of it up to date"
        )
    with run.watch.stage("fetch"):
        page = source.documents(ids)
        gone = _gone(run, ids, page)
    embedder = open_embedder(settings.model_copy(update={"wait_for_recovery": run.settings.run.wait}))
    try:
        run.begin(embedder.identity(), documents=len(ids))
        for shard in run.shards([page]):
            _index(run, shard, embedder)
    finally:
        embedder.close()
    run.delete(gone)
    run.verify()


def _index(run: IndexRun, shard: Shard, embedder: Embedder) -> None:
    run.submit(shard)
    with run.watch.stage("embed"):
        embedded = embed_shard(shard, run.chunker, embedder, known=run.known_vectors(shard))
    with run.watch.stage("upsert"):
        epoch = None if run.store.embedded else run.epoch
        written = write_shard(run.store, run.collection.name, embedded, epoch=epoch)
    run.commit(written)


def _gone(run: IndexRun, ids: Sequence[str], page: SourcePage) -> list[str]:
    """Typed keys of what the index has, or lists as failed, under these ids, and the source has no more.

    Raises:
        SettingsError: source and index both have nothing under one of them.
    """
    columns, ledger = run.index.key_columns or ["id"], run.ledger  # without columns an id is the key itself
    there = {*page.documents.keys, *(failure.key for failure in page.unreadable)}
    collection = ledger.collection(run.store.aliases().get(run.alias, ""))
    gone: list[str] = []
    for given in ids:
        keys = possible_keys(key_parts(given, columns))
        known = {*ledger.known(collection.id, keys), *ledger.failures(collection.id, keys)} if collection else set()
        if known.isdisjoint(keys) and there.isdisjoint(keys):
            raise SettingsError(
                f"index {run.index.name}: neither the source nor the index has a document {given}; nothing was done"
            )
        gone += sorted(known - there)
    return gone
