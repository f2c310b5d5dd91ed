"""The mapped middle of the way: shards out to the workers, vectors into the store, rows into the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.errors import NoWorkers, RagIndexError
from rag_index.indexing.sharding import given_up, parts_of
from rag_index.orchestration.liveness import Liveness
from rag_index.orchestration.log_forwarding import captured_logs, subscribe_logs
from rag_index.orchestration.opaque import Opaque
from rag_index.orchestration.request_counts import count_requests
from rag_index.orchestration.window import Window
from tasks.embed import EmbedJob, embed_shard
from tasks.upsert import upsert_from_worker, upsert_shard

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.indexing.run import IndexRun

__all__ = ["embed_mapped", "upsert"]


def embed_mapped(run: IndexRun, shards: Iterable[Shard]) -> Iterator[Opaque[EmbeddedShard] | WrittenShard]:
    """Map the embed task over shards, twice as many under way as there are workers; results as they come.

    With a server as store the upsert task is given the embed task's future, so that what comes back is written.
    Where no workers start, all is done in this process, and the outcome says so.
    """
    liveness = Liveness()

    def tick() -> None:
        run.progress.tick()
        liveness.check()

    window: Window[Shard, Any] = Window(
        lambda shard: _submitted(run, shard),
        2 * run.workers,
        split=parts_of,
        give_up=lambda shard: Opaque(given_up(shard)),
        tick=tick,
        waiting=lambda: run.watch.stage("wait"),
        moved=lambda shards: run.progress.under_way(shards, run.workers),
    )
    listening = run.settings.parallel.serial
    with captured_logs(run.progress.note_later):
        try:
            for shard in shards:
                if run.in_process:
                    yield _embed_here(run, shard)
                    continue
                try:
                    if not listening:
                        subscribe_logs(run.progress.note_later)
                        count_requests(run.progress.count_requests)
                        listening = True
                    yield from window.put(shard)
                except NoWorkers as error:
                    run.go_on_alone(error)
                    yield _embed_here(run, shard)
        except RagIndexError:  # the source, say: what is under way is done work all the same
            yield from window.drain()
            raise
        yield from window.drain()


def upsert(run: IndexRun, shard: Opaque[EmbeddedShard] | WrittenShard) -> None:
    """Write a shard where no worker could, then settle it in the ledger."""
    if isinstance(shard, Opaque):
        with run.watch.stage("upsert"):
            shard = upsert_shard(run.store, run.collection.name, shard, _label(run, shard.value.number))
    run.commit(shard)


def _embed_here(run: IndexRun, shard: Shard) -> Opaque[EmbeddedShard]:
    """Embed little work in the flow's process."""
    with run.watch.stage("embed"):
        run.submit(shard)
        return embed_shard(Opaque(_job(run, shard)), _label(run, shard.number))


def _submitted(run: IndexRun, shard: Shard) -> Any:
    with run.watch.stage("submit"):
        return _submit(run, shard)


def _submit(run: IndexRun, shard: Shard) -> Any:
    run.submit(shard)
    label = _label(run, shard.number)
    embedded = embed_shard.submit(Opaque(_job(run, shard)), label)
    if run.store.embedded:
        return embedded
    written: Any = upsert_from_worker.submit
    return written(Opaque(run.settings.store), run.collection.name, embedded, label, run.epoch)


def _job(run: IndexRun, shard: Shard) -> EmbedJob:
    settings = run.settings
    limit = settings.parallel.process_timeout
    return EmbedJob(shard, run.chunker, settings.embedder, run.identity, run.workers, run.known_vectors(shard), limit)


def _label(run: IndexRun, number: int) -> str:
    return f"{run.index.name} {number}"
