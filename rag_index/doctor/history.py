"""What grows with every run: how much of it is kept, and how much the next run deletes (`[run] keep_days`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.chunking.context.cache import cache_url, count_contexts
from rag_index.database.urls import is_file
from rag_index.doctor.findings import count_phrase

if TYPE_CHECKING:
    from rag_index.ledger import Ledger
    from rag_index.settings import Settings

DAY = 86_400.0
MEGABYTE = 1_000_000


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
