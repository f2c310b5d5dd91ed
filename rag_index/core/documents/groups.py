"""Groups that may see a document: read from the values of a source, and kept in our own part of its
payload. The part of a document's payload with its groups is hashed with the rest, so a change of
rights is a payload update. Nothing is guessed: a value that cannot be read gives no group, and no
caller sees a document without groups."""

from __future__ import annotations

import decimal
import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rag_index.core.documents.batches import LINK, RESERVED_KEY, TITLE
from rag_index.core.documents.canonical import decode_payload, encode_payload, plain_decimal

GROUPS = "groups"
"""The key of the groups in our own part of a payload. A document of an index without `access` does
not have it."""
OF_DOCUMENT = (GROUPS, TITLE, LINK)
"""The keys of our own part of a payload that say something of the document, and not of a chunk."""
_NOT_STORABLE = re.compile("[\ud800-\udfff\N{REPLACEMENT CHARACTER}]")
"""What is stored as something else, or was: it might be the name of another group."""


def groups_of(value: Any, separator: str = ",") -> list[str]:
    """Return the groups that a value of the source stands for, sorted, each once. The value is one
    group, a list, a text that is a JSON array, or groups with a separator between them ("" for
    none). NULL, and a text that begins as an array but is none, stand for no group."""
    if isinstance(value, str):
        value = _texts(value, separator)
    values = value if isinstance(value, list | tuple | set | frozenset) else [value]
    return sorted({group for one in values if (group := _group(one)) is not None})


def access_part(groups: Iterable[str]) -> dict[str, list[str]]:
    """Return what our own part of a payload has for these groups."""
    return {GROUPS: list(groups)}


def groups_in(payload: bytes) -> list[str] | None:
    """Return the groups in a document's payload (canonical JSON); None if its index has no
    `access`."""
    return stored_groups(decode_payload(payload))


def stored_groups(payload: Mapping[str, Any]) -> list[str] | None:
    """Return the groups in the payload of a document or a point; None if its index has no
    `access`."""
    ours = payload.get(RESERVED_KEY)
    groups = ours.get(GROUPS) if isinstance(ours, Mapping) else None
    return groups if isinstance(groups, list) else None


def with_groups(payload: Mapping[str, Any], groups: Sequence[str]) -> bytes:
    """Return the payload of a document as canonical JSON, with these groups in place of those that
    it has."""
    return encode_payload(
        {**payload, RESERVED_KEY: {**document_part(payload), **access_part(groups)}}
    )


def document_part(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what our own part of the payload of a document or a point says of the document."""
    ours = payload.get(RESERVED_KEY)
    return (
        {name: ours[name] for name in OF_DOCUMENT if name in ours}
        if isinstance(ours, Mapping)
        else {}
    )


def document_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a document from that of one of its points: without what belongs to
    chunk and store."""
    ours = payload.get(RESERVED_KEY)
    left_out = {RESERVED_KEY, *(ours.get("own", ()) if isinstance(ours, Mapping) else ())}
    plain = {name: value for name, value in payload.items() if name not in left_out}
    part = document_part(payload)
    return {**plain, RESERVED_KEY: part} if part else plain


def _texts(text: str, separator: str) -> list[Any]:
    stripped = text.strip()
    if stripped.startswith("["):
        try:
            found = json.loads(stripped)
        except (ValueError, RecursionError):
            return []
        return found if isinstance(found, list) else []
    if stripped.startswith(
        "{"
    ):  # the text of an array or an object: a list of groups has another form
        return []
    return list(text.split(separator)) if separator else [text]


def _group(value: Any) -> str | None:
    if isinstance(value, str):
        name = value.strip()
        return name if name and not _NOT_STORABLE.search(name) else None
    if isinstance(value, int | uuid.UUID) and not isinstance(value, bool):
        return str(value)
    return (
        plain_decimal(value) if isinstance(value, decimal.Decimal) and value.is_finite() else None
    )
