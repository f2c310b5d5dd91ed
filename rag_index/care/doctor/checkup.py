"""A check-up: what source, ledger and store hold of an index is compared under its lock, and told as findings. A repair
is the same with writing: what differs is corrected as it is found. Records are corrected here; documents that need
vectors become pending, and the next run writes them. Every step leaves ledger and store explaining each other, so a
repair may be killed and repeated."""

from __future__ import annotations

import datetime as dt
import sqlite3
import uuid
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index import errors
from rag_index.care.doctor.collection_state import (
    Advice,
    CollectionState,
    Diagnosis,
    Finding,
    collection_number,
    count_phrase,
    finding,
)
from rag_index.components.ledger import Collection, Ledger, unwanted_indexes
from rag_index.components.ledger.runs import CHECK_UP, IndexLease
from rag_index.components.sources import all_pages, open_source
from rag_index.components.sources.left_behind import left_behind
from rag_index.components.sources.policies import RowPolicies
from rag_index.components.sources.sql import SqlSource
from rag_index.components.stores import MAKER_KEYS, OWNER, REST_REMEDY, SEAL, UNKNOWN, on_server, open_own_store
from rag_index.core.database import is_file
from rag_index.core.documents.keys import document_id
from rag_index.core.reports.outcome import count_of
from rag_index.etl.collection import raise_epoch
from rag_index.etl.delete_guard import held_back
from rag_index.etl.reconcile import MAX_EXAMPLES, Comparison, commit_difference, fill_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.components.sources import Source
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import IndexSettings, Settings

DAMAGE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def examine(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, or all if `names` is empty. Nothing but the locks is changed. Raises UnknownIndex,
    IndexLocked, StoreBusy, StoreRefused if a server may not be read, and TransientError if store or ledger do not
    answer."""
    return _check_up(settings, names, repairing=False)


def repair(settings: Settings, names: Sequence[str] | None = None) -> Diagnosis:
    """Examine these indexes, and correct what is wrong; the next run does the rest. Raises what `examine` raises."""
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
            with IndexLease(ledger, settings.alias(index.name), f"{CHECK_UP}{uuid.uuid4()}") as lease:
                Checkup(settings, index, ledger, store, lease, diagnosis, repairing=repairing).run()
        others = unwanted_indexes(settings, ledger, store.aliases())
        diagnosis.advice += [Advice(index, sentence) for index, sentence in others.items()]
        server = on_server(store)
        slow = server.fallback() if server is not None else ""
        slow = slow and f"{slow}, so runs write over REST, which is slower: {REST_REMEDY}"
        said = filter(None, (slow, *left_behind(settings)))
        diagnosis.advice += [Advice(None, message) for message in said]
    diagnosis.findings.sort(key=lambda one: one.kind != "ignored_policies")
    return diagnosis


def _ledger_damage(settings: Settings) -> Finding | None:
    """Return the finding about a ledger file that SQLite cannot read, before whose repair no index can be examined."""
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
            file.with_name(f"{file.name}{suffix}").rename(file.with_name(f"{file.name}.damaged-{now}{suffix}"))


@dataclass(slots=True)
class Checkup:
    """The examination of one index under its lock, which repairs what it finds if it is `repairing`."""

    settings: Settings
    index: IndexSettings
    ledger: Ledger
    store: Store
    lease: IndexLease
    diagnosis: Diagnosis
    repairing: bool

    def run(self) -> None:
        """Add all findings and advice to the diagnosis. Raises transient errors, and what a ledger raises."""
        before = len(self.diagnosis.findings)
        state = self._settle_collections()
        comparison = None
        if (current := state.current) is not None:
            comparison = Comparison(self.ledger, self.store, self.index.name, current, check=self.lease.check)
        self._read_source(comparison)
        if current is not None and comparison is not None:
            self._compare_points(current, comparison)
            self._look_at_documents(current)
        if state.live is None and len(self.diagnosis.findings) == before:
            self._advise(f"nothing is indexed yet; run `rag-index index {self.index.name}`")
        self._look_ahead(state)

    def _find(
        self, kind: str, message: str, examples: Sequence[str] = (), *, count: int = 1, repairs: bool = False
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
        """Find what ledger, aliases and metadata disagree on, and return the state in which that leaves them."""
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
                    raise_epoch(store, current.name, self.lease)
        return state

    def _believe_store(self, state: CollectionState, live: str) -> CollectionState:
        """Let the ledger know the live collection, and those beside it that it does not know: older ones as ready,
        newer ones as building. Until its rows are complete, a collection has no id by which a run would take it."""
        store, ledger = self.store, self.ledger
        for name in [*(name for name in state.unknown if name != live), live]:
            row, mark, metadata = ledger.collection(name), store.commit_mark(name), store.metadata(name)
            made_by = {key: metadata.get(key) or getattr(row, key, UNKNOWN) for key in ("embedder", *MAKER_KEYS)}
            store_id = metadata.get("store_id") or getattr(row, "store_id", None) or str(uuid.uuid4())
            record = {"store_id": store_id, "alias": state.alias, OWNER: state.alias.owner, SEAL: store_id, **made_by}
            store.set_metadata(name, {key: value for key, value in record.items() if not metadata.get(key)})
            newer = collection_number(name) > collection_number(live)
            with ledger.transaction():
                if row is not None:
                    ledger.drop_collection(row.id)
                collection = ledger.add_collection(
                    alias=state.alias, name=name, store_id="", dimension=store.dimension(name),
                    state="building" if newer else "ready", **made_by,
                )  # fmt: skip
            fill_ledger(ledger, store, self.index.name, collection, check=self.lease.check)
            ledger.update_collection(  # what it has counts as what the last complete run left: `whole_in`
                collection.id, store_id=store_id, commits=mark.number, committed_at=mark.at, whole_in=1
            )
        return self._state()

    def _remove_strays(self, state: CollectionState) -> None:
        """Find collections that only one of ledger and store has."""
        unknown = [name for name in state.unknown if name not in state.lost] if state.current is not None else []
        if names := [*state.lost, *unknown]:
            message = f"{count_phrase(len(names), 'collection', names)} that only the ledger or only the store has"
            if self._find("stray_collection", message, names, count=len(names), repairs=True):
                for name in unknown:
                    self.store.drop(name)
                for row in [one for one in state.known if one.name in names]:
                    self.ledger.drop_collection(row.id)

    # Documents and points

    def _read_source(self, comparison: Comparison | None) -> None:
        """Give the comparison the keys of the source. That it cannot be read to its end is a finding."""
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
        """Find what everybody would see for whom it is not; advise of what the reader does not see."""
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
        except (errors.StoreBusy, errors.StoreRefused):  # the collection may be in order: it could not be read
            raise
        except errors.StoreError as error:
            self._find("needs_rebuild", str(error), [name])
            return
        differing, orphans, complete = comparison.differing(), comparison.orphans(), comparison.complete
        mends = complete or not restored  # without the source, a run has to say what was deleted since
        found = bool(restored) and self._find("restored", restored, [name], repairs=mends)
        if differing.count:
            examples = [*map(_display_key, differing.keys)]
            message = f"{count_phrase(differing.count, 'document', examples)} not in {name} as the ledger says"
            found |= self._find("different_documents", message, examples, count=differing.count, repairs=mends)
        if orphans.count:
            examples = [*map(_display_key, orphans.keys)]
            message = f"{count_phrase(orphans.count, 'point', examples)} in {name} that nothing explains"
            found |= self._find("orphan_points", message, examples, count=orphans.count, repairs=complete)
        if found:
            comparison.mend()

    def _look_at_documents(self, current: Collection) -> None:
        """Find documents that failed; advise of what the next run has to do with others, and of what may be erased."""
        ledger, name = self.ledger, self.index.name
        if failed := [one for one in ledger.failures(current.id).values() if one.kind != "skipped"]:
            examples = [document_id(one.key) for one in failed[:MAX_EXAMPLES]]
            message = f"{count_phrase(len(failed), 'document', examples)} could not be indexed; "
            message += f"reason of the first: {failed[0].reason}"
            self._find("failed_documents", message, examples, count=len(failed))
        if pending := ledger.totals(current.id).pending:
            self._advise(f"{count_of(pending, 'pending document')}: `rag-index index {name}` brings them up to date")
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
            self._advise(f"the rebuild {collection.name} is not finished; `rag-index rebuild {name}` resumes it")


def _display_key(key: str) -> str:
    """Return a key as searches show it; the id of a point is returned as it is."""
    try:
        return document_id(key)
    except (ValueError, LookupError, StopIteration):
        return key
