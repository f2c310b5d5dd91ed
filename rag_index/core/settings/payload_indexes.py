"""The kinds of payload indexes: which values each holds, and what these are compared with. A new kind begins here.

Settings, stores and filters read them. So do HTTP, the tools of MCP and the page, which `GET /indexes` tells of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

PayloadKind = Literal["keyword", "integer", "float", "bool", "datetime"]
RESERVED = "_rag"
CHUNK_FIELD = f"{RESERVED}.chunk"
"""The payload field with the number of a chunk in its document, from 0."""
GROUPS_FIELD = f"{RESERVED}.groups"
"""The payload field with the groups that may see a document."""


@dataclass(frozen=True, slots=True)
class KindOfValues:
    """The values that a payload index holds: their types in a payload, and what a caller is told of them."""

    types: frozenset[type]
    json_type: str
    description: str
    ordered: Literal["", "numbers", "times"] = ""
    """What the values are compared with by gte, gt, lte and lt; "" if they have no order."""


PAYLOAD_KINDS: Mapping[str, KindOfValues] = {
    "keyword": KindOfValues(frozenset({str}), "string", "text"),
    "integer": KindOfValues(frozenset({int}), "integer", "a whole number", "numbers"),
    "float": KindOfValues(frozenset({int, float}), "number", "a number", "numbers"),
    "bool": KindOfValues(frozenset({bool}), "boolean", "true or false"),
    "datetime": KindOfValues(frozenset({str}), "string", 'a time in ISO 8601, as in {"gte": "2024-01-01"}', "times"),
}
"""The kinds, by Qdrant's own names. A new one is one more entry here and in `PayloadKind`."""


def kind_for(value: Any) -> PayloadKind | None:
    """Return the kind of payload index that serves a filter on this value."""
    if isinstance(value, list):
        kinds = {kind_for(item) for item in value}
        return kinds.pop() if len(kinds) == 1 else None
    kinds_by_type: Mapping[type, PayloadKind] = {str: "keyword", bool: "bool", int: "float", float: "float"}
    return kinds_by_type.get(type(value))
