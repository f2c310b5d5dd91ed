"""Single documents, brought up to date in this process.

The steps, the order of writes, the lease and the ledger are those of any run. Documents that the
source no longer has are deleted, without asking the delete guard.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING

from rag_index.components.chunking import open_chunker
from rag_index.components.ledger.runs import SINGLE
from rag_index.components.sources import SourcePage
from rag_index.components.stores import find_live
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.keys import key_parts, possible_keys
from rag_index.core.reports.progress import RunRecord
from rag_index.errors import SettingsError
from rag_index.etl.collection import identify_for
from rag_index.etl.deletes import Deleted, delete_some
from rag_index.etl.diff import require_same_types
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import Opened, RunOptions, open_index
from rag_index.etl.publish import counted
from rag_index.etl.run import AllDocuments, note_rate, run_index
from rag_index.etl.scan import Scan, begin_scan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.core.reports.outcome import IndexOutcome
    from rag_index.core.settings import Settings
    from rag_index.etl.checks import ServiceChecks
    from rag_index.etl.fetch import Fetch
    from rag_index.etl.publish import Hooks
    from rag_index.etl.steps import Steps


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`.

    A document that failed before is tried again, however often it was tried. An error of ours that
    occurs later than those below ends in the outcome.

    Raises:
        SettingsError: Before anything is written: an id cannot be one, neither source nor index has
            it, or the index's source cannot be asked for single documents.
        UnknownIndex, IndexLocked, …: As `open_index`.
    """
    options = RunOptions(retry_failed=True)
    run_id = f"{SINGLE}{uuid.uuid4()}"
    with (
        closing(LocalSteps(serially(settings))) as steps,
        open_index(settings, name, options, run_id=run_id, single=True) as opened,
    ):
        record = RunRecord(name)
        distinct_ids = list(dict.fromkeys(ids))
        run_index(opened, steps, record, documents=NamedDocuments(distinct_ids))
        if isinstance(record.error, SettingsError):
            raise record.error
        return record.outcome


def serially(settings: Settings) -> Settings:
    """Return the settings of a run that embeds in its own process: starting others does not pay for
    a few documents."""
    parallel = settings.parallel.model_copy(update={"serial": True})
    return settings.model_copy(update={"parallel": parallel})


class NamedDocuments(AllDocuments):
    """A few documents, whose ids a person has named: the rest of the index stays as it is."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self.page = SourcePage(DocumentBatch.empty(), None)
        self._gone: list[str] = []

    def begin_run(
        self, opened: Opened, steps: Steps, record: RunRecord, checks: ServiceChecks
    ) -> Scan:
        """Read the documents, and begin a run of them alone. Raises SettingsError before anything
        is written."""
        name = opened.index.name
        read: Callable[[Sequence[str]], SourcePage] | None = getattr(
            opened.source, "documents", None
        )
        if read is None:
            raise SettingsError(
                f"index {name}: its source cannot be asked for single documents; "
                f"`rag-index index {name}` brings all of it up to date"
            )
        # It raises before anything is written into a collection of another project.
        find_live(opened.store, opened.alias)
        with record.stopwatch.stage("fetch"):
            self.page = read(self._ids)
            self._gone = self._find_gone(opened)
        identity = identify_for(opened)
        chunker = open_chunker(opened.settings, opened.index)
        return begin_scan(opened, record, identity, chunker, documents=len(self._ids))

    def _find_gone(self, opened: Opened) -> list[str]:
        """Return the keys of the documents that the index has and the source has not. Raises
        SettingsError if neither has one of them."""
        name, ledger, page = opened.index.name, opened.ledger, self.page
        # Without key columns, an id is the key itself. "7" may be the key 7 or "7".
        columns = opened.index.key_columns or ["id"]
        keys_by_id = {id_: possible_keys(key_parts(id_, columns)) for id_ in self._ids}
        known: set[str] = set()
        live = opened.live
        if live is not None:
            require_same_types(opened, live, page)
            possible = list(chain.from_iterable(keys_by_id.values()))
            known.update(ledger.known(live.id, possible))
            known.update(ledger.failures(live.id, possible))
        present = {*page.documents.keys, *(failure.key for failure in page.unreadable)}
        existing = known | present
        for id_, keys in keys_by_id.items():
            if existing.isdisjoint(keys):
                raise SettingsError(
                    f"index {name}: neither the source nor the index has a document {id_};"
                    " nothing was done"
                )
        return sorted(known - present)

    def pages(self, opened: Opened, fetch: Fetch, record: RunRecord) -> Iterator[SourcePage]:
        """Yield the documents, which `begin_run` has read."""
        yield self.page

    def delete(self, opened: Opened, scan: Scan, steps: Steps, record: RunRecord) -> Deleted:
        """Delete the documents that the source no longer has. They need no guard: a person named
        them."""
        return steps.call(delete_some, opened, scan, record, gone=self._gone)

    def publish(
        self,
        opened: Opened,
        scan: Scan,
        steps: Steps,
        record: RunRecord,
        hooks: Hooks | None,
        deleted: Deleted,
    ) -> None:
        """Count the points. Hooks are not asked: they judge an index of which all is read."""
        note_rate(opened, scan)
        with record.stopwatch.stage("publish"):
            steps.call(counted, opened, scan.target)
