"""The check-up of indexes: its findings with their remedies, and the repair.

`CollectionState` compares the collections of an index in ledger and store, without their points.
`Checkup` examines one index under its lease. docs/doctor.md lists each kind of finding with its
repair.
"""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import uuid
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL

from rag_index import errors
from rag_index.components.ledger import (
    Collection,
    Ledger,
    missing_ledger,
    reconciled_by,
    unwanted_indexes,
)
from rag_index.components.ledger.runs import CHECK_UP, IndexLease
from rag_index.components.sources import all_pages, open_source
from rag_index.components.sources.policies import REMEDY, RowPolicies
from rag_index.components.sources.sql import SqlSource
from rag_index.components.stores import (
    LEFT,
    MAKER_KEYS,
    OWNER,
    REST_REMEDY,
    SEAL,
    UNKNOWN,
    find_live,
    on_server,
    open_own_store,
)
from rag_index.core.database import is_file
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.outcome import count_of
from rag_index.errors import StoreMismatch
from rag_index.etl.collection import follow_store, raise_epoch, require_own
from rag_index.etl.deletes import held_back
from rag_index.etl.reconcile import MAX_EXAMPLES, Comparison, commit_difference, fill_ledger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.sources import Source
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import Alias, IndexSettings, Settings

REMEDIES = {
    "damaged_ledger": (
        "restore it from a backup; or `rag-index doctor --repair` renames it, and fills a new one"
        " from the store, without embedding"
    ),
    "foreign_collection": "until then runs and searches of the index fail",
    "missing_alias": "`rag-index doctor --repair` sets the alias again",
    "unknown_collection": (
        "name the right [store] or [ledger]; or, if the ledger was lost, or one of the two"
        " restored, `rag-index doctor --repair` fills the ledger from the store, without embedding"
    ),
    "stray_collection": (
        "name the right [store] or [ledger]; or `rag-index doctor --repair` removes them from both"
    ),
    "left_behind": (
        "name the store that has it in [store] again, and run `rag-index rebuild {index} --to` the"
        " present one; or `rag-index rebuild {index}` makes it here from the source"
    ),
    "needs_rebuild": "run `rag-index rebuild {index}`, or restore the store if it is damaged",
    "restored": (
        "{reconciled}; `rag-index doctor --repair` compares now, and leaves what to index to"
        " that run"
    ),
    "different_documents": (
        "`rag-index doctor --repair` marks them as pending, and the next run indexes them again"
    ),
    "orphan_points": (
        "`rag-index doctor --repair` deletes them, if it can read the source to its end"
    ),
    "failed_documents": (
        "`rag-index status {index} --failed` lists them: correct them in the source, then run "
        "`rag-index index-all {index} --retry-failed`"
    ),
    "unreadable_source": "correct it; until then the index stays as it is, and no point is deleted",
    "ignored_policies": (
        f"{REMEDY}; a policy for this role that shows all rows says that it is meant"
    ),
    "pending_erasures": (
        "`rag-index erase {index}` leaves no file with them, as each run does with [store] erase"
    ),
}
"""What to do about each kind of finding."""
DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
"""The primary result codes of SQLite for a file that it cannot read as a database."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, and its remedy."""

    index: str | None
    """None if the finding concerns all indexes."""
    kind: str
    """A key of `REMEDIES`."""
    count: int
    """The number of documents, of points or of something else, by the kind. `examples` has the
    first of these."""
    message: str
    remedy: str
    examples: tuple[str, ...] = ()
    """A few document ids, names of collections, or ids of points without a document."""


def finding(
    index: str | None, kind: str, message: str, examples: Sequence[str] = (), *, count: int = 1
) -> Finding:
    """Return a finding with the remedy of its kind."""
    reconciled = reconciled_by(index or "")
    remedy = REMEDIES[kind].format(index=index, reconciled=reconciled)
    return Finding(index, kind, count, message, remedy, tuple(examples))


@dataclass(frozen=True, slots=True)
class Advice:
    """A possible improvement, without a fault."""

    index: str | None
    message: str


@dataclass(slots=True)
class Diagnosis:
    """All findings and advice."""

    findings: list[Finding] = field(default_factory=list)
    """After a repair, those that are left."""
    advice: list[Advice] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing is wrong, else 3."""
        return 3 if self.findings else 0


def count_phrase(count: int, noun: str, examples: Sequence[str]) -> str:
    """Return a count with its noun and examples: `3 documents (7, 10, 13)`."""
    listed = ", ".join(examples)
    if len(examples) < count:
        listed += ", …"
    return f"{count_of(count, noun)} ({listed})"


def _unpublished_rebuild(
    ledger: Ledger, alias: Alias, listed: Mapping[str, Mapping[str, Any]]
) -> str:
    """Return a sentence about a `rebuild --to` that has not published its collection in this store;
    "" if there is none.

    The guard or the gate refused the collection, or it is incomplete. Only that rebuild may make it
    live.
    """
    for row in ledger.collections_elsewhere(alias):
        is_stored = listed.get(row.name, {}).get("store_id") == row.store_id
        if row.state == "building" and is_stored:
            return (
                f"`rag-index rebuild --to` has not published {row.name} in this store: it has not"
                " ended, or was held back. Name the former store in the settings again, and repeat"
                " it there"
            )
    return ""


@dataclass(frozen=True, slots=True)
class CollectionState:
    """The collections of one index in ledger and store."""

    alias: Alias
    live: str | None
    stored: Mapping[str, Mapping[str, Any]]
    """Metadata of the store's collections that were made for this alias, are live, or are in the
    ledger."""
    known: tuple[Collection, ...]
    """The ledger's collections, oldest first."""
    foreign: str = ""
    """Why no collection may be examined: the alias or a collection belongs to another project, or a
    `rebuild --to` has not published its collection."""
    misled: str = ""
    """The fault of an alias that points at another index's collection, which then counts as not
    live."""

    @classmethod
    def read(cls, alias: Alias, ledger: Ledger, store: Store) -> CollectionState:
        """Return the present state. Collections that the store does not list are requested by name.

        Raises StoreRefused if the API key may not read one: it is not lost.
        """
        live, misled, is_own = None, "", False
        try:
            require_own(ledger, store, alias)
            is_own = True
            found = find_live(store, alias)
            follow_store(ledger, store, found)
            live = found.name if found is not None else None
        except StoreMismatch as error:
            misled = str(error)
            if not is_own or alias not in store.aliases():
                return cls(alias, None, {}, (), foreign=misled)
        known = tuple(ledger.collections(alias))
        listed = store.collections()
        unpublished = _unpublished_rebuild(ledger, alias, listed) if live is None else ""
        if unpublished:
            return cls(alias, None, {}, (), foreign=unpublished)
        names = {collection.name for collection in known}
        if live:
            names.add(live)
        stored: dict[str, Mapping[str, Any]] = {}
        for name in names:
            metadata = listed.get(name) or store.find(name)
            if metadata is not None:
                stored[name] = metadata
        for name, metadata in listed.items():
            if metadata.get("alias") == alias:
                stored[name] = metadata
        return cls(alias, live, stored, known, misled=misled)

    def is_stored(self, collection: Collection) -> bool:
        """Return whether the store has the same collection as the ledger: with its name and id."""
        metadata = self.stored.get(collection.name, {})
        return metadata.get("store_id") == collection.store_id

    @property
    def current(self) -> Collection | None:
        """The live collection, if ledger and store agree on it."""
        for collection in self.known:
            if collection.name == self.live and self.is_stored(collection):
                return collection
        return None

    def others(self, state: str) -> list[Collection]:
        """Return the collections in a state, without the live one, on which ledger and store agree;
        newest first."""
        found = list[Collection]()
        for collection in reversed(self.known):
            is_other = collection.state == state and collection.name != self.live
            if is_other and self.is_stored(collection):
                found.append(collection)
        return found

    @property
    def unknown(self) -> list[str]:
        """The store's collections for this alias that the ledger does not know, oldest first."""
        known = {collection.name for collection in self.known if self.is_stored(collection)}
        unknown = list[str]()
        for name, metadata in self.stored.items():
            is_ours = metadata.get("alias") == self.alias and metadata.get("store_id")
            if is_ours and name not in known:
                unknown.append(name)
        return sorted(unknown, key=collection_number)

    @property
    def candidate(self) -> str | None:
        """The collection for a lost alias: the newest one that was live or could have been, and
        that no rollback has left."""
        if self.live is not None or self.foreign:
            return None
        ready = self.others("ready")
        if ready:
            # If rollbacks have left all of them, the newest.
            kept = [row for row in ready if not self.stored[row.name].get(LEFT)]
            return max((row.name for row in kept or ready), key=collection_number)
        # The process died in the first run, before its collection was live. The next run resumes it.
        if self.others("building"):
            return None
        # The ledger was lost.
        unknown = self.unknown
        return unknown[-1] if unknown else None

    @property
    def lost(self) -> list[str]:
        """The ledger's complete collections, without the live one, that the store does not have."""
        lost = list[str]()
        for collection in self.known:
            is_former = collection.state == "ready" and collection.name != self.live
            if is_former and not self.is_stored(collection):
                lost.append(collection.name)
        return lost

    def unlike(self) -> str:
        """Return how the live collection differs from the one in the ledger."""
        row = next((row for row in self.known if row.name == self.live), None)
        if row is None:
            return f"{self.live} is live as {self.alias}, and the ledger does not know it"
        metadata = self.stored.get(row.name, {})
        ids = f"its id is {metadata.get('store_id')}, not {row.store_id}"
        return f"{self.live} is not the collection that the ledger knows by this name ({ids})"


def collection_number(name: str) -> int:
    """Return the number at the end of a collection's name, or -1 if it has none."""
    match = re.search(r"__(\d+)$", name)
    return int(match[1]) if match else -1


def examine(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, or all if `names` is empty. Nothing changes but the leases, and the
    ledger's record of which store the settings name. A missing ledger is not created.

    Raises:
        UnknownIndex: The settings have no such index.
        IndexLocked: A run has the lease of an index.
        StoreBusy: Another process has the embedded store.
        StoreRefused: The API key may not read a collection.
        TransientError: The store or the ledger is unavailable.
    """
    return _check_up(settings, names, repairing=False)


def repair(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, and repair their faults as far as possible without a run.

    Raises what `examine` raises.
    """
    return _check_up(settings, names, repairing=True)


def _check_up(settings: Settings, names: Sequence[str] | None, *, repairing: bool) -> Diagnosis:
    indexes = settings.named(names)
    diagnosis = Diagnosis()
    # Without a readable ledger, no index can be examined.
    damage = _ledger_damage(settings)
    if damage and not repairing:
        return Diagnosis([damage])
    with ExitStack() as stack:
        store = stack.enter_context(closing(open_own_store(settings)))
        if damage:
            _require_no_run(settings, store)
            _set_aside(Path(str(settings.ledger_url.database)))
            diagnosis.repaired.append(damage)
        url = settings.ledger_url
        if not repairing and _is_missing(url):
            url = _empty_ledger(stack)
            missing = missing_ledger(settings, store.aliases())
            if missing:
                diagnosis.advice.append(Advice(None, missing))
        ledger = stack.enter_context(closing(Ledger(url)))
        for index in indexes:
            alias = settings.alias(index.name)
            with IndexLease(ledger, alias, f"{CHECK_UP}{uuid.uuid4()}") as lease:
                Checkup(settings, index, ledger, store, lease, diagnosis, repairing=repairing).run()
        others = unwanted_indexes(settings, ledger, store.aliases())
        diagnosis.advice += [Advice(index, sentence) for index, sentence in others.items()]
        server = on_server(store)
        reason = server.fallback() if server is not None else ""
        if reason:
            slow = f"{reason}, so runs write over REST, which is slower: {REST_REMEDY}"
            diagnosis.advice.append(Advice(None, slow))
    # First what anybody could read although it is restricted.
    diagnosis.findings.sort(key=lambda found: found.kind != "ignored_policies")
    return diagnosis


def _ledger_damage(settings: Settings) -> Finding | None:
    """Return the finding about a ledger file that SQLite cannot read; None if there is none."""
    url = settings.ledger_url
    if not is_file(url):
        return None
    try:
        with (
            closing(Ledger(url, read_only=True)) as ledger,
            ledger.transaction() as connection,
        ):
            damage = str(connection.scalar(sa.text("PRAGMA quick_check(1)")))
    except errors.LedgerError as error:
        origin = getattr(error.__cause__, "orig", None)
        # The low byte of an extended result code is its primary code.
        if getattr(origin, "sqlite_errorcode", 0) & 0xFF not in DAMAGE_CODES:
            raise
        damage = str(origin)
    if damage == "ok":
        return None
    file = str(url.database)
    message = f"the ledger {file} is damaged: {' '.join(damage.split())}"
    return finding(None, "damaged_ledger", message, [file])


def _require_no_run(settings: Settings, store: Store) -> None:
    """Lock the project's collections in an embedded store until it is closed, and check the leases
    in a damaged ledger.

    A run under way would lose its ledger with the file.

    Raises:
        StoreBusy: Another process writes a collection.
        IndexLocked: A run has the lease of an index.
    """
    aliases = settings.aliases
    if store.embedded:
        for name, metadata in store.collections().items():
            if metadata.get("alias") not in aliases:
                continue
            try:
                # The first use locks a collection.
                store.points(name).count()
            except errors.StoreBusy:
                raise
            # The collection is damaged, which the check-up of its index finds.
            except errors.StoreError:
                continue
    # The leases are damaged, too: then no run can use this ledger.
    with suppress(errors.LedgerError), closing(Ledger(settings.ledger_url)) as ledger:
        for alias in aliases:
            with IndexLease(ledger, alias, f"{CHECK_UP}{uuid.uuid4()}"):
                continue


def _is_missing(url: URL) -> bool:
    with closing(Ledger(url, read_only=True)) as ledger:
        return ledger.is_missing


def _empty_ledger(stack: ExitStack) -> URL:
    """Return the URL of a ledger in a temporary folder, for the examination of indexes without a
    ledger. Only a run or a repair creates one at the URL of the settings, which may be
    mistyped."""
    folder = stack.enter_context(TemporaryDirectory(prefix="rag-index-doctor-"))
    return URL.create("sqlite", database=str(Path(folder) / "ledger.db"))


def _set_aside(file: Path) -> None:
    """Rename the file of a ledger, and the files that SQLite keeps beside it. Nothing is deleted."""
    now = dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("", "-wal", "-shm"):
        present = file.with_name(f"{file.name}{suffix}")
        with suppress(FileNotFoundError):
            present.rename(file.with_name(f"{file.name}.damaged-{now}{suffix}"))


@dataclass(slots=True)
class Checkup:
    """The examination of one index under its lease. If it is `repairing`, it repairs what it
    finds."""

    settings: Settings
    index: IndexSettings
    ledger: Ledger
    store: Store
    lease: IndexLease
    diagnosis: Diagnosis
    repairing: bool

    def run(self) -> None:
        """Add all findings and advice to the diagnosis.

        Raises transient errors, and those of a ledger.
        """
        findings_before = len(self.diagnosis.findings)
        state = self._settle_collections()
        current = state.current
        # Without a collection, the source is read nevertheless: it may be unreadable.
        if current is None:
            self._read_source(None)
        else:
            comparison = Comparison(
                self.ledger, self.store, self.index.name, current, check=self.lease.check
            )
            self._read_source(comparison)
            self._compare_points(current, comparison)
            self._look_at_documents(current)
        if state.live is None and len(self.diagnosis.findings) == findings_before:
            self._advise(f"nothing is indexed yet; run `rag-index index {self.index.name}`")
        self._look_ahead(state)

    def _find(
        self,
        kind: str,
        message: str,
        examples: Sequence[str] = (),
        *,
        count: int = 1,
        repairs: bool = False,
    ) -> bool:
        """Add a finding, and return whether to repair it now.

        Args:
            repairs: Whether this fault can be repaired.
        """
        found = finding(self.index.name, kind, message, examples, count=count)
        if repairs and self.repairing:
            self.diagnosis.repaired.append(found)
            return True
        self.diagnosis.findings.append(found)
        return False

    def _advise(self, message: str) -> None:
        advice = Advice(self.index.name, message)
        self.diagnosis.advice.append(advice)

    # Collections

    def _state(self) -> CollectionState:
        alias = self.settings.alias(self.index.name)
        return CollectionState.read(alias, self.ledger, self.store)

    def _settle_collections(self) -> CollectionState:
        """Find the differences of ledger, aliases and metadata, and return the state after their
        repair."""
        state = self._state()
        self._check_alias(state)
        candidate = state.candidate
        if candidate:
            missing = f"alias {state.alias} is missing, although collection {candidate} exists"
            message = state.misled or missing
            if self._find("missing_alias", message, [candidate], repairs=True):
                self.store.point_alias(state.alias, candidate)
                state = self._state()
        # The live collection is not that of the ledger.
        live = state.live
        if live and state.current is None:
            is_repaired = self._find("unknown_collection", state.unlike(), [live], repairs=True)
            if is_repaired:
                state = self._believe_store(state, live)
        if state.live is None or state.current is not None:
            self._remove_strays(state)
        current = state.current
        if current is not None:
            self._check_maker(current)
            if self.repairing:
                # Digests of the source may leave documents unread that the ledger has lost.
                self.ledger.forget_digests(current.id)
                if not self.store.embedded:
                    raise_epoch(self.store.points(current.name), self.lease)
        return state

    def _check_alias(self, state: CollectionState) -> None:
        """Find an alias or a collection of another project, and an alias that no collection can
        replace."""
        wrong = state.foreign
        if not wrong and not state.candidate:
            wrong = state.misled
        if wrong:
            self._find("foreign_collection", wrong, [state.alias])

    def _check_maker(self, current: Collection) -> None:
        """Find a collection that must be rebuilt because of what made it."""
        made = current.outdated
        if UNKNOWN in (current.embedder_fingerprint, current.chunking):
            made = f"nobody knows what made {current.name}: ledger and store have both lost it"
        if made:
            self._find("needs_rebuild", made, [current.name])

    def _believe_store(self, state: CollectionState, live: str) -> CollectionState:
        """Fill the ledger from the store: the live collection, and others that it does not know.

        Older collections become ready, newer ones building. Until its rows are complete, a
        collection has no id, so that no run uses it.
        """
        # The live one last.
        names = [name for name in state.unknown if name != live]
        for name in [*names, live]:
            self._adopt(state, name, is_newer=collection_number(name) > collection_number(live))
        return self._state()

    def _adopt(self, state: CollectionState, name: str, *, is_newer: bool) -> None:
        """Add a collection of the store to the ledger, with its documents."""
        row = self.ledger.collection(name)
        points = self.store.points(name)
        commit_mark = points.commit_mark()
        metadata = points.metadata()
        made_by = dict[str, Any]()
        for key in ("embedder", *MAKER_KEYS):
            made_by[key] = metadata.get(key) or getattr(row, key, UNKNOWN)
        store_id = metadata.get("store_id") or getattr(row, "store_id", None) or str(uuid.uuid4())
        record = {
            "store_id": store_id,
            "alias": state.alias,
            OWNER: state.alias.owner,
            SEAL: store_id,
            **made_by,
        }
        missing = {key: value for key, value in record.items() if not metadata.get(key)}
        points.set_metadata(missing)
        with self.ledger.transaction():
            if row is not None:
                self.ledger.drop_collection(row.id)
            collection = self.ledger.add_collection(
                alias=state.alias,
                name=name,
                store_id="",
                dimension=points.dimension(),
                state="building" if is_newer else "ready",
                **made_by,
            )
        fill_ledger(self.ledger, self.store, self.index.name, collection, check=self.lease.check)
        # `whole_in`: its documents count as those of the last complete run.
        self.ledger.update_collection(
            collection.id,
            store_id=store_id,
            commits=commit_mark.number,
            committed_at=commit_mark.at,
            whole_in=1,
        )

    def _remove_strays(self, state: CollectionState) -> None:
        """Find collections that only the ledger or only the store has."""
        lost = state.lost
        if lost and self._is_left_behind(state):
            message = (
                f"{count_phrase(len(lost), 'collection', lost)} not in this store; other indexes of"
                " the project are in two stores, of which the other one may have it"
            )
            self._find("left_behind", message, lost, count=len(lost))
            return
        unknown = list[str]()
        # Without a live collection, one of the store may be the one to make live.
        if state.current is not None:
            unknown = [name for name in state.unknown if name not in lost]
        names = [*lost, *unknown]
        if not names:
            return
        message = (
            f"{count_phrase(len(names), 'collection', names)} that only the ledger or only the"
            " store has"
        )
        if self._find("stray_collection", message, names, count=len(names), repairs=True):
            for name in unknown:
                self.store.drop(name)
            for row in state.known:
                if row.name in names:
                    self.ledger.drop_collection(row.id)

    def _is_left_behind(self, state: CollectionState) -> bool:
        """Return whether the index may be in another store, to or from which `rebuild --to` took
        other indexes of the project. The settings name one store for all of them."""
        if state.live is not None or state.stored:
            return False
        # It was taken there itself, so its collections of this store are lost.
        if self.ledger.collections_elsewhere(state.alias):
            return False
        return any(self.ledger.collections_elsewhere(alias) for alias in self.settings.aliases)

    # Documents and points

    def _read_source(self, comparison: Comparison | None) -> None:
        """Add the keys of the source to the comparison. A source that cannot be read to its end is
        a finding."""
        try:
            with closing(open_source(self.settings, self.index)) as source:
                source.check()
                self._look_at_policies(source)
                for page in all_pages(source):
                    if comparison is not None:
                        comparison.add_source_keys(page.documents.keys)
                        comparison.add_source_keys(failure.key for failure in page.unreadable)
                if comparison is not None:
                    comparison.complete = True
        # Errors of the comparison, not of the source.
        except (errors.LedgerError, errors.LedgerUnavailable):
            raise
        except errors.RagIndexError as error:
            self._find("unreadable_source", str(error))

    def _look_at_policies(self, source: Source) -> None:
        """Find documents that a caller without groups could read although policies restrict them,
        and list those that the policies hide from the reader."""
        policies = source.row_policies() if isinstance(source, SqlSource) else RowPolicies()
        warning = policies.warning(access=self.index.access is not None)
        if warning:
            self._find("ignored_policies", warning)
        for note in policies.notes():
            self._advise(note)

    def _compare_points(self, current: Collection, comparison: Comparison) -> None:
        """Find differences between the points of the store and the ledger."""
        name = current.name
        try:
            comparison.read_points()
            restored = commit_difference(self.ledger, self.store, current)
        # The collection could not be read. It may be in order.
        except (errors.StoreBusy, errors.StoreRefused):
            raise
        except errors.StoreError as error:
            self._find("needs_rebuild", str(error), [name])
            return
        differing = comparison.differing()
        orphans = comparison.orphans()
        foreign = comparison.foreign_points()
        # After a restore, only the source shows which documents were deleted since. Without it, a
        # run has to find them.
        can_mend = comparison.complete or not restored
        mends = False
        if restored:
            mends |= self._find("restored", restored, [name], repairs=can_mend)
        if differing.count:
            examples = [_display_key(key) for key in differing.keys]
            phrase = count_phrase(differing.count, "document", examples)
            message = f"{phrase} not in {name} as the ledger says"
            mends |= self._find(
                "different_documents", message, examples, count=differing.count, repairs=can_mend
            )
        if orphans.count or foreign.count:
            keys = [_display_key(key) for key in orphans.keys]
            parts = list[str]()
            if orphans.count:
                parts.append(f"the points of {count_phrase(orphans.count, 'document', keys)}")
            if foreign.count:
                parts.append(count_phrase(foreign.count, "point", foreign.keys))
            mends |= self._find(
                "orphan_points",
                f"{' and '.join(parts)} in {name} that nothing explains",
                [*keys, *foreign.keys][:MAX_EXAMPLES],
                count=orphans.count + foreign.count,
                repairs=comparison.complete,
            )
        if mends:
            comparison.mend()

    def _look_at_documents(self, current: Collection) -> None:
        """Find failed documents, and list the pending and the held back ones."""
        name = self.index.name
        failures = self.ledger.failures(current.id).values()
        failed = [document for document in failures if document.kind != "skipped"]
        if failed:
            examples = [document_id(document.key) for document in failed[:MAX_EXAMPLES]]
            message = (
                f"{count_phrase(len(failed), 'document', examples)} could not be indexed; reason of"
                f" the first: {failed[0].reason}"
            )
            self._find("failed_documents", message, examples, count=len(failed))
        pending = self.ledger.totals(current.id).pending
        if pending:
            self._advise(
                f"{count_of(pending, 'pending document')}: `rag-index index {name}` brings them up"
                " to date"
            )
        if current.held:
            self._advise(held_back(current.held, name))

    def _look_ahead(self, state: CollectionState) -> None:
        """List texts that may be erased, and rebuilds that are not finished."""
        name = self.index.name
        erasable = self.ledger.erasable(state.alias)
        if erasable.documents:
            since = dt.datetime.fromtimestamp(erasable.since, dt.UTC)
            texts = f"texts of {count_of(erasable.documents, 'deleted or changed document')}"
            message = f"the store's files may keep {texts} since {since:%Y-%m-%d %H:%M} UTC"
            # A run erases them, a watch once a day: it is a fault if they are older.
            if self.settings.store.erase and not erasable.lately:
                self._find("pending_erasures", message, count=erasable.documents)
            else:
                self._advise(f"{message}; `rag-index erase {name}` leaves no file with them")
        # Without a live collection, the next run resumes the first one.
        if state.live is None:
            return
        for collection in state.others("building"):
            self._advise(
                f"the rebuild {collection.name} is not finished; `rag-index rebuild {name}`"
                " resumes it"
            )


def _display_key(key: str) -> str:
    """Return a key as searches print it, and the id of a point as it is."""
    try:
        return document_id(key)
    except (ValueError, LookupError, StopIteration):
        return key
