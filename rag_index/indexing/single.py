"""Single documents, brought up to date at once (a ticket just closed): in this process, without cluster and Prefect.

The steps, the order of writes, the lease and the ledger are those of any run. What the source no longer has is deleted.
"""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING

from rag_index.documents.keys import key_parts, possible_keys
from rag_index.embedders import open_embedder
from rag_index.errors import RagIndexError, SettingsError
from rag_index.indexing.driver import index_pages
from rag_index.indexing.run import RunOptions, open_run
from rag_index.ledger.runs import SINGLE
from rag_index.sources import SingleDocumentSource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.indexing.run import IndexRun
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import Settings
    from rag_index.sources import SourcePage


def index_documents(settings: Settings, name: str, ids: Sequence[str]) -> IndexOutcome:
    """Bring the documents with these ids, as people see them, up to date in the index `name`.

    A document that failed before is tried again, however often it was tried. Raises SettingsError, before anything is
    written, if an id cannot be one, if neither source nor index has it, or if the index's source cannot be asked for
    single documents; otherwise raises as `open_run`. Every other error of ours ends in the outcome.
    """
    with open_run(settings, name, RunOptions(retry_failed=True, single=True), run_id=f"{SINGLE}{uuid.uuid4()}") as run:
        try:
            _bring_up_to_date(run, list(dict.fromkeys(ids)))
        except SettingsError as error:
            run.fail(error)
            raise
        except RagIndexError as error:
            return run.fail(error)
        except BaseException as error:
            run.fail(error)
            raise
        return run.finish()


def _bring_up_to_date(run: IndexRun, ids: list[str]) -> None:
    settings, source = run.settings.embedder, single_document_source(run)
    with run.stopwatch.stage("fetch"):
        page = source.documents(ids)
        known = known_keys(run, ids)
        there = keys_of(page)
        for given, keys in known.items():
            if not keys and there.isdisjoint(possible_keys(key_parts(given, _columns(run)))):
                raise SettingsError(
                    f"index {run.index.name}: neither the source nor the index has a document {given}; nothing was done"
                )
    with closing(open_embedder(settings.model_copy(update={"wait_for_recovery": run.settings.run.wait}))) as embedder:
        scan = run.begin(embedder.identity(), run.open_chunker(), workers=1, documents=len(ids))
        index_pages(scan, [page], embedder)
    scan.delete(gone_keys(known, there))
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
