"""Relevant documents that an index does not have: nothing can find them, and the measures are lower for it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.documents.keys import key_parts, possible_keys
from rag_index.errors import RagIndexError, SettingsError
from rag_index.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.evaluation.asking import Asked, Document
    from rag_index.settings import IndexSettings, Settings

__all__ = ["missing_documents"]


def missing_documents(settings: Settings, asked: Iterable[Asked]) -> tuple[Document, ...]:
    """Return the relevant documents that the ledger does not have in the collection that was searched.

    Only those that no candidate belongs to are looked up. There are none where there is no ledger, as on a machine
    that only searches.
    """
    wanted: dict[Document, str] = {}
    found: set[Document] = set()
    for one in asked:
        if one.candidates:
            collections = one.candidates.collections
            found.update(one.candidates.documents())
            wanted.update({doc: collections[doc[0]] for doc in one.wanted.relevant if doc[0] in collections})
    unseen = {document: collection for document, collection in wanted.items() if document not in found}
    if not unseen or not _has_ledger(settings):
        return ()
    try:
        with closing(Ledger(settings.ledger_url)) as ledger:
            return tuple(
                doc for doc, name in unseen.items() if _is_missing(ledger, settings.index(doc[0]), name, doc[1])
            )
    except RagIndexError:
        return ()  # the measures stand without it


def _is_missing(ledger: Ledger, index: IndexSettings, name: str, document_id: str) -> bool:
    collection = ledger.collection(name)
    if collection is None:
        return False
    try:
        keys: Sequence[str] = possible_keys(key_parts(document_id, index.key_columns or ["id"]))
    except SettingsError:
        return True  # no document of this index can have such an id
    known = ledger.known(collection.id, keys)
    return not any(one.chunks for one in known.values())


def _has_ledger(settings: Settings) -> bool:
    """Return whether there is a ledger, without making one."""
    url = settings.ledger_url
    return url.get_backend_name() != "sqlite" or Path(url.database or "").is_file()
