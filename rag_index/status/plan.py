"""The plan of a run: what it would do, without doing it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.chunking import open_chunker
from rag_index.embedders import identify
from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import RagIndexError, TransientError
from rag_index.indexing.delete_guard import DeleteGuard
from rag_index.indexing.diff import diff
from rag_index.indexing.scan_state import LedgerScanState
from rag_index.indexing.target import check_fits, live_collection
from rag_index.ledger import Ledger
from rag_index.sources import has_digests, open_source, scan_settings
from rag_index.sources.sql import not_unique
from rag_index.status.cost import CostCounter, RunCost
from rag_index.stores import commit_marks, open_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import DocumentBatch, Failure
    from rag_index.embedders import EmbedderIdentity
    from rag_index.ledger import Collection
    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources import Source, SourcePage

NO_COLLECTION = -1
"""An id that no collection has: nothing is known of its documents."""


@dataclass(slots=True)
class RunPlan:
    """Numbers of documents by what a run of an index would do with them.

    Each document counts as exactly one of new, changed, payload_only, unchanged, empty, failed and skipped.
    """

    index: str
    documents: int = 0
    new: int = 0
    changed: int = 0
    payload_only: int = 0
    gone: int = 0
    """Documents that are indexed and that the source no longer has."""
    held_back: int = 0
    """Documents that the run would not delete, because of `delete_guard`."""
    unchanged: int = 0
    empty: int = 0
    failed: int = 0
    """Documents that cannot be read, or that failed too often to be tried again."""
    skipped: int = 0
    """Documents that a rule of the source excludes."""
    cost: RunCost | None = None
    """What embedding new and changed documents costs at most; None if there are none."""
    message: str = ""
    """What a person should know about the run."""
    error: str = ""
    """Why a run would end before it changes anything. All numbers are 0 then."""
    exit_code: int = 0
    """The exit code of such a run."""

    def add_message(self, message: str) -> None:
        """Add to what a person should know."""
        self.message = "; ".join(filter(None, [self.message, message]))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints. `message` and `error` are left out if they are empty."""
        values = {**asdict(self), "cost": self.cost and self.cost.to_json()}
        values.pop("exit_code")
        return {name: value for name, value in values.items() if value != ""}


def plan_runs(settings: Settings, indexes: Sequence[IndexSettings]) -> list[RunPlan]:
    """Return the plan of each index. What would end its run early is in its plan.

    A store that does not answer is waited for once, as long as a run waits for it.
    """
    try:
        with open_names(settings.store) as store:
            store.aliases()
    except RagIndexError as error:
        return [_failed(index, error) for index in indexes]
    identity: EmbedderIdentity | RagIndexError
    try:
        identity = identify(settings.embedder)
    except RagIndexError as error:
        identity = error
    return [_plan_or_error(settings, index, identity) for index in indexes]


def _plan_or_error(settings: Settings, index: IndexSettings, identity: EmbedderIdentity | RagIndexError) -> RunPlan:
    try:
        return _plan(settings, index, identity)
    except RagIndexError as error:
        return _failed(index, error)


def _failed(index: IndexSettings, error: RagIndexError) -> RunPlan:
    return RunPlan(index.name, error=str(error), exit_code=error.exit_code)


def _plan(settings: Settings, index: IndexSettings, identity: EmbedderIdentity | RagIndexError) -> RunPlan:
    """Compare the whole source with the ledger.

    Raises what a source, a ledger and a store raise, and what a run raises that has to be refused.
    """
    plan = RunPlan(index.name, message=_secrets(index))
    with closing(open_source(settings, index)) as source, closing(Ledger(settings.ledger_url)) as ledger:
        source.check()
        with open_names(settings.store) as store:
            live = live_collection(ledger, store, settings.alias(index.name))
        if live is not None:
            read_marks = partial(commit_marks, settings.store)
            plan.add_message(ledger.find_restored({index.name: live.name}, read_marks).get(index.name, ""))
        try:
            _check_fits(settings, index, live, identity)
        except TransientError as error:
            model = "the embedder" if error is identity else "the model that writes contexts"
            compared = "" if live is None else ", so it was not compared with the one that made the index"
            plan.add_message(f"{model} does not answer{compared}: {error}")
        _compare(plan, settings, index, source, ledger, live)
    return plan


def _secrets(index: IndexSettings) -> str:
    """Return the warning about columns that are named like secrets; "" if there are none."""
    if not (names := ", ".join(index.secret_columns)):
        return ""
    return f"searches would show {names}, named like secrets: leave out what is one, and name the rest in not_secret"


def _check_fits(
    settings: Settings, index: IndexSettings, live: Collection | None, identity: EmbedderIdentity | RagIndexError
) -> None:
    """Check that the settings fit the live collection. Raises as a run does."""
    if isinstance(identity, RagIndexError):
        raise identity
    chunker = open_chunker(settings, index)
    if live is not None:
        check_fits(live, identity, chunker, bm25_model(index), index=index.name)


def _compare(
    plan: RunPlan, settings: Settings, index: IndexSettings, source: Source, ledger: Ledger, live: Collection | None
) -> None:
    """Read the whole source and count its documents."""
    collection_id = live.id if live else NO_COLLECTION
    cost = CostCounter(settings, index, live.chars_per_second if live else None)
    ledger.begin_scan()
    digests = has_digests(settings, index)  # what they leave unread is unchanged beyond doubt
    state = LedgerScanState(
        source, index, ledger, collection_id, full=not digests, retry=False,
        settings=scan_settings(settings, index), digests=digests,
    )  # fmt: skip
    cursor: Any = None
    number = 0
    while number == 0 or cursor is not None:
        page, number = source.page(cursor, settings.source.page_rows), number + 1
        unreadable = [failure.key for failure in page.unreadable]
        if repeated := ledger.see([*page.documents.keys, *unreadable, *page.unread], page=number):
            raise not_unique(index, repeated[0])
        state.leave_unread(page).add_to(plan)
        cost.add(_count(plan, page, ledger, collection_id))
        cursor = page.cursor
    plan.cost = cost.cost() if plan.new + plan.changed else None
    plan.gone = ledger.count_gone(collection_id)
    if live is not None:
        plan.held_back, reason = DeleteGuard(ledger, live, settings.run.delete_guard).foresee(index.name)
        plan.add_message(reason)


def _count(plan: RunPlan, page: SourcePage, ledger: Ledger, collection_id: int) -> DocumentBatch:
    """Count the documents of a page, note in the ledger's temporary tables which ones lose their points, and return
    those that have to be embedded.
    """
    keys = page.documents.keys
    changes = diff(page.documents, ledger.known(collection_id, keys), ledger.failures(collection_id, keys))
    skipped = [failure for failure in page.unreadable if failure.kind == "skipped"]
    ledger.note_emptied([*changes.emptied, *_indexed(skipped, ledger, collection_id)])
    plan.documents += len(keys) + len(page.unreadable)
    plan.new += changes.new
    plan.changed += len(changes.to_embed) - changes.new
    plan.payload_only += len(changes.payload_only)
    plan.unchanged += changes.unchanged
    plan.empty += changes.empty
    plan.failed += changes.given_up + len(page.unreadable) - len(skipped)
    plan.skipped += len(skipped)
    return changes.to_embed


def _indexed(skipped: Sequence[Failure], ledger: Ledger, collection_id: int) -> list[tuple[str, bytes, bytes]]:
    """Return those of the skipped documents that are indexed, as rows for `note_emptied`."""
    known = ledger.known(collection_id, [failure.key for failure in skipped])
    return [(key, b"", b"") for key, row in known.items() if row.chunks or row.pending]
