"""Erasing: no file of the store keeps what runs have deleted or changed. Also: dropping a whole index.

    copy what lives into a new collection -> counts -> alias -> ledger -> drop the former one and the kept ones

Engines mark a deleted point and keep its bytes in segments, logs and vectors. A copy of what lives has none of them. A
kill leaves the former collection live, with the copy for the next erasure to drop, or the copy live: the ledger learns
its name when it is next read for writing (`collection.live_collection`).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rag_index.components.ledger import Collection, Known, Ledger, unwanted_indexes
from rag_index.components.ledger.documents import key_hash
from rag_index.components.ledger.erased import kept_out, scopes
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores import (
    BM25,
    INDEX_NAME,
    KEPT_OUT,
    MOVED_TO,
    OWNER,
    REPLACES,
    check_owner,
    find_live,
    location,
    open_names,
    open_own_store,
    open_reader,
)
from rag_index.components.stores.file_scanner import ENCODINGS, Scanned, Scanner
from rag_index.components.stores.points import batch_of
from rag_index.core.database import is_file, redacted_url
from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.documents.keys import point_id, possible_document_keys
from rag_index.core.files import replace_file, unwritable
from rag_index.core.query_log import query_log
from rag_index.core.reports.outcome import count_of
from rag_index.core.reports.progress import counted
from rag_index.errors import SettingsError, StoreError, UnknownIndex
from rag_index.etl.collection import live_collection, next_name, require_own, take_name, verify_counts
from rag_index.etl.commit import committing, delete_chunks
from rag_index.etl.reconcile import pages
from rag_index.etl.tombstones import keep_out, restore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rag_index.components.stores.protocol import Store, StoreNames
    from rag_index.core.documents.batches import StoredPoint
    from rag_index.core.reports.record import RunRecord
    from rag_index.core.settings import Alias, IndexSettings, Settings
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened

ERASE_POINTS = 500
PAUSES = (0.0, 1.0, 5.0)
PREFECT = "what Prefect keeps outside these folders: its logs and artifacts have keys of failed documents"
OUTSIDE = (
    "backups, exports and snapshots, of this store and of the ledger",
    "folders of other machines",
    "blocks that deleted files leave in a file system or on a disk",
    "the database itself, with its logs and replicas",
    "what model servers, proxies and terminals logged, and what people copied out of answers",
)
"""What no erasure reaches: the proof names it."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did: `documents` were deleted or changed since the last one, and `dropped` held their texts."""

    index: str
    collection: str
    documents: int
    points: int
    dropped: tuple[str, ...]
    seconds: float
    held_back: int
    """Documents that the source lost and that the delete guard keeps, with all their texts."""


@dataclass(slots=True)
class Witness:
    """What watches an erasure, and writes the proof of it to `path`, which must not exist. `folders` are read besides
    those of the settings, such as the storage of a server on this machine."""

    path: Path
    folders: list[Path] = field(default_factory=list)
    scanner: Scanner = field(default_factory=Scanner)
    before: Scanned = field(default_factory=Scanned)
    not_read: list[str] = field(default_factory=list)

    def watch(self, settings: Settings, ledger: Ledger, alias: str, points: Iterable[StoredPoint]) -> dict[str, bytes]:
        """Look for what these points hold, before any of it is deleted, and for what earlier erasures noted. Return the
        pieces of each document, by key, that has a text which is long enough to be looked for."""
        self._find_folders(settings, ledger.stores(alias))
        pieces, telling = dict[str, bytes](), set[str]()
        for point in points:
            ours = point.payload.get(RESERVED_KEY) or {}
            key = str(ours.get("key"))
            found = {text: self.scanner.add_text(text) for text in _texts(point.payload)}
            vectors = [self.scanner.add_vector(vector) for vector in _vectors(point)]
            pieces[key] = b"".join([pieces.get(key, b""), *found.values(), *vectors])
            if found.get(str(ours.get("text"))):
                telling.add(key)
        for known in ledger.pending_erasures(alias).pieces.values():
            self.scanner.add_pieces(known)
        self.before = self.scanner.scan(self.folders)
        return {key: pieces[key] for key in telling}

    def _find_folders(self, settings: Settings, stores: Sequence[str]) -> None:
        self.not_read = [PREFECT]
        places = dict.fromkeys([*stores, location(settings.store)])
        folders = [settings.data, *(Path(place) for place in places if "://" not in place)]
        if is_file(settings.ledger_url):
            folders.append(Path(str(settings.ledger_url.database)).parent)
        else:
            self.not_read.append(f"the ledger {redacted_url(settings.ledger_url)}")
        self.not_read += [f"files of {place}" for place in places if "://" in place]
        self.not_read += [f"{folder}, where the index was: it is not here" for folder in folders if not folder.is_dir()]
        self.folders += [folder.absolute() for folder in folders if folder.is_dir()]

    def prove(self, settings: Settings, ledger: Ledger, erased: Erased) -> dict[str, Any]:
        """Write the proof and return it, with the key of its hashes, which is kept nowhere. It names the documents
        whose texts this call has looked for. Raises StoreError, and writes none, if a file holds something of it that
        no living document has, or cannot be read."""
        alias, after = settings.alias(erased.index), self._after(settings, ledger)
        key, reached, pending = secrets.token_bytes(), ledger.reached().get(alias), ledger.pending_erasures(alias)
        hashes = [hmac.new(key, bytes.fromhex(one), hashlib.sha256) for one, found in pending.pieces.items() if found]
        proof = {
            "index": erased.index,
            "erased": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ledger.clock())),
            "complete_at": reached and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(reached.at)),
            "documents": sorted(one.hexdigest() for one in hashes),
            "not_looked_for": len(pending.hashes) - len(hashes),
            "held_back": erased.held_back,
            "dropped": erased.dropped,
            "looked_for": {"texts": self.scanner.texts, "vectors": self.scanner.vectors, "encodings": ENCODINGS},
            "found_before": {"files": len(self.before.found)},
            "read": {"folders": [*map(str, self.folders)], "files": after.files, "bytes": after.bytes},
            "not_read": [*after.links, *self.not_read],
            "outside": OUTSIDE,
        }
        try:
            replace_file(self.path, orjson.dumps(proof, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            said = unwritable(self.path, error, "name another file with --proof")
            raise SettingsError(f"all is erased, and the proof {said}; then run it again") from error
        return {**proof, "key": key.hex()}

    def _after(self, settings: Settings, ledger: Ledger) -> Scanned:
        """Return what a scan finds now. Raises StoreError if something of the erased documents is left."""
        after, left = Scanned(), set[Any]()
        for pause in PAUSES if settings.store.url else PAUSES[:1]:  # a server deletes files in its own time
            time.sleep(pause)
            after = self.scanner.scan(self.folders)
            if not (left := self._dead(settings, ledger, set().union(*after.found.values()))):
                break
        if files := [name for name, found in after.found.items() if found & left]:
            raise StoreError(
                f"{len(files)} files still hold something of what was erased, such as {', '.join(files[:3])}: no "
                "proof was written. End processes that have them open, erase other indexes of the same texts, or see "
                "which living document has them; the next erase looks again"
            )
        if some := after.unreadable:
            raise StoreError(
                f"{len(some)} files or folders cannot be read, such as {', '.join(some[:3])}: no proof was written. "
                "Let this user read them, or remove them; the next erase looks again"
            )
        return after

    def _dead(self, settings: Settings, ledger: Ledger, found: set[Any]) -> set[Any]:
        with closing(open_reader(settings.store)) as store:
            for index in settings.indexes if found else ():
                if (live := find_live(store, settings.alias(index.name))) is None:
                    continue
                living = pages(store.scroll(live.readable, vectors=True, page=ERASE_POINTS), ERASE_POINTS)
                for points in counted(living, "living points compared", partial(store.count, live.readable), len):
                    keys = [str((point.payload.get(RESERVED_KEY) or {}).get("key")) for point in points]
                    out = kept_out(ledger, settings, index, keys)  # another index over the same table, not yet run
                    for point in (point for point, key in zip(points, keys, strict=True) if key not in out):
                        found -= self.scanner.living(_texts(point.payload), _vectors(point))
        return found


def _vectors(point: StoredPoint) -> list[Sequence[float]]:
    return [one for one in (point.vector, point.sparse.values if point.sparse else None) if one is not None]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def erase(
    settings: Settings,
    index: IndexSettings,
    ledger: Ledger,
    store: Store,
    lease: IndexLease,
    ids: Sequence[str] = (),
    witness: Witness | None = None,
) -> Erased | None:
    """Erase what was deleted from an index or changed in it, and first the documents of these ids, which stay away.
    Returns None if nothing is indexed. The caller holds the lease, and gives the connections back afterwards. The
    erasure stays pending until `Ledger.end_erasure`. Raises SettingsError if there is no document of an id,
    StoreMismatch if store and ledger do not belong together, and what they raise."""
    began, alias = time.perf_counter(), settings.alias(index.name)
    require_own(ledger, store, alias)
    former = live_collection(ledger, store, alias)
    if former is None:
        return None
    restore(ledger, scopes(settings, index), store.metadata(former.name))
    known = _known(settings, index, ledger, former, ids)
    ours = [name for name, made in store.collections().items() if made.get("alias") == alias]
    others = [name for name in ours if name != former.name]
    gone = _gone_points(index.name, store, former.name, others, known)
    pieces = {} if witness is None else witness.watch(settings, ledger, alias, gone)
    if known:
        # if a write was interrupted, not all texts of the document are known
        ledger.note_named(alias, {key: b"" if row.pending else pieces.get(key, b"") for key, row in known.items()})
        _delete(settings, index, ledger, store, former, known)
    for name in [name for name in others if store.metadata(name).get(REPLACES) and ledger.collection(name) is None]:
        store.drop(name)  # an erasure that was killed made it
        others.remove(name)
    name = next_name(ledger, store, alias)
    points = _copy(ledger, store, former, name, lease, sorted(ledger.tombstones(scopes(settings, index))))
    lease.check()
    store.point_alias(alias, name)
    take_name(ledger, former, name, store.metadata(name))
    for dropped in [former.name, *others]:
        store.drop(dropped)
    for kept in ledger.collections(alias):  # an unfinished rebuild too: it may hold what was erased
        if kept.id != former.id:
            ledger.drop_collection(kept.id)
    ledger.prune_contexts(math.inf)
    ledger.forget_names(alias, ids, list(known))
    _forget_queries(settings, index, ledger, former.id, ids)
    ledger.empty_log()
    documents = len(ledger.pending_erasures(alias).hashes)
    seconds = round(time.perf_counter() - began, 3)
    return Erased(index.name, name, documents, points, (former.name, *others), seconds, former.held)


def _known(
    settings: Settings, index: IndexSettings, ledger: Ledger, live: Collection, ids: Sequence[str]
) -> dict[str, Known]:
    """Return the ledger's rows of these documents, some of which failed. Raises SettingsError if it never had one."""
    found: dict[str, Known] = {}
    for document_id in ids:
        keys = possible_document_keys(index.key_columns, document_id)
        failed = dict.fromkeys(ledger.failures(live.id, keys), Known(b"", b"", 0, 1))
        known = failed | ledger.known(live.id, keys)
        if not known and not kept_out(ledger, settings, index, keys):  # else an erasure was killed, or is repeated
            raise SettingsError(f"index {index.name} has no document {document_id!r}: nothing was erased")
        found |= known
    return found


def _delete(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, live: Collection, known: dict[str, Known]
) -> None:
    """Delete the points of these documents, and let no run index them again."""
    ledger.mark_pending(live.id, list(known))
    delete_chunks(store, live.name, index.name, ((key, 0, row) for key, row in known.items()))
    store.flush(live.name)
    with committing(ledger, store, live):
        keep_out(ledger, settings, index, list(known))
        ledger.forget(live.id, list(known), named=True)


def _forget_queries(settings: Settings, index: IndexSettings, ledger: Ledger, live: int, ids: Sequence[str]) -> None:
    """Remove the queries that name an erased or deleted document from the log. Raises SettingsError if that fails."""
    hashes = {*ledger.pending_erasures(settings.alias(index.name)).hashes}

    def is_gone(document_id: str) -> bool:
        keys = possible_document_keys(index.key_columns, document_id)
        return not hashes.isdisjoint(map(key_hash, keys)) and not ledger.known(live, keys)

    if log := query_log(settings.serve):
        try:
            log.erase(index.name, ids, is_gone)
        except OSError as error:
            raise SettingsError(f"[serve] query_log {unwritable(log.path, error, 'name another file')}") from error


def _gone_points(
    index: str, store: Store, live: str, others: Iterable[str], known: Mapping[str, Known]
) -> Iterator[StoredPoint]:
    """Yield the points of these documents, and points of other collections that the live one lacks or has changed."""
    ids = [point_id(index, key, chunk) for key, row in known.items() for chunk in range(row.chunks)]
    yield from store.retrieve(live, ids, vectors=True)
    for other in others:
        stored = pages(store.scroll(other, vectors=True, page=ERASE_POINTS), ERASE_POINTS)
        for some in counted(stored, "points of kept collections read", partial(store.count, other), len):
            living = {point.id: point.payload for point in store.retrieve(live, [one.id for one in some])}
            yield from (one for one in some if living.get(one.id) != one.payload)


def _copy(
    ledger: Ledger, store: Store, former: Collection, name: str, lease: IndexLease, out: list[tuple[str, str]]
) -> int:
    """Copy a collection with the tombstones `out`, and return its number of points. Raises StoreError if it differs."""
    metadata = store.metadata(former.name)
    made = {**metadata, "store_id": str(uuid.uuid4()), REPLACES: former.store_id, INDEX_NAME: name}
    made |= {KEPT_OUT: out} if out else {}
    store.create(name, former.dimension, made, sparse=BM25 in metadata, like=former.name)
    if fields := metadata.get("payload_indexes"):
        store.index_fields(name, fields)
    stored = pages(store.scroll(former.name, vectors=True, page=ERASE_POINTS), ERASE_POINTS)
    for points in counted(stored, "points copied", partial(store.count, former.name), len):
        lease.check()
        store.upsert(name, batch_of(points))
    store.flush(name)
    store.set_commit_mark(name, store.commit_mark(former.name))
    verify_counts(ledger, store, former)
    if (copied := store.count(name)) != store.count(former.name):
        raise StoreError(
            f"{name} has {copied:,} points and not those of {former.name}: nothing was erased; run it again"
        )
    if store.indexed(former.name):
        store.optimize(name)
    return copied


def kept_index(settings: Settings, name: str) -> str:
    """Return the collections that store and ledger keep of an index, with what a person should know about each. Raises
    UnknownIndex if there are none. Neither store nor index is locked."""
    alias = settings.alias(name)
    with closing(Ledger(settings.ledger_url)) as ledger, open_names(settings.store) as names:
        stored = _stored(ledger, names, alias)
        rows = {row.name: row for row in ledger.collections(alias)}
        collections = dict.fromkeys(stored, "unknown to the ledger")
        for one, row in rows.items():
            documents = count_of(ledger.totals(row.id).documents, "document")
            collections[one] = documents if one in stored else f"{documents}, not in this store"
        collections |= {one: f"a copy of what was moved to {place}" for one, place in stored.items() if place}
        if collections:
            return ", ".join(f"{one} ({what})" for one, what in collections.items())
        others = [*(index.name for index in settings.indexes), *unwanted_indexes(settings, ledger, names.aliases())]
    near = get_close_matches(name, others, n=1, cutoff=0.5)
    hint = f", did you mean {near[0]!r}?" if near and near[0] != name else ""
    raise UnknownIndex(f"nothing is kept of an index {name!r}{hint}; the indexes are {', '.join(others)}")


def drop_index(settings: Settings, name: str) -> list[str]:
    """Delete the collections of an index, and what the ledger has of it; return the names of the collections. What was
    moved to another store is deleted in this one alone: the ledger explains the other. A death in between leaves what a
    repetition deletes. Raises IndexLocked, StoreBusy, StoreMismatch if a collection is of another project, and what
    store and ledger raise."""
    alias = settings.alias(name)
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, alias, f"drop-{uuid.uuid4()}"),
        closing(open_own_store(settings)) as store,
    ):
        require_own(ledger, store, alias)
        stored = _stored(ledger, store, alias)
        for collection in stored:
            store.drop(collection)
        if not any(stored.values()):
            ledger.forget_index(alias)
            ledger.prune_contexts(math.inf)  # they repeat the texts
        return list(stored)


def _stored(ledger: Ledger, store: StoreNames, alias: Alias) -> dict[str, str]:
    known = {collection.name for collection in ledger.collections(alias)}
    found = {
        name: metadata
        for name, metadata in store.collections().items()
        if metadata.get("alias") == alias or name in known
    }
    for name, metadata in found.items():
        check_owner(alias, name, metadata.get(OWNER))
    return {name: str(metadata.get(MOVED_TO) or "") for name, metadata in found.items()}


def erasure_due(opened: Opened, target: Target) -> bool:
    """Return whether there is something to erase after this run of the live collection."""
    if (live := opened.live) is None or live.id != target.collection.id:
        return False
    others = (c.id != live.id and c.state == "ready" for c in opened.ledger.collections(opened.alias))
    pending = opened.ledger.pending_erasures(opened.alias)
    return any(not pending.pieces.get(one) for one in pending.hashes) or any(others)


def erase_after(opened: Opened, record: RunRecord) -> str:
    """Erase what this run deleted or changed from the files of the store, and say so. Raises as `erase`."""
    record.progress.say("copying what lives, so that no file has what was deleted")
    with record.stopwatch.stage("erase"):
        erased = erase(opened.settings, opened.index, opened.ledger, opened.store, opened.lease)
        opened.ledger.end_erasure(opened.alias, unproven=False)
        if erased is None:
            return "nothing is indexed"
    documents, dropped = count_of(erased.documents, "document"), ", ".join(erased.dropped)
    return f"{documents} erased: {erased.points:,} points copied to {erased.collection}, and {dropped} dropped"
