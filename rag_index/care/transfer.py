"""Moves of indexes to another store without embedding, and exports of a live collection as sorted lines of JSON.

`target_settings` names the new store, `move` copies and hands over, and `next_steps` says what is left to the user:

    copy until nothing differs -> counts -> disown the old collections -> give the new ones their id -> alias

The ledger needs no change. Its rows belong to a collection, which is known by its name and its `store_id`; the copy
keeps both. With the new store in the settings, the same rows therefore explain the same points: pending documents stay
pending, and the next run writes them again. Collections kept for a rollback are moved too, because the ledger knows
them.

A ledger explains one store. If the old store were indexed after a move, the ledger would count documents as indexed
that the new store never received, and no count would show it. So the old collections lose their `store_id` before the
new ones get it: at no time do both have it. A run or a search of the old ones is refused, and `rag-index doctor` says
where the index went, until `move` brings it back.

If a move is stopped, the next one resumes it: a collection without its id does not count as complete, no alias points
at it before the end, and points that are already there are not sent again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import orjson
from pydantic import ValidationError

from rag_index.components.ledger import Collection, Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores import BM25, MOVED_ID, MOVED_TO, RENAME, find_live, location, open_reader, open_store
from rag_index.components.stores.points import batches_of
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.files import DISK_FULL, replacement, unwritable
from rag_index.core.reports.progress import counted
from rag_index.core.settings.sections import StoreSettings
from rag_index.errors import RagIndexError, SettingsError, StoreError, StoreMismatch, TerminalError
from rag_index.etl.collection import live_collection, require_own, verify_counts

if TYPE_CHECKING:
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import Alias, Settings

STANDARD_OUTPUT = "-"
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
COPY_POINTS = 500
PASSES = 3
"""The first pass writes and the second finds no difference; the third is for a second pass that did find some."""


def export(settings: Settings, name: str, out: str, *, vectors: bool = True) -> int:
    """Write an index's points to the file `out`, or to standard output for `-`, and return their number. A regular file
    is replaced as a whole, at the end. Raises UnknownIndex, StoreError (nothing is indexed yet) and SettingsError if
    the file cannot be written."""
    index = settings.index(name)
    with closing(open_reader(settings.store, wait=settings.run.wait, patience=settings.run.wait_for_recovery)) as store:
        live = find_live(store, settings.alias(index.name))
        if live is None:
            raise StoreError(f"index {index.name} is empty: `rag-index index {index.name}` fills it")
        count = 0
        with _open_output(out) as file:
            points = store.points(live.readable)
            for point in counted(points.scroll(vectors=vectors), "points written", points.count):
                file.write(json_line(point))
                count += 1
        return count


def json_line(point: StoredPoint) -> bytes:
    """Return a point as a line of JSON: id, document_id, payload as stored, and the vectors if the point has them."""
    ours = point.payload.get(RESERVED_KEY)
    written = {
        "id": point.id,
        "document_id": ours.get("document_id") if isinstance(ours, dict) else None,
        "payload": point.payload,
    }
    if point.vector is not None:
        written["vector"] = np.asarray(point.vector, dtype=np.float32)
    if point.sparse is not None:
        indices, values = point.sparse.indices, np.asarray(point.sparse.values, dtype=np.float32)
        written["sparse"] = {"indices": indices, "values": values}
    return orjson.dumps(written, option=_JSON)


@contextmanager
def _open_output(out: str) -> Iterator[BinaryIO]:
    """Open standard output, a device or a pipe for writing as it is, or a regular file to be replaced at the end."""
    if out == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with replacement(path, sync=True) as temporary, temporary.open("wb") as file:
                yield file
    except RagIndexError:
        raise
    except OSError as error:
        kind = TerminalError if error.errno in DISK_FULL else SettingsError
        raise kind(unwritable(path, error, "name another file with --out")) from error


def copy_points(old: Store, new: Store, name: str, check: Callable[[], None]) -> int:
    """Make collection `name` hold in `new` what it holds in `old`; return how many points were sent. `check` is called
    after each batch. Raises what it and the stores raise, and StoreError if the two still differ at the end."""
    sent = 0
    for _ in range(PASSES):
        sent += (differing := _copy_once(old, new, name, check))
        if not differing:
            break
    old_count, new_count = old.points(name).count(), new.points(name).count()
    if differing or old_count != new_count:
        raise StoreError(
            f"{name} in the new store still differs, with {new_count:,} points and not {old_count:,}; stop other "
            "programs that write to it, then run the same command again"
        )
    new.points(name).flush()
    return sent


def _copy_once(old: Store, new: Store, name: str, check: Callable[[], None]) -> int:
    """Write and delete what differs; return how many points did."""
    both = _pair_by_id(*(store.points(name).scroll(vectors=True, page=COPY_POINTS) for store in (old, new)))
    pairs = counted(both, f"points of {name} copied and compared", old.points(name).count)
    missing: list[StoredPoint] = []
    surplus: list[str] = []
    differing = 0
    for number, (point, copy) in enumerate(pairs, 1):
        if point is None and copy is not None:
            surplus.append(copy.id)
        elif point is not None and (copy is None or json_line(point) != json_line(copy)):
            missing.append(point)
        if len(missing) + len(surplus) == COPY_POINTS:
            differing += _write(new, name, missing, surplus)
            missing, surplus = [], []
        if number % COPY_POINTS == 0:
            check()
    return differing + _write(new, name, missing, surplus)


def _pair_by_id(
    old_points: Iterator[StoredPoint], new_points: Iterator[StoredPoint]
) -> Iterator[tuple[StoredPoint | None, StoredPoint | None]]:
    """Yield for each id its points in two streams that are in order of id; None if a stream does not have it."""
    both = merge(((p.id, 0, p) for p in old_points), ((p.id, 1, p) for p in new_points), key=itemgetter(0, 1))
    for _, group in groupby(both, key=itemgetter(0)):
        found = {place: point for _, place, point in group}
        yield found.get(0), found.get(1)


def _write(store: Store, name: str, missing: list[StoredPoint], surplus: list[str]) -> int:
    for batch in batches_of(missing):
        store.points(name).upsert(batch)
    store.points(name).delete_points(surplus)
    return len(missing) + len(surplus)


@dataclass(frozen=True, slots=True)
class MovedIndex:
    """One index that is now in the new store."""

    index: str
    collections: list[str]
    """The live one comes last."""
    documents: int
    points: int
    copied: int
    """Points sent by this move; those that an earlier, stopped move sent are not counted."""

    def sentence(self) -> str:
        """Return one line for a person."""
        return (
            f"{self.documents:,} documents, {self.points:,} points in {', '.join(self.collections)}; "
            f"{self.copied:,} copied now, all compared"
        )


def target_settings(settings: Settings, to: str, api_key: str | None = None) -> StoreSettings:
    """Return the settings of the store to move to: a server's URL, or a folder. Raises SettingsError if `to` is
    neither, or if it is the store that holds the indexes now."""
    values = settings.store.model_dump(exclude={"url", "path", "api_key"})
    values |= {"url": to, "api_key": api_key} if "://" in to else {}
    if "://" not in to:
        values["path"] = Path(to).expanduser().absolute()
    try:
        target = StoreSettings(**values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingsError(f"--to {to} {reason}, or name a folder") from error
    if location(target) == location(settings.store):
        raise SettingsError(f"--to {to}: the indexes are there already; name another store")
    return target


def move(settings: Settings, target: StoreSettings, names: Sequence[str] | None = None) -> list[MovedIndex]:
    """Move these indexes, or all that have a live collection if `names` is empty. Raises UnknownIndex, IndexLocked,
    StoreBusy, StoreMismatch (store and ledger do not belong together, or the target has another collection of this
    name), and what the stores raise. After an error no incomplete collection is live."""
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
        old, new = (
            stack.enter_context(closing(open_store(s, wait=settings.run.wait, patience=settings.run.wait_for_recovery)))
            for s in (settings.store, target)
        )
        live = old.aliases()
        empty = [index.name for index in settings.named(names) if settings.alias(index.name) not in live]
        indexes = [index.name for index in settings.named(names) if index.name not in empty]
        if (empty and names) or not indexes:
            raise StoreError(
                f"index {empty[0]} is empty, there is nothing to move: `rag-index index {empty[0]}` fills it"
            )
        return [_IndexMove(one, settings.alias(one), ledger, old, new, location(target)).run() for one in indexes]


def settings_line(target: StoreSettings) -> str:
    """Return the line of `[store]` that names this store."""
    return f'url = "{target.url}"' if target.url else f'path = "{target.path}"'


def next_steps(settings: Settings, target: StoreSettings, names: Sequence[str], *, api_key: bool) -> str:
    """Return what the user has to do after a move of these indexes, or of all if `names` is empty, as lines of text."""
    lines = [f"Now change {settings.path}, section [store]: {settings_line(target)}"]
    if target.url is None:
        lines[0] += " (and remove its url)" if settings.store.url else ""
    if api_key:
        lines.append("Give the server's key as RAG_INDEX_STORE__API_KEY.")
    if names and (left := [index.name for index in settings.indexes if index.name not in names]):
        lines.append(f"Not moved, so missing from the new store: {', '.join(left)}. Run `rag-index move` for them too.")
    lines.append("Searches and runs in the old store are refused, because the ledger now explains the new store.")
    return "\n".join(lines)


@dataclass
class _IndexMove:
    _index: str
    _alias: Alias
    _ledger: Ledger
    _old: Store
    _new: Store
    _location: str

    def run(self) -> MovedIndex:
        """Copy all collections of the index, then hand over. The module describes the order."""
        with IndexLease(self._ledger, self._alias, f"move to {self._location}") as lease:
            require_own(self._ledger, self._old, self._alias)
            require_own(self._ledger, self._new, self._alias)
            collections = self._collections()
            live, sent = collections[-1], 0
            old, new = self._old.collections(), self._new.collections()
            done = self._alias in self._new.aliases() and all(
                old[c.name].get(MOVED_TO) == self._location and new.get(c.name, {}).get("store_id") == c.store_id
                for c in collections
            )
            if not done:  # else an earlier move was completed, and the new store may have changed since then
                self._check_target(collections)
                sent = sum([self._copy_collection(collection, lease) for collection in collections])
                for c in collections:
                    moved = {"store_id": None, MOVED_ID: c.store_id, MOVED_TO: self._location}
                    self._old.points(c.name).set_metadata(moved)
                for c in collections:
                    self._new.points(c.name).set_metadata({"store_id": c.store_id, MOVED_ID: None})
                self._new.point_alias(self._alias, live.name)
            documents, points = self._ledger.totals(live.id).documents, self._new.points(live.name).count()
            return MovedIndex(self._index, [c.name for c in collections], documents, points, sent)

    def _collections(self) -> list[Collection]:
        """Return the collections to move: those that ledger and old store both have, the live one last."""
        metadata = self._old.collections()
        name = self._old.aliases()[self._alias]
        live = self._ledger.collection(name)
        moved_to = metadata[name].get(MOVED_TO)
        if moved_to and (moved_to != self._location or live is None or metadata[name].get(MOVED_ID) != live.store_id):
            raise StoreMismatch(
                f"{name} was moved to {moved_to}; name that store in the settings, and move the index from there"
            )
        if not moved_to:
            live = live_collection(self._ledger, self._old, self._alias)
        if live is None:
            raise StoreMismatch(f"{name} is not known to the ledger; run `rag-index doctor` to find out why")
        if not moved_to:
            verify_counts(self._ledger, self._old, live)
        ids = {key: values.get("store_id") or values.get(MOVED_ID) for key, values in metadata.items()}
        kept = [c for c in self._ledger.collections(self._alias) if c.state == "ready" and c.id != live.id]
        return [*(c for c in kept if ids.get(c.name) == c.store_id), live]

    def _check_target(self, collections: list[Collection]) -> None:
        target, live = self._new.collections(), self._new.aliases().get(self._alias)
        foreign = [
            f"another collection {c.name}"
            for c in collections
            if (found := target.get(c.name)) is not None
            and c.store_id not in (found.get("store_id"), found.get(MOVED_ID))
        ]
        if live is not None and live not in {c.name for c in collections}:
            foreign.append(f"an alias {self._alias} that points at {live}")
        if foreign:
            raise StoreMismatch(
                f"{self._location} has {foreign[0]}, which this ledger did not make; remove it there, or {RENAME}"
            )

    def _copy_collection(self, collection: Collection, lease: IndexLease) -> int:
        """Copy one collection, and return how many points were sent; the copy does not get its id yet."""
        name, metadata = collection.name, self._old.points(collection.name).metadata()
        incomplete = {"store_id": None, MOVED_TO: None, MOVED_ID: collection.store_id}
        self._new.create(name, collection.dimension, {**metadata, **incomplete}, sparse=BM25 in metadata)
        if not self._old.embedded:  # from here on, the server refuses what workers of a dead run still send
            self._old.points(name).set_metadata({"epoch": lease.epoch})
        if fields := metadata.get("payload_indexes"):
            self._new.points(name).index_fields(fields)
        sent = copy_points(self._old, self._new, name, lease.check)
        self._new.points(name).set_commit_mark(self._old.points(name).commit_mark())
        return sent
