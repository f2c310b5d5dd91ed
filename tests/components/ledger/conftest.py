"""Ledgers in both databases, and one in SQLite alone, whose clock a test sets."""

from contextlib import closing

import pytest

from rag_index.components.ledger import Collection, Ledger
from rag_index.core.database import database_url


class Clock:
    """A clock that is set by hand."""

    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def add(ledger: Ledger, name: str = "p_notes__1") -> Collection:
    """Add a collection of the alias that its name begins with."""
    return ledger.add_collection(
        alias=name.partition("__")[0],
        name=name,
        store_id="s",
        embedder_fingerprint="e",
        embedder="e",
        chunking="c",
        dimension=2,
        state="ready",
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    with closing(
        Ledger(database_url(f"sqlite:///{tmp_path}/ledger.db", tmp_path), clock=clock)
    ) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def each_ledger(request, clock):
    """A ledger in each database; in PostgreSQL, each transaction has another session."""
    if request.param == "sqlite":
        yield request.getfixturevalue("ledger")
        return
    postgres, pooled = map(request.getfixturevalue, ("postgres", "pooled"))
    with postgres.database() as name, closing(Ledger(pooled(name), clock=clock)) as opened:
        yield opened
