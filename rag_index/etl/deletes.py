"""Deletes: what the source no longer has leaves the index, unless the delete guard holds it back: a
run that would delete too much deletes nothing, until the source has the documents again or a person
allows it (`--allow-deletes`)."""

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
"""Up to this many deletions, or lost rows of a part, are never guarded."""
AGAIN = "run again with --allow-deletes"
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
    hidden = hidden_by_policies(live, policy_digest(opened.source))
    guard = (
        DeleteGuard(opened.ledger, live, opened.settings.run.delete_guard, hidden) if live else None
    )
    return count_parts(opened.source, opened.index, guard)


def delete_gone(opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
    """Delete what the source no longer has, and the points of emptied documents, unless
    `delete_guard` refuses. Call it after the last page, when the whole source was seen. Returns
    what it did, or why not."""
    ledger, source, collection = opened.ledger, opened.source, scan.target.collection
    cid = collection.id
    with record.stopwatch.stage("delete"):
        opened.lease.check()
        back = 0
        if (gone := ledger.find_deleted(cid)) and isinstance(source, SqlSource):
            for keys in source.keys_now():
                ledger.see(keys, page=0)
            back = gone - ledger.find_deleted(cid)
        find_undecided(source, ledger, record.outcome)
        guard = DeleteGuard.of(opened, scan)
        if scan.target.rebuild or opened.options.allow_deletes:
            guard.allow()
        else:
            lost, refused = guard.refuse()
            if not refused and scan.diff.leaves_some and collection.held:
                lost, refused = collection.held, held_back(collection.held, opened.index.name)
            if refused:
                record.outcome.held_back = lost
                record.outcome.hold(refused)
                # what nobody decided on is shown to nobody, whatever else is held back
                ledger.keep_undecided()
                _delete_points(opened, scan, record)
                return Deleted(refused)
        if ledger.lost(cid):
            _delete_lost(opened, scan, record)
        if not scan.diff.leaves_some:
            if not scan.target.rebuild and collection.policies != scan.policies:
                ledger.update_collection(cid, policies=scan.policies)
            ledger.forget_unseen_failures(cid)
            ledger.record_complete(cid)
        complete = not (back or ledger.count_emptied())  # those must be read again
    return Deleted(f"{count_of(record.outcome.deleted, 'document')} deleted", complete)


def delete_some(opened: Opened, scan: Scan, record: RunRecord, *, gone: Sequence[str]) -> Deleted:
    """Delete documents that a person named and that the source no longer has, and the points of
    emptied ones. They need no guard."""
    ledger, cid = opened.ledger, scan.target.collection.id
    with record.stopwatch.stage("delete"):
        opened.lease.check()
        ledger.record_deleted(gone)
        if ledger.lost(cid):
            _delete_lost(opened, scan, record)
    return Deleted(f"{count_of(record.outcome.deleted, 'document')} deleted")


def find_undecided(source: Source, ledger: Ledger, counts: DocumentCounts) -> None:
    """Find the values that nobody decided on, and say so; note which of the gone documents have
    such a value. Call it after `Ledger.find_deleted`. An error is logged: then these documents
    count as lost."""
    if not isinstance(source, SqlSource):
        return
    try:
        counts.undecided = source.undecided_values()
        sentence = undecided_sentence(counts.index, counts.undecided)
        if sentence not in counts.message:  # a step may be tried again
            counts.say(sentence)
        if counts.undecided:
            for keys in source.undecided_keys():
                ledger.record_undecided(keys)
    except (SettingsError, SourceError, SourceUnavailable) as error:
        logger.warning(
            "%s: values that nobody decided on could not be counted: %s", counts.index, error
        )


def _delete_lost(opened: Opened, scan: Scan, record: RunRecord) -> None:
    _delete_points(opened, scan, record)
    opened.ledger.fail(
        scan.target.collection.id, scan.diff.excluded
    )  # deleting their points took them off the list


def _delete_points(opened: Opened, scan: Scan, record: RunRecord) -> None:
    ledger, collection = opened.ledger, scan.target.collection
    if undecided := ledger.count_undecided(collection).when_complete:
        ledger.reduce_size(collection.id, undecided)  # later losses are not added to what is none
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


def _too_many(lost: int, documents: int, share: float) -> bool:
    return lost > UNGUARDED_DELETES and lost > share * documents


@attrs.frozen
class DeleteGuard:
    """The delete guard of a scan into `collection`."""

    ledger: Ledger
    collection: Collection
    share: float
    hidden: str = ""
    """Why what is lost may only be hidden (`hidden_by_policies`); then any loss is too much."""
    before: IndexedDocuments | None = None
    """The documents that the collection had before the scan; by default those that it has now."""

    @classmethod
    def of(cls, opened: Opened, scan: Scan) -> DeleteGuard:
        """Return the guard of a run, for the collection that it writes to."""
        ledger, collection, share = (
            opened.ledger,
            scan.target.collection,
            opened.settings.run.delete_guard,
        )
        before = (
            scan.before if scan.before.all else None
        )  # a first run may have written what it deletes now
        return cls(ledger, collection, share, hidden_now(opened, scan, collection), before)

    @property
    def parts(self) -> dict[str, int]:
        """The most rows that each part had."""
        return {
            part: rows
            for part, rows in self.ledger.largest_sizes(self.collection.id).items()
            if part
        }

    def too_many(self, lost: IndexedDocuments) -> tuple[str, bool]:
        """Return what would be lost if that is more than the share, "" if it is not, and whether it
        is of what the index had when it was last whole. Rows of a wrong source must not hide the
        loss of the right ones, so only those count. Later documents count too, unless the last run
        was refused: they come from the same faulty source."""
        before = self.before or self.ledger.count_documents(self.collection)
        largest = max(
            before.when_complete, self.ledger.largest_sizes(self.collection.id).get("", 0)
        )
        earlier = largest - before.when_complete
        if lost.when_complete and _too_many(earlier + lost.when_complete, largest, self.share):
            if not earlier:
                return f"{lost.when_complete:,} of {largest:,} documents", True
            together = (
                f"{earlier + lost.when_complete:,} of {largest:,} with those lost in the last day"
            )
            return f"{lost.when_complete:,} documents ({together})", True
        if not self.collection.held and _too_many(lost.all, before.all, self.share):
            return f"{lost.all:,} of {before.all:,} documents", False
        return "", False

    def foresee(self) -> tuple[int, str]:
        """Return how many documents a run would hold back, and why, after `Ledger.find_deleted`."""
        lost = self.ledger.count_deletions(self.collection)
        if self.hidden and lost.all:
            return lost.all, f"the run would hold back {lost.all:,} documents: {self.hidden}"
        if many := self.too_many(lost)[0]:
            return (
                lost.all,
                f"the run would hold back {many}, more than delete_guard ({self.share:.0%}) allows",
            )
        return 0, ""

    def refuse(self) -> tuple[int, str]:
        """Return how many documents a run would delete, and why it may not; "" if it may. That is
        recorded. Once later documents alone were too many, all that the index has counts as what it
        had when it was whole."""
        lost = self.ledger.count_deletions(self.collection)
        many, of_whole = self.too_many(lost) if lost.all else ("", False)
        refused = ""
        if self.hidden and lost.all:
            refused = (
                f"{lost.all:,} documents would be deleted, but {self.hidden}; if they are to go,"
                f" {AGAIN}"
            )
        elif many:
            too_many = f"{many} would be deleted, more than delete_guard ({self.share:.0%}) allows"
            refused = f"{too_many}; nothing was deleted: if the source is right, {AGAIN}"
        with self.ledger.transaction():
            if many and not of_whole:
                self.ledger.record_complete(self.collection.id)
            self.ledger.hold_back(self.collection, lost.all if refused else 0)
        return lost.all, refused

    def allow(self) -> None:
        """Let everything be deleted, because a person allowed it or because no search reads the
        collection yet."""
        with self.ledger.transaction():
            self.ledger.hold_back(self.collection, 0)
            self.ledger.forget_sizes(self.collection.id)

    def replacement_refused(self, rebuilt: Collection, undecided: IndexedDocuments) -> str:
        """Return why `rebuilt` cannot replace the collection; "" if it lacks little of it but for
        `undecided` ones."""
        lost = self.ledger.count_unmatched(self.collection, rebuilt)
        lost = IndexedDocuments(
            max(0, lost.all - undecided.all),
            max(0, lost.when_complete - undecided.when_complete),
        )
        many, _ = self.too_many(lost)
        if not many and not (self.hidden and lost.all):
            return ""
        reason = f"more than delete_guard ({self.share:.0%}) allows" if many else self.hidden
        return (
            f"the rebuilt {rebuilt.name} lacks {many or f'{lost.all:,} documents'} of the live"
            f" collection, {reason}; it was not published: if that is right, {AGAIN}"
        )


def count_undecided(source: Source, ledger: Ledger, collection: Collection) -> IndexedDocuments:
    """Count the documents of a collection whose rows have a value that nobody decided on. An error
    is logged: then those count that were found before it."""
    every = when_complete = 0
    try:
        for keys in source.undecided_keys() if isinstance(source, SqlSource) else ():
            found = ledger.count_known(collection, keys)
            every += found.all
            when_complete += found.when_complete
    except (SettingsError, SourceError, SourceUnavailable) as error:
        logger.warning(
            "%s: documents that nobody decided on could not be counted: %s", collection.alias, error
        )
    return IndexedDocuments(every, when_complete)


def hidden_by_policies(live: Collection | None, *digests: str) -> str:
    """Return why what an index lacks may only be hidden, if one of the digests is not that of its
    last run."""
    same = live is None or {*digests} == {live.policies}
    return "" if same else "row level security, or the role that reads, changed since the last run"


def hidden_now(opened: Opened, scan: Scan, live: Collection) -> str:
    """Return why what the source lacks may only be hidden; "" if policies and reader stayed what
    they were."""
    return hidden_by_policies(live, scan.policies, policy_digest(opened.source))


def count_parts(source: Source, index: IndexSettings, guard: DeleteGuard | None) -> dict[str, int]:
    """Return how many rows the source has of each part of an index now. Raises as the source, and
    SourceError if a part of the live collection, whose guard this is, lost too many."""
    rows = source.count_parts() if isinstance(source, SqlSource) else {}
    share, parts = (guard.share, guard.parts) if guard is not None else (1.0, {})
    for part, largest in parts.items():
        now = rows.get(part, largest)
        hidden = guard.hidden if guard is not None and now < largest else ""
        if hidden or _too_many(largest - now, largest, share):
            why = hidden or f"which is a loss of more than delete_guard ({share:.0%}) allows"
            raise SourceError(
                f"index {index.name}: part {part} has {now:,} rows where it had {largest:,}, {why};"
                f" nothing was written: if the source is right, `rag-index index {index.name}"
                " --allow-deletes` goes on"
            )
    return rows
