"""A scan state in memory: what a source with digests leaves unread has not changed.

The oracle is a source that reads everything: whatever a full scan finds must be what the earlier states and the rows
that a scan with digests read add up to.
"""

from contextlib import closing
from typing import Any
from unittest.mock import patch

from rag_index.components.sources import digest
from rag_index.components.sources.buckets import BucketDigests, BucketLayout
from rag_index.core.documents.keys import document_id
from tests.components.sources.databases import pages


class State:
    """What scans leave to the next one, as the ledger keeps it: a `ScanState` without documents that failed."""

    def __init__(self) -> None:
        self.layout: BucketLayout | None = None
        self.read_everything = False
        self.known: dict[int, str] = {}
        self.documents: dict[str, tuple[int, bytes, bytes]] = {}
        """The bucket and the hashes of each document, by key."""
        self.stamps: dict[str, str] = {}
        self.read: set[str] = set()
        """The ids that the last scan read."""

    @property
    def watermark(self):
        return None if self.layout is None or self.read_everything else self.layout.encode()

    def begin(self, layout, to_read, *, left=0) -> None:
        self.following, self.to_read = layout, to_read

    def digests(self, is_current=None):
        stale = [self.documents[key][0] for key, stamp in self.stamps.items() if not is_current(stamp)]
        return self.known | dict.fromkeys(stale, "")


def scan(source, state: State, *, rows: int = 50) -> None:
    """Scan the source and bring the state up to date, as a run does that comes to its end."""
    source.use_scan_state(state)
    total = source.count()
    found = BucketDigests()
    seen: dict[str, tuple[int, bytes, bytes]] = {}
    complete: set[int] = set()
    unread = 0
    for page in pages(source, rows):
        unread += page.buckets.unread
        documents = page.documents
        for key, *hashes in zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True):
            assert key not in seen
            seen[key] = (page.buckets.of[key], *hashes)
        for failure in page.unreadable:
            seen[failure.key] = (page.buckets.of[failure.key], b"", failure.reason.encode())
        assert page.buckets.of.keys() == {*documents.keys, *(failure.key for failure in page.unreadable)}
        assert complete.isdisjoint(page.buckets.sums), "no row of a bucket comes after it was complete"
        complete |= {*page.buckets.complete}
        state.stamps |= page.stamps
        for bucket, sums in page.buckets.sums.items():
            found.add(bucket, *sums)
    assert complete == found.keys()
    state.read = set(map(document_id, seen))
    read = found.keys() | state.known.keys() if state.to_read is None else state.to_read
    kept = {key: row for key, row in state.documents.items() if row[0] not in read}
    assert len(kept) == unread, "the rows of a bucket that is the same are those that were read once"
    assert total == len(kept) + len(seen)
    state.documents = {**kept, **seen}
    state.known = {bucket: digest for bucket, digest in state.known.items() if bucket not in read} | found.encoded()
    state.layout = state.following


def rescan(database, state: State, *, rows: int = 50, **index: Any) -> set[str]:
    """Scan with digests; return the ids that were read."""
    with patch.object(digest, "MIN_ROWS", 0), closing(database.digests(**index)) as source:
        scan(source, state, rows=rows)
    return state.read


def is_current(state: State, database, **index: Any) -> bool:
    """Return whether the state has the hashes of all documents as a scan reads them that leaves nothing unread."""
    full = State()
    rescan(database, full, **index)
    found, expected = ({key: row[1:] for key, row in one.documents.items()} for one in (state, full))
    return found == expected
