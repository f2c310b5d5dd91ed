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
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.chunking import Chunker
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.scan import Scan
    from rag_index.ledger import Ledger
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import Settings
    from rag_index.sources import SourcePage


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`.

    A document that failed before is tried again, however often it was tried. Raises SettingsError, before anything is
    written, if an id cannot be one, if neither source nor index has it, or if the index's source cannot be asked for
    single documents; otherwise raises as `open_run`. Every other error of ours ends in the outcome.
    """
    embedder = settings.embedder.model_copy(update={"wait_for_recovery": settings.run.wait})
    options, run_id = RunOptions(retry_failed=True, single=True), f"{SINGLE}{uuid.uuid4()}"
    patient = settings.model_copy(update={"embedder": embedder})
    with (
        open_run(patient, name, options, run_id=run_id) as run,
        closing(NamedDocuments(list(dict.fromkeys(ids)))) as steps,
    ):
        outcome = run.execute(steps)
        if isinstance(run.error, SettingsError):
            raise run.error
        return outcome


class NamedDocuments(Here):
    """The steps of a run over a few documents, whose ids are given: the rest of the index stays as it is."""

    def __init__(self, ids: Sequence[str]) -> None:
        super().__init__()
        self._ids = ids
        self.page: SourcePage
        self.gone: list[str] = []

    def begin(self, run: IndexRun) -> Scan | None:
        """Read the documents, and begin a scan of them alone. Raises SettingsError before anything is written."""
        name = run.index.name
        if not isinstance(run.source, SingleDocumentSource):
            raise SettingsError(
                f"index {name}: its source cannot be asked for single documents; "
                f"`rag-index index {name}` brings all of it up to date"
            )
        with run.stopwatch.stage("fetch"):
            self.page = run.source.documents(self._ids)
            columns = run.index.key_columns or ["id"]  # without columns an id is the key itself
            keys = {given: possible_keys(key_parts(given, columns)) for given in self._ids}
            live = run.ledger.collection(run.store.aliases().get(run.alias, ""))
            known = (
                set() if live is None else _known_keys(run.ledger, live.id, [k for some in keys.values() for k in some])
            )
            there = {*self.page.documents.keys, *(failure.key for failure in self.page.unreadable)}
            self.check(name, keys, known | there)
            self.gone = sorted(known - there)
        run.choose_embedder()
        embedder = self._given = self.embedder(run)
        return run.begin(self.identity(embedder), self.chunker(run), workers=1, documents=len(self._ids))

    def close(self) -> None:
        """Close the embedder."""
        if self._given is not None:
            self._given.close()

    def check(self, index: str, keys: Mapping[str, Iterable[str]], found: set[str]) -> None:
        """Raise SettingsError if neither the source nor the index has a document: somebody has named it.

        `keys` are the typed keys that each id may stand for, and `found` those that either has.
        """
        for given, possible in keys.items():
            if found.isdisjoint(possible):
                raise SettingsError(
                    f"index {index}: neither the source nor the index has a document {given}; nothing was done"
                )

    def embedder(self, run: IndexRun) -> Embedder:
        """Return the embedder of the index."""
        return open_embedder(run.settings.embedder)

    def identity(self, embedder: Embedder) -> EmbedderIdentity:
        """Return what the embedder is."""
        return embedder.identity()

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


def _known_keys(ledger: Ledger, collection_id: int, keys: Sequence[str]) -> set[str]:
    """Return which of these documents a collection has, or lists as failed."""
    return {*ledger.known(collection_id, keys), *ledger.failures(collection_id, keys)}
