"""The types of a source's keys, compared with those in the ledger before anything is written. 1 is not "1": after a
migration that changes the type of a key, a run would find each document twice. A source whose keys have several types
goes on, and so does one whose keys are new."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rag_index.core.documents.keys import document_id, key_mark
from rag_index.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.components.ledger import Collection
    from rag_index.components.sources import SourcePage
    from rag_index.etl.opened import Opened

SAMPLE = 20
PAGE_KEYS = 1000
TEXT, PADDED = "text", "text padded with blanks"
JSON_TYPES = {str: TEXT, int: "integer", float: "float", bool: "boolean"}


def require_same_types(opened: Opened, collection: Collection, page: SourcePage) -> bool:
    """Return whether it is known now that a source's keys have the types that they had; False for a page without keys.
    Raises SourceError if all keys of the page have other types than all in the ledger, the same values are among both,
    and the source does not have the former keys any more."""
    keys = [*page.documents.keys, *page.unread, *(failure.key for failure in page.unreadable)]
    if not keys:
        return False
    types = _types_of_all(keys)
    new = [] if types is None else sorted(set(keys) - opened.ledger.known(collection.id, keys).keys())
    if types is None or len(new) * 2 <= len(keys):
        return True
    former = _former_keys(opened, collection, new, types)
    if former and _are_gone(opened, page, former):
        raise SourceError(_sentence(opened, collection, types, key_types(former[0])))
    return True


def _types_of_all(keys: Sequence[str]) -> tuple[str, ...] | None:
    """Return the types that all keys have, None if these differ. A text that fills its CHAR has no blank at its end."""
    columns = [set(column) for column in zip(*map(key_types, keys), strict=False)]
    same = [PADDED if column == {TEXT, PADDED} else next(iter(column)) for column in columns]
    return tuple(same) if all(len(column) == 1 or column == {TEXT, PADDED} for column in columns) else None


def key_types(key: str) -> tuple[str, ...]:
    """Return the name of the type of each column of a typed key."""
    value = json.loads(key)
    values = value if isinstance(value, list) else [value]
    return tuple(map(_type_of, values))


def _type_of(value: Any) -> str:
    if isinstance(value, dict):
        return str(next(iter(value)))
    return PADDED if isinstance(value, str) and value.endswith(" ") else JSON_TYPES[type(value)]


def _former_keys(opened: Opened, collection: Collection, keys: Sequence[str], types: tuple[str, ...]) -> list[str]:
    """Return some keys of the ledger with the values of these keys; none if a key there has the types of these."""
    columns = opened.index.key_columns
    marks: set[str] = set()
    found: list[str] = []
    for known in _keys_of(opened, collection):
        for former in known:
            if key_types(former) == types:
                return []
        marks = marks or {key_mark(key, columns)[0] for key in keys}
        if len(found) < SAMPLE:
            found += [former for former in known if key_mark(former, columns)[0] in marks]
    return found[:SAMPLE]


def _keys_of(opened: Opened, collection: Collection) -> Iterator[list[str]]:
    after = ""
    while known := opened.ledger.keys(collection.id, after=after, limit=PAGE_KEYS):
        yield known
        after = known[-1]


def _are_gone(opened: Opened, page: SourcePage, former: Sequence[str]) -> bool:
    """Return whether the source has none of these keys; False if it cannot be asked and has further pages."""
    if (read := getattr(opened.source, "documents", None)) is None:
        return page.cursor is None
    now = read([document_id(key) for key in former])
    return {*now.documents.keys, *(failure.key for failure in now.unreadable)}.isdisjoint(former)


def _sentence(opened: Opened, collection: Collection, types: tuple[str, ...], former: tuple[str, ...]) -> str:
    pairs = zip(opened.index.key_columns or ["key"], types, former, strict=False)
    changed = ", ".join(f"{column} is {now} and was {before}" for column, now, before in pairs if now != before)
    name = opened.index.name
    return (
        f"index {name}: the key has another type in the source than in {collection.name} ({changed}), so each document "
        f"would be found twice, and nothing was written: `rag-index rebuild {name}` takes the new type, and embeds no "
        "text again that it has"
    )
