"""Deletes: documents that the source no longer has leave the index, if the delete guard agrees.

    compare the keys again > delete guard > pending > points > ledger's rows > index is complete

The delete guard refuses a run that would delete too much. Such a run deletes nothing and ends as
partial. What the guard does over several runs, in an index of 1,000 documents that was complete,
with `delete_guard` at 20%:

- The source loses 300. Each run is refused, and the ledger records that 300 are held back. If the
  source has them again, the next run agrees. With `--allow-deletes` a run deletes all of them.
- 500 other documents arrive while 300 are held back, as from a wrong database. They are indexed,
  and do not make the index larger for the guard: it counts documents that the index had when it was
  last complete. If the source is right again, the 500 are deleted, since they are no loss.
- The source loses 150, and 150 more on the same day. The second run is refused: the largest size of
  the last day counts, so 300 of 1,000 are lost.
- The last run was not refused, and only documents that arrived since the index was complete are
  lost, but too many of them. The run is refused, and all documents that the index has now count as
  those of a complete index. So the next run is refused as well.

A kill during a delete leaves documents pending, with or without their points. The next run does not
see them in the source either, and deletes the rest.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs

from rag_index.components.ledger.tables import IndexedDocuments
from rag_index.components.sources.sql import SqlSource, policy_digest
from rag_index.core.reports.outcome import count_of, undecided_sentence
from rag_index.errors import SettingsError, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.sources import Source
    from rag_index.core.reports.outcome import DocumentCounts
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import IndexSettings
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan

UNGUARDED_DELETES = 100
"""Up to this many deletions, or lost rows of a part, are never guarded. Chosen; docs/how-it-works.md
names it."""
AGAIN = "run again with --allow-deletes"
UNREADABLE = (SettingsError, SourceError, SourceUnavailable)
"""Errors of a source that cannot be asked for undecided values."""
logger = logging.getLogger("rag_index.deletes")


@attrs.frozen
class Deleted:
    """What a run deleted, in a sentence."""

    sentence: str
    complete: bool = False
    """Whether nothing is left in the index that the source no longer has."""


def count_parts_of(opened: Opened) -> dict[str, int]:
    """Count the rows of each part. Raises as `count_parts`, unless a person allowed the loss."""
    live = None if opened.options.allow_deletes else opened.live
    guard: DeleteGuard | None = None
    if live is not None:
        hidden = hidden_by_policies(live, policy_digest(opened.source))
        guard = DeleteGuard(opened.ledger, live, opened.settings.run.delete_guard, hidden)
    return count_parts(opened.source, opened.index, guard)


def delete_gone(opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
    """Delete what the source no longer has, and the points of emptied documents, unless the delete
    guard refuses.

    Call it after the last page, when all rows of the source were seen. Returns what was deleted, or
    why nothing was.
    """
    ledger, collection = opened.ledger, scan.target.collection
    with record.stopwatch.stage("delete"):
        opened.lease.check()
        returned = _count_returned(opened, collection.id)
        find_undecided(opened.source, ledger, record.outcome)
        refused = _ask_guard(opened, scan, record)
        if refused:
            # Undecided documents are shown to nobody, whatever else is held back.
            ledger.keep_undecided()
            _delete_points(opened, scan, record)
            return Deleted(refused)
        if ledger.lost(collection.id):
            _delete_lost(opened, scan, record)
        if not scan.diff.leaves_some:
            _record_complete(opened, scan)
        # Documents that returned, or have text again, must first be read again.
        is_complete = not (returned or ledger.count_emptied())
    return Deleted(_deleted_sentence(record), is_complete)


def _count_returned(opened: Opened, collection_id: int) -> int:
    """Record what the scan did not see as deleted. Return how many documents are back since.

    If a database has another number of rows than the scan read, it lists its keys again before
    anything is deleted.
    """
    ledger, source = opened.ledger, opened.source
    deleted = ledger.find_deleted(collection_id)
    if not deleted or not isinstance(source, SqlSource):
        return 0
    for keys in source.keys_now():
        ledger.see(keys, page=0)
    return deleted - ledger.find_deleted(collection_id)


def _ask_guard(opened: Opened, scan: Scan, record: RunRecord) -> str:
    """Ask the delete guard, and hold the run back if it refuses. Return why; "" if it agrees."""
    collection, outcome = scan.target.collection, record.outcome
    guard = DeleteGuard.of(opened, scan)
    if scan.target.rebuild or opened.options.allow_deletes:
        guard.allow()
        return ""
    lost, refused = guard.refuse(leaves_some=scan.diff.leaves_some)
    # The last run was refused, and this one leaves rows unread.
    if not refused and scan.diff.leaves_some and collection.held:
        lost, refused = collection.held, held_back(collection.held, opened.index.name)
    if refused:
        outcome.held_back = lost
        outcome.hold(refused)
    return refused


def _record_complete(opened: Opened, scan: Scan) -> None:
    """Record that the collection has what the source has, and nothing else."""
    ledger, collection = opened.ledger, scan.target.collection
    # A rebuilt collection gets its policies when it is published.
    if not scan.target.rebuild and collection.policies != scan.policies:
        ledger.update_collection(collection.id, policies=scan.policies)
    ledger.forget_unseen_failures(collection.id)
    ledger.record_complete(collection.id)


def delete_some(opened: Opened, scan: Scan, record: RunRecord, *, gone: Sequence[str]) -> Deleted:
    """Delete documents that a person named and that the source no longer has, and the points of
    emptied ones. They need no guard."""
    ledger, cid = opened.ledger, scan.target.collection.id
    with record.stopwatch.stage("delete"):
        opened.lease.check()
        ledger.record_deleted(gone)
        if ledger.lost(cid):
            _delete_lost(opened, scan, record)
    return Deleted(_deleted_sentence(record))


def _deleted_sentence(record: RunRecord) -> str:
    deleted = count_of(record.outcome.deleted, "document")
    return f"{deleted} deleted"


def find_undecided(source: Source, ledger: Ledger, counts: DocumentCounts) -> None:
    """Find the values that nobody decided on, report them, and record which of the deleted
    documents have such a value.

    Call it after `Ledger.find_deleted`. An error is logged: then these documents count as lost.
    """
    if not isinstance(source, SqlSource):
        return
    try:
        counts.undecided = source.undecided_values()
        sentence = undecided_sentence(counts.index, counts.undecided)
        # A step may be tried again, and has reported it then.
        if sentence not in counts.message:
            counts.say(sentence)
        if counts.undecided:
            for keys in source.undecided_keys():
                ledger.record_undecided(keys)
    except UNREADABLE as error:
        logger.warning(
            "%s: values that nobody decided on could not be counted: %s", counts.index, error
        )


def _delete_lost(opened: Opened, scan: Scan, record: RunRecord) -> None:
    _delete_points(opened, scan, record)
    # Deleting the points of documents that a rule excludes removed them from the list of failures.
    opened.ledger.fail(scan.target.collection.id, scan.diff.excluded)


def _delete_points(opened: Opened, scan: Scan, record: RunRecord) -> None:
    """Delete the points of all documents that are recorded as deleted or emptied, page by page."""
    ledger, collection = opened.ledger, scan.target.collection
    undecided = ledger.count_undecided(collection).when_complete
    if undecided:
        # They are no loss, so later losses must not be added to them.
        ledger.reduce_size(collection.id, undecided)
    for deleted in scan.committer.delete_lost():
        record.outcome.deleted += deleted


def held_back(documents: int, index: str) -> str:
    """Return the sentence about documents that the last run would have deleted; "" if there are
    none."""
    if not documents:
        return ""
    which = "1 document is" if documents == 1 else f"{documents:,} documents are"
    return (
        f"{which} held back, because the source lost more than delete_guard allows, or its policies"
        f" changed: `rag-index index {index} --allow-deletes` deletes what the source no longer has"
    )


def _is_too_many(lost: int, documents: int, share: float) -> bool:
    # 100 of 100 documents may go, 101 of 400 with a share of 20% may not.
    if lost <= UNGUARDED_DELETES:
        return False
    return lost > share * documents


@attrs.frozen
class ExcessiveLoss:
    """A loss that is larger than the delete guard allows."""

    text: str
    """What would be lost, such as "300 of 1,000 documents"."""
    is_of_complete: bool
    """Whether documents are lost that the index had when it was last complete."""


@attrs.frozen
class DeleteGuard:
    """The delete guard of a scan into `collection`. The module's docstring has its rule."""

    ledger: Ledger
    collection: Collection
    share: float
    """The share of the documents that a run may delete, such as 0.2."""
    hidden: str = ""
    """Why what is lost may only be hidden (`hidden_by_policies`); then any loss is too much."""
    before: IndexedDocuments | None = None
    """The documents that the collection had before the scan; by default those that it has now."""

    @classmethod
    def of(cls, opened: Opened, scan: Scan) -> DeleteGuard:
        """Return the guard of a run, for the collection that it writes to."""
        collection = scan.target.collection
        # A first run began with nothing, and may have written what it deletes now.
        before = scan.before if scan.before.all else None
        hidden = hidden_now(opened, scan, collection)
        share = opened.settings.run.delete_guard
        return cls(opened.ledger, collection, share, hidden, before)

    @property
    def parts(self) -> dict[str, int]:
        """The most rows that each part had."""
        sizes = self.ledger.largest_sizes(self.collection.id)
        sizes.pop("", None)  # the size of the collection itself
        return sizes

    def excessive_loss(self, lost: IndexedDocuments) -> ExcessiveLoss | None:
        """Return what would be lost if that is more than the share. None if it is not.

        Rows of a wrong source must not hide the loss of the right ones. So documents count that the
        index had when it was last complete; others count too, unless the last run was refused,
        because they come from the same faulty source.
        """
        before = self.before or self.ledger.count_documents(self.collection)
        sizes = self.ledger.largest_sizes(self.collection.id)
        # The index had 1,000 documents a day ago and has 900: 100 are lost already.
        largest = max(before.when_complete, sizes.get("", 0))
        lost_before = largest - before.when_complete
        lost_together = lost_before + lost.when_complete

        if lost.when_complete and _is_too_many(lost_together, largest, self.share):
            if not lost_before:
                return ExcessiveLoss(f"{lost.when_complete:,} of {largest:,} documents", True)
            together = f"{lost_together:,} of {largest:,} with those lost in the last day"
            return ExcessiveLoss(f"{lost.when_complete:,} documents ({together})", True)

        if not self.collection.held and _is_too_many(lost.all, before.all, self.share):
            return ExcessiveLoss(f"{lost.all:,} of {before.all:,} documents", False)
        return None

    def foresee(self) -> tuple[int, str]:
        """Return how many documents a run would hold back, and why, after `Ledger.find_deleted`.

        It is (0, "") if the guard would agree. Nothing is recorded.
        """
        lost = self.ledger.count_deletions(self.collection)
        if self.hidden and lost.all:
            return lost.all, f"the run would hold back {lost.all:,} documents: {self.hidden}"
        loss = self.excessive_loss(lost)
        if loss is None:
            return 0, ""
        limit = f"more than delete_guard ({self.share:.0%}) allows"
        return lost.all, f"the run would hold back {loss.text}, {limit}"

    def refuse(self, *, leaves_some: bool = False) -> tuple[int, str]:
        """Return how many documents a run would delete, and why it may not; "" if it may.

        The ledger records the answer, with the number of documents that are held back.

        Args:
            leaves_some: Whether the run leaves rows unread. The source may still lack documents
                that are held back then, so the ledger goes on to list them.
        """
        lost = self.ledger.count_deletions(self.collection)
        loss = self.excessive_loss(lost) if lost.all else None
        refused = ""
        if self.hidden and lost.all:
            # The policies or the reader changed: any loss is refused.
            refused = (
                f"{lost.all:,} documents would be deleted, but {self.hidden}; if they are to go,"
                f" {AGAIN}"
            )
        elif loss is not None:
            limit = f"more than delete_guard ({self.share:.0%}) allows"
            refused = (
                f"{loss.text} would be deleted, {limit}; nothing was deleted: if the source is"
                f" right, {AGAIN}"
            )
        with self.ledger.transaction():
            # Later documents alone were too many: from now on all that the index has count as those
            # of a complete index.
            if loss is not None and not loss.is_of_complete:
                self.ledger.record_complete(self.collection.id)
            if refused:
                self.ledger.hold_back(self.collection, lost.all)
            elif not leaves_some:
                self.ledger.hold_back(self.collection, 0)
        return lost.all, refused

    def allow(self) -> None:
        """Let everything be deleted, because a person allowed it or because no search reads the
        collection yet."""
        with self.ledger.transaction():
            self.ledger.hold_back(self.collection, 0)
            self.ledger.forget_sizes(self.collection.id)

    def replacement_refused(self, rebuilt: Collection, undecided: IndexedDocuments) -> str:
        """Return why `rebuilt` cannot replace the collection; "" if it lacks little of it.

        Args:
            undecided: Documents of the collection with a value that nobody decided on. They are no
                loss.
        """
        unmatched = self.ledger.count_unmatched(self.collection, rebuilt)
        lost = IndexedDocuments(
            max(0, unmatched.all - undecided.all),
            max(0, unmatched.when_complete - undecided.when_complete),
        )
        loss = self.excessive_loss(lost)
        if loss is not None:
            lacking = loss.text
            reason = f"more than delete_guard ({self.share:.0%}) allows"
        elif self.hidden and lost.all:
            lacking = f"{lost.all:,} documents"
            reason = self.hidden
        else:
            return ""
        return (
            f"the rebuilt {rebuilt.name} lacks {lacking} of the live collection, {reason}; it was"
            f" not published: if that is right, {AGAIN}"
        )


def count_undecided(source: Source, ledger: Ledger, collection: Collection) -> IndexedDocuments:
    """Count the documents of a collection whose rows have a value that nobody decided on.

    An error is logged: then those count that were found before it.
    """
    count = when_complete = 0
    if not isinstance(source, SqlSource):
        return IndexedDocuments(0, 0)
    try:
        for keys in source.undecided_keys():
            found = ledger.count_known(collection, keys)
            count += found.all
            when_complete += found.when_complete
    except UNREADABLE as error:
        logger.warning(
            "%s: documents that nobody decided on could not be counted: %s", collection.alias, error
        )
    return IndexedDocuments(count, when_complete)


def hidden_by_policies(live: Collection | None, *digests: str) -> str:
    """Return why what an index lacks may only be hidden, if one of the digests is not that of its
    last run."""
    if live is None or {*digests} == {live.policies}:
        return ""
    return "row level security, or the role that reads, changed since the last run"


def hidden_now(opened: Opened, scan: Scan, live: Collection) -> str:
    """Return why what the source lacks may only be hidden; "" if policies and reader stayed what
    they were."""
    return hidden_by_policies(live, scan.policies, policy_digest(opened.source))


def count_parts(source: Source, index: IndexSettings, guard: DeleteGuard | None) -> dict[str, int]:
    """Return how many rows the source has of each part of an index now.

    Args:
        guard: The guard of the live collection. None if nothing is live, or a person allowed the
            loss.

    Raises as the source, and SourceError if a part of the live collection lost too many.
    """
    rows = source.count_parts() if isinstance(source, SqlSource) else {}
    if guard is None:
        return rows
    for part, largest in guard.parts.items():
        # A part that the settings no longer have is not counted, and is no loss.
        now = rows.get(part, largest)
        if guard.hidden and now < largest:
            why = guard.hidden
        elif _is_too_many(largest - now, largest, guard.share):
            why = f"which is a loss of more than delete_guard ({guard.share:.0%}) allows"
        else:
            continue
        raise SourceError(
            f"index {index.name}: part {part} has {now:,} rows where it had {largest:,}, {why};"
            f" nothing was written: if the source is right, `rag-index index {index.name}"
            " --allow-deletes` goes on"
        )
    return rows
