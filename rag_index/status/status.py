"""The status of each index: its collection, counts and last run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.ledger import Channels, Ledger, unwanted_indexes
from rag_index.ledger.lease import run_state
from rag_index.status.reports import iso_time, watch_report
from rag_index.stores import commit_marks, count_indexed, live_aliases

if TYPE_CHECKING:
    from rag_index.settings import IndexSettings, Settings


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """The status of one index; `collection` is None and counts are 0 if nothing is indexed yet."""

    index: str
    collection: str | None
    documents: int
    points: int
    indexed: int | None
    """About how many points the search index of a server has; None in the embedded store, or if nothing is indexed."""
    failed: int
    held_back: int
    """Documents that the source no longer has and that the delete guard keeps in the index."""
    last_run: dict[str, Any] | None
    """started and ended (ISO, UTC), state, message, seconds. `ended` is None while the run is under way; if its process
    died, `seconds` is None too and the state is interrupted."""

    watch: dict[str, Any] | None = None
    """How the watch of the index is, as `watches.watch_report` returns it; None if it was never watched."""
    restored: str = ""
    """How store and ledger differ, if one of them was put back to an older copy; otherwise empty."""
    as_of: dict[str, Any] | None = None
    """Up to where the index is complete: `position` of the source, or None, `at` (ISO, UTC) and `known_by`."""
    channels: Channels | None = None
    """What meaning, words and both find; None if that was not measured: an index needs 500 documents."""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """The status of all indexes of the settings, and a sentence about each that is kept although they lack it."""

    indexes: list[IndexStatus]
    unwanted: dict[str, str]


def status(settings: Settings) -> ProjectStatus:
    """Return the status of all indexes.

    This reads only the ledger and the names in the store, and asks a server for its search indexes. So it answers while
    a run holds the embedded store.
    """
    with closing(Ledger(settings.ledger_url)) as ledger:
        live = live_aliases(settings.store, settings.aliases)
        ours = {index.name: live[alias] for index in settings.indexes if (alias := settings.alias(index.name)) in live}
        indexed = count_indexed(settings.store, ours.values())
        restored = ledger.find_restored(ours, partial(commit_marks, settings.store))
        found = [_index_status(settings, index, ledger, live, indexed) for index in settings.indexes]
        found = [replace(one, restored=restored.get(one.index, "")) for one in found]
        return ProjectStatus(found, unwanted_indexes(settings, ledger, live))


def ledger_status(settings: Settings) -> ProjectStatus:
    """Return the status of all indexes as the ledger alone knows it: the newest collection counts as the live one."""
    with closing(Ledger(settings.ledger_url)) as ledger:
        ready = {alias: [c.name for c in ledger.collections(alias) if c.state == "ready"] for alias in settings.aliases}
        newest = {alias: names[-1] for alias, names in ready.items() if names}
        return ProjectStatus([_index_status(settings, index, ledger, newest, {}) for index in settings.indexes], {})


def _index_status(
    settings: Settings, index: IndexSettings, ledger: Ledger, live: dict[str, str], indexed: dict[str, int]
) -> IndexStatus:
    alias = settings.alias(index.name)
    run, watch = _last_run(ledger, alias), watch_report(settings, index, ledger)
    collection = ledger.collection(live[alias]) if alias in live else None
    if collection is None:
        return IndexStatus(index.name, live.get(alias), 0, 0, None, 0, 0, run, watch)
    totals = ledger.totals(collection.id)
    failed, held = ledger.count_failures(collection.id), ledger.count_held(collection.id)
    built = indexed.get(collection.name)
    reached = ledger.reached().get(alias)
    as_of = None
    if reached is not None and reached.collection == collection.name:
        as_of = {"position": reached.position or None, "at": iso_time(reached.at), "known_by": reached.how}
    counts = (totals.documents, totals.points, built, failed, held)
    channels = Channels.decode(collection.channels)
    return IndexStatus(index.name, collection.name, *counts, run, watch, as_of=as_of, channels=channels)


def _last_run(ledger: Ledger, alias: str) -> dict[str, Any] | None:
    """Return the last run as `IndexStatus.last_run` describes it, or None if there was none."""
    last = ledger.last_run(alias)
    if last is None:
        return None
    state = run_state(ledger, last)
    died = state == "interrupted"
    return {
        "started": iso_time(last.started_at),
        "ended": iso_time(last.ended_at) if last.ended_at else None,
        "state": state,
        "message": "the process died during the run; the next run resumes it" if died else last.message,
        "seconds": None if died else round((last.ended_at or ledger.clock()) - last.started_at, 3),
    }
