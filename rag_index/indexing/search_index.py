"""What makes a collection searchable: the name of its model, payload indexes, and the search index (HNSW)."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import filterfalse
from typing import TYPE_CHECKING, Any, Literal

from rag_index.documents.canonical import decode_payload
from rag_index.errors import StoreError
from rag_index.settings.payload_indexes import PAYLOAD_KINDS
from rag_index.stores import BULK, NAME, on_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.embedders import EmbedderIdentity
    from rag_index.settings import Settings
    from rag_index.stores.protocol import Store

SAMPLE = 100
AUTO_MB = 256
"""Megabytes of embedded vectors that searches may scan: about 15 ms a search, where an index takes minutes to build."""
logger = logging.getLogger("rag_index.indexing")


@dataclass(frozen=True, slots=True)
class Optimized:
    """An index after `optimize`: `seconds` is how long building took, 0 if the search index was there already."""

    index: str
    collection: str
    points: int
    built: bool
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


def make_searchable(store: Store, collection: str, identity: EmbedderIdentity, fields: Mapping[str, str]) -> None:
    """Write its name and model into the collection's metadata, and give it exactly the settings' payload indexes.

    Indexes that somebody else made are left alone. Call it at the beginning of a run: it only does something if the
    collection is new or the settings changed.
    """
    metadata = store.metadata(collection)
    before: Mapping[str, str] = metadata.get("payload_indexes") or {}
    if dict(before) != dict(fields):
        store.index_fields(collection, {**dict.fromkeys(before), **fields})
    wanted = {NAME: collection, "embedder_identity": asdict(identity), "payload_indexes": dict(fields)}
    if any(metadata.get(key) != value for key, value in wanted.items()):
        store.set_metadata(collection, wanted)


def useless_indexes(payloads: Sequence[bytes], fields: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each payload index, by field and kind, that none of these payloads has a value for.

    A database may give numbers or text where people expect something else: SQLite has neither booleans nor JSON.
    """
    decoded = [decode_payload(payload) for payload in payloads[:SAMPLE]] if fields else []
    for field, kind in fields.items():
        values = [value for payload in decoded for value in _values_at(payload, field.split("."))]
        if values and not any(type(value) in PAYLOAD_KINDS[kind].types for value in values):
            yield f"the payload index on {field} is empty: its kind is {kind}, and the source gives other values"
        elif kind == "datetime" and (other := next(filterfalse(_is_time, values), None)) is not None:
            yield f"the payload index on {field} lacks values that are no times in ISO 8601, such as {other!r:.40}"


def _is_time(value: Any) -> bool:
    with suppress(ValueError, TypeError):
        return bool(datetime.fromisoformat(value))
    return False


def _values_at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield what a payload has at a path, element by element; a value that the path cannot go into, as a tuple."""
    if isinstance(value, list):
        for element in value:
            yield from _values_at(element, path)
    elif path and isinstance(value, dict):
        yield from _values_at(value.get(path[0]), path[1:])
    elif value is not None:
        yield (value,) if path else value


def optimize(settings: Settings, store: Store, names: Sequence[str] | None = None) -> Iterator[Optimized]:
    """Build the missing search indexes of these indexes (all by default), one after another.

    In the embedded store a child process builds; a hundred thousand vectors of 256 dimensions take about half a minute
    on two cores. A server builds by itself, and this waits for it. Raises StoreError if nothing is indexed.
    """
    aliases = store.aliases()
    for index in settings.named(names):
        collection = aliases.get(settings.alias(index.name))
        if collection is None:
            if names:
                raise StoreError(f"index {index.name} is empty: `rag-index index {index.name}` fills it")
            continue
        needed = not store.indexed(collection)
        started = time.monotonic()
        if needed:
            store.optimize(collection)
        seconds = time.monotonic() - started if needed else 0.0
        yield Optimized(index.name, collection, store.count(collection), needed, seconds)


def search_index_due(store: Store, collection: str, dimension: int, mode: Literal["auto", "never"]) -> bool:
    """Return whether a run should build the search index.

    Only an embedded collection with more than 256 MB of vectors needs it: smaller ones are scanned in milliseconds,
    and a server builds by itself.
    """
    if mode == "never" or not store.embedded or store.indexed(collection):
        return False
    return store.count(collection) * dimension * 4 > AUTO_MB * 1024 * 1024


def begin_bulk(store: Store, others: Sequence[str], collection: str, *, loaded: bool) -> bool:
    """Turn the search index of a new collection off, and those on again that a run of this index left off.

    `others` are the other collections of the index, and `loaded` says that this run fills the collection in bulk, and
    publishes it at the end. Return whether it has to wait for the search index then. One that holds points and has its
    search index keeps it, such as after an error: turning it off would wait for what the server is building.
    """
    server = on_server(store)
    if server is None:
        return False
    there = store.collections()
    for other in [*others, *([] if loaded else [collection])]:
        if BULK in there.get(other, {}):
            server.resume_indexing(other)
    if loaded and not store.count(collection):
        server.pause_indexing(collection)
    return loaded


def end_bulk(store: Store, collection: str, index: str) -> None:
    """Turn the search index of a collection on again, however the run ended. A fault is left to the next run."""
    if (server := on_server(store)) is not None:
        try:
            server.resume_indexing(collection)
        except StoreError as error:
            logger.warning("%s has no search index until the next run of %s: %s", collection, index, error)
