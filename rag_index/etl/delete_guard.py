"""The delete guard of one scan: deletions that look like a mistake are held back. A document that is held back stays in
the index until the source has it again or a person allows its deletion (`--allow-deletes`, or `index --id`, which names
it). The rule is in `Loss`. A lost part of a document cannot be held back: if a table of parts lost too many rows,
nothing is written at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import attrs

from rag_index.components.ledger import Collection, Counts, Ledger
from rag_index.components.ledger.scans import DAYS
from rag_index.components.sources.sql import SqlSource, policy_digest
from rag_index.errors import SourceError

if TYPE_CHECKING:
    from rag_index.components.sources import Source
    from rag_index.core.settings import IndexSettings
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan

UNGUARDED_DELETES = 100
"""Up to this many deletions, or lost rows of a part, are never guarded."""
ALLOW_REMEDY = "if the source is right, run again with --allow-deletes"


@dataclass(frozen=True, slots=True)
class Loss:
    """What an index would lose: `deletions` of the documents that it had `before` the run."""

    deletions: Counts
    before: Counts
    largest: int

    def sentence(self, share: float) -> str:
        """Return what would be lost if that is more than `share`; "" if it is not. The guard compares with the
        documents of the last complete run, so that new documents of a wrong source cannot hide the loss of old ones.
        Later documents count too, unless too many of the first are held back: if so, the later documents come from the
        same faulty source."""
        lost, earlier = self.deletions.whole, self._earlier
        if self.is_of_whole(share):
            if not earlier:
                return f"{lost:,} of {self.largest:,} documents"
            together = f"{earlier + lost:,} of {self.largest:,} with those lost in the last {DAYS} days"
            return f"{lost:,} documents ({together})"
        suspected = _too_many(earlier + self.before.held, self.largest, share)
        if not suspected and _too_many(self.deletions.all, self.before.all, share):
            return f"{self.deletions.all:,} of {self.before.all:,} documents"
        return ""

    def is_of_whole(self, share: float) -> bool:
        """Return whether too much would be lost of what was in the index when it was last whole."""
        lost = self.deletions.whole
        return lost > 0 and _too_many(self._earlier + lost, self.largest, share)

    @property
    def since_shown(self) -> Loss:
        """The loss without what is held back: a person saw that, and allows it."""
        held = self.deletions.held
        after = Counts(*(count - held for count in self.before))
        return Loss(Counts(self.deletions.all - held, self.deletions.whole - held, 0), after, after.whole)

    @property
    def _earlier(self) -> int:
        return max(0, self.largest - self.before.whole)


def held_back(documents: int, index: str) -> str:
    """Return the sentence about documents that earlier runs held back; "" if there are none."""
    if not documents:
        return ""
    which = "1 document is" if documents == 1 else f"{documents:,} documents are"
    return (
        f"{which} held back, because the source lost more than delete_guard allows, or its policies changed: "
        f"`rag-index index {index} --allow-deletes` deletes what the source no longer has"
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
    before: Counts | None = None
    """The documents that the collection had before the scan; by default those that it has now."""

    @classmethod
    def of(cls, opened: Opened, scan: Scan) -> DeleteGuard:
        """Return the guard of a run, for the collection that it writes to."""
        ledger, collection, share = opened.ledger, scan.target.collection, opened.settings.run.delete_guard
        return cls(ledger, collection, share, hidden_now(opened, scan), scan.before)

    @property
    def parts(self) -> dict[str, int]:
        """The most rows that each part had."""
        return {part: rows for part, rows in self.ledger.largest_sizes(self.collection.id).items() if part}

    def _loss(self, deletions: Counts) -> Loss:
        before = self.before or self.ledger.count_documents(self.collection)
        largest = self.ledger.largest_sizes(self.collection.id).get("", 0)
        return Loss(deletions, before, max(before.whole, largest))

    def _refused(self, lost: str, then: str) -> str:
        """Return why the `lost` documents are not deleted, and what happens `then`; "" if nothing is lost."""
        return lost and f"{lost} would be deleted, more than delete_guard ({self.share:.0%}) allows; {then}"

    def foresee(self, index: str) -> tuple[int, str]:
        """Return how many documents a run would hold back, and why, after `Ledger.find_gone`."""
        loss = self._loss(self.ledger.count_deletions(self.collection))
        if self.hidden and loss.since_shown.deletions.all:
            return loss.deletions.all, f"the run would hold back {loss.deletions.all:,} documents: {self.hidden}"
        if lost := loss.sentence(self.share):
            held = loss.deletions.whole if loss.is_of_whole(self.share) else loss.deletions.all
            return held, f"the run would hold back {lost}, more than delete_guard ({self.share:.0%}) allows"
        return loss.deletions.held, held_back(loss.deletions.held, index)

    def hold_back(self) -> str:
        """Hold back what the scan would delete if it is too much, and return the reason; "" if it is not."""
        loss = self._loss(self.ledger.count_deletions(self.collection))
        hidden = self._hidden_sentence(loss.since_shown.deletions.all)
        if refused := hidden or self._refused(loss.sentence(self.share), f"nothing was deleted: {ALLOW_REMEDY}"):
            with self.ledger.transaction():
                self.ledger.release(self.collection.id)
                self.ledger.hold_back(self.collection, whole=not hidden and loss.is_of_whole(self.share))
        return refused

    def _hidden_sentence(self, lost: int) -> str:
        remedy = "if they are to go, run again with --allow-deletes"
        return f"{lost:,} documents would be deleted, but {self.hidden}; {remedy}" if self.hidden and lost else ""

    def allow(self) -> str:
        """Hold nothing back, because a person allowed it or because no search reads the collection yet. A person who
        was shown what is held back allowed that. What was lost since is held back in its place if it is too much, and
        the reason is returned; else ""."""
        if self.ledger.count_held(self.collection.id):
            since = self._loss(self.ledger.count_deletions(self.collection)).since_shown.sentence(self.share)
            if since:
                self.ledger.hold_back_others(self.collection)
                return self._refused(since, f"what was held back before is deleted, and nothing else: {ALLOW_REMEDY}")
        self.ledger.release_all(self.collection.id)
        return ""

    def replacement_refused(self, rebuilt: Collection) -> str:
        """Return why `rebuilt` cannot replace the collection, if it lacks too much of it, or what is held back."""
        loss, share = self._loss(self.ledger.count_unmatched(self.collection, rebuilt)), self.share
        lost, count = loss.sentence(share), loss.deletions.all if self.hidden else loss.deletions.held
        if not lost and not count:
            return ""
        reason = f"more than delete_guard ({share:.0%}) allows" if lost else self.hidden or "which are held back"
        lost = lost or f"{count:,} documents"
        return (
            f"the rebuilt {rebuilt.name} lacks {lost} of the live collection, {reason}; it was not published: "
            "if that is right, run again with --allow-deletes"
        )


def hidden_by_policies(ledger: Ledger, alias: str, *digests: str) -> str:
    """Return why what an index lacks may only be hidden, if one of the digests is not that of its last run."""
    known = ledger.defined(alias, "policies")
    return "" if {*digests} == {known} else "row level security, or the role that reads, changed since the last run"


def hidden_now(opened: Opened, scan: Scan) -> str:
    """Return why what the source lacks may only be hidden; "" if policies and reader stayed what they were."""
    return hidden_by_policies(opened.ledger, opened.alias, scan.policies, policy_digest(opened.source))


def count_parts(source: Source, index: IndexSettings, guard: DeleteGuard | None) -> dict[str, int]:
    """Return how many rows the source has of each part of an index now. Raises as the source, and SourceError if a part
    of the live collection, whose guard this is, lost too many."""
    rows = source.count_parts() if isinstance(source, SqlSource) else {}
    share, parts = (guard.share, guard.parts) if guard is not None else (1.0, {})
    for part, largest in parts.items():
        now = rows.get(part, largest)
        hidden = guard.hidden if guard is not None and now < largest else ""
        if hidden or _too_many(largest - now, largest, share):
            why = hidden or f"which is a loss of more than delete_guard ({share:.0%}) allows"
            raise SourceError(
                f"index {index.name}: part {part} has {now:,} rows where it had {largest:,}, {why}; nothing was "
                f"written: if the source is right, `rag-index index {index.name} --allow-deletes` goes on"
            )
    return rows
