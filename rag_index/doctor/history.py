"""Advice about what grows with every run: how much there is, and how much of it the next run deletes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.doctor.findings import Advice, count_phrase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.ledger import Ledger
    from rag_index.settings import Settings

__all__ = ["history_advice"]

DAY = 86_400.0
LARGE = 100_000_000
"""Bytes of files from which they are named, although nothing is wrong."""
FILES = {"prefect/prefect.db": "Prefect's history", "contexts.db": "the cache of contexts"}
"""What grows in the folder `data`."""


def history_advice(settings: Settings, ledger: Ledger) -> Iterator[Advice]:
    """Yield how much is kept, if the next run deletes some of it or if it is large. Raises as `Ledger`."""
    keep = settings.run.keep_days
    aliases = {settings.alias(index.name) for index in settings.indexes}
    runs, failed = ledger.count_prunable(ledger.clock() - keep * DAY, aliases)
    sizes = {name: _size(settings, file) for file, name in FILES.items()}
    if not runs and not failed and sum(sizes.values()) < LARGE:
        return
    files = ", ".join(f"{name} has {size / 1e6:.0f} MB" for name, size in sizes.items() if size)
    there = ", ".join([f"the ledger has {count_phrase(ledger.count_runs(), 'run')}", *filter(None, [files])])
    deleted = f"{count_phrase(runs, 'run')} and {count_phrase(failed, 'failed document')} of indexes that are gone"
    yield Advice(
        None,
        f"{there}; the next run deletes {deleted}, and from Prefect's history what is older than {keep:g} days "
        "([run] keep_days)",
    )


def _size(settings: Settings, file: str) -> int:
    """Return the size of a file with what SQLite keeps beside it."""
    path = settings.data / file
    beside = [path, path.with_name(f"{path.name}-wal")]
    return sum(one.stat().st_size for one in beside if one.is_file())
