"""Repair of what a check-up found, by ordinary means. Aliases, metadata and ledger rows are corrected here, under the
index's lock, and a ledger that is lost or of another store is made from the payloads. Documents that need vectors are
marked as pending, and an ordinary run writes them. Every step leaves ledger and store explaining each other, so a
repair may be killed and repeated."""

from __future__ import annotations

import datetime as dt
import uuid
from contextlib import suppress
from functools import partial
from itertools import filterfalse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.care.doctor.checkup import Checkup, examine, ledger_damage, lock_index, open_resources
from rag_index.care.doctor.collection_state import CollectionState, collection_number
from rag_index.components.ledger.erased import scopes
from rag_index.components.stores import MAKER_KEYS, OWNER, SEAL, UNKNOWN
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.reports.progress import counted
from rag_index.etl.commit import CHUNK_HASH, chunk_hash, committing
from rag_index.etl.reconcile import content_hash, pages, typed_key
from rag_index.etl.tombstones import restore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.care.doctor.collection_state import Diagnosis, Finding
    from rag_index.components.ledger import Collection
    from rag_index.core.settings import Settings

HASH_HEX = 32
MAX_ROUNDS = 4
"""A correction may reveal other findings: only a ledger made from the store shows which points are wrong."""
CORRECTED_KINDS = {
    "unknown_collection", "other_store", "lost_metadata", "missing_alias", "unfinished_publish",
    "lost_collection", "unneeded_collection",
}  # fmt: skip
"""What is corrected without points or vectors, which makes another check-up worthwhile."""
WRONG_KINDS = {"missing_documents", "wrong_chunks", "wrong_payloads"}
NEED_RUN = {*WRONG_KINDS, "restored", "unknown_documents", "pending_documents", "failed_documents"}
ADOPTED = {"unknown_collection", "other_store"}


def _document_rows(page: list[StoredPoint], index: str) -> list[dict[str, Any]]:
    """Return a row per document from a page of points; points that are not chunks of this index are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for point in page:
        key = typed_key(point, index)
        if key is None:
            continue
        ours = point.payload[RESERVED_KEY]
        text_hash, payload_hash = _parse_hash(ours.get("text_hash")), _parse_hash(ours.get("payload_hash"))
        chunks = ours["chunks"] if type(ours.get("chunks")) is int else 0
        values = {"key": key, "text_hash": text_hash, "payload_hash": payload_hash, "chunks": chunks}
        row = rows.setdefault(key, {**values, "points": 0, "doubtful": 0})
        row["points"] += 1
        row["doubtful"] += any(row[name] != value for name, value in values.items())
        row["doubtful"] += ours.get(CHUNK_HASH) != chunk_hash(point.payload)
        row["doubtful"] += not text_hash or payload_hash.hex() != content_hash(point) or ours["chunk"] >= chunks
    return list(rows.values())


def _parse_hash(value: Any) -> bytes:
    try:
        return bytes.fromhex(value) if len(value) == HASH_HEX else b""
    except (TypeError, ValueError):
        return b""


def repair(settings: Settings, names: Sequence[str] | None, run: Callable[[list[str], bool], object]) -> Diagnosis:
    """Repair what is wrong with these indexes, then examine them again and return what is left. `run` is called with
    the names of the indexes that need a run, and with True if they need a rebuild. Raises what `examine` raises."""
    indexes = settings.named(names)
    found: dict[tuple[str | None, str], Finding] = {}
    if damage := ledger_damage(settings):
        found[damage.index, damage.kind] = damage
        file, now = Path(str(settings.ledger_url.database)), dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
        for suffix in ("", "-wal", "-shm"):  # renamed with what SQLite keeps beside it: nothing is thrown away
            with suppress(FileNotFoundError):
                file.with_name(f"{file.name}{suffix}").rename(file.with_name(f"{file.name}.damaged-{now}{suffix}"))
    needed: dict[bool, list[str]] = {False: [], True: []}
    """Names of the indexes that need a run, or a rebuild, once everything else is corrected."""
    with open_resources(settings) as resources:
        for index in indexes:
            with lock_index(resources, index) as lease:
                one = _IndexRepair(Checkup(resources, index), lease.epoch)
                for each in one.run():
                    found.setdefault((each.index, each.kind), each)
                if one.rebuilds is not None:
                    needed[one.rebuilds].append(index.name)
    for rebuild, some in needed.items():
        if some:
            run(some, rebuild)
    left = examine(settings, names)
    left.repaired = [each for (index, kind), each in found.items() if kind not in left.kinds(index)]
    return left


class _IndexRepair:
    """The repair of one index, under its lock."""

    def __init__(self, checkup: Checkup, epoch: int) -> None:
        self._checkup = checkup
        self._epoch = epoch
        self._name = checkup.index.name
        self._ledger, self._store = checkup.resources.ledger, checkup.resources.store
        self.rebuilds: bool | None = None
        """Whether a rebuild has to do the rest, or a run; None if nothing is left to do."""

    def run(self) -> list[Finding]:
        """Correct what needs no vectors, and say what has to do the rest; return all findings on the way."""
        if (state := self._checkup.state()).current is not None and not self._store.embedded:
            # a server refuses what workers of a dead run still send: their epoch is lower
            self._store.set_metadata(state.current.name, {"epoch": self._epoch})
        found: list[Finding] = []
        kinds: set[str] = set()
        for _ in range(MAX_ROUNDS):
            findings = self._checkup.diagnose().findings
            found += findings
            kinds = {finding.kind for finding in findings}
            if not self._correct_records(self._checkup.state(), kinds):
                break
        state = self._checkup.state()
        if state.current is not None and "unreadable_collection" in kinds:
            unknown = dict.fromkeys(MAKER_KEYS, UNKNOWN)  # a rebuild must not read what cannot be read
            self._ledger.update_collection(state.current.id, **unknown)
            self._store.set_metadata(state.current.name, unknown)
        if state.current is not None and "restored" not in kinds:  # there the run itself compares
            self._ledger.forget_digests(state.current.id)
            if kinds & WRONG_KINDS:
                self._checkup.scratch.mark_wrong_as_pending(state.current.id)
            if "unknown_documents" in kinds:
                self._checkup.scratch.add_unknown_as_pending(state.current.id)
            if "orphan_points" in kinds and self._checkup.source_read:
                self._delete_orphans(state.current)
        before = {finding.kind for finding in found}
        lost = state.live is None and "lost_collection" in before
        if not self._checkup.source_read:
            return found
        if "unreadable_collection" in kinds or ("other_fingerprint" in kinds and not state.is_rolled_back()):
            self.rebuilds = True
        elif kinds & NEED_RUN or lost or before & ADOPTED:  # what was adopted may be gone, or have been erased
            self.rebuilds = False
        return found

    def _correct_records(self, state: CollectionState, kinds: set[str]) -> bool:
        """Correct what needs neither points nor vectors; return whether that makes another check-up worthwhile."""
        ledger, store, current = self._ledger, self._store, state.current
        if kinds & {"unknown_collection", "other_store"}:
            self._adopt(state, str(state.live))
        if "lost_metadata" in kinds:
            row = next(c for c in state.known if c.name == state.live)
            values = {key: getattr(row, key) for key in ("store_id", "alias", "embedder", *MAKER_KEYS)}
            values[OWNER] = state.alias.owner
            values[SEAL] = row.store_id  # that of a collection that took no other's place
            metadata = state.stored[row.name]
            store.set_metadata(row.name, {key: value for key, value in values.items() if not metadata.get(key)})
        if "missing_alias" in kinds and (candidate := state.candidate) is not None:
            if candidate in state.unknown:
                self._adopt(state, candidate)
            store.point_alias(state.alias, candidate)
        if "unfinished_publish" in kinds and current is not None:
            ledger.update_collection(current.id, state="ready")
        if "lost_collection" in kinds:
            for collection in filterfalse(state.is_stored, state.known):
                ledger.drop_collection(collection.id)
        if "unneeded_collection" in kinds:
            for name in state.unneeded:
                store.drop(name)
                if (known := ledger.collection(name)) is not None:
                    ledger.drop_collection(known.id)
        return bool(kinds & CORRECTED_KINDS)

    def _adopt(self, state: CollectionState, live: str) -> None:
        """Make ledger rows from the store: `live` and older collections as ready, newer ones as building. They take the
        place of what the ledger had under these names. Rows are collected in temporary tables and written in one
        transaction, so no process sees half of them. A collection without an id gets one."""
        store, ledger = self._store, self._ledger
        for name in dict.fromkeys([*state.unknown, live]):
            metadata, mark = store.metadata(name), store.commit_mark(name)
            for page in counted(pages(store.scroll(name)), "points read", partial(store.count, name), len):
                self._checkup.scratch.add_rebuilt(_document_rows(page, self._name))
            if not metadata.get("store_id"):
                metadata |= {"store_id": str(uuid.uuid4()), "alias": state.alias, OWNER: state.alias.owner}
                store.set_metadata(name, metadata)
            made_by = {key: metadata.get(key) or UNKNOWN for key in ("embedder", *MAKER_KEYS)}
            newer = collection_number(name) > collection_number(live)
            with ledger.transaction():
                if (previous := ledger.collection(name)) is not None:
                    ledger.drop_collection(previous.id)
                collection = ledger.add_collection(
                    alias=state.alias, name=name, store_id=metadata["store_id"], dimension=store.dimension(name),
                    state="building" if newer else "ready", **made_by,
                )  # fmt: skip
                ledger.record_commit(collection.id, mark)
                restore(ledger, scopes(self._checkup.resources.settings, self._checkup.index), metadata)
                self._checkup.scratch.write_rebuilt(collection.id)

    def _delete_orphans(self, current: Collection) -> None:
        after = ""
        while ids := self._checkup.scratch.orphan_ids(after=after):
            after = ids[-1]
            self._store.delete_points(current.name, ids)
        self._store.flush(current.name)
        with committing(self._ledger, self._store, current):
            pass  # a copy of the store from before has other points
