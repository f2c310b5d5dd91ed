"""Single documents, brought up to date in this process. The steps, the order of writes, the lease
and the ledger are those of any run. What the source no longer has is deleted."""

from __future__ import annotations

import uuid
from contextlib import closing
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
from rag_index.etl.scan import Scan, begin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rag_index.core.reports.outcome import IndexOutcome
    from rag_index.core.settings import Settings
    from rag_index.etl.checks import ServiceChecks
    from rag_index.etl.fetch import Fetch
    from rag_index.etl.publish import Hooks
    from rag_index.etl.steps import Steps


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`. A
    document that failed before is tried again, however often it was tried. Raises SettingsError,
    before anything is written, if an id cannot be one, if neither source nor index has it, or if
    the index's source cannot be asked for single documents; otherwise raises as `open_index`. Every
    other error of ours ends in the outcome."""
    options, run_id = RunOptions(retry_failed=True), f"{SINGLE}{uuid.uuid4()}"
    with (
        closing(LocalSteps(serially(settings))) as steps,
        open_index(settings, name, options, run_id=run_id, single=True) as opened,
    ):
        record = RunRecord(name)
        run_index(opened, steps, record, documents=NamedDocuments(list(dict.fromkeys(ids))))
        if isinstance(record.error, SettingsError):
            raise record.error
        return record.outcome


def serially(settings: Settings) -> Settings:
    """Return the settings of a run that embeds in its own process: a few documents pay for no
    other."""
    return settings.model_copy(
        update={"parallel": settings.parallel.model_copy(update={"serial": True})}
    )


class NamedDocuments(AllDocuments):
    """A few documents, whose ids a person has named: the rest of the index stays as it is."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self.page = SourcePage(DocumentBatch.empty(), None)
        self._gone: list[str] = []

    def begin(self, opened: Opened, steps: Steps, record: RunRecord, checks: ServiceChecks) -> Scan:
        """Read the documents, and begin a run of them alone. Raises SettingsError before anything
        is written."""
        name, ledger = opened.index.name, opened.ledger
        read: Callable[[Sequence[str]], SourcePage] | None = getattr(
            opened.source, "documents", None
        )
        if read is None:
            raise SettingsError(
                f"index {name}: its source cannot be asked for single documents; "
                f"`rag-index index {name}` brings all of it up to date"
            )
        find_live(
            opened.store, opened.alias
        )  # before anything is written into a collection of another project
        with record.stopwatch.stage("fetch"):
            self.page = read(self._ids)
            columns = opened.index.key_columns or ["id"]  # without columns an id is the key itself
            keys = {given: possible_keys(key_parts(given, columns)) for given in self._ids}
            known: set[str] = set()
            if live := opened.live:
                require_same_types(opened, live, self.page)
                possible = [key for some in keys.values() for key in some]
                known = {*ledger.known(live.id, possible), *ledger.failures(live.id, possible)}
            there = {*self.page.documents.keys, *(failure.key for failure in self.page.unreadable)}
            if lost := [given for given, some in keys.items() if (known | there).isdisjoint(some)]:
                raise SettingsError(
                    f"index {name}: neither the source nor the index has a document {lost[0]};"
                    " nothing was done"
                )
            self._gone = sorted(known - there)
        identity, chunker = identify_for(opened), open_chunker(opened.settings, opened.index)
        return begin(opened, record, identity, chunker, documents=len(self._ids))

    def pages(self, opened: Opened, fetch: Fetch, record: RunRecord) -> Iterator[SourcePage]:
        """Yield the documents, which `begin` has read."""
        yield self.page

    def delete(self, opened: Opened, scan: Scan, steps: Steps, record: RunRecord) -> Deleted:
        """Delete those of the documents that the source no longer has. They need no guard: a person
        named them."""
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
        """Verify the store. Nothing is known of the other documents, so hooks have nothing to
        judge."""
        note_rate(opened, scan)
        with record.stopwatch.stage("publish"):
            steps.call(counted, opened, scan.target)
