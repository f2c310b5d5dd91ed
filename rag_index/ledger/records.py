"""The rows that the ledger's methods return: documents, collections, failures, runs, and what a watch keeps.

Times are seconds since 1970, and None is never.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rag_index.documents.batches import CommitMark, FailureKind

PositionKind = Literal["log position", "number", "time"]
"""A place in PostgreSQL's log (`0/16B3748`), a number of a queue (`4711`, or with its time `4711@1764080000.123`), or a
time (ISO 8601)."""
PAGE, SEGMENT = 8192, 1 << 20
"""The size of a page of PostgreSQL's log, and of its smallest segment, whose first page has a longer header."""
HEADER, LONG_HEADER = 24, 40


class Known(NamedTuple):
    """The ledger's row of a document. A pending document is treated as changed."""

    text_hash: bytes
    payload_hash: bytes
    chunks: int
    pending: int


class Totals(NamedTuple):
    """Numbers of a collection: documents and points that are written, and documents that are pending."""

    documents: int
    points: int
    pending: int


class Counts(NamedTuple):
    """Numbers of documents with points: all, those that were there when the index was last whole, and held-back ones.

    Only documents of `whole` are counted as `held`.
    """

    all: int
    whole: int
    held: int


class ScanRecord(NamedTuple):
    """The state that a complete scan leaves for the next one; `full_at` is when one last read every document."""

    watermark: str
    settings: str
    full_at: float


class WaitingChange(NamedTuple):
    """A document of the inbox, which has to be read again. `number` grows each time that it arrives."""

    document_id: str
    number: int


class WaitingLookUp(NamedTuple):
    """Documents to be looked up by a value that they have, or had, in a column (see `changes.DocumentChange`)."""

    column: str
    value: str
    number: int
    """Grows each time that the same look-up arrives."""
    changed_at: float
    """The time of the earliest change that waits, by the clock of the source."""
    first_number: int
    """The number of the first arrival that is not indexed."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a source was seen: every change that was committed before `at`, or up to `text`, is known.

    A text can be compared with others (`parse_position`), and a time with the moment at which the source was looked at.
    """

    at: float
    """In seconds since 1970, by the clock of whoever looked, before the look."""
    text: str = ""
    """The place in the log or the number; "" where the source has neither."""
    how: str = "run"
    """How it is known: `wal`, `queue`, `poll`, `files` or `run`."""


def parse_position(text: str) -> tuple[PositionKind, float]:
    """Return what kind of position a text is, and a number that grows with it. Raises ValueError."""
    given = text.strip()
    high, slash, low = given.partition("/")
    if slash:
        number = int(high, 16) << 32 | int(low, 16)
        # at the start of a page, the server names the place after the header, before anything is written there
        header = LONG_HEADER if number % SEGMENT == LONG_HEADER else HEADER
        return "log position", number - header if number % PAGE == header else number
    row, _, changed_at = given.partition("@")
    if row.isascii() and row.isdigit():
        float(changed_at or 0)
        return "number", int(row)
    time = dt.datetime.fromisoformat(given)
    if time.tzinfo is None:
        raise ValueError("a time needs its zone")
    return "time", time.timestamp()


def includes(position: str, other: str) -> bool:
    """Return whether a place or a number is not before another of its kind.

    The time of a number has to be included too: after the source was put back to an older copy, numbers come again.
    """
    if parse_position(position)[1] < parse_position(other)[1]:
        return False
    times = [float(one.partition("@")[2] or 0) for one in (position, other)]
    return times[0] >= times[1]


class Reached(NamedTuple):
    """Up to where an index is complete: everything that its source had committed by then is found by a search."""

    alias: str
    collection: str
    """The name of the collection that this is true of, and of no other of the index."""
    commits: int
    """The number of the commit that a reader of this collection has to see."""
    number: int | None
    """Arrivals in the inbox up to this number are indexed; None if only runs say what is complete."""
    at: float
    """By when the source had committed it."""
    position: str
    """The place in the source's log, or the number of its queue; "" if there is none."""
    how: str
    """How it is known: `wal`, `queue`, `poll`, `files` or `run`."""

    def age(self, now: float) -> float | None:
        """Return how old the position is; None if its clock was ahead, so that nobody knows."""
        return now - self.at if self.at <= now else None


class MissedDocument(NamedTuple):
    """A document that a run mended although its change (`new`, `changed`, `deleted`) had to come by the watch."""

    document_id: str
    change: str
    run_id: str
    found_at: float


@dataclass(frozen=True, slots=True)
class WatchRecord:
    """What the ledger keeps about the watch of an index."""

    alias: str
    since: float
    """Since when the watch has followed the index without a gap."""
    last_number: int
    full_number: int | None
    """A complete scan that begins at this number or later is needed, since nobody knows what changed; or None."""
    state: str
    """`running`, `catching up`, `waiting`, `backing off`, `failing` or `stopped`; `message` says why."""
    message: str
    caught_up_at: float | None
    """When every change that was known was last in the index."""
    applied_at: float | None
    blind: str
    """What the watch cannot see of this index; "" if it has to see every change."""
    compared: str
    """The hash of the settings with which all documents were last compared; "" if the next scan cannot rely on it."""
    unkept: int
    """How many documents the last scan found changed beyond `inbox.MAX_KEPT`."""
    looked_up: int


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of the store, as the ledger knows it."""

    id: int
    alias: str
    name: str
    store_id: str
    embedder_fingerprint: str
    embedder: str
    """A description of the embedder for messages."""
    chunking: str
    dimension: int
    state: str
    """`ready`, or `building` while another collection is live."""
    created_at: float
    chars_per_second: float | None
    whole_in: int
    """The commit by which it last had everything that the source had, and nothing else; 0 if it never had."""
    commits: int
    committed_at: str
    written_by: str = ""
    """A hash of the settings by which it was last written, or a run began to; "" if nobody knows."""

    @property
    def commit_mark(self) -> CommitMark:
        """The last commit. The store has the same one, unless one of the two was restored from an older copy."""
        return CommitMark(self.commits, self.committed_at)


class PendingErasures(NamedTuple):
    """Documents deleted or changed since the last erasure, of which the store's files may keep the texts."""

    hashes: list[str]
    """Those of their keys."""
    since: float | None
    named: bool
    """Whether a person had one of them erased, and that did not end."""


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that could not be indexed, with its reason and number of tries."""

    key: str
    text_hash: bytes
    reason: str
    tries: int
    first_at: float
    last_at: float
    kind: FailureKind = "failed"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run of one index. Runs are ordered by their `number`, whatever the clock said."""

    id: str
    alias: str
    number: int
    host: str
    pid: int
    started_at: float
    ended_at: float | None
    state: str
    message: str
    report: dict[str, Any]
