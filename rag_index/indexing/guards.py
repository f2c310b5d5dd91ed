"""Guards: when a run holds back, because what it would delete or publish looks like a mistake.

Each function returns a sentence for a person, or an empty text if nothing is held back.
"""

from __future__ import annotations

from dataclasses import dataclass

from rag_index.ledger import Counts
from rag_index.ledger.deletions import DAYS, HOURS

UNGUARDED_DELETES = 100
"""Up to this many deletions are never guarded."""


@dataclass(frozen=True, slots=True)
class Loss:
    """What an index would lose: `deletions` of the documents that it had `before` the run."""

    deletions: Counts
    before: Counts
    largest: int
    """The most documents that it had in the last `DAYS`."""

    def sentence(self, share: float) -> str:
        """Return what would be lost if that is more than `share`; "" if it is not.

        What was in the index when it was last whole is counted by itself, together with what was lost in the last
        days: documents that a wrong source brought must not outweigh it. What came later counts as long as not too much
        of the former is held back; if it is, what came later is of the source that lost the former.
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


def _too_many(lost: int, documents: int, share: float) -> bool:
    return lost > UNGUARDED_DELETES and lost > share * documents
