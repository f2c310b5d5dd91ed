"""The steps of a run as tasks of the flow that makes them: see `IndexRun.execute` for their order."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.indexing.steps import begin_run
from rag_index.orchestration.cluster import count_workers
from rag_index.orchestration.retries import Opaque
from tasks.delete import delete_gone
from tasks.embed import embed_mapped
from tasks.fetch import fetch_page
from tasks.health import check
from tasks.publish import build_search_index, publish
from tasks.upsert import upsert

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.documents.batches import Shard, WrittenShard
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.scan import Scan
    from rag_index.sources import SourcePage


class TaskSteps:
    """Each step is a task, which has retries and time limits and is seen in Prefect."""

    def begin(self, run: IndexRun) -> Scan | None:
        """Check the services, wait `[run] wait` seconds for those that are down, and begin the scan."""
        ask = partial(check, wait=run.settings.run.wait)
        parallel = run.settings.parallel
        if parallel.address and not parallel.serial:
            return begin_run(run, ask, workers=partial(ask, "workers", partial(count_workers, parallel), 1))
        return begin_run(run, ask)

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the page of the source after the cursor."""
        return fetch_page(run.source, cursor, rows)

    def write(self, scan: Scan, shards: Iterable[Shard]) -> Iterator[WrittenShard]:
        """Embed the shards on the workers, upsert them there or here, and yield them as they are done."""
        for shard in embed_mapped(scan, shards):
            yield upsert(scan, shard)

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has."""
        delete_gone(Opaque(scan))

    def publish(self, scan: Scan) -> None:
        """Verify the collection, let readers see a rebuilt one, and build its search index if that pays."""
        publish(Opaque(scan))
        if scan.search_index_due:
            with scan.run.stopwatch.stage("search index"):
                build_search_index(Opaque(scan))
