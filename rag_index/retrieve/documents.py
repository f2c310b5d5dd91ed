"""One document of an index, read back from the store by the id that people see."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.ids import point_id
from rag_index.documents.keys import key_parts, possible_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.settings import IndexSettings
    from rag_index.stores import Condition, StoreReader


@dataclass(frozen=True, slots=True)
class DocumentChunk:
    """A chunk of a document. `payload` holds the fields that the chunk has for itself, as those of source code have."""

    chunk: int
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """A document as the index holds it: its chunks in order, and its payload."""

    index: str
    document_id: str
    chunks: tuple[DocumentChunk, ...]
    payload: Mapping[str, Any] = field(default_factory=dict)
    collection: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the object that `GET /documents/{index}/{id}` answers."""
        return {
            "index": self.index,
            "document_id": self.document_id,
            "payload": dict(self.payload),
            "chunks": [
                {
                    "chunk": chunk.chunk,
                    "text": chunk.text,
                    **({"payload": dict(chunk.payload)} if chunk.payload else {}),
                }
                for chunk in self.chunks
            ],
        }


def read_document(
    store: StoreReader, collection: str, index: IndexSettings, document_id: str, conditions: Sequence[Condition] = ()
) -> Document | None:
    """Return the document of this id with the chunks that meet the conditions; None if there are none.

    Chunks are read by the ids of their points, as many as the first one says, which needs no search. Raises
    SettingsError if the id cannot be one of this index, because its key has several columns, and what the store raises.
    """
    keys = _keys(index, document_id)
    firsts = {
        key: point
        for point in store.retrieve(collection, [point_id(index.name, key, 0) for key in keys])
        if (key := str(_ours(point).get("key"))) in keys and _ours(point).get("document_id") == document_id
    }
    for key in keys:
        count = int(_ours(firsts[key]).get("chunks", 1)) if key in firsts else 0
        ids = [point_id(index.name, key, number) for number in range(count)]
        points = store.retrieve(collection, ids, conditions=conditions) if ids else []
        if points:
            return _document(index.name, document_id, collection, points)
    return None


def _keys(index: IndexSettings, document_id: str) -> list[str]:
    """Return the typed keys that the id may stand for."""
    try:
        document_id.encode()
    except UnicodeEncodeError:
        return []
    if index.key_columns:
        return possible_keys(key_parts(document_id, index.key_columns))
    keys = possible_keys([document_id])
    if document_id.startswith("["):  # a source of its own may have keys of several columns
        with suppress(ValueError):
            parts = json.loads(document_id)
            if parts and all(isinstance(part, str | int | float) for part in parts):
                keys += possible_keys(parts)
    return keys


def _document(index: str, document_id: str, collection: str, points: Sequence[StoredPoint]) -> Document:
    own = {name for point in points for name in _ours(point).get("own", ())}
    chunks = tuple(
        DocumentChunk(
            int(_ours(point).get("chunk", 0)),
            str(_ours(point).get("text", "")),
            {name: value for name, value in point.payload.items() if name in own},
        )
        for point in sorted(points, key=lambda point: int(_ours(point).get("chunk", 0)))
    )
    shared = {name: value for name, value in points[0].payload.items() if name != RESERVED_KEY and name not in own}
    return Document(index, document_id, chunks, shared, collection)


def _ours(point: StoredPoint) -> Mapping[str, Any]:
    found = point.payload.get(RESERVED_KEY)
    return found if isinstance(found, dict) else {}
