"""The scan of a run: the collection that it writes to, and what its pages are compared and written
by."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from rag_index.components.sources.sql import policy_digest
from rag_index.errors import SourceUnavailable
from rag_index.etl.collection import Target, choose
from rag_index.etl.commit import Committer
from rag_index.etl.diff import Diff
from rag_index.etl.sharding import MEAN_CHARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.ledger import IndexedDocuments
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.opened import Opened

MUCH_SECONDS = 10.0
"""What is much work for one process: some 50,000 texts of a few sentences for the local
embedder."""


@attrs.frozen
class Scan:
    """What a run compares the source with, and writes by."""

    target: Target
    committer: Committer
    diff: Diff
    before: IndexedDocuments
    """The documents with points that the collection had before the run."""
    policies: str
    """The digest of the policies by which the database showed rows when the run began."""
    part_rows: Mapping[str, int] = attrs.Factory(dict)
    """How many rows each part has in the source."""


def begin(
    opened: Opened,
    record: RunRecord,
    identity: EmbedderIdentity,
    chunker: Chunker,
    *,
    workers: int = 1,
    documents: int | None = None,
    part_rows: Mapping[str, int] | None = None,
) -> Scan:
    """Choose the collection, bring it and the ledger together, and begin to compare. Raises as
    `collection.choose`. `workers` is how many processes embed; `documents` the expected total, if
    the caller knows it."""
    record.outcome.workers = workers
    if documents is None:
        documents = 0
        with suppress(SourceUnavailable):  # the run retries for longer
            documents = opened.source.count()
    ledger, target = opened.ledger, choose(opened, record, identity, chunker)
    policies, before = policy_digest(opened.source), ledger.count_documents(target.collection)
    if not opened.single:  # so that later runs notice if it shrinks little by little
        ledger.record_size(target.collection.id, before.when_complete)
    committer = Committer(opened.index.name, ledger, opened.store, target.collection, opened.lease)
    diff = Diff(opened, target, committer, record)
    record.progress.start(documents)
    if not before.all and documents * MEAN_CHARS >= MUCH_SECONDS * diff.sharder.chars_per_second:
        embedder = opened.settings.embedder
        diff.sharder.begin_small(embedder.usual_request[1] if embedder.on_servers else 0)
    record.stopwatch.count_rest("start")
    return Scan(target, committer, diff, before, policies, part_rows or {})
