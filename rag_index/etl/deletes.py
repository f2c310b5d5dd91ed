"""Deletes: what the source no longer has leaves the index, unless the delete guard holds it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from rag_index.components.sources.sql import SqlSource, policy_digest
from rag_index.core.reports.outcome import count_of
from rag_index.etl.delete_guard import DeleteGuard, count_parts, held_back, hidden_by_policies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.core.reports.record import RunRecord
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan


@attrs.frozen
class Deleted:
    """What a run deleted, in a sentence."""

    sentence: str
    complete: bool = False
    """Whether nothing is left in the index that the source no longer has."""


def count_parts_of(opened: Opened) -> dict[str, int]:
    """Count the rows of each part. Raises as `count_parts`, unless a person allowed the loss."""
    live = None if opened.options.allow_deletes else opened.live
    hidden = hidden_by_policies(live, policy_digest(opened.source))
    guard = DeleteGuard(opened.ledger, live, opened.settings.run.delete_guard, hidden) if live else None
    return count_parts(opened.source, opened.index, guard)


def delete_gone(opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
    """Delete what the source no longer has, and the points of emptied documents, unless `delete_guard` refuses. Call it
    after the last page, when the whole source was seen. Returns what it did, or why not."""
    ledger, source, collection = opened.ledger, opened.source, scan.target.collection
    cid = collection.id
    with record.stopwatch.stage("delete"):
        opened.lease.check()
        back = 0
        if (gone := ledger.find_gone(cid)) and isinstance(source, SqlSource):
            for keys in source.keys_now():
                ledger.see(keys, page=0)
            back = gone - ledger.find_gone(cid)
        guard = DeleteGuard.of(opened, scan)
        if scan.target.rebuild or opened.options.allow_deletes:
            guard.allow()
        else:
            lost, refused = guard.refuse()
            if not refused and scan.diff.leaves_some and collection.held:
                lost, refused = collection.held, held_back(collection.held, opened.index.name)
            if refused:
                record.outcome.hold_back(lost, refused)
                return Deleted(refused)
        if ledger.lost(cid):
            _delete_lost(opened, scan, record)
        if not scan.diff.leaves_some:
            if not scan.target.rebuild and collection.policies != scan.policies:
                ledger.update_collection(cid, policies=scan.policies)
            ledger.forget_unseen_failures(cid)
            ledger.note_whole(cid)
        complete = not (back or ledger.count_emptied())  # those must be read again
    return Deleted(f"{count_of(record.outcome.deleted, 'document')} deleted", complete)


def delete_some(opened: Opened, scan: Scan, record: RunRecord, *, gone: Sequence[str], seen: Sequence[str]) -> None:
    """Delete documents that a person named and that the source no longer has, and the points of emptied ones. They need
    no guard."""
    ledger, cid = opened.ledger, scan.target.collection.id
    with record.stopwatch.stage("delete"):
        opened.lease.check()
        ledger.note_gone(gone)
        if ledger.lost(cid):
            _delete_lost(opened, scan, record)


def _delete_lost(opened: Opened, scan: Scan, record: RunRecord) -> None:
    for deleted in scan.committer.delete_lost():
        record.outcome.deleted += deleted
    opened.ledger.fail(scan.target.collection.id, scan.diff.excluded)  # deleting their points took them off the list
