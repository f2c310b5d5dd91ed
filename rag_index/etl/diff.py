"""The diff: a page of the source compared with the ledger's rows of its documents.

    page > types of keys > ledger's rows > groups > empty documents > payloads > shards to embed

`diff` decides about each document of a page, and `Diff` does for a whole run what needs no
embedding: new groups, documents that are empty now, and payloads that changed alone. The rest
becomes shards. The types of keys are compared before anything is written, since 1 is not "1".
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rag_index.components.sources import scan_settings
from rag_index.components.sources.attachments import with_files
from rag_index.components.sources.scan_state import ScanState
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.documents.keys import document_id, untyped_key_hash
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.settings.parts import PAYLOAD_KINDS
from rag_index.errors import SourceError
from rag_index.etl.commit import DocumentRow, outdated_groups, update_payloads
from rag_index.etl.sharding import Sharder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.components.ledger import Collection, FailedDocument, RecordedDocument
    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import Failure, Shard, WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.collection import Target
    from rag_index.etl.commit import Committer
    from rag_index.etl.opened import Opened

PAYLOADS = 100
"""Payloads of the first page in which the fields of payload indexes are looked for. Chosen; nothing
depends on it."""
SAMPLE = 20
"""Former keys that the source is asked for if the type of the key seems to have changed. Chosen;
nothing depends on it."""
PAGE_KEYS = 1000
"""Keys of the ledger that are read at a time. Chosen; nothing depends on it."""
TEXT, PADDED = "text", "text padded with blanks"
JSON_TYPES = {str: TEXT, int: "integer", float: "float", bool: "boolean"}


@shows_sizes()
class EmptiedDocument(NamedTuple):
    """A document without text that still has points, in the order of `Ledger.record_emptied`."""

    key: str
    text_hash: bytes
    payload_hash: bytes


@shows_sizes("to_embed", "new", "payload_only", "unchanged", "empty", "given_up")
@dataclass(slots=True)
class PageDiff:
    """The documents of a page by what has to be done with them. Each document is counted once."""

    to_embed: DocumentBatch = field(default_factory=DocumentBatch.empty)
    """New and changed documents; `new` of them are new."""
    new: int = 0
    payload_only: DocumentBatch = field(default_factory=DocumentBatch.empty)
    unchanged: int = 0
    empty: int = 0
    """Documents without text, whatever has to be done with them."""
    emptied: list[EmptiedDocument] = field(default_factory=list)
    """Empty documents that still have points."""
    newly_empty: list[DocumentRow] = field(default_factory=list)
    """Ledger rows for empty documents without points that the ledger does not know as empty."""
    given_up: int = 0
    """Failed documents with the same text that are not due for another try."""
    recovered: list[str] = field(default_factory=list)
    """Unchanged and empty documents that are listed as failed, and are again as the ledger has
    them."""


def diff(
    page: DocumentBatch,
    known: Mapping[str, RecordedDocument],
    failures: Mapping[str, FailedDocument],
    *,
    retry: bool = False,
    is_due: Callable[[FailedDocument], bool] = lambda document: True,
) -> PageDiff:
    """Compare a page with the ledger.

    A pending document counts as changed, whatever its hashes, and one without vectors as new.

    Args:
        known: The ledger's rows of documents.
        failures: Documents that are listed as failed or incomplete.
        retry: Whether failed documents are tried even if not due, and incomplete ones as well.
        is_due: Whether a failed document whose text is the same is tried again by this run.
    """
    changes = PageDiff()
    embed: list[int] = []
    payload: list[int] = []
    columns = zip(page.keys, page.text_hashes, page.payload_hashes, strict=True)
    for position, (key, text_hash, payload_hash) in enumerate(columns):
        row = known.get(key)
        failure = failures.get(key)
        is_pending = row is not None and row.pending
        lacks_vectors = is_pending or (row is not None and row.by_words)
        has_same_text = row is not None and not lacks_vectors and row.text_hash == text_hash
        is_incomplete = failure is not None and failure.kind == "incomplete"

        if has_same_text and is_incomplete and retry:
            # Indexed without a part, such as an attachment that could not be read.
            embed.append(position)
        elif row is not None and has_same_text and row.payload_hash == payload_hash:
            # As the ledger has it. If it is listed as failed, its text was another one then.
            changes.unchanged += row.chunks > 0
            changes.empty += row.chunks == 0
            if failure is not None and not is_incomplete:
                changes.recovered.append(key)
        elif page.is_empty(position):
            # No text: it loses its points, if it has any, and gets a row without chunks.
            changes.empty += 1
            if row is not None and (row.chunks or row.pending):
                changes.emptied.append(EmptiedDocument(key, text_hash, payload_hash))
            else:
                changes.newly_empty.append(DocumentRow(key, text_hash, payload_hash, 0))
        elif has_same_text:
            # Another author, priority or group with the same text.
            payload.append(position)
        elif not (retry or is_pending) and _is_given_up(failure, text_hash, is_due):
            # It failed with this text, and its next try is not due.
            changes.given_up += 1
        else:
            # New, changed, pending, or found by its words until now.
            embed.append(position)
            if row is None or not row.text_hash or row.by_words:
                changes.new += 1
    changes.to_embed = page.take(embed)
    changes.payload_only = page.take(payload)
    return changes


def _is_given_up(
    failure: FailedDocument | None, text_hash: bytes, is_due: Callable[[FailedDocument], bool]
) -> bool:
    if failure is None or failure.text_hash != text_hash:
        return False
    return not is_due(failure)


def useless_indexes(payloads: Sequence[bytes], fields: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each payload index, by field and kind, that none of these payloads has a
    value for. A database may give numbers or text where people expect something else: SQLite has
    neither booleans nor JSON."""
    if not fields:
        return
    decoded = [decode_payload(payload) for payload in payloads[:PAYLOADS]]
    for name, kind in fields.items():
        path = name.split(".")
        values: list[Any] = []
        for payload in decoded:
            values += _values_at(payload, path)
        fitting_types = PAYLOAD_KINDS[kind].types
        if values and not any(type(value) in fitting_types for value in values):
            yield (
                f"the payload index on {name} is empty: its kind is {kind}, and the source gives"
                " other values"
            )


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield the values at a path of a payload, such as ["author", "name"]. None is left out."""
    # A list: the path leads into each of its elements.
    if isinstance(value, list):
        for element in value:
            yield from _values_at(element, path)
    elif path and isinstance(value, dict):
        yield from _values_at(value.get(path[0]), path[1:])
    # A value that the path cannot enter is no value of any kind: a tuple fits none.
    elif value is not None:
        yield (value,) if path else value


class Diff:
    """The pages of one run, compared with the ledger: the shards of documents to embed.

    What needs no embedding is done on the way: payloads that changed alone, and documents that are
    empty now. Each document is counted in the outcome once.
    """

    def __init__(
        self, opened: Opened, target: Target, committer: Committer, record: RunRecord
    ) -> None:
        """Begin to compare: what arrives from here on may be seen."""
        settings, index, ledger = opened.settings, opened.index, opened.ledger
        collection = target.collection
        self._opened, self._committer, self._record = opened, committer, record
        self._collection, self._cid = collection, collection.id
        self._retry = opened.options.retry_failed or target.rebuild
        ledger.begin_scan(opened.alias)
        self._began = ledger.clock() if opened.looked_at is None else opened.looked_at
        self._state = ScanState(
            index,
            ledger,
            collection.id,
            settings=scan_settings(settings, index),
            full=target.rebuild,
            retry=opened.options.retry_failed,
            watched=opened.looked_at is not None,
        )
        if not opened.single:
            opened.source.use_scan_state(self._state)
        self._any_failures = ledger.count_failures(collection.id) > 0
        """Whether the ledger lists failed documents, so that pages have to look for theirs."""
        self._types_known = target.rebuild or opened.single
        """Whether the keys are known to have the types that the ledger has."""
        self.excluded: list[Failure] = []
        """Indexed documents that a rule of the source now keeps out."""
        workers = record.outcome.workers
        self.sharder = Sharder.of(
            settings, index, target.identity.kind, collection, workers=workers
        )
        if target.rebuild and opened.live is not None:
            # The rebuilt collection lists no failures yet: those of the live one tell.
            self._add_server_enders(ledger.failures(opened.live.id))

    def shards(self, page: SourcePage) -> Iterator[Shard]:
        """Compare a page with the ledger, and yield the shards that are full now.

        The files of documents that have to be embedded are read now. Raises SourceError if the type
        of the key has changed.
        """
        if not self._types_known:
            self._types_known = require_same_types(self._opened, self._collection, page)
        with self._record.stopwatch.stage("diff"):
            to_embed = self._compare(page)
            self._state.commit()
        for documents in with_files(to_embed) if to_embed.files else [to_embed]:
            yield from self.sharder.add(documents, self._state.pages)

    def note_written(self, written: WrittenShard) -> None:
        """Take note of a committed shard: its buckets may be complete, and its rate is known."""
        failed_keys = [failure.key for failure in written.failures]
        self._state.commit([*written.keys, *failed_keys])
        self.sharder.observe(written.work.chars, written.work.seconds)

    @property
    def leaves_some(self) -> bool:
        """Whether rows that are known to have changed are left to a later run."""
        return self._state.left > 0

    def complete(self, *, all_read: bool, all_deleted: bool) -> None:
        """End the comparison of a run that has committed everything, so that the next run may rely
        on it.

        Args:
            all_read: Whether readers have what was read. Those of a rebuilt collection that was not
                published have not.
            all_deleted: Whether nothing is left in the index that the source no longer has.
        """
        opened = self._opened
        if all_deleted:
            self._state.complete()
        is_complete = all_read and all_deleted and not self.leaves_some
        if is_complete and not opened.single:
            how = "run" if opened.looked_at is None else "watch"
            opened.ledger.complete_scan(opened.alias, self._cid, began=self._began, how=how)

    def _compare(self, page: SourcePage) -> DocumentBatch:
        """Compare a page, do what needs no embedding, and return the documents to embed."""
        opened, documents, outcome = self._opened, page.documents, self._record.outcome
        ledger, progress = opened.ledger, self._record.progress
        opened.lease.check()
        unread = self._note_page(page)
        known = ledger.known(self._cid, documents.keys)
        failures: Mapping[str, FailedDocument] = {}
        if self._any_failures:
            failures = ledger.failures(self._cid, documents.keys)
        self._add_suspects(known, failures)
        changes = diff(documents, known, failures, retry=self._retry, is_due=self._state.is_due)

        if opened.index.access is not None:
            self._update_groups(page, known, changes)
        self._settle(changes)
        self._state.place(page, [row.key for row in changes.newly_empty])
        damaged = self._update_payloads(changes.payload_only, known)

        outcome.unchanged += changes.unchanged
        outcome.empty += changes.empty
        outcome.failed += changes.given_up
        outcome.payload_only += len(changes.payload_only) - len(damaged)
        to_embed = changes.to_embed.plus(damaged)
        emptied = [document.key for document in changes.emptied]
        self._state.expect(page, [*to_embed.keys, *emptied])

        unreadable = [failure for failure in page.unreadable if failure.kind == "failed"]
        done = len(documents) + len(page.unreadable) + unread - len(to_embed)
        progress.advance(done, failed=changes.given_up + len(unreadable))
        self.sharder.expect(max(0, progress.total - outcome.documents))
        return to_embed

    def _add_suspects(
        self, known: Mapping[str, RecordedDocument], failures: Mapping[str, FailedDocument]
    ) -> None:
        """Have documents that may kill the process that embeds them embedded alone, in a child.

        They were pending when an earlier run ended, or are listed as failed.
        """
        pending_keys = [key for key, row in known.items() if row.pending]
        failed_keys = [key for key, failure in failures.items() if failure.kind == "failed"]
        self.sharder.suspects.update(pending_keys, failed_keys)
        self._add_server_enders(failures)

    def _add_server_enders(self, failures: Mapping[str, FailedDocument]) -> None:
        """Have documents of which a text ends the embedding server tried last and alone, whatever
        their text is now."""
        ends_server = [key for key, failure in failures.items() if failure.cause == "server"]
        self.sharder.ends_server.update(ends_server)

    def _update_groups(
        self, page: SourcePage, known: dict[str, RecordedDocument], changes: PageDiff
    ) -> None:
        """Give the points of documents that are not up to date soon their present groups.

        `known` gets the ledger's new rows of these documents.
        """
        ledger = self._opened.ledger
        # Documents of other pages as well, whose groups this page tells.
        known_too = {**known, **ledger.known(self._cid, list(page.groups))}
        outdated = outdated_groups(page, known_too, set(changes.payload_only.keys))
        if outdated:
            updated = update_payloads(self._committer, outdated, known_too, alone=False)
            known.update(ledger.known(self._cid, sorted(updated & known.keys())))

    def _update_payloads(
        self, payload_only: DocumentBatch, known: Mapping[str, RecordedDocument]
    ) -> DocumentBatch:
        """Replace the payloads of documents. Return those whose points are not all there, which
        have to be embedded."""
        payloads = dict(zip(payload_only.keys, payload_only.payloads, strict=True))
        updated: set[str] = set()
        if payloads:
            updated = update_payloads(self._committer, payloads, known)
        damaged = [row for row, key in enumerate(payloads) if key not in updated]
        return payload_only.take(damaged)

    def _note_page(self, page: SourcePage) -> int:
        """Record what a page says of the source, and return how many of its documents were not
        read."""
        opened, record = self._opened, self._record
        unread, excluded = self._state.see(page, record.outcome)
        self._state.note(page)
        opened.ledger.fail(self._cid, page.unreadable)
        self.excluded += excluded
        if self._state.pages == 1 and not opened.single:
            for sentence in useless_indexes(page.documents.payloads, opened.index.indexed_fields):
                record.outcome.say(sentence)
        return unread

    def _settle(self, changes: PageDiff) -> None:
        """Write the ledger's rows of documents that have no text, or are again as the ledger has
        them."""
        ledger, cid = self._opened.ledger, self._cid
        # The emptied ones lose their points after the last page, if the delete guard agrees.
        ledger.record_emptied(changes.emptied)
        newly_empty = [row.key for row in changes.newly_empty]
        with ledger.transaction():
            ledger.forget_digests_of(cid, [*newly_empty, *changes.recovered])
            ledger.record(cid, changes.newly_empty)
            if changes.recovered:
                ledger.clear_failures(cid, changes.recovered)


def require_same_types(opened: Opened, collection: Collection, page: SourcePage) -> bool:
    """Return whether it is known now that a source's keys have the types that they had; False for a
    page without keys. Raises SourceError if all keys of the page have other types than all in the
    ledger, the same values are among both, and the source does not have the former keys any
    more."""
    keys = [*page.documents.keys, *page.unread, *(failure.key for failure in page.unreadable)]
    if not keys:
        return False
    types = _types_of_all(keys)
    # The source itself has keys of several types, so they prove nothing.
    if types is None:
        return True
    new = sorted(set(keys) - opened.ledger.known(collection.id, keys).keys())
    # At most half of the keys are new: the others have the type that they had.
    if len(new) * 2 <= len(keys):
        return True
    former = _former_keys(opened, collection, new, types)
    if former and _are_gone(opened, page, former):
        raise SourceError(_sentence(opened, collection, types, key_types(former[0])))
    return True


def _types_of_all(keys: Sequence[str]) -> tuple[str, ...] | None:
    """Return the types of the columns that all keys have, such as ("integer", "text"). None if
    these differ."""
    types_by_column = zip(*map(key_types, keys), strict=False)
    common: list[str] = []
    for types in types_by_column:
        found = set(types)
        if found == {TEXT, PADDED}:
            # A text that fills its CHAR column has no blank at its end.
            common.append(PADDED)
        elif len(found) == 1:
            common.append(types[0])
        else:
            return None
    return tuple(common)


def key_types(key: str) -> tuple[str, ...]:
    """Return the name of the type of each column of a typed key."""
    value = json.loads(key)
    values = value if isinstance(value, list) else [value]
    return tuple(map(_type_of, values))


def _type_of(value: Any) -> str:
    # {"uuid": "…"}: the type is named.
    if isinstance(value, dict):
        return str(next(iter(value)))
    if isinstance(value, str) and value.endswith(" "):
        return PADDED
    return JSON_TYPES[type(value)]


def _former_keys(
    opened: Opened, collection: Collection, keys: Sequence[str], types: tuple[str, ...]
) -> list[str]:
    """Return some keys of the ledger with the values of these keys; none if a key there has the
    types of these."""
    columns, after = opened.index.key_columns, ""
    wanted_hashes: set[str] = set()
    found: list[str] = []
    while known := opened.ledger.keys(collection.id, after=after, limit=PAGE_KEYS):
        after = known[-1]
        if any(key_types(former) == types for former in known):
            return []
        wanted_hashes = wanted_hashes or {untyped_key_hash(key, columns) for key in keys}
        if len(found) < SAMPLE:
            found += [
                former for former in known if untyped_key_hash(former, columns) in wanted_hashes
            ]
    return found[:SAMPLE]


def _are_gone(opened: Opened, page: SourcePage, former: Sequence[str]) -> bool:
    """Return whether the source has none of these keys; False if it cannot be asked and has further
    pages."""
    read = getattr(opened.source, "documents", None)
    # A source that cannot be asked for single documents: its only page has all keys.
    if read is None:
        return page.cursor is None
    now = read([document_id(key) for key in former])
    present = {*now.documents.keys, *(failure.key for failure in now.unreadable)}
    return present.isdisjoint(former)


def _sentence(
    opened: Opened, collection: Collection, types: tuple[str, ...], former: tuple[str, ...]
) -> str:
    columns = opened.index.key_columns or ["key"]
    changes: list[str] = []
    for column, now, before in zip(columns, types, former, strict=False):
        if now != before:
            changes.append(f"{column} is {now} and was {before}")
    changed = ", ".join(changes)
    name = opened.index.name
    return (
        f"index {name}: the key has another type in the source than in {collection.name}"
        f" ({changed}), so each document would be found twice, and nothing was written: `rag-index"
        f" rebuild {name}` takes the new type, and embeds no text again that it has"
    )
