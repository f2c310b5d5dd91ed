"""What a check-up finds: findings with their remedy, advice, and both of all indexes together.

kind                    what is wrong                                           what --repair does
damaged_ledger          the ledger's file cannot be read                        sets it aside; then the next
unknown_collection      the alias shows what the ledger does not know           ledger rows from the payloads
other_store             the collection has another id than the ledger says      ledger rows from the payloads
lost_metadata           the store forgot who made a collection, the ledger knows    writes it again
moved                   the collection was carried to another store             nothing: correct the settings
missing_alias           the collection is there, nothing shows it               the alias
lost_collection         the ledger knows a collection that the store lost       forgets it; a run, if it was shown
unfinished_publish      shown, and the ledger takes it for unfinished           the ledger's word
unneeded_collection     nothing shows it, and keep_previous does not keep it    drops it
unreadable_collection   the store cannot read its own collection                a rebuild
metadata_differs        ledger and store name different makers of the vectors   a rebuild
other_fingerprint       the settings name another maker of the vectors          a rebuild; after a rollback nothing
unreadable_source       the source cannot be read                               nothing
missing_documents       done by the ledger, not a point in the store            marked open; a run
wrong_chunks            another number of chunks than the ledger says           marked open; a run
wrong_payloads          a payload or its hashes are not what the ledger says    marked open; a run
unknown_documents       source and store have it, the ledger does not           marked open; a run
orphan_points           points that nothing explains                            deletes them
open_documents          a run ended while it wrote them                         a run
failed_documents        could not be embedded                                   a run that tries them again
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Advice", "Diagnosis", "Finding", "counted"]

EXAMPLES = 5
"""Documents named in a finding."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and what to do about it. `count` is in documents, points or collections, by kind."""

    index: str | None
    """None where it concerns all of them."""
    kind: str
    count: int
    message: str
    remedy: str
    examples: tuple[str, ...] = ()
    """Some of them: document ids, or names of collections or points where there is no document."""

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "index": self.index,
            "kind": self.kind,
            "count": self.count,
            "examples": list(self.examples),
            "message": self.message,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Advice:
    """Nothing is wrong, and yet it may be worth a change."""

    index: str | None
    message: str

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"index": self.index, "message": self.message}


@dataclass(slots=True)
class Diagnosis:
    """All findings that there are; after a repair, those that are left, and those that are no more."""

    findings: list[Finding] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 where nothing is found, else 3."""
        return 3 if self.findings else 0

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "repaired": [finding.to_json() for finding in self.repaired],
            "advice": [advice.to_json() for advice in self.advice],
        }

    def kinds(self, index: str | None) -> set[str]:
        """The kinds of what was found in one index."""
        return {finding.kind for finding in self.findings if finding.index == index}


def counted(count: int, thing: str, examples: Sequence[str] = ()) -> str:
    """`3 documents (7, 10, 13)`."""
    named = f" ({', '.join(examples)}{', …' if len(examples) < count else ''})" if examples else ""
    return f"{count:,} {thing}{'s' if count != 1 else ''}{named}"
