"""The diff: a page of the source compared with what the ledger knows, and which documents need not
be read at all. The types of keys are compared before anything is written, since 1 is not "1"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.components.sources import scan_settings
from rag_index.components.sources.attachments import with_files
from rag_index.components.sources.scan_state import ScanState
from rag_index.core.documents.canonical import decode_payload
from rag_index.core.documents.keys import document_id, key_mark
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.settings.parts import PAYLOAD_KINDS
from rag_index.errors import SourceError
from rag_index.etl.commit import outdated_groups, update_payloads
from rag_index.etl.sharding import Sharder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.components.ledger import Collection, FailedDocument, RecordedDocument
    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import DocumentBatch, Failure, Shard, WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.collection import Target
    from rag_index.etl.commit import Committer
    from rag_index.etl.opened import Opened

PAYLOADS = 100
"""Payloads of the first page in which the fields of payload indexes are looked for."""
SAMPLE = 20
PAGE_KEYS = 1000
TEXT, PADDED = "text", "text padded with blanks"
JSON_TYPES = {str: TEXT, int: "integer", float: "float", bool: "boolean"}


@shows_sizes("to_embed", "new", "payload_only", "unchanged", "empty", "given_up")
@dataclass(frozen=True, slots=True)
class PageDiff:
    """The documents of a page by what has to be done with them. Each document is counted once."""

    to_embed: DocumentBatch
    """New and changed documents; `new` of them are new."""
    new: int
    payload_only: DocumentBatch
    unchanged: int
    empty: int
    """Documents without text, whatever has to be done with them."""
    emptied: list[tuple[str, bytes, bytes]]
    """Empty documents that still have points: (key, text hash, payload hash)."""
    newly_empty: list[tuple[str, bytes, bytes, int]]
    """Ledger rows for empty documents without points that the ledger does not know as empty."""
    given_up: int
    recovered: list[str]
    """Unchanged and empty documents that are listed as failed, and are again as the ledger has
    them."""


def diff(
    page: DocumentBatch,
    known: Mapping[str, RecordedDocument],
    failed: Mapping[str, FailedDocument],
    *,
    retry: bool = False,
    is_due: Callable[[FailedDocument], bool] = lambda failed: True,
) -> PageDiff:
    """Compare a page with the ledger. A pending document counts as changed, whatever its hashes,
    and one without vectors as new. A failed one is tried again if it `is_due`. With `retry` all
    are, and incomplete ones are embedded again."""
    embed: list[int] = []
    payload: list[int] = []
    emptied: list[tuple[str, bytes, bytes]] = []
    newly_empty: list[tuple[str, bytes, bytes, int]] = []
    recovered: list[str] = []
    new = unchanged = empty = given_up = 0
    for i, (key, text_hash, payload_hash) in enumerate(
        zip(page.keys, page.text_hashes, page.payload_hashes, strict=True)
    ):
        row, failure = known.get(key), failed.get(key)
        same_text = (
            row is not None and row.text_hash == text_hash and not (row.pending or row.by_words)
        )
        incomplete = failure is not None and failure.kind == "incomplete"
        tried = failure is not None and failure.text_hash == text_hash and not is_due(failure)
        if same_text and retry and incomplete:
            embed.append(i)
        elif row is not None and same_text and row.payload_hash == payload_hash:
            unchanged += row.chunks > 0
            empty += row.chunks == 0
            if failure is not None and not incomplete:
                recovered.append(key)
        elif page.is_empty(i):
            empty += 1
            if row is not None and (row.chunks or row.pending):
                emptied.append((key, text_hash, payload_hash))
            else:
                newly_empty.append((key, text_hash, payload_hash, 0))
        elif same_text:
            payload.append(i)
        elif tried and not retry and not (row is not None and row.pending):
            given_up += 1
        else:
            embed.append(i)
            new += row is None or not row.text_hash or row.by_words
    return PageDiff(
        page.take(embed),
        new,
        page.take(payload),
        unchanged,
        empty,
        emptied,
        newly_empty,
        given_up,
        recovered,
    )


def useless_indexes(payloads: Sequence[bytes], fields: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each payload index, by field and kind, that none of these payloads has a
    value for. A database may give numbers or text where people expect something else: SQLite has
    neither booleans nor JSON."""
    decoded = [decode_payload(payload) for payload in payloads[:PAYLOADS]] if fields else []
    for field, kind in fields.items():
        values = [value for payload in decoded for value in _values_at(payload, field.split("."))]
        if values and not any(type(value) in PAYLOAD_KINDS[kind].types for value in values):
            yield (
                f"the payload index on {field} is empty: its kind is {kind}, and the source gives"
                " other values"
            )


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield the values at a path of a payload, element by element; a value that the path cannot
    enter as a tuple."""
    if isinstance(value, list):
        for element in value:
            yield from _values_at(element, path)
    elif path and isinstance(value, dict):
        yield from _values_at(value.get(path[0]), path[1:])
    elif value is not None:
        yield (value,) if path else value


class Diff:
    """The pages of one run, compared with the ledger: which documents have to be embedded, in
    shards. What needs no embedding is done on the way: payloads that changed alone, documents that
    are empty now or failed too often. Each document is counted in the outcome once."""

    def __init__(
        self, opened: Opened, target: Target, committer: Committer, record: RunRecord
    ) -> None:
        """Begin to compare: what arrives from here on may be seen."""
        settings, index, ledger, collection = (
            opened.settings,
            opened.index,
            opened.ledger,
            target.collection,
        )
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
        if target.rebuild and opened.live is not None:  # a new collection lists nothing yet
            self._note_listed(ledger.failures(opened.live.id))

    def shards(self, page: SourcePage) -> Iterator[Shard]:
        """Compare a page with the ledger, and yield the shards that are full now. The files of
        documents that have to be embedded are read now. Raises SourceError if the type of the key
        has changed."""
        opened = self._opened
        self._types_known = self._types_known or require_same_types(opened, self._collection, page)
        with self._record.stopwatch.stage("diff"):
            to_embed = self._compare(page)
            self._state.commit()
        for documents in with_files(to_embed) if to_embed.files else [to_embed]:
            yield from self.sharder.add(documents, self._state.pages)

    def note_written(self, written: WrittenShard) -> None:
        """Commit the buckets of which all documents are written now, once those of this shard are
        committed, and learn how fast they were embedded."""
        self._state.commit([*written.keys, *(failure.key for failure in written.failures)])
        self.sharder.observe(written.work.chars, written.work.seconds)

    @property
    def leaves_some(self) -> bool:
        """Whether rows that are known to have changed are left to a later run."""
        return self._state.left > 0

    def complete(self, *, all_read: bool, all_deleted: bool) -> None:
        """End the comparison of a run that has committed everything, so that the next run may rely
        on it. With `all_read`, readers have what was read: a rebuilt collection may not have been
        published. With `all_deleted`, nothing is left in the index that the source no longer
        has."""
        if all_deleted:
            self._state.complete()
        if all_read and all_deleted and not self._opened.single and not self.leaves_some:
            how = "run" if self._opened.looked_at is None else "watch"
            self._opened.ledger.complete_scan(
                self._opened.alias, self._cid, began=self._began, how=how
            )

    def _compare(self, page: SourcePage) -> DocumentBatch:
        opened, cid, documents, outcome = (
            self._opened,
            self._cid,
            page.documents,
            self._record.outcome,
        )
        ledger, committer, progress = opened.ledger, self._committer, self._record.progress
        opened.lease.check()
        unread = self._note_page(page)
        known = ledger.known(cid, documents.keys)
        failed = ledger.failures(cid, documents.keys) if self._any_failures else {}
        self.sharder.suspects.update(key for key, row in known.items() if row.pending)
        self.sharder.suspects.update(
            key for key, failure in failed.items() if failure.kind == "failed"
        )
        self._note_listed(failed)
        changes = diff(documents, known, failed, retry=self._retry, is_due=self._state.is_due)
        if (
            opened.index.access is not None
        ):  # points of documents that are not up to date soon get their groups now
            known_too = {**known, **ledger.known(cid, list(page.groups))}
            if outdated := outdated_groups(page, known_too, set(changes.payload_only.keys)):
                updated = update_payloads(committer, outdated, known_too, alone=False)
                known.update(ledger.known(cid, sorted(updated & known.keys())))
        self._settle(changes)
        self._state.place(page, [row[0] for row in changes.newly_empty])
        payloads = dict(zip(changes.payload_only.keys, changes.payload_only.payloads, strict=True))
        updated = update_payloads(committer, payloads, known) if payloads else set()
        damaged = [row for row, key in enumerate(payloads) if key not in updated]
        outcome.unchanged += changes.unchanged
        outcome.empty += changes.empty
        outcome.failed += changes.given_up
        outcome.payload_only += len(changes.payload_only) - len(damaged)
        to_embed = changes.to_embed.plus(changes.payload_only.take(damaged))
        self._state.expect(page, [*to_embed.keys, *(row[0] for row in changes.emptied)])
        done = len(documents) + len(page.unreadable) + unread - len(to_embed)
        progress.advance(
            done, failed=changes.given_up + sum(f.kind == "failed" for f in page.unreadable)
        )
        self.sharder.expect(max(0, progress.total - outcome.documents))
        return to_embed

    def _note_listed(self, failed: Mapping[str, FailedDocument]) -> None:
        """Have documents of which a text ends the embedding server tried last and alone, whatever
        their text is now."""
        self.sharder.ends_server.update(
            key for key, failure in failed.items() if failure.cause == "server"
        )

    def _note_page(self, page: SourcePage) -> int:
        """Record what a page says of the source, and return how many of its documents were not
        read."""
        opened, record, documents = self._opened, self._record, page.documents
        unread, excluded = self._state.see(page, record.outcome)
        self._state.note(page)
        opened.ledger.fail(self._cid, page.unreadable)
        self.excluded += excluded
        if self._state.pages == 1 and not opened.single:
            for sentence in useless_indexes(documents.payloads, opened.index.indexed_fields):
                record.outcome.say(sentence)
        return unread

    def _settle(self, changes: PageDiff) -> None:
        """Write the ledger's rows of documents that have no text, or are again as the ledger has
        them."""
        ledger, cid = self._opened.ledger, self._cid
        ledger.record_emptied(changes.emptied)
        with ledger.transaction():
            ledger.forget_digests_of(
                cid, [*(row[0] for row in changes.newly_empty), *changes.recovered]
            )
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
    new = (
        [] if types is None else sorted(set(keys) - opened.ledger.known(collection.id, keys).keys())
    )
    if types is None or len(new) * 2 <= len(keys):
        return True
    former = _former_keys(opened, collection, new, types)
    if former and _are_gone(opened, page, former):
        raise SourceError(_sentence(opened, collection, types, key_types(former[0])))
    return True


def _types_of_all(keys: Sequence[str]) -> tuple[str, ...] | None:
    """Return the types that all keys have, None if these differ. A text that fills its CHAR has no
    blank at its end."""
    columns = [set(column) for column in zip(*map(key_types, keys), strict=False)]
    same = [PADDED if column == {TEXT, PADDED} else next(iter(column)) for column in columns]
    return (
        tuple(same)
        if all(len(column) == 1 or column == {TEXT, PADDED} for column in columns)
        else None
    )


def key_types(key: str) -> tuple[str, ...]:
    """Return the name of the type of each column of a typed key."""
    value = json.loads(key)
    values = value if isinstance(value, list) else [value]
    return tuple(map(_type_of, values))


def _type_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(next(iter(value)))
    return PADDED if isinstance(value, str) and value.endswith(" ") else JSON_TYPES[type(value)]


def _former_keys(
    opened: Opened, collection: Collection, keys: Sequence[str], types: tuple[str, ...]
) -> list[str]:
    """Return some keys of the ledger with the values of these keys; none if a key there has the
    types of these."""
    columns, after = opened.index.key_columns, ""
    marks: set[str] = set()
    found: list[str] = []
    while known := opened.ledger.keys(collection.id, after=after, limit=PAGE_KEYS):
        after = known[-1]
        if any(key_types(former) == types for former in known):
            return []
        marks = marks or {key_mark(key, columns) for key in keys}
        if len(found) < SAMPLE:
            found += [former for former in known if key_mark(former, columns) in marks]
    return found[:SAMPLE]


def _are_gone(opened: Opened, page: SourcePage, former: Sequence[str]) -> bool:
    """Return whether the source has none of these keys; False if it cannot be asked and has further
    pages."""
    if (read := getattr(opened.source, "documents", None)) is None:
        return page.cursor is None
    now = read([document_id(key) for key in former])
    return {*now.documents.keys, *(failure.key for failure in now.unreadable)}.isdisjoint(former)


def _sentence(
    opened: Opened, collection: Collection, types: tuple[str, ...], former: tuple[str, ...]
) -> str:
    pairs = zip(opened.index.key_columns or ["key"], types, former, strict=False)
    changed = ", ".join(
        f"{column} is {now} and was {before}" for column, now, before in pairs if now != before
    )
    name = opened.index.name
    return (
        f"index {name}: the key has another type in the source than in {collection.name}"
        f" ({changed}), so each document would be found twice, and nothing was written: `rag-index"
        f" rebuild {name}` takes the new type, and embeds no text again that it has"
    )
