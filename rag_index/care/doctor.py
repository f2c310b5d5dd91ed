"""What a check-up finds, with the remedies; and an index's collections as ledger and store have
them: aliases and metadata, without their points. docs/doctor.md says of each kind of finding what a
repair does."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import uuid
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index import errors
from rag_index.components.ledger import Collection, Ledger, reconciled_by, unwanted_indexes
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


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, and its remedy. The kind decides whether `count` counts documents,
    points or others."""

    index: str | None
    """None if the finding concerns all indexes."""
    kind: str
    count: int
    message: str
    remedy: str
    examples: tuple[str, ...] = ()
    """A few document ids, or names of collections or ids of points if there is no document."""


def finding(
    index: str | None, kind: str, message: str, examples: Sequence[str] = (), *, count: int = 1
) -> Finding:
    """Return a finding with the remedy of its kind."""
    remedy = REMEDIES[kind].format(index=index, reconciled=reconciled_by(index or ""))
    return Finding(index, kind, count, message, remedy, tuple(examples))


@dataclass(frozen=True, slots=True)
class Advice:
    """Something that is not wrong, but may be worth a change."""

    index: str | None
    message: str


@dataclass(slots=True)
class Diagnosis:
    """All findings and advice; after a repair, `findings` holds what is left, and `repaired` what
    is not."""

    findings: list[Finding] = field(default_factory=list)
    advice: list[Advice] = field(default_factory=list)
    repaired: list[Finding] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 0 if nothing is wrong, else 3."""
        return 3 if self.findings else 0


def count_phrase(count: int, noun: str, examples: Sequence[str]) -> str:
    """Return a count with its noun and examples, such as `3 documents (7, 10, 13)`."""
    return (
        f"{count_of(count, noun)} ({', '.join(examples)}{', …' if len(examples) < count else ''})"
    )


def _unfinished_here(ledger: Ledger, alias: Alias, listed: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a sentence about a `rebuild --to` that has not published its collection in this store.

    The guard or the gate refused the collection, or it is incomplete: nothing else may make it
    live. Empty if there is none.
    """
    for row in ledger.collections_elsewhere(alias):
        is_here = listed.get(row.name, {}).get("store_id") == row.store_id
        if row.state == "building" and is_here:
            return (
                f"`rag-index rebuild --to` has not published {row.name} in this store: it has not"
                " ended, or was held back. Name the former store in the settings again, and repeat"
                " it there"
            )
    return ""


@dataclass(frozen=True, slots=True)
class CollectionState:
    """One index's collections, as the ledger has them and as the store has them."""

    alias: Alias
    live: str | None
    stored: Mapping[str, Mapping[str, Any]]
    """Metadata of the store's collections that were made for this alias, are live, or are known to
    the ledger."""
    known: tuple[Collection, ...]
    """The ledger's collections, oldest first."""
    foreign: str = ""
    """Why the index has no collection that may be looked at: what has the alias or its name is
    another's."""
    misled: str = ""
    """What is wrong with an alias that points at another index's collection, which then counts as
    not live."""

    @classmethod
    def read(cls, alias: Alias, ledger: Ledger, store: Store) -> CollectionState:
        """Return the state as it is now. What the store does not list is asked for by name. Raises
        StoreRefused if the API key may not ask: what it may not see is not lost."""
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
        known, listed = ledger.collections(alias), store.collections()
        unfinished = _unfinished_here(ledger, alias, listed) if live is None else ""
        if unfinished:
            return cls(alias, None, {}, (), foreign=unfinished)
        names = {*(c.name for c in known), *([live] if live else [])}
        stored = {
            name: metadata
            for name in names
            if (metadata := listed.get(name) or store.find(name)) is not None
        }
        stored |= {
            name: metadata for name, metadata in listed.items() if metadata.get("alias") == alias
        }
        return cls(alias, live, stored, tuple(known), misled=misled)

    def is_stored(self, collection: Collection) -> bool:
        """Return whether the store has the same collection as the ledger: equal name and equal
        id."""
        return self.stored.get(collection.name, {}).get("store_id") == collection.store_id

    @property
    def current(self) -> Collection | None:
        """Return the live collection if ledger and store agree on it."""
        return next((c for c in self.known if c.name == self.live and self.is_stored(c)), None)

    def others(self, state: str) -> list[Collection]:
        """Return the collections of a state that are not live and on which ledger and store agree,
        newest first."""
        return [
            c
            for c in reversed(self.known)
            if c.state == state and c.name != self.live and self.is_stored(c)
        ]

    @property
    def unknown(self) -> list[str]:
        """Return the collections that were made for this alias and that the ledger does not
        know."""
        known = {c.name for c in self.known if self.is_stored(c)}
        ours = {
            name for name, metadata in self.stored.items() if metadata.get("alias") == self.alias
        }
        return sorted(
            (name for name in ours - known if self.stored[name].get("store_id")),
            key=collection_number,
        )

    @property
    def candidate(self) -> str | None:
        """Return what a lost alias should point at: a collection that was live, or could have been.
        That is the newest one that no rollback has left."""
        if self.live is not None or self.foreign:
            return None
        if ready := self.others("ready"):
            ready = [c for c in ready if not self.stored[c.name].get(LEFT)] or ready
            return max((c.name for c in ready), key=collection_number)
        if self.others("building"):
            return (
                None  # the first run died before its collection was live; the next one resumes it
            )
        return next(reversed(self.unknown), None)

    @property
    def lost(self) -> list[str]:
        """Return the collections that the ledger has as complete, and the store does not have."""
        return [
            c.name
            for c in self.known
            if c.state == "ready" and c.name != self.live and not self.is_stored(c)
        ]

    def unlike(self) -> str:
        """Return how the live collection is not the one that the ledger knows."""
        row = next((c for c in self.known if c.name == self.live), None)
        if row is None:
            return f"{self.live} is live as {self.alias}, and the ledger does not know it"
        ids = f"its id is {self.stored.get(row.name, {}).get('store_id')}, not {row.store_id}"
        return f"{self.live} is not the collection that the ledger knows by this name ({ids})"


def collection_number(name: str) -> int:
    """Return the number at the end of a collection's name, or -1 if it has none."""
    match = re.search(r"__(\d+)$", name)
    return int(match[1]) if match else -1


def examine(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, or all if `names` is empty. Nothing is changed but the locks, and
    which store the ledger takes for that of the settings. Raises UnknownIndex, IndexLocked,
    StoreBusy, StoreRefused if a server may not be read, and TransientError if store or ledger do
    not answer."""
    return _check_up(settings, names, repairing=False)


def repair(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, and correct what is wrong; the next run does the rest. Raises what
    `examine` raises."""
    return _check_up(settings, names, repairing=True)


def _check_up(settings: Settings, names: Sequence[str] | None, *, repairing: bool) -> Diagnosis:
    indexes, diagnosis = settings.named(names), Diagnosis()
    if damage := _ledger_damage(settings):
        if not repairing:
            return Diagnosis([damage])
        _set_aside(Path(str(settings.ledger_url.database)))
        diagnosis.repaired.append(damage)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
        store = stack.enter_context(closing(open_own_store(settings)))
        for index in indexes:
            with IndexLease(
                ledger, settings.alias(index.name), f"{CHECK_UP}{uuid.uuid4()}"
            ) as lease:
                Checkup(settings, index, ledger, store, lease, diagnosis, repairing=repairing).run()
        others = unwanted_indexes(settings, ledger, store.aliases())
        diagnosis.advice += [Advice(index, sentence) for index, sentence in others.items()]
        server = on_server(store)
        if server is not None and (reason := server.fallback()):
            slow = f"{reason}, so runs write over REST, which is slower: {REST_REMEDY}"
            diagnosis.advice.append(Advice(None, slow))
    diagnosis.findings.sort(key=lambda one: one.kind != "ignored_policies")
    return diagnosis


def _ledger_damage(settings: Settings) -> Finding | None:
    """Return the finding about a ledger file that SQLite cannot read, before whose repair no index
    can be examined."""
    url = settings.ledger_url
    if not is_file(url):
        return None
    try:
        with closing(Ledger(url)) as ledger, ledger.transaction() as connection:
            damage = str(connection.scalar(sa.text("PRAGMA quick_check(1)")))
    except errors.LedgerError as error:
        origin = getattr(error.__cause__, "orig", None)
        if getattr(origin, "sqlite_errorcode", 0) & 0xFF not in DAMAGE_CODES:
            raise
        damage = str(origin)
    file = str(url.database)
    message = f"the ledger {file} is damaged: {' '.join(damage.split())}"
    return finding(None, "damaged_ledger", message, [file]) if damage != "ok" else None


def _set_aside(file: Path) -> None:
    """Rename a ledger's file, with what SQLite keeps beside it: nothing is thrown away."""
    now = dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    for suffix in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            file.with_name(f"{file.name}{suffix}").rename(
                file.with_name(f"{file.name}.damaged-{now}{suffix}")
            )


@dataclass(slots=True)
class Checkup:
    """The examination of one index under its lock, which repairs what it finds if it is
    `repairing`."""

    settings: Settings
    index: IndexSettings
    ledger: Ledger
    store: Store
    lease: IndexLease
    diagnosis: Diagnosis
    repairing: bool

    def run(self) -> None:
        """Add all findings and advice to the diagnosis. Raises transient errors, and what a ledger
        raises."""
        before = len(self.diagnosis.findings)
        state = self._settle_collections()
        comparison = None
        if (current := state.current) is not None:
            comparison = Comparison(
                self.ledger, self.store, self.index.name, current, check=self.lease.check
            )
        self._read_source(comparison)
        if current is not None and comparison is not None:
            self._compare_points(current, comparison)
            self._look_at_documents(current)
        if state.live is None and len(self.diagnosis.findings) == before:
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
        """Add a finding, and return whether it is to be corrected now, which `repairs` allows."""
        repairs = repairs and self.repairing
        found = finding(self.index.name, kind, message, examples, count=count)
        (self.diagnosis.repaired if repairs else self.diagnosis.findings).append(found)
        return repairs

    def _advise(self, message: str) -> None:
        self.diagnosis.advice.append(Advice(self.index.name, message))

    # Collections

    def _state(self) -> CollectionState:
        return CollectionState.read(self.settings.alias(self.index.name), self.ledger, self.store)

    def _settle_collections(self) -> CollectionState:
        """Find what ledger, aliases and metadata disagree on, and return the state in which that
        leaves them."""
        state, store, ledger = self._state(), self.store, self.ledger
        if wrong := state.foreign or (not state.candidate and state.misled):
            self._find("foreign_collection", wrong, [state.alias])
        if candidate := state.candidate:
            missing = f"alias {state.alias} is missing, although collection {candidate} exists"
            if self._find("missing_alias", state.misled or missing, [candidate], repairs=True):
                store.point_alias(state.alias, candidate)
                state = self._state()
        if (live := state.live) and state.current is None:
            unknown = self._find("unknown_collection", state.unlike(), [live], repairs=True)
            state = self._believe_store(state, live) if unknown else state
        if state.live is None or state.current is not None:
            self._remove_strays(state)
        if (current := state.current) is not None:
            made = current.outdated
            if UNKNOWN in (current.embedder_fingerprint, current.chunking):
                made = f"nobody knows what made {current.name}: ledger and store have both lost it"
            if made:
                self._find("needs_rebuild", made, [current.name])
            if self.repairing:
                ledger.forget_digests(current.id)  # they may leave unread what the ledger has lost
                if not store.embedded:
                    raise_epoch(store.points(current.name), self.lease)
        return state

    def _believe_store(self, state: CollectionState, live: str) -> CollectionState:
        """Let the ledger know the live collection, and those beside it that it does not know: older
        ones as ready, newer ones as building. Until its rows are complete, a collection has no id
        by which a run would take it."""
        store, ledger = self.store, self.ledger
        for name in [*(name for name in state.unknown if name != live), live]:
            row, points = ledger.collection(name), store.points(name)
            mark, metadata = points.commit_mark(), points.metadata()
            made_by = {
                key: metadata.get(key) or getattr(row, key, UNKNOWN)
                for key in ("embedder", *MAKER_KEYS)
            }
            store_id = (
                metadata.get("store_id") or getattr(row, "store_id", None) or str(uuid.uuid4())
            )
            record = {
                "store_id": store_id,
                "alias": state.alias,
                OWNER: state.alias.owner,
                SEAL: store_id,
                **made_by,
            }
            points.set_metadata(
                {key: value for key, value in record.items() if not metadata.get(key)}
            )
            newer = collection_number(name) > collection_number(live)
            with ledger.transaction():
                if row is not None:
                    ledger.drop_collection(row.id)
                collection = ledger.add_collection(
                    alias=state.alias,
                    name=name,
                    store_id="",
                    dimension=points.dimension(),
                    state="building" if newer else "ready",
                    **made_by,
                )
            fill_ledger(ledger, store, self.index.name, collection, check=self.lease.check)
            ledger.update_collection(  # what it has counts as what the last complete run left: `whole_in`
                collection.id,
                store_id=store_id,
                commits=mark.number,
                committed_at=mark.at,
                whole_in=1,
            )
        return self._state()

    def _remove_strays(self, state: CollectionState) -> None:
        """Find collections that only one of ledger and store has."""
        unknown = (
            [name for name in state.unknown if name not in state.lost]
            if state.current is not None
            else []
        )
        if names := [*state.lost, *unknown]:
            message = (
                f"{count_phrase(len(names), 'collection', names)} that only the ledger or only the"
                " store has"
            )
            if self._find("stray_collection", message, names, count=len(names), repairs=True):
                for name in unknown:
                    self.store.drop(name)
                for row in [one for one in state.known if one.name in names]:
                    self.ledger.drop_collection(row.id)

    # Documents and points

    def _read_source(self, comparison: Comparison | None) -> None:
        """Give the comparison the keys of the source. That it cannot be read to its end is a
        finding."""
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
        except (errors.LedgerError, errors.LedgerUnavailable):
            raise
        except errors.RagIndexError as error:
            self._find("unreadable_source", str(error))

    def _look_at_policies(self, source: Source) -> None:
        """Find what everybody would see for whom it is not; advise of what the reader does not
        see."""
        policies = source.row_policies() if isinstance(source, SqlSource) else RowPolicies()
        if warning := policies.warning(access=self.index.access is not None):
            self._find("ignored_policies", warning)
        for note in policies.notes():
            self._advise(note)

    def _compare_points(self, current: Collection, comparison: Comparison) -> None:
        name = current.name
        try:
            comparison.read_points()
            restored = commit_difference(self.ledger, self.store, current)
        except (
            errors.StoreBusy,
            errors.StoreRefused,
        ):  # the collection may be in order: it could not be read
            raise
        except errors.StoreError as error:
            self._find("needs_rebuild", str(error), [name])
            return
        differing, orphans, complete = (
            comparison.differing(),
            comparison.orphans(),
            comparison.complete,
        )
        mends = (
            complete or not restored
        )  # without the source, a run has to say what was deleted since
        found = bool(restored) and self._find("restored", restored, [name], repairs=mends)
        if differing.count:
            examples = [*map(_display_key, differing.keys)]
            message = (
                f"{count_phrase(differing.count, 'document', examples)} not in {name} as the ledger"
                " says"
            )
            found |= self._find(
                "different_documents", message, examples, count=differing.count, repairs=mends
            )
        if orphans.count:
            examples = [*map(_display_key, orphans.keys)]
            message = (
                f"{count_phrase(orphans.count, 'point', examples)} in {name} that nothing explains"
            )
            found |= self._find(
                "orphan_points", message, examples, count=orphans.count, repairs=complete
            )
        if found:
            comparison.mend()

    def _look_at_documents(self, current: Collection) -> None:
        """Find documents that failed; advise of what the next run has to do with others, and of
        what may be erased."""
        ledger, name = self.ledger, self.index.name
        if failed := [one for one in ledger.failures(current.id).values() if one.kind != "skipped"]:
            examples = [document_id(one.key) for one in failed[:MAX_EXAMPLES]]
            message = f"{count_phrase(len(failed), 'document', examples)} could not be indexed; "
            message += f"reason of the first: {failed[0].reason}"
            self._find("failed_documents", message, examples, count=len(failed))
        if pending := ledger.totals(current.id).pending:
            self._advise(
                f"{count_of(pending, 'pending document')}: `rag-index index {name}` brings them up"
                " to date"
            )
        if current.held:
            self._advise(held_back(current.held, name))

    def _look_ahead(self, state: CollectionState) -> None:
        """Add what may be erased, and advise of a rebuild that is not finished."""
        name = self.index.name
        erasable = self.ledger.erasable(state.alias)
        if erasable.documents:
            since = dt.datetime.fromtimestamp(erasable.since, dt.UTC)
            texts = f"texts of {count_of(erasable.documents, 'deleted or changed document')}"
            message = f"the store's files may keep {texts} since {since:%Y-%m-%d %H:%M} UTC"
            if self.settings.store.erase and not erasable.lately:  # a watch erases once a day
                self._find("pending_erasures", message, count=erasable.documents)
            else:
                self._advise(f"{message}; `rag-index erase {name}` leaves no file with them")
        for collection in state.others("building") if state.live is not None else ():
            self._advise(
                f"the rebuild {collection.name} is not finished; `rag-index rebuild {name}`"
                " resumes it"
            )


def _display_key(key: str) -> str:
    """Return a key as searches show it; the id of a point is returned as it is."""
    try:
        return document_id(key)
    except (ValueError, LookupError, StopIteration):
        return key
