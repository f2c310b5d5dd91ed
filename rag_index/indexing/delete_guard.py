"""The delete guard of one scan: what it would delete is held back if that looks like a mistake.

A document that is held back stays in the index until the source has it again or a person allows its deletion
(`--allow-deletes`, or `index --id`, which names it). The rule is in `guards.Loss`.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from rag_index.indexing.guards import Loss, batch_refused, deletion_refused, held_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.ledger import Collection, Counts, Ledger


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
        cid, deletions = self._collection.id, self._ledger.count_named(self._collection, keys)
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
            self._ledger.mark_whole(self._collection.id)
        return self._ledger.count_held(self._collection.id)
