"""The scan of a run: the collection that it writes to, and the objects that compare and commit its
pages."""

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
"""Seconds of embedding from which a first run begins with small shards, so that writing begins soon:
some 50,000 texts of a few sentences for the local embedder. Chosen; nothing depends on it."""


@attrs.frozen
class Scan:
    """The objects by which a run compares its source and commits what changed."""

    target: Target
    committer: Committer
    diff: Diff
    before: IndexedDocuments
    """The documents with points that the collection had before the run."""
    policies: str
    """The digest of the policies by which the database showed rows when the run began."""
    part_rows: Mapping[str, int] = attrs.Factory(dict)
    """How many rows each part has in the source."""


def begin_scan(
    opened: Opened,
    record: RunRecord,
    identity: EmbedderIdentity,
    chunker: Chunker,
    *,
    workers: int = 1,
    documents: int | None = None,
    part_rows: Mapping[str, int] | None = None,
) -> Scan:
    """Choose the collection, bring it and the ledger together, and begin to compare.

    Args:
        workers: The number of processes that embed.
        documents: The expected total, if the caller knows it.
        part_rows: The number of rows of each part in the source.

    Raises as `collection.choose`.
    """
    record.outcome.workers = workers
    if documents is None:
        documents = 0
        # The total is only shown. The fetch of the first page is retried for longer.
        with suppress(SourceUnavailable):
            documents = opened.source.count()
    ledger = opened.ledger
    target = choose(opened, record, identity, chunker)
    policies = policy_digest(opened.source)
    before = ledger.count_documents(target.collection)
    # So that later runs notice if the index shrinks little by little.
    if not opened.single:
        ledger.record_largest_size(target.collection.id, before.when_complete)
    committer = Committer(opened.index.name, ledger, opened.store, target.collection, opened.lease)
    diff = Diff(opened, target, committer, record)
    record.progress.start(documents)
    expected_chars = documents * MEAN_CHARS
    if not before.all and expected_chars >= MUCH_SECONDS * diff.sharder.chars_per_second:
        embedder = opened.settings.embedder
        # For servers, the first shards are a full request at least.
        diff.sharder.begin_small(embedder.usual_request[1] if embedder.on_servers else 0)
    record.stopwatch.count_rest("start")
    return Scan(target, committer, diff, before, policies, part_rows or {})
