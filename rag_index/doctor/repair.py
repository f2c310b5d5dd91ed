"""Mending what a check-up found, by the ordinary path: what only labels things is put right here, under the index's
lock; what needs vectors is marked as to be written, and the ordinary run writes it.

Every step leaves ledger and store explaining each other, so that a repair may be killed and begun again.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.doctor.adopt import adopt
from rag_index.doctor.checkup import Checkup, damaged_ledger, examine, ledger_damage, locked, open_all
from rag_index.doctor.collection_state import MADE_BY, UNKNOWN, number
from rag_index.stores.points import UUID_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.doctor.collection_state import CollectionState
    from rag_index.doctor.findings import Diagnosis, Finding
    from rag_index.ledger import Collection
    from rag_index.settings import Settings

__all__ = ["repair"]

ROUNDS = 4
"""A repair may bring other things to light: a ledger made anew first shows which points are wrong."""
BY_RUN = {
    "missing_documents",
    "wrong_chunks",
    "wrong_payloads",
    "unknown_documents",
    "pending_documents",
    "failed_documents",
}
BY_REBUILD = {"unreadable_collection"}


@dataclass(slots=True)
class _Plan:
    """What is left for runs, once all labels are right."""

    run: list[str] = field(default_factory=list)
    rebuild: list[str] = field(default_factory=list)


def repair(settings: Settings, names: Sequence[str] | None, run: Callable[[list[str], bool], object]) -> Diagnosis:
    """Mend what is wrong with these indexes; `run` is called with the ones that a run, or a rebuild (True), has to do.

    What is left is looked at again at the end. Raises as `examine` does.
    """
    indexes = settings.named(names)
    found: list[Finding] = []
    if damage := ledger_damage(settings):
        found.append(damaged_ledger(settings, damage))
        _set_aside(settings)
    plan = _Plan()
    with open_all(settings) as resources:
        for index in indexes:
            with locked(resources, index) as lock:
                found += _Repair(Checkup(resources, index), plan, lock.epoch).mend()
    for wanted, rebuild in ((plan.run, False), (plan.rebuild, True)):
        if wanted:
            run(wanted, rebuild)
    left = examine(settings, names)
    first: dict[tuple[str | None, str], Finding] = {}
    for finding in found:
        first.setdefault((finding.index, finding.kind), finding)
    left.repaired = [finding for (index, kind), finding in first.items() if kind not in left.kinds(index)]
    return left


class _Repair:
    """One index, under its lock."""

    def __init__(self, checkup: Checkup, plan: _Plan, epoch: int) -> None:
        self._checkup = checkup
        self._epoch = epoch
        self._plan = plan
        self._resources = checkup.resources
        self._name = checkup.index.name

    def mend(self) -> list[Finding]:
        """All that was found on the way, also what could not be mended."""
        self._refuse_dead_runs()
        found: list[Finding] = []
        kinds: set[str] = set()
        for _ in range(ROUNDS):
            findings = self._checkup.look().findings
            found += findings
            kinds = {finding.kind for finding in findings}
            if not self._relabel(self._checkup.state(), kinds):
                break
        state = self._checkup.state()
        if state.current is not None:
            if kinds & BY_REBUILD:
                self._distrust(state.current, MADE_BY)  # a rebuild must not read what cannot be read
            self._mark(state.current, kinds)
        lost = state.live is None and any(finding.kind == "lost_collection" for finding in found)
        if not self._checkup.source_read:
            return found
        if kinds & BY_REBUILD or ("other_fingerprint" in kinds and not state.rolled_back()):
            self._plan.rebuild.append(self._name)
        elif kinds & BY_RUN or lost:
            self._plan.run.append(self._name)
        return found

    def _refuse_dead_runs(self) -> None:
        """What workers of a dead run still send to a server is refused from here on, as at the begin of a run."""
        store, current = self._resources.store, self._checkup.state().current
        if current is not None and not store.embedded:
            store.set_metadata(current.name, {"epoch": self._epoch})

    def _relabel(self, state: CollectionState, kinds: set[str]) -> bool:
        """Put right what needs neither points nor vectors; whether anything was, so that it is worth another look."""
        steps: dict[str, Callable[[CollectionState], None]] = {
            "unknown_collection": self._adopt_shown,
            "other_store": self._adopt_shown,
            "lost_metadata": self._write_metadata,
            "missing_alias": self._show,
            "unfinished_publish": self._finish_publish,
            "metadata_differs": self._doubt,
            "lost_collection": self._forget_lost,
            "unneeded_collection": self._drop_unneeded,
        }
        due = [step for kind, step in steps.items() if kind in kinds]
        for step in due:
            step(state)
        return bool(due)

    def _adopt_shown(self, state: CollectionState) -> None:
        self._adopt(state, str(state.live))

    def _adopt(self, state: CollectionState, live: str) -> None:
        """The ledger from the store: the collection that is shown, older ones as kept, newer ones as unfinished."""
        resources, alias = self._resources, self._checkup.alias
        for name in dict.fromkeys([*state.unknown, live]):
            made = "building" if number(name) > number(live) else "ready"
            adopt(resources.scratch, resources.ledger, resources.store, name, index=self._name, alias=alias, state=made)

    def _show(self, state: CollectionState) -> None:
        candidate = state.candidate
        if candidate is None:
            return
        if candidate in state.unknown:
            self._adopt(state, candidate)
        self._resources.store.point_alias(state.alias, candidate)

    def _write_metadata(self, state: CollectionState) -> None:
        """What the store forgot of the shown collection, from the ledger."""
        row = next(c for c in state.known if c.name == state.live)
        metadata = state.stored[row.name]
        values = {"store_id": row.store_id, "alias": row.alias, "embedder": row.embedder}
        values |= {key: getattr(row, key) for key in MADE_BY}
        self._resources.store.set_metadata(row.name, {k: v for k, v in values.items() if not metadata.get(k)})

    def _finish_publish(self, state: CollectionState) -> None:
        if state.current is not None:
            self._resources.ledger.update_collection(state.current.id, state="ready")

    def _doubt(self, state: CollectionState) -> None:
        """Ledger and store name different makers: neither is believed, so that a rebuild takes no vector from it."""
        if (current := state.current) is not None:
            metadata = state.stored[current.name]
            self._distrust(current, [key for key in MADE_BY if metadata.get(key) != getattr(current, key)])

    def _distrust(self, collection: Collection, keys: Sequence[str]) -> None:
        self._resources.ledger.update_collection(collection.id, **dict.fromkeys(keys, UNKNOWN))
        self._resources.store.set_metadata(collection.name, dict.fromkeys(keys, UNKNOWN))

    def _forget_lost(self, state: CollectionState) -> None:
        """Unfinished ones too, whose rows would explain what is not there."""
        for collection in state.known:
            if not state.whole(collection):
                self._resources.ledger.drop_collection(collection.id)

    def _drop_unneeded(self, state: CollectionState) -> None:
        for name in state.unneeded:
            self._resources.store.drop(name)
            if (row := self._resources.ledger.collection(name)) is not None:
                self._resources.ledger.drop_collection(row.id)

    def _mark(self, current: Collection, kinds: set[str]) -> None:
        """Documents that are not as they should be are to be written; points that nothing explains go."""
        scratch, store = self._resources.scratch, self._resources.store
        if kinds & {"missing_documents", "wrong_chunks", "wrong_payloads"}:
            scratch.pending_again(current.id)
        if "unknown_documents" in kinds:
            scratch.pending_unknown(current.id)
        if "orphan_points" not in kinds or not self._checkup.source_read:
            return
        after = ""
        while ids := scratch.next_orphans(after=after):
            after = ids[-1]
            store.delete_points(current.name, [i for i in ids if UUID_TEXT.fullmatch(i)])
        store.flush(current.name)


def _set_aside(settings: Settings) -> None:
    """Rename a ledger's damaged file, with what SQLite keeps beside it: nothing is thrown away."""
    now = dt.datetime.now(tz=dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    file = Path(str(settings.ledger_url.database))
    for suffix in ("", "-wal", "-shm"):
        beside = file.with_name(file.name + suffix)
        if beside.exists():
            beside.rename(file.with_name(f"{file.name}.damaged-{now}{suffix}"))
