"""The plain driver: the steps of a run in this process, without Prefect and Dask."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING

from rag_index.indexing.child import ChildEmbedder, embed_in_child
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.paging import read_pages
from rag_index.indexing.points import write_shard
from rag_index.indexing.retries import with_retries
from rag_index.indexing.search_index import build_search_index, search_index_due

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.documents.batches import EmbeddedShard, Shard
    from rag_index.embedders import Embedder
    from rag_index.indexing.scan import Scan
    from rag_index.sources import SourcePage

logger = logging.getLogger("rag_index.indexing")


def pages(scan: Scan) -> Iterator[SourcePage]:
    """Yield the pages of the source that nobody has read yet. Raises as `Source.page`, after retries."""
    return read_pages(scan.run, lambda source, cursor, rows: with_retries(partial(source.page, cursor, rows)))


def index_pages(
    scan: Scan,
    pages: Iterable[SourcePage],
    embedder: Embedder,
    *,
    in_child: Callable[[Shard], bool] = lambda shard: False,
    hand_over: Callable[[Shard], bool] = lambda shard: False,
) -> bool:
    """Embed, upsert and commit everything in these pages that changed, one shard after another.

    Args:
        scan: The scan that the pages belong to.
        pages: Pages of its source.
        embedder: What embeds in this process; it must have the identity of the scan.
        in_child: Says whether a child process has to embed a shard. One with suspects is embedded there in any case.
        hand_over: Is asked before each shard. If it says yes, the rest of the scan, from this shard on, is left to
            whoever calls `Scan.shards` next.

    Returns whether everything was done, and nothing left to others. Raises as `Scan.shards`, `embed_shard`,
    `write_shard` and `Scan.commit`.
    """
    run = scan.run
    with ChildEmbedder(run.stopwatch) as child:
        for shard in scan.shards(pages):
            if hand_over(shard):
                scan.put_back(shard)
                return False
            scan.mark_pending(shard)
            apart = child if scan.is_suspect(shard) or in_child(shard) else None
            for embedded in _embed(scan, shard, embedder, apart):
                with run.stopwatch.stage("upsert"):
                    epoch = None if run.store.embedded else scan.epoch
                    written = with_retries(partial(write_shard, run.store, scan.collection.name, embedded, epoch=epoch))
                scan.commit(written)
    return True


def finish_scan(scan: Scan) -> None:
    """Do what follows the last page: delete what is gone, verify and publish, and build the search index if due.

    Raises as `Scan.delete_gone` and `Scan.publish`, after retries.
    """
    with_retries(scan.delete_gone)
    with_retries(scan.publish)
    run, collection = scan.run, scan.collection
    if search_index_due(run.store, collection.name, collection.dimension, run.settings.store.hnsw):
        build_search_index(run, collection, logger)


def _embed(scan: Scan, shard: Shard, embedder: Embedder, child: ChildEmbedder | None) -> Iterator[EmbeddedShard]:
    """Yield the embedded shard, in parts if the child died under it."""
    if child is not None:
        yield from embed_in_child(scan, shard, child)
        return
    job = scan.job(shard)
    with scan.run.stopwatch.stage("embed"):
        embed = partial(embed_shard, shard, job.chunker, embedder, bm25=job.bm25, known=job.known)
        embedded = with_retries(embed, retries=1)  # the embedder itself waits for servers
    yield embedded
