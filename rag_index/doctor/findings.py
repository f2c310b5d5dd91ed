"""Results of a check-up: findings with their remedy, advice, and the diagnosis that holds both for all indexes.

The diagnosis also tells what grows with every run: how much is kept, and how much the next run deletes.

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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.chunking.context.cache import cache_url, count_contexts
from rag_index.database.urls import is_file
from rag_index.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.ledger import Ledger
    from rag_index.settings import Settings

DAY = 86_400.0
MEGABYTE = 1_000_000


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


@dataclass(frozen=True, slots=True)
class Kept:
    """How much is kept. The fields that begin with `old_` count what the next run deletes."""

    keep_days: float
    runs: int
    """Runs in the ledger."""
    old_runs: int
    old_failed: int
    """Failed documents of indexes that are gone."""
    old_changes: int
    """Changes that wait for indexes that are gone."""
    old_watches: int
    """Watches of indexes that are gone."""
    old_buckets: int
    """Digests of buckets of indexes that are gone."""
    contexts: int
    """Contexts in the cache."""
    contexts_bytes: int
    """The size of the cache's file; 0 if the contexts are in the ledger's database."""
    prefect_bytes: int
    """The size of the database of the Prefect server that a command starts for itself."""
    trash_bytes: int
    """The size of dropped collections that were not deleted yet."""

    def sentence(self) -> str:
        """Return all of it in one line for a person."""
        size = f" ({_size(self.contexts_bytes)})" if self.contexts_bytes else ""
        there = [
            count_phrase(self.runs, "run"),
            f"{_size(self.prefect_bytes)} of Prefect's history",
            f"{count_phrase(self.contexts, 'context')}{size}",
            f"{_size(self.trash_bytes)} of dropped collections",
        ]
        gone = [
            count_phrase(self.old_failed, "failed document"),
            count_phrase(self.old_changes, "waiting change"),
            f"{self.old_watches:,} watch{'es' if self.old_watches != 1 else ''}",
            count_phrase(self.old_buckets, "digest"),
        ]
        deleted = [count_phrase(self.old_runs, "run")] if self.old_runs else []
        if any(one[0] != "0" for one in gone):
            deleted.append(f"{', '.join(one for one in gone if one[0] != '0')} of indexes that are gone")
        next_run = f"; the next run deletes {' and '.join(deleted)}" if deleted else ""
        return f"kept for {self.keep_days:g} days ([run] keep_days): {', '.join(there)}{next_run}"


def kept_history(settings: Settings, ledger: Ledger, *, trash: int) -> Kept:
    """Return how much is kept; `trash` is what `trash_bytes` returned before the store was opened.

    Raises what a ledger raises.
    """
    keep, cache = settings.run.keep_days, cache_url(settings.ledger_url)
    before = max(0.0, ledger.clock() - keep * DAY)
    old = ledger.count_prunable(before, {settings.alias(index.name) for index in settings.indexes})
    return Kept(
        keep_days=keep,
        runs=ledger.count_runs(),
        old_runs=old.runs,
        old_failed=old.failed,
        old_changes=old.changes,
        old_watches=old.watches,
        old_buckets=old.buckets,
        contexts=count_contexts(cache),
        contexts_bytes=_file_bytes(Path(str(cache.database))) if is_file(cache) else 0,
        prefect_bytes=_file_bytes(settings.data / "prefect" / "prefect.db"),
        trash_bytes=trash,
    )


def trash_bytes(settings: Settings) -> int:
    """Return the size of what a dropped collection left in the embedded store. Opening the store deletes it."""
    trash = settings.store.path / "trash"
    return 0 if settings.store.url else sum(_bytes(file) for file in trash.rglob("*"))


def _file_bytes(path: Path) -> int:
    """Return the size of a database's file with what SQLite keeps beside it."""
    return sum(map(_bytes, (path, path.with_name(f"{path.name}-wal"))))


def _bytes(path: Path) -> int:
    """Return the space that a file takes; 0 for a folder, and for a file that is deleted meanwhile."""
    try:
        return path.stat().st_blocks * 512 if path.is_file() else 0
    except OSError:
        return 0


def _size(size: int) -> str:
    return f"{size / MEGABYTE:,.{0 if size >= 10 * MEGABYTE else 1}f} MB"
