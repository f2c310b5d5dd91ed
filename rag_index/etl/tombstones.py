"""Tombstones: documents that a person had erased count as gone, although the source has them. A tombstone has no key,
but hashes by which the key is recognised when its columns get other types or another order (`keys.key_mark`). It stands
in the ledger under each of its `scopes`, so that it holds when the index, the project or the database's address gets
another name, and in the metadata of the index's collection, so that it holds for an older ledger, or a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import evolve

from rag_index.components.ledger.erased import kept_out, scopes
from rag_index.components.stores import KEPT_OUT
from rag_index.core.documents.keys import key_mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.ledger import Ledger
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import Store
    from rag_index.core.settings import IndexSettings, Settings


def neighbours(settings: Settings, index: IndexSettings) -> list[IndexSettings]:
    """Return the other indexes over the same rows, to which a tombstone of this one applies too."""
    ours = scopes(settings, index)[1:]
    others = (one for one in settings.indexes if one.name != index.name)
    return [one for one in others if not set(scopes(settings, one)).isdisjoint(ours)]


def without_erased(ledger: Ledger, settings: Settings, index: IndexSettings, page: SourcePage) -> SourcePage:
    """Return a page without the documents that a person had erased: they count as gone."""
    documents = page.documents
    keys = [*documents.keys, *page.unread, *(failure.key for failure in page.unreadable)]
    if not (out := kept_out(ledger, settings, index, keys)):
        return page
    return evolve(
        page,
        documents=documents.take([row for row, key in enumerate(documents.keys) if key not in out]),
        unread=[key for key in page.unread if key not in out],
        unreadable=[failure for failure in page.unreadable if failure.key not in out],
    )


def keep_out(ledger: Ledger, settings: Settings, index: IndexSettings, keys: Sequence[str]) -> None:
    """Let no run index these documents again, in this index or in others over the same rows, until `let_in`."""
    ledger.add_tombstones(scopes(settings, index), [key_mark(key, index.key_columns) for key in keys])
    for other in neighbours(settings, index):  # their next run has to see that the documents are gone
        for collection in ledger.collections(settings.alias(other.name)):
            ledger.forget_digests_of(collection.id, keys)


def let_in(ledger: Ledger, store: Store, settings: Settings, index: IndexSettings, keys: Sequence[str]) -> None:
    """Undo `keep_out`. The collection comes first: after a death in between, the document stays away."""
    ours = scopes(settings, index)
    if not (out := kept_out(ledger, settings, index, keys)):
        return
    same = {key_mark(key, index.key_columns)[0] for key in out}
    if live := store.aliases().get(ours[0]):
        left = [mark for mark in sorted(ledger.tombstones(ours)) if mark[0] not in same]
        store.set_metadata(live, {KEPT_OUT: left})
    ledger.remove_tombstones(ours, same)
    ledger.forget_named(ours[0], sorted(out))


def restore(ledger: Ledger, scopes: Sequence[str], metadata: Mapping[str, Any]) -> None:
    """Add to the ledger what the collection of an index has: the ledger may be an older copy, or a new one. What the
    ledger has for the index alone was let in again for another one over the same rows."""
    found = {(same, form) for same, form in metadata.get(KEPT_OUT) or ()}
    if found and (missing := found - ledger.tombstones(scopes[:1])):
        ledger.add_tombstones(scopes, missing)
