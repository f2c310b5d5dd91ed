"""The kinds of payload indexes, as objects of the embedded engine."""

from __future__ import annotations

import qdrant_edge as e

from rag_index.errors import StoreError

KINDS = {
    "keyword": e.PayloadSchemaType.Keyword,
    "integer": e.PayloadSchemaType.Integer,
    "float": e.PayloadSchemaType.Float,
    "bool": e.PayloadSchemaType.Bool,
    "datetime": e.PayloadSchemaType.Datetime,
}


def payload_kind(field: str, kind: str) -> e.PayloadSchemaType:
    """Return the engine's kind of payload index. Raises StoreError for an unknown kind."""
    try:
        return KINDS[kind]
    except KeyError:
        raise StoreError(f"payload index on {field}: {kind!r} is not a kind; use {', '.join(KINDS)}") from None
