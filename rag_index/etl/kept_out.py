"""Documents that an earlier version kept out of an index although its source has them, because a person had erased
them. A condition of the source does that now, so nothing is indexed until a person has put it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.sources import all_pages
from rag_index.components.stores import KEPT_OUT
from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import document_id, key_mark
from rag_index.core.reports.outcome import count_of
from rag_index.core.settings.index import CODE
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.stores import LiveName
    from rag_index.core.settings import IndexSettings
    from rag_index.etl.opened import Opened

DEFAULT_SCHEMAS = ("", "public", "main")
HASH_CHARS = 64
EXAMPLES = 3


def let_nobody_back(opened: Opened, live: LiveName | None) -> None:
    """Read the keys of the source if its live collection or the ledger has marks of documents that were kept out, and
    note that they were compared. Raises SettingsError if the source has one of them."""
    alias, rows = opened.alias, f": {_rows(opened.index)}"
    in_store = live.metadata.get(KEPT_OUT) if live else None
    in_ledger = [mark for scope, *mark in opened.ledger.tombstones() if scope == alias or scope.endswith(rows)]
    if in_store == [] or not (in_store or in_ledger):
        return
    known: dict[str, list[str]] = {}
    for same, form in [*(in_store or ()), *in_ledger]:
        known.setdefault(same, []).append(form)
    found = set[str]()
    for page in all_pages(opened.source):
        keys = [*page.documents.keys, *page.unread, *(failure.key for failure in page.unreadable)]
        found.update(key for key in keys if _is_kept_out(key, opened.index.key_columns, known))
    if found:
        examples = ", ".join(map(document_id, sorted(found)[:EXAMPLES]))
        raise SettingsError(
            f"index {opened.index.name}: {count_of(len(found), 'document')} that a person had erased would come back "
            f"from the source, such as {examples}, so nothing was indexed. Leave them out by a condition in `where` or "
            "in the query (`exclude` for files), also in other indexes over the same rows"
        )
    if live:
        opened.store.set_metadata(live.name, {KEPT_OUT: [] if in_ledger else None})


def _rows(index: IndexSettings) -> str:
    """Return how an earlier version called the rows of an index in the ledger, for all indexes over them."""
    columns, schema = ",".join(sorted(map(str.lower, index.key_columns))), (index.db_schema or "").lower()
    if index.table is not None:
        return f"{'' if schema in DEFAULT_SCHEMAS else schema + '.'}{index.table.lower()} {columns}"
    if index.query is not None:
        return f"query {hash_text(' '.join(index.query.split())).hex()} {columns}"
    return f"folder {index.root}" if index.kind == CODE else f"{index.kind} {index.name}"


def _is_kept_out(key: str, columns: Sequence[str], known: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a mark is that of a key. If its types are those of the mark, the texts have to be equal, too."""
    same, form = key_mark(key, columns)
    return any(form == one or form[:-HASH_CHARS] != one[:-HASH_CHARS] for one in known.get(same, ()))
