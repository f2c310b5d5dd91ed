"""The delete guard of one scan: what it would delete is held back if that looks like a mistake.

A document that is held back stays in the index until the source has it again or a person allows its deletion
(`--allow-deletes`, or `index --id`, which names it). The rule is in `Loss`.

A lost part of a document cannot be held back: if a table of parts lost too many rows, nothing is written at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rag_index.errors import SourceError
from rag_index.ledger import Counts
from rag_index.ledger.deletions import DAYS, HOURS
from rag_index.sources.sql import SqlSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.ledger import Collection, Ledger
    from rag_index.settings import IndexSettings
    from rag_index.sources import Source

UNGUARDED_DELETES = 100
"""Up to this many deletions, or lost rows of a part, are never guarded."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What an index would lose: `deletions` of the documents that it had `before` the run."""

    deletions: Counts
    before: Counts
    largest: int
    """The most documents that it had in the last `DAYS`."""

    def sentence(self, share: float) -> str:
        """Return what would be lost if that is more than `share`; "" if it is not.

        The documents that the index had when it was last whole are counted by themselves, with those lost in the last
        days: documents that a wrong source brought must not outweigh them. Those that came later count too, unless
        too many of the first are held back: then they came from the source that lost the first.
        """
        lost, earlier = self.deletions.whole, self._earlier
        if self.is_of_whole(share):
            if not earlier:
                return f"{lost:,} of {self.largest:,} documents"
            together = f"{earlier + lost:,} of {self.largest:,} with those lost in the last {DAYS} days"
            return f"{lost:,} documents ({together})"
        suspected = _too_many(self._earlier + self.before.held, self.largest, share)
        if not suspected and _too_many(self.deletions.all, self.before.all, share):
            return f"{self.deletions.all:,} of {self.before.all:,} documents"
        return ""

    def is_of_whole(self, share: float) -> bool:
        """Return whether too much would be lost of what was in the index when it was last whole."""
        lost = self.deletions.whole
        return lost > 0 and _too_many(self._earlier + lost, self.largest, share)

    @property
    def since_shown(self) -> Loss:
        """The same without what is held back, which a person was shown and allows, with all that was lost before."""
        lost, before = self.deletions, self.before
        after = Counts(before.all - lost.held, before.whole - lost.held, before.held - lost.held)
        return Loss(Counts(lost.all - lost.held, lost.whole - lost.held, 0), after, after.whole)

    @property
    def _earlier(self) -> int:
        """How many documents were lost in the last days."""
        return max(0, self.largest - self.before.whole)


def deletion_refused(loss: Loss, share: float, *, shown: bool = False) -> str:
    """Return why a run deletes nothing, if it would delete more than `share` of the index.

    With `shown`, the loss is what came after a person was shown another one, which is deleted.
    """
    if not (lost := loss.sentence(share)):
        return ""
    deleted = "what was held back before is deleted, and nothing else" if shown else "nothing was deleted"
    return (
        f"{lost} would be deleted, more than delete_guard ({share:.0%}) allows; {deleted}: "
        "if the source is right, run again with --allow-deletes"
    )


def batch_refused(loss: Loss, earlier: int, share: float) -> str:
    """Return why a batch deletes nothing, if the batches of a day, which deleted `earlier` documents, would delete
    more than `share` of the index, or if a run that deleted the same would be refused.
    """
    lost, together = loss.deletions.all, earlier + loss.deletions.all
    which = loss.sentence(share)
    if not which and _too_many(together, loss.before.all + earlier, share):
        which = f"{lost:,} documents ({together:,} with those deleted in the last {HOURS} hours)"
    if not which:
        return ""
    return (
        f"{which} would be deleted, more than delete_guard ({share:.0%}) allows; they are held back: "
        "if the source is right, `rag-index index` with --allow-deletes deletes them"
    )


def held_back(documents: int, index: str) -> str:
    """Return the sentence about documents that earlier runs held back; "" if there are none."""
    if not documents:
        return ""
    which = "1 document is" if documents == 1 else f"{documents:,} documents are"
    return (
        f"{which} held back, because the source lost more than delete_guard allows: "
        f"`rag-index index {index} --allow-deletes` deletes what the source no longer has"
    )


def too_few_left(collection: str, loss: Loss, share: float) -> str:
    """Return why a rebuilt collection is not published, if it lacks too much of the live one, or what is held back."""
    lost = loss.sentence(share)
    if not lost and not loss.deletions.held:
        return ""
    reason = f"more than delete_guard ({share:.0%}) allows" if lost else "which are held back"
    lost = lost or f"{loss.deletions.held:,} documents"
    return (
        f"the rebuilt {collection} lacks {lost} of the live collection, {reason}; it was not published: "
        "if that is right, run again with --allow-deletes"
    )


def too_many_failed(collection: str, failed: int, documents: int, tolerated: float) -> str:
    """Return why a rebuilt collection is not published, if too many of its documents failed."""
    if failed / max(1, documents) <= tolerated:
        return ""
    return (
        f"{failed:,} documents failed, so the rebuilt {collection} was not published; "
        "correct them and run again, or raise tolerate_failed"
    )


def count_parts(source: Source, index: IndexSettings, guard: DeleteGuard | None) -> dict[str, int]:
    """Return how many rows the source has of each part of an index now.

    Raises as the source, and SourceError if the guard of the live collection finds that a part lost too many.
    """
    rows = source.count_parts() if isinstance(source, SqlSource) else {}
    if guard is not None:
        guard.check_parts(index.name, rows)
    return rows


def _too_many(lost: int, documents: int, share: float) -> bool:
    return lost > UNGUARDED_DELETES and lost > share * documents


class DeleteGuard:
    """The delete guard of a scan into `collection`. A scan of all documents calls `note_size` before it writes."""

    def __init__(self, ledger: Ledger, collection: Collection, share: float) -> None:
        self._ledger = ledger
        self._collection = collection
        self._share = share

    @cached_property
    def _before(self) -> Counts:
        return self._ledger.count_documents(self._collection)

    @cached_property
    def _largest(self) -> int:
        return max(self._before.whole, self._ledger.largest_size(self._collection.id))

    @property
    def any_documents(self) -> bool:
        """Whether the index had documents with points before the scan."""
        return self._before.all > 0

    def note_size(self) -> None:
        """Record how large the index is now, so that later runs notice if it shrinks little by little."""
        self._ledger.note_size(self._collection.id, self._before.whole)

    def check_parts(self, index: str, rows: Mapping[str, int]) -> None:
        """Check that no part lost too many of its rows; `rows` are those that the source has now, by part.

        Raises:
            SourceError: one did.
        """
        for part, largest in self._ledger.part_sizes(self._collection.id).items():
            now = rows.get(part, largest)
            if _too_many(largest - now, largest, self._share):
                raise SourceError(
                    f"index {index}: part {part} has {now:,} rows where it had {largest:,}, which is a loss of more "
                    f"than delete_guard ({self._share:.0%}) allows; nothing was written: if the source is right, "
                    f"`rag-index index {index} --allow-deletes` goes on"
                )

    def may_lose_parts(self, keys: Sequence[str]) -> bool:
        """Return whether these documents have so many chunks that, without them, `check_parts` may refuse."""
        largest = self._ledger.part_sizes(self._collection.id).values()
        chunks = sum(row.chunks for row in self._ledger.known(self._collection.id, keys).values()) if largest else 0
        return any(_too_many(chunks, rows, self._share) for rows in largest)

    def loss(self) -> Loss:
        """Return what the scan, which has seen the whole source, would delete."""
        return Loss(self._ledger.count_deletions(self._collection), self._before, self._largest)

    def loss_by(self, rebuilt: Collection) -> Loss:
        """Return what readers would lose if `rebuilt` replaced the collection."""
        return Loss(self._ledger.count_unmatched(self._collection, rebuilt), self._before, self._largest)

    def foresee(self, index: str) -> tuple[int, str]:
        """Return how many documents a run would hold back, and why."""
        loss = self.loss()
        if lost := loss.sentence(self._share):
            held = loss.deletions.whole if loss.is_of_whole(self._share) else loss.deletions.all
            return held, f"the run would hold back {lost}, more than delete_guard ({self._share:.0%}) allows"
        return loss.deletions.held, held_back(loss.deletions.held, index)

    def hand_over(self, rebuilt: Collection) -> None:
        """Let `rebuilt`, which replaces the collection, know how large that was."""
        self.note_size()
        self._ledger.copy_sizes(self._collection.id, rebuilt.id)

    def hold_back(self) -> str:
        """Hold back what the scan would delete if it is too much, and return the reason; "" if it is not."""
        loss = self.loss()
        refused = deletion_refused(loss, self._share)
        if refused:
            self._ledger.hold_back(self._collection, whole=loss.is_of_whole(self._share))
        return refused

    def hold_back_named(self, keys: Sequence[str]) -> str:
        """Hold back these documents, which a batch would delete, if it is too much, and return the reason.

        What the batches of a day delete counts together, or many small ones would be a way around the guard.
        """
        cid, deletions = self._collection.id, self._ledger.count_deletions(self._collection, keys)
        if not deletions.all:
            return ""
        earlier = self._ledger.count_batch_deletions(cid)
        refused = batch_refused(Loss(deletions, self._before, self._largest), earlier, self._share)
        if refused:
            self._ledger.hold_back_named(cid, keys)
        else:
            self._ledger.note_batch_deletions(cid, deletions.all)
        return refused

    def allow(self) -> str:
        """Hold nothing back, because a person allowed it or because nobody reads the collection yet.

        A person who was shown what is held back allowed that. What was lost since is held back in its place if it is
        too much, and the reason is returned; else "".
        """
        refused = ""
        if self._ledger.count_held(self._collection.id):
            refused = deletion_refused(self.loss().since_shown, self._share, shown=True)
        if refused:
            self._ledger.hold_back_others(self._collection)
        else:
            self._ledger.release_all(self._collection.id)
        return refused

    def finish(self) -> int:
        """Record that all was deleted but what is still held back, and return how many documents that is."""
        with self._ledger.transaction():
            self._ledger.release(self._collection.id)
            self._ledger.update_collection(self._collection.id, whole_at=self._ledger.clock())
        return self._ledger.count_held(self._collection.id)
