"""Documents that show a changed row of another table, found by a value that they have, or had, in a column.

The source knows which documents have the value now, and the store which had it when they were indexed: a join may no
longer give those. This is done under the lease, before a batch reads anything. Otherwise a run that had read a document
before the change could write it after the store was asked, and nobody would ever read it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import decode_payload, encode_payload
from rag_index.documents.keys import decode_key, document_id
from rag_index.sources.sql import SqlSource
from rag_index.stores import Condition

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import WaitingLookUp

CONDITION_VALUES = 100
"""Values of one condition that the store is asked for."""


def look_up(run: IndexRun, *, limit: int) -> None:
    """Put documents into the inbox in place of the look-ups there, of which at most `limit` are done.

    Documents that are more than a burst are left to an ordinary run, which is then asked for. The run has to hold the
    lease of the index. Raises as its source, store and ledger do.
    """
    wanted = run.ledger.waiting_look_ups(run.alias, limit)
    columns: dict[str, list[WaitingLookUp]] = {}
    for one in wanted:
        columns.setdefault(one.column, []).append(one)
    for column, asked in columns.items():
        changed_at = min(one.changed_at for one in asked)
        found = _find(run, column, [decode_key(one.value) for one in asked])
        if found is None:
            run.ledger.need_full_scan(run.alias)
            found = set()
        run.ledger.replace_look_ups(run.alias, asked, ((document_id(key), changed_at) for key in found))


def _find(run: IndexRun, column: str, values: Sequence[Any]) -> set[str] | None:
    """Return the typed keys of the documents to read again; None if they are too many, or cannot be found."""
    if not isinstance(run.source, SqlSource) or all(column != entry.column for entry in run.index.depends_on):
        return None  # the settings were changed after the change arrived
    most = run.settings.watch.burst_documents
    found: set[str] = set()
    for keys in (run.source.keys_with(column, values), _keys_in_store(run, column, values)):
        for key in keys:
            found.add(key)
            if len(found) > most:
                return None
    return found


def _keys_in_store(run: IndexRun, column: str, values: Sequence[Any]) -> Iterator[str]:
    """Yield the typed keys of the documents that had one of the values when they were indexed."""
    collection = run.store.aliases().get(run.alias)
    if collection is None or column not in run.index.payload:
        return
    stored = [decode_payload(encode_payload({column: value}))[column] for value in values]
    for first in range(0, len(stored), CONDITION_VALUES):
        wanted = Condition(column, "any", stored[first : first + CONDITION_VALUES])
        for point in run.store.scroll(collection, conditions=[wanted]):
            yield str(point.payload[RESERVED_KEY]["key"])
