"""A scan state in memory: what a source with digests leaves unread has not changed.

The oracle is a source that reads everything: whatever a full scan finds must be what the earlier states and the rows
that a scan with digests read add up to.
"""

from contextlib import closing
from typing import Any

from rag_index.components.sources.digest import BucketDigests
from rag_index.core.documents.keys import document_id
from tests.sources.databases import pages


class State:
    """What scans leave to the next one, as the ledger keeps it: a `ScanState` without documents that failed."""

    def __init__(self) -> None:
        self.last_watermark: str | None = None
        self.read_everything = False
        self.known: dict[int, str] = {}
        self.documents: dict[str, tuple[int, bytes, bytes]] = {}
        """The bucket and the hashes of each document, by key."""
        self.read: set[str] = set()
        """The ids that the last scan read."""

    @property
    def watermark(self):
        return None if self.read_everything else self.last_watermark

    def set_watermark(self, watermark: str) -> None:
        self.following = watermark

    def digests(self):
        return self.known


def scan(source, state: State, *, rows: int = 50) -> None:
    """Scan the source and bring the state up to date, as a run does that comes to its end."""
    source.use_scan_state(state)
    total = source.count()
    found = BucketDigests()
    seen: dict[str, tuple[int, bytes, bytes]] = {}
    unread: dict[int, int] = {}
    for page in pages(source, rows):
        unread.update(page.unread_buckets)
        documents = page.documents
        for key, *hashes in zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True):
            assert key not in seen
            seen[key] = (page.digests[key].bucket, *hashes)
        for failure in page.unreadable:
            seen[failure.key] = (page.digests[failure.key].bucket, b"", failure.reason.encode())
        assert page.digests.keys() == {*documents.keys, *(failure.key for failure in page.unreadable)}
        for bucket, *sums in page.digests.values():
            found.add(bucket, 1, *sums)
    state.read = set(map(document_id, seen))
    kept = {key: row for key, row in state.documents.items() if row[0] in unread}
    assert len(kept) == sum(unread.values()), "the rows of a bucket that is the same are those that were read once"
    assert total == len(kept) + len(seen)
    state.documents = {**kept, **seen}
    state.known = {bucket: digest for bucket, digest in state.known.items() if bucket in unread}
    state.known |= found.encoded()
    state.last_watermark = state.following


def rescan(database, state: State, *, rows: int = 50, **index: Any) -> set[str]:
    """Scan with digests; return the ids that were read."""
    with closing(database.digests(**index)) as source:
        scan(source, state, rows=rows)
    return state.read


def is_current(state: State, database, **index: Any) -> bool:
    """Return whether the state has the hashes of all documents as a scan reads them that leaves nothing unread."""
    full = State()
    rescan(database, full, **index)
    found, expected = ({key: row[1:] for key, row in one.documents.items()} for one in (state, full))
    return found == expected
