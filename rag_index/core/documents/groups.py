"""The groups that may see a document: read from values of the source, kept in `_rag` of its
payload.

The part of a payload with the groups is hashed with the rest, so a change of rights is a payload
update. Nothing is guessed: an unreadable value gives no group, and no caller sees a document
without groups (`tests/etl/test_access.py`).
"""

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
"""The key of the groups in `_rag`. Documents of an index without `access` do not have it."""
OF_DOCUMENT = (GROUPS, TITLE, LINK)
"""The keys of `_rag` that describe the document, and not a chunk."""
_NOT_STORABLE = re.compile("[\ud800-\udfff\N{REPLACEMENT CHARACTER}]")
"""Characters that a store replaces, or that replaced another one. With one, a name might be that of
another group."""


def groups_of(value: Any, separator: str = ",") -> list[str]:
    """Return the groups in a value of the source, sorted, each once.

    The value is one group, a list, a text that is a JSON array, or a text of groups with
    `separator` between them ("": the text is one group). NULL, and a text that begins like an array
    but is none, have no group.
    """
    if isinstance(value, str):
        value = _texts(value, separator)
    values = value if isinstance(value, list | tuple | set | frozenset) else [value]
    groups: set[str] = set()
    for member in values:
        group = _group(member)
        if group is not None:
            groups.add(group)
    return sorted(groups)


def access_part(groups: Iterable[str]) -> dict[str, list[str]]:
    """Return the entries of `_rag` for these groups."""
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
    """Return the payload of a document as canonical JSON, with its groups replaced by these."""
    ours = {**document_part(payload), **access_part(groups)}
    return encode_payload({**payload, RESERVED_KEY: ours})


def document_part(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of `_rag` that describe the document, from its payload or a point's."""
    ours = payload.get(RESERVED_KEY)
    if not isinstance(ours, Mapping):
        return {}
    return {name: ours[name] for name in OF_DOCUMENT if name in ours}


def document_payload(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a document from that of one of its points: without the fields of the
    chunk and the store."""
    ours = payload.get(RESERVED_KEY)
    of_chunk = ours.get("own", ()) if isinstance(ours, Mapping) else ()
    left_out = {RESERVED_KEY, *of_chunk}
    found = {name: value for name, value in payload.items() if name not in left_out}
    part = document_part(payload)
    if part:
        found[RESERVED_KEY] = part
    return found


def _texts(text: str, separator: str) -> list[Any]:
    stripped = text.strip()
    # A JSON array, such as ["staff", "admins"].
    if stripped.startswith("["):
        try:
            found = json.loads(stripped)
        except (ValueError, RecursionError):
            return []
        return found if isinstance(found, list) else []
    # The text of a PostgreSQL array or a JSON object, which is not a list of groups.
    if stripped.startswith("{"):
        return []
    # "staff, admins"
    return list(text.split(separator)) if separator else [text]


def _group(value: Any) -> str | None:
    """Return a value as the name of a group; None if it cannot be one."""
    if isinstance(value, str):
        name = value.strip()
        return name if name and not _NOT_STORABLE.search(name) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, int | uuid.UUID):
        return str(value)
    # A NUMERIC column: 7.00 is group 7.
    if isinstance(value, decimal.Decimal) and value.is_finite():
        return plain_decimal(value)
    return None
