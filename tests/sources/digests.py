"""A scan state in memory, and random edits: what a source with digests leaves unread has not changed.

The oracle is a source that reads everything: whatever a full scan finds must be what the earlier states and the rows
that a scan with digests read add up to.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from rag_index.sources.buckets import BucketDigest, RowDigest, add_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Corpus", "State", "alike", "change_places", "edits", "everything", "many_buckets", "scan"]


class Corpus:
    """A table `note` with the columns `id`, `body` and others; `source(**more)` opens it, `execute` writes it."""

    def execute(self, statement: str, values=()) -> None:
        raise NotImplementedError

    def source(self, **more: Any):
        raise NotImplementedError


class State:
    """What scans leave to the next one, as the ledger keeps it: a `ScanState` without documents that failed."""

    def __init__(self) -> None:
        self.last_watermark: str | None = None
        self.read_everything = False
        self.known: dict[int, str] = {}
        self.documents: dict[str, tuple[int, bytes, bytes]] = {}
        """The bucket and the hashes of each document, by key."""
        self.rows_read = 0

    @property
    def watermark(self):
        return None if self.read_everything else self.last_watermark

    def set_watermark(self, watermark: str) -> None:
        self.following = watermark

    def digests(self):
        return self.known


def scan(source, state: State, *, rows: int = 50, between: Callable[[], object] = lambda: None) -> None:
    """Scan the source and bring the state up to date, as a run does that comes to its end.

    `between` is called when the source has its digests and has not yet read a row.
    """
    source.use_scan_state(state)
    total = source.count()
    between()
    found: dict[int, BucketDigest] = {}
    seen: dict[str, tuple[int, bytes, bytes]] = {}
    unread: dict[int, int] = {}
    cursor: Any = None
    while True:
        page = source.page(cursor, rows)
        unread.update(page.unread_buckets)
        documents = page.documents
        for key, *hashes in zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True):
            assert key not in seen
            seen[key] = (page.digests[key].bucket, *hashes)
        for failure in page.unreadable:
            seen[failure.key] = (page.digests[failure.key].bucket, b"", failure.reason.encode())
        assert page.digests.keys() == {*documents.keys, *(failure.key for failure in page.unreadable)}
        add_rows(found, page.digests.values())
        cursor = page.cursor
        if cursor is None:
            break
    state.rows_read = len(seen)
    kept = {key: row for key, row in state.documents.items() if row[0] in unread}
    assert len(kept) == sum(unread.values()), "the rows of a bucket that is the same are those that were read once"
    assert total == len(kept) + len(seen)
    state.documents = {**kept, **seen}
    state.known = {bucket: digest for bucket, digest in state.known.items() if bucket in unread}
    state.known |= {bucket: digest.encode() for bucket, digest in found.items()}
    state.last_watermark = state.following


def everything(corpus: Corpus, **more: Any) -> dict[str, tuple[bytes, bytes]]:
    """Return the hashes of all documents, by key, as a scan reads them that leaves nothing unread."""
    state = State()
    with closing(corpus.source(**more)) as source:
        scan(source, state)
    return {key: row[1:] for key, row in state.documents.items()}


def edits(corpus: Corpus, data, key: st.SearchStrategy, columns: dict[str, st.SearchStrategy], *, rounds: int,
          **more: Any) -> None:  # fmt: skip
    """Edit the corpus at random, and compare after each round what a scan with digests knows with what is there."""
    rows = data.draw(st.dictionaries(key.map(Key), st.tuples(*columns.values()), max_size=40), label="rows")
    names = ", ".join(["id", *columns])
    marks = ", ".join(["%s"] * (len(columns) + 1))
    keys = {one.value: None for one in rows}
    for one, values in rows.items():
        corpus.execute(f"INSERT INTO note ({names}) VALUES ({marks})", (one.value, *values))
    state = State()
    for number in range(rounds + 1):
        with closing(corpus.source(**more)) as source:
            scan(source, state)
        assert {key: row[1:] for key, row in state.documents.items()} == everything(corpus, **more)
        for _ in range(data.draw(st.integers(0, 4), label="edits") if number < rounds else 0):
            _edit(corpus, data, keys, key, columns)


def alike(corpus: Corpus, column: str, values: Sequence[Any], *, mark: str = "%s", **more: Any) -> None:
    """Put each of these values into the column, after several others: every one of these changes is found."""
    state = State()
    for value in [*values, *values[-2::-1], *values[2::2], *values[1::2]]:
        corpus.execute(f"UPDATE note SET {column} = {mark} WHERE id = 7", (value,))
        _rescan(corpus, state, **more)
        assert state.rows_read > 0, value
        _rescan(corpus, state, **more)
        assert state.rows_read == 0, value


def change_places(corpus: Corpus, first: Any = 7, second: Any = 8, **more: Any) -> None:
    """Let values of a row change columns, two rows their texts, and a row its key."""
    state = State()
    corpus.execute("UPDATE note SET one = 'left', two = 'right', body = 'a text' WHERE id = %s", (first,))
    corpus.execute("UPDATE note SET one = 'left', two = 'right', body = 'another' WHERE id = %s", (second,))
    _rescan(corpus, state, **more)
    for statement, values in (
        ("UPDATE note SET one = 'right', two = 'left' WHERE id = %s", [first]),
        ("UPDATE note SET one = 'rightl', two = 'eft' WHERE id = %s", [first]),
        ("UPDATE note SET one = 'left', two = 'right' WHERE id = %s", [first]),
        ("UPDATE note SET body = CASE id WHEN %s THEN 'another' ELSE 'a text' END WHERE id IN (%s, %s)",
         [first, first, second]),
        ("DELETE FROM note WHERE id = %s", [first]),
        ("UPDATE note SET id = %s WHERE id = %s", [first, second]),
    ):  # fmt: skip
        corpus.execute(statement, values)
        _rescan(corpus, state, **more)
        assert {key: row[1:] for key, row in state.documents.items()} == everything(corpus, **more), statement
        assert state.rows_read > 0, statement
        _rescan(corpus, state, **more)
        assert state.rows_read == 0, statement


def many_buckets(corpus: Corpus, key: type, **more: Any) -> None:
    """Change rows in more buckets than a query lists, and delete and add some between them."""
    state = State()
    for number in range(1000):
        corpus.execute("INSERT INTO note (id, body) VALUES (%s, 'text')", (key(number),))
    _rescan(corpus, state, **more)
    for statement in ("UPDATE note SET body = 'other' WHERE id = %s", "DELETE FROM note WHERE id = %s"):
        for number in (300, 340, 380, 420, 460, 500, 560):
            corpus.execute(statement, (key(number),))
        corpus.execute("UPDATE note SET body = %s WHERE id = %s", (f"between: {statement}", key(440)))
        _rescan(corpus, state, **more)
        assert {key: row[1:] for key, row in state.documents.items()} == everything(corpus, **more)
        _rescan(corpus, state, **more)
        assert state.rows_read == 0


def _rescan(corpus: Corpus, state: State, **more: Any) -> None:
    with closing(corpus.source(**more)) as source:
        scan(source, state)


class Key:
    """A key by its type, too: 1, 1.0 and "1" are different keys for Python's dictionaries."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return hash(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.value == other.value

    def __repr__(self) -> str:
        return repr(self.value)


def _edit(corpus: Corpus, data, keys: dict[Any, None], key: st.SearchStrategy, columns: dict) -> None:
    kind = data.draw(st.sampled_from(["insert", "update", "delete", "rekey"] if keys else ["insert"]), label="kind")
    if kind in ("insert", "rekey"):
        new = data.draw(key, label="key")
        if new in keys:
            return
    some = data.draw(st.sampled_from(sorted(keys, key=repr)), label="of") if kind != "insert" else None
    if kind == "insert":
        names, values = ", ".join(["id", *columns]), [data.draw(one) for one in columns.values()]
        marks = ", ".join(["%s"] * (len(columns) + 1))
        corpus.execute(f"INSERT INTO note ({names}) VALUES ({marks})", (new, *values))
        keys[new] = None
    elif kind == "update":
        name = data.draw(st.sampled_from(sorted(columns)), label="column")
        corpus.execute(f"UPDATE note SET {name} = %s WHERE id = %s", (data.draw(columns[name]), some))
    elif kind == "delete":
        corpus.execute("DELETE FROM note WHERE id = %s", (some,))
        del keys[some]
    else:
        corpus.execute("UPDATE note SET id = %s WHERE id = %s", (new, some))
        del keys[some]
        keys[new] = None


def row(bucket: int, first: int, second: int) -> RowDigest:
    """Return the digest of a row."""
    return RowDigest(bucket, first, second)
