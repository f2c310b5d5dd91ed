"""Single documents, brought up to date at once (a ticket just closed): in this process, without cluster and Prefect.

The steps, the order of writes, the lease and the ledger are those of any run. What the source no longer has is deleted.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

from rag_index.documents.keys import key_parts, possible_keys
from rag_index.embedders import open_embedder
from rag_index.errors import SettingsError
from rag_index.indexing.run import RunOptions, open_run
from rag_index.indexing.steps import Here
from rag_index.ledger.runs import SINGLE
from rag_index.sources import SingleDocumentSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.chunking import Chunker
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.scan import Scan
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import Settings
    from rag_index.sources import SourcePage


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`.

    A document that failed before is tried again, however often it was tried. Raises SettingsError, before anything is
    written, if an id cannot be one, if neither source nor index has it, or if the index's source cannot be asked for
    single documents; otherwise raises as `open_run`. Every other error of ours ends in the outcome.
    """
    patient = settings.embedder.model_copy(update={"wait_for_recovery": settings.run.wait})
    options, run_id = RunOptions(retry_failed=True, single=True), f"{SINGLE}{uuid.uuid4()}"
    with open_run(settings, name, options, run_id=run_id) as run, closing(open_embedder(patient)) as embedder:
        outcome = run.execute(NamedDocuments(list(dict.fromkeys(ids)), embedder))
        if isinstance(run.error, SettingsError):
            raise run.error
        return outcome


class NamedDocuments(Here):
    """The steps of a run over a few documents, whose ids are given: the rest of the index stays as it is."""

    def __init__(self, ids: Sequence[str], embedder: Embedder) -> None:
        super().__init__(embedder)
        self._ids = ids
        self._embedder = embedder
        self.page: SourcePage
        self.gone: list[str] = []

    def begin(self, run: IndexRun) -> Scan | None:
        """Read the documents, and begin a scan of them alone. Raises SettingsError before anything is written."""
        with run.stopwatch.stage("fetch"):
            self.page = single_document_source(run).documents(self._ids)
            known, there = known_keys(run, self._ids), keys_of(self.page)
            self.check(run, known, there)
            self.gone = gone_keys(known, there)
        return run.begin(self.identity(), self.chunker(run), workers=1, documents=len(self._ids))

    def check(self, run: IndexRun, known: Mapping[str, set[str]], there: set[str]) -> None:
        """Raise SettingsError if neither the source nor the index has a document: somebody has named it."""
        for given, keys in known.items():
            if not keys and there.isdisjoint(possible_keys(key_parts(given, _columns(run)))):
                raise SettingsError(
                    f"index {run.index.name}: neither the source nor the index has a document {given}; nothing was done"
                )

    def identity(self) -> EmbedderIdentity:
        """Return what the embedder is."""
        return self._embedder.identity()

    def chunker(self, run: IndexRun) -> Chunker:
        """Return the chunker of the index."""
        return run.open_chunker()

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the documents."""
        return self.page

    def delete(self, scan: Scan) -> None:
        """Delete those of the documents that the source no longer has: whoever names them wants it."""
        scan.delete(self.gone)

    def publish(self, scan: Scan) -> None:
        """Verify that the store holds what the ledger says."""
        scan.verify()


def single_document_source(run: IndexRun) -> SingleDocumentSource:
    """Return the source of a run. Raises SettingsError if it cannot be asked for single documents."""
    if not isinstance(run.source, SingleDocumentSource):
        raise SettingsError(
            f"index {run.index.name}: its source cannot be asked for single documents; "
            f"`rag-index index {run.index.name}` brings all of it up to date"
        )
    return run.source


def keys_of(page: SourcePage) -> set[str]:
    """Return the typed keys of all documents that the source has, whether or not their text can be read."""
    return {*page.documents.keys, *(failure.key for failure in page.unreadable)}


def known_keys(run: IndexRun, ids: Sequence[str]) -> dict[str, set[str]]:
    """Return the typed keys of what the index has, or lists as failed, under each of these document ids.

    Raises SettingsError if a text cannot be an id.
    """
    columns, ledger = _columns(run), run.ledger
    by_id = {given: possible_keys(key_parts(given, columns)) for given in ids}
    collection = ledger.collection(run.store.aliases().get(run.alias, ""))
    if collection is None:
        return {given: set() for given in ids}
    keys = [key for some in by_id.values() for key in some]
    known = {*ledger.known(collection.id, keys), *ledger.failures(collection.id, keys)}
    return {given: known.intersection(some) for given, some in by_id.items()}


def gone_keys(known: Mapping[str, set[str]], there: set[str]) -> list[str]:
    """Return the typed keys of what the index has (see `known_keys`) and the source does not."""
    return sorted({key for keys in known.values() for key in keys} - there)


def _columns(run: IndexRun) -> list[str]:
    return run.index.key_columns or ["id"]  # without columns an id is the key itself
