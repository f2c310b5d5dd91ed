"""Documents that an earlier version kept out of an index although its source has them, because a person had erased
them. A condition of the source does that now, so nothing is indexed until a person has put it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.sources import all_pages
from rag_index.components.stores import KEPT_OUT, find_live
from rag_index.core.documents.keys import document_id, key_mark
from rag_index.core.reports.outcome import count_of
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.etl.opened import Opened

HASH_CHARS = 64
EXAMPLES = 3


def let_nobody_back(opened: Opened) -> None:
    """Read the keys of the source if the live collection keeps documents out, and let go of its marks if the source has
    none of them. Raises SettingsError if it has."""
    live = find_live(opened.store, opened.alias)
    marks = opened.store.metadata(live.name).get(KEPT_OUT) if live else None
    if live is None or not marks:
        return
    known: dict[str, list[str]] = {}
    for same, form in marks:
        known.setdefault(same, []).append(form)
    found = set[str]()
    for page in all_pages(opened.source, opened.settings.source.page_rows):
        keys = [*page.documents.keys, *page.unread, *(failure.key for failure in page.unreadable)]
        found.update(key for key in keys if _is_kept_out(key, opened.index.key_columns, known))
    if found:
        examples = ", ".join(map(document_id, sorted(found)[:EXAMPLES]))
        raise SettingsError(
            f"index {opened.index.name}: {count_of(len(found), 'document')} that a person had erased would come back "
            f"from the source, such as {examples}, so nothing was indexed. Leave them out by a condition in `where` or "
            "in the query (`exclude` for files), also in other indexes over the same rows"
        )
    opened.store.set_metadata(live.name, {KEPT_OUT: None})


def _is_kept_out(key: str, columns: Sequence[str], known: Mapping[str, Sequence[str]]) -> bool:
    """Return whether a mark is that of a key. If its types are those of the mark, the texts have to be equal, too."""
    same, form = key_mark(key, columns)
    return any(form == one or form[:-HASH_CHARS] != one[:-HASH_CHARS] for one in known.get(same, ()))
