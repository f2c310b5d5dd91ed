"""The kinds of payload indexes, as objects of Qdrant's client."""

from __future__ import annotations

from qdrant_client import models

from rag_index.errors import StoreError

KINDS = {kind: models.PayloadSchemaType(kind) for kind in ("keyword", "integer", "float", "bool", "datetime")}


def payload_kind(field: str, kind: str) -> models.PayloadSchemaType:
    """Return the client's kind of payload index. Raises StoreError for an unknown kind."""
    try:
        return KINDS[kind]
    except KeyError:
        raise StoreError(f"payload index on {field}: {kind!r} is not a kind; use {', '.join(KINDS)}") from None
