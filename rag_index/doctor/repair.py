"""Repair of what a check-up found, by ordinary means.

Aliases, metadata and ledger rows are corrected here, under the index's lock, and a ledger that is lost or of another
store is made from the payloads. Documents that need vectors are marked as pending, and an ordinary run writes them.
Every step leaves ledger and store explaining each other, so a repair may be killed and repeated.
"""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.doctor.checkup import Checkup, examine, ledger_damage, lock_index, open_resources
from rag_index.doctor.collection_state import CollectionState, collection_number
from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.indexing.commit import committing
from rag_index.indexing.reconcile import content_hash, pages, typed_key
from rag_index.stores import MAKER_KEYS, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.doctor.findings import Diagnosis, Finding
    from rag_index.ledger import Collection
    from rag_index.settings import Settings

HASH_HEX = 32
MAX_ROUNDS = 4
"""A correction may reveal other findings: only a ledger made from the store shows which points are wrong."""
NEED_RUN = {
    "restored",
    "missing_documents",
    "wrong_chunks",
    "wrong_payloads",
    "missing_words",
    "unknown_documents",
    "pending_documents",
    "failed_documents",
}
NEED_REBUILD = {"unreadable_collection"}


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
        row["doubtful"] += not text_hash or payload_hash.hex() != content_hash(point) or ours["chunk"] >= chunks
    return list(rows.values())


def _parse_hash(value: Any) -> bytes:
    """Return a hash from its hex digits, or empty bytes if `value` is not a hash."""
    try:
        return bytes.fromhex(value) if len(value) == HASH_HEX else b""
    except (TypeError, ValueError):
        return b""


def repair(settings: Settings, names: Sequence[str] | None, run: Callable[[list[str], bool], object]) -> Diagnosis:
    """Repair what is wrong with these indexes, then examine them again and return what is left.

    `run` is called with the names of the indexes that need a run, and with True if they need a rebuild. Raises what
    `examine` raises.
    """
    indexes = settings.named(names)
    found: dict[tuple[str | None, str], Finding] = {}
    """The first finding of each kind."""
    if damage := ledger_damage(settings):
        found[damage.index, damage.kind] = damage
        _rename_ledger_files(settings)
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
        self._scratch = checkup.resources.scratch
        self.rebuilds: bool | None = None
        """Whether a rebuild has to do the rest, or a run; None if nothing is left to do."""

    def run(self) -> list[Finding]:
        """Correct what needs no vectors, and say what has to do the rest; return all findings on the way."""
        self._fence_dead_runs()
        found: list[Finding] = []
        kinds: set[str] = set()
        for _ in range(MAX_ROUNDS):
            findings = self._checkup.diagnose().findings
            found += findings
            kinds = {finding.kind for finding in findings}
            if not self._correct_records(self._checkup.state(), kinds):
                break
        state = self._checkup.state()
        if state.current is not None and kinds & NEED_REBUILD:
            self._set_unknown(state.current, MAKER_KEYS)  # a rebuild must not read what cannot be read
        if state.current is not None and "restored" not in kinds:  # there the run itself compares
            self._mark_pending(state.current, kinds)
            if "orphan_points" in kinds and self._checkup.source_read:
                self._delete_orphans(state.current)
        lost = state.live is None and any(finding.kind == "lost_collection" for finding in found)
        if not self._checkup.source_read:
            return found
        if kinds & NEED_REBUILD or ("other_fingerprint" in kinds and not state.is_rolled_back()):
            self.rebuilds = True
        elif kinds & NEED_RUN or lost:
            self.rebuilds = False
        return found

    def _fence_dead_runs(self) -> None:
        """Raise the epoch, so that a server refuses what workers of a dead run still send, as each run does."""
        current = self._checkup.state().current
        if current is not None and not self._store.embedded:
            self._store.set_metadata(current.name, {"epoch": self._epoch})

    def _correct_records(self, state: CollectionState, kinds: set[str]) -> bool:
        """Correct what needs neither points nor vectors; return whether that makes another check-up worthwhile."""
        corrections: dict[str, Callable[[CollectionState], None]] = {
            "unknown_collection": self._adopt_live,
            "other_store": self._adopt_live,
            "lost_metadata": self._restore_metadata,
            "missing_alias": self._set_alias,
            "unfinished_publish": self._mark_ready,
            "metadata_differs": self._set_conflicts_unknown,
            "lost_collection": self._drop_lost_rows,
            "unneeded_collection": self._drop_unneeded_collections,
        }
        due = [correct for kind, correct in corrections.items() if kind in kinds]
        for correct in due:
            correct(state)
        return bool(due)

    def _adopt_live(self, state: CollectionState) -> None:
        self._adopt(state, str(state.live))

    def _adopt(self, state: CollectionState, live: str) -> None:
        """Make ledger rows from the store: `live` and older collections as ready, newer ones as building."""
        for name in dict.fromkeys([*state.unknown, live]):
            newer = collection_number(name) > collection_number(live)
            self._adopt_collection(name, state.alias, "building" if newer else "ready")

    def _adopt_collection(self, name: str, alias: str, state: str) -> None:
        """Add a collection of the store to the ledger, in place of what the ledger had under this name.

        Rows are collected in temporary tables and written in one transaction, so nobody sees half of them. A collection
        without an id gets one.
        """
        store, ledger = self._store, self._ledger
        metadata, mark = store.metadata(name), store.commit_mark(name)
        for page in pages(store.scroll(name)):
            self._scratch.add_rebuilt(_document_rows(page, self._name))
        if not metadata.get("store_id"):
            metadata |= {"store_id": str(uuid.uuid4()), "alias": alias}
            store.set_metadata(name, metadata)
        made_by = {key: metadata.get(key) or UNKNOWN for key in ("embedder", *MAKER_KEYS)}
        with ledger.transaction():
            if (previous := ledger.collection(name)) is not None:
                ledger.drop_collection(previous.id)
            collection = ledger.add_collection(
                alias=alias, name=name, store_id=metadata["store_id"], dimension=store.dimension(name), state=state,
                **made_by,
            )  # fmt: skip
            ledger.record_commit(collection.id, mark)
            self._scratch.write_rebuilt(collection.id)

    def _set_alias(self, state: CollectionState) -> None:
        """Point the missing alias at the candidate, which is adopted first if the ledger does not know it."""
        if (candidate := state.candidate) is not None:
            if candidate in state.unknown:
                self._adopt(state, candidate)
            self._store.point_alias(state.alias, candidate)

    def _restore_metadata(self, state: CollectionState) -> None:
        """Write the ledger's values for what the store forgot about the live collection."""
        row = next(c for c in state.known if c.name == state.live)
        metadata = state.stored[row.name]
        values = {key: getattr(row, key) for key in ("store_id", "alias", "embedder", *MAKER_KEYS)}
        self._store.set_metadata(row.name, {k: v for k, v in values.items() if not metadata.get(k)})

    def _mark_ready(self, state: CollectionState) -> None:
        if state.current is not None:
            self._ledger.update_collection(state.current.id, state="ready")

    def _set_conflicts_unknown(self, state: CollectionState) -> None:
        """Set the makers that ledger and store disagree on to unknown, so that a rebuild reuses no vector."""
        if (current := state.current) is not None:
            metadata = state.stored[current.name]
            self._set_unknown(current, [key for key in MAKER_KEYS if metadata.get(key) != getattr(current, key)])

    def _set_unknown(self, collection: Collection, keys: Sequence[str]) -> None:
        """Set these maker keys to unknown in ledger and store."""
        self._ledger.update_collection(collection.id, **dict.fromkeys(keys, UNKNOWN))
        self._store.set_metadata(collection.name, dict.fromkeys(keys, UNKNOWN))

    def _drop_lost_rows(self, state: CollectionState) -> None:
        """Drop the ledger's rows of collections that the store lost, unfinished ones included."""
        for collection in state.known:
            if not state.is_stored(collection):
                self._ledger.drop_collection(collection.id)

    def _drop_unneeded_collections(self, state: CollectionState) -> None:
        for name in state.unneeded:
            self._store.drop(name)
            if (row := self._ledger.collection(name)) is not None:
                self._ledger.drop_collection(row.id)

    def _mark_pending(self, current: Collection, kinds: set[str]) -> None:
        """Mark the documents that a run has to write again."""
        self._ledger.forget_digests(current.id)
        if kinds & {"missing_documents", "wrong_chunks", "wrong_payloads", "missing_words"}:
            self._scratch.mark_wrong_as_pending(current.id)
        if "unknown_documents" in kinds:
            self._scratch.add_unknown_as_pending(current.id)

    def _delete_orphans(self, current: Collection) -> None:
        """Delete the points that neither ledger nor source explains."""
        after = ""
        while ids := self._scratch.orphan_ids(after=after):
            after = ids[-1]
            self._store.delete_points(current.name, ids)
        self._store.flush(current.name)
        with committing(self._ledger, self._store, current):
            pass  # a copy of the store from before has other points


def _rename_ledger_files(settings: Settings) -> None:
    """Rename a damaged ledger's file and the files that SQLite keeps beside it, so that nothing is thrown away."""
    now = dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    file = Path(str(settings.ledger_url.database))
    for suffix in ("", "-wal", "-shm"):
        part = file.with_name(file.name + suffix)
        if part.exists():
            part.rename(file.with_name(f"{file.name}.damaged-{now}{suffix}"))
