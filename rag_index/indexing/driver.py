"""The plain driver: the steps of a run in this process, without Prefect and Dask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.indexing.child import ChildEmbedder, embed_in_child
from rag_index.indexing.embed import embed_shard
from rag_index.indexing.points import write_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.documents.batches import EmbeddedShard
    from rag_index.embedders import Embedder
    from rag_index.indexing.scan import Scan
    from rag_index.sources import SourcePage

__all__ = ["index_pages"]


def index_pages(scan: Scan, pages: Iterable[SourcePage], embedder: Embedder) -> None:
    """Embed, upsert and commit everything in these pages that changed, one shard after another.

    Raises as `Scan.shards`, `embed_shard`, `write_shard` and `Scan.commit`.
    """
    run = scan.run
    for embedded in _embedded(scan, pages, embedder):
        with run.stopwatch.stage("upsert"):
            epoch = None if run.store.embedded else scan.epoch
            written = write_shard(run.store, scan.collection.name, embedded, epoch=epoch)
        scan.commit(written)


def _embedded(scan: Scan, pages: Iterable[SourcePage], embedder: Embedder) -> Iterator[EmbeddedShard]:
    """Yield embedded shards; suspects are embedded in a child process."""
    with ChildEmbedder(scan.run.stopwatch) as child:
        for shard in scan.shards(pages):
            scan.mark_pending(shard)
            if scan.is_suspect(shard):
                yield from embed_in_child(scan, shard, child)
                continue
            job = scan.job(shard)
            with scan.run.stopwatch.stage("embed"):
                embedded = embed_shard(shard, job.chunker, embedder, bm25=job.bm25, known=job.known)
            yield embedded
