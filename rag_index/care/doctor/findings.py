"""Results of a check-up: findings with their remedy, advice, and the diagnosis that holds both for all indexes.
docs/doctor.md says of each kind what is wrong, and what a repair does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.components.ledger import reconciled_by
from rag_index.components.sources.policies import REMEDY
from rag_index.core.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

_EMBED = "`rag-index doctor --repair` embeds them again; so does `rag-index rebuild {index}`, with all other documents"
REMEDIES = {
    "damaged_ledger": "restore it from a backup; or `rag-index doctor --repair` renames it and makes a new one from "
    "the store, without embedding",
    "unknown_collection": "name the right ledger in [ledger] url; or `rag-index doctor --repair` makes the ledger from "
    "the store, without embedding",
    "other_store": "name the right [store] or [ledger]; or `rag-index doctor --repair` keeps the store as it is and "
    "makes the ledger from it, without embedding",
    "lost_metadata": "`rag-index doctor --repair` writes them again, and compares every point",
    "moved": "set [store] in the settings to that store; from there `rag-index move` moves it back",
    "foreign_collection": "until then runs and searches of the index fail",
    "missing_alias": "`rag-index doctor --repair` sets the alias again",
    "lost_collection": "`rag-index doctor --repair` removes them from the ledger, and indexes all documents again if "
    "one was live; or name the right [store]",
    "unfinished_publish": "`rag-index doctor --repair` corrects the ledger",
    "unneeded_collection": "`rag-index doctor --repair` drops them; if another ledger knows them, name it in [ledger] "
    "url first",
    "unreadable_collection": "restore the store from a backup; or `rag-index doctor --repair` builds a new collection "
    "beside it",
    "other_fingerprint": "restore the settings, or run `rag-index rebuild {index}`, which --repair does too, and which "
    "embeds again",
    "rolled_back": "restore the settings, or run `rag-index rebuild {index}`; --repair leaves that to you",
    "unreadable_source": "correct it; until then the index stays as it is",
    "broken_feed": "until then changes are found by the next run, or `rag-index index` now",
    "ignored_policies": f"{REMEDY}; a policy for this role that shows all rows says that it is meant",
    "unusable_gate": "correct it, or remove the table; until then a rebuild ends at its start",
    "restored": "{reconciled}; so does `rag-index doctor --repair`",
    "missing_documents": _EMBED,
    "wrong_chunks": _EMBED,
    "wrong_payloads": _EMBED,
    "unknown_documents": _EMBED,
    "orphan_points": "`rag-index doctor --repair` deletes them",
    "pending_documents": "`rag-index index {index}` writes them again; so does `rag-index doctor --repair`. Those that "
    "the source has lost and that are held back stay until `rag-index index {index} --allow-deletes`",
    "pending_erasures": "`rag-index erase {index}` leaves no file with them, as each run does with [store] erase",
    "failed_documents": "list them with `rag-index failed {index}` and correct them in the source; then run `rag-index "
    "retry-failed {index}`, which --repair does too",
}
"""What to do about each kind of finding. A collection of other settings has another remedy if it was rolled back to."""


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


def finding(
    index: str | None, kind: str, message: str, examples: Sequence[str] = (), *, count: int = 1, remedy: str = ""
) -> Finding:
    """Return a finding with the remedy of its kind, or of the kind `remedy`."""
    text = REMEDIES[remedy or kind].format(index=index, reconciled=reconciled_by(index or ""))
    return Finding(index, kind, count, message, text, tuple(examples))


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

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing is wrong, else 3."""
        return 3 if self.findings else 0

    def kinds(self, index: str | None) -> set[str]:
        """Return the kinds of the findings in one index."""
        return {finding.kind for finding in self.findings if finding.index == index}


def count_phrase(count: int, noun: str, examples: Sequence[str]) -> str:
    """Return a count with its noun and examples, such as `3 documents (7, 10, 13)`."""
    return f"{count_of(count, noun)} ({', '.join(examples)}{', …' if len(examples) < count else ''})"
