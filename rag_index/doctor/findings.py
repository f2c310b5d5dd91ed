"""Results of a check-up: findings with their remedy, advice, and the diagnosis that holds both for all indexes.

kind                    what is wrong                                             what --repair does
damaged_ledger          SQLite cannot read the ledger's file                      renames the file, then as below
unknown_collection      the ledger does not know the live collection              makes ledger rows from the payloads
other_store             the live collection has another id than in the ledger     makes ledger rows from the payloads
lost_metadata           the store forgot what made a collection                   writes the ledger's values
moved                   the collection was moved to another store                 nothing: correct the settings
foreign_collection      another program's collection has the alias's name         nothing: remove it, or rename
missing_alias           no alias points at a collection that could be live        sets the alias
lost_collection         the store lost a collection that the ledger knows         drops its rows; runs if it was live
unfinished_publish      the ledger counts the live collection as unfinished       corrects the ledger
unneeded_collection     it is not live, and keep_previous does not keep it        drops it
unreadable_collection   the store cannot read its own collection                  rebuilds
metadata_differs        ledger and store disagree on what made the vectors        rebuilds
other_fingerprint       the settings would make other vectors or chunks           rebuilds, but not after a rollback
unreadable_source       the source cannot be read                                 nothing
broken_feed             a watch cannot learn of the source's changes              nothing: `watch --setup` prints SQL
unusable_gate           the golden file of the gate cannot be used                nothing
restored                store and ledger are not at the same commit               runs, which compares every point
missing_documents       they are committed, but have no point                     marks them as pending, and runs
wrong_chunks            the number of chunks is not the ledger's                  marks them as pending, and runs
wrong_payloads          a payload or its hashes are not the ledger's              marks them as pending, and runs
missing_words           a point lacks the sparse vector of its words              marks them as pending, and runs
unknown_documents       source and store have them, the ledger does not           marks them as pending, and runs
orphan_points           nothing explains these points                             deletes them
pending_documents       a run ended while it wrote them                           runs
failed_documents        they could not be indexed                                 runs, and tries them again
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.doctor.history import Kept


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and its remedy. The kind decides whether `count` counts documents, points or others."""

    index: str | None
    """None if the finding concerns all indexes."""
    kind: str
    count: int
    message: str
    remedy: str
    examples: tuple[str, ...] = ()
    """A few document ids, or names of collections or ids of points if there is no document."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that is not wrong, but may be worth a change."""

    index: str | None
    message: str


@dataclass(slots=True)
class Diagnosis:
    """All findings and advice; after a repair, `findings` holds what is left, and `repaired` what is not."""

    findings: list[Finding] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)
    kept: Kept | None = None
    """How much is kept of what grows with every run; None if the ledger cannot be read."""

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing is wrong, else 3."""
        return 3 if self.findings else 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self)

    def kinds(self, index: str | None) -> set[str]:
        """Return the kinds of the findings in one index."""
        return {finding.kind for finding in self.findings if finding.index == index}


def count_phrase(count: int, noun: str, examples: Sequence[str] = ()) -> str:
    """Return a count with its noun and examples, such as `3 documents (7, 10, 13)`."""
    named = f" ({', '.join(examples)}{', …' if len(examples) < count else ''})" if examples else ""
    return f"{count_of(count, noun)}{named}"
