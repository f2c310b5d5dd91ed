"""Which documents a person had erased, so that they stay away: see `etl.tombstones`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.core.documents.canonical import hash_text
from rag_index.core.documents.keys import key_mark
from rag_index.core.settings.index import CODE, SQL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.components.ledger import Ledger
    from rag_index.core.settings import IndexSettings, Settings

DEFAULT_SCHEMAS = ("", "public", "main")
MARK_HASH_CHARS = 64


def scopes(settings: Settings, index: IndexSettings) -> tuple[str, ...]:
    """Return what names the documents of an index: its alias, and its table in this project and in this database. Two
    indexes over one table with the same key share the last two."""
    columns = ",".join(sorted(map(str.lower, index.key_columns)))
    if index.table is not None:
        schema = (index.db_schema or "").lower()
        rows = f"{'' if schema in DEFAULT_SCHEMAS else schema + '.'}{index.table.lower()} {columns}"
    elif index.query is not None:
        rows = f"query {hash_text(' '.join(index.query.split())).hex()} {columns}"
    else:
        rows = f"folder {index.root}" if index.kind == CODE else f"{index.kind} {index.name}"
    place = ""
    if index.kind == SQL:
        url = settings.source_url
        place = f"{url.host or ''}:{url.port or ''}/{str(url.database).removeprefix(f'{settings.folder}/')}"
    return settings.alias(index.name), f"project {settings.project}: {rows}", f"source {place}: {rows}"


def kept_out(ledger: Ledger, settings: Settings, index: IndexSettings, keys: Sequence[str]) -> set[str]:
    """Return the documents that were erased and must stay away."""
    known: dict[str, list[str]] = {}
    for same, form in ledger.tombstones(scopes(settings, index)):
        known.setdefault(same, []).append(form)
    marks = ((key, *key_mark(key, index.key_columns)) for key in keys) if known else ()
    return {key for key, same, form in marks if any(_matches(form, one) for one in known.get(same, ()))}


def _matches(form: str, other: str) -> bool:
    """Return whether equal values name one document. If the types are equal too, the texts must be equal."""
    return form == other or form[:-MARK_HASH_CHARS] != other[:-MARK_HASH_CHARS]
