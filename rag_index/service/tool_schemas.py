"""JSON schemas of the tools that agents call: which indexes there are, by which fields they filter, what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.service.models import MAX_QUERY_CHARS
from rag_index.settings.index import CODE, CODE_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.settings import IndexSettings, Settings

Schema = dict[str, Any]

VALUES: Mapping[str, Schema] = {
    "keyword": {"type": "string"},
    "integer": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "datetime": {"type": "string", "format": "date-time"},
}
"""The type of a value by the kind of its field's payload index."""
ANY_VALUE: Schema = {"type": ["string", "number", "boolean"]}
"""The type of a value whose field has no kind in the settings."""
ORDERED = ("integer", "float", "datetime")
DESCRIPTIONS = {
    "keyword": "text",
    "integer": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "datetime": 'a time in ISO 8601; compare it with gte, gt, lte, lt, as in {"gte": "2024-01-01"}',
}
CODE_KINDS = {**dict.fromkeys(CODE_FIELDS, "keyword"), "lines": "integer"}
"""What the fields of source code hold, whether or not they have a payload index."""
FILTER = (
    "Only documents whose fields match; all fields must match. A value means equal, a list means any of these, and "
    'an object compares: {"gte": …, "lt": …} is a range, {"not": …} excludes, {"exists": true} asks for a value.'
)


def search_input(settings: Settings, *, reranker: bool) -> Schema:
    """Return the schema of a search's arguments. It names the indexes and their fields, and a reranker if there is one.

    A caller who is in a hurry may leave the reranker out.
    """
    rerank: Schema = {
        "type": "boolean",
        "default": True,
        "description": "Whether a model reads the best hits again to put them in a better order, which takes longer.",
    }
    return _object(
        {
            "query": {
                "type": "string",
                "minLength": 1,
                "maxLength": MAX_QUERY_CHARS,
                "description": "What to look for, in words or as a question; exact names and error codes work too.",
            },
            "indexes": {
                "type": "array",
                "items": {"enum": _names(settings)},
                "minItems": 1,
                "description": "The indexes to search; leave it out to search all of them.",
            },
            "filter": filter_schema(settings.indexes),
            "limit": {
                "type": "integer",
                "minimum": 1,
                "maximum": 100,
                "default": 10,
                "description": "The maximum number of documents.",
            },
            **({"rerank": rerank} if reranker else {}),
        },
        required=["query"],
    )


def filter_schema(indexes: Sequence[IndexSettings]) -> Schema:
    """Return the schema of a filter: a property for each field that an index has, typed by its kind.

    A dot leads into a field that holds JSON, and only the source of a custom index knows its fields. So names that
    are not listed are allowed if an index has a field without a kind, or unknown fields.
    """
    kinds: dict[str, dict[str, str | None]] = {}
    for index in indexes:
        for field, kind in field_kinds(index).items():
            kinds.setdefault(field, {})[index.name] = kind
    properties = {field: _field(by_index, len(indexes)) for field, by_index in kinds.items()}
    closed = all(index.fields is not None for index in indexes) and all(
        kind is not None for by_index in kinds.values() for kind in by_index.values()
    )
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False if closed else _comparison(ANY_VALUE, ordered=True),
        "description": FILTER,
    }


def field_kinds(index: IndexSettings) -> dict[str, str | None]:
    """Return the fields of an index with their kinds; None where the settings name no kind."""
    known = CODE_KINDS if index.kind == CODE else {}
    return {field: index.indexed_fields.get(field, known.get(field)) for field in index.fields or ()}


def _field(by_index: Mapping[str, str | None], indexes: int) -> Schema:
    """Return the schema of a field. Indexes that disagree about its kind make it a field of any kind."""
    kinds = set(by_index.values())
    kind = kinds.pop() if len(kinds) == 1 else None
    holds = DESCRIPTIONS[kind] if kind else "text, numbers, or true and false"
    where = f" of {', '.join(by_index)}" if len(by_index) < indexes else ""
    schema = _comparison(VALUES[kind] if kind else ANY_VALUE, ordered=kind is None or kind in ORDERED)
    return {"description": f"A field{where}: {holds}.", **schema}


def _comparison(value: Schema, *, ordered: bool) -> Schema:
    """Return the schema of what a field may be compared with: a value, several, or an object of comparisons."""
    several = {"type": "array", "items": value}
    bounds = dict.fromkeys(("gte", "gt", "lte", "lt"), value) if ordered else {}
    words = {**bounds, "not": {"anyOf": [value, several]}, "exists": {"type": "boolean"}}
    return {"anyOf": [value, several, _object(words)]}


def document_input(settings: Settings) -> Schema:
    """Return the schema of the arguments with which a document is read."""
    return _object(
        {
            "index": {"enum": _names(settings), "description": "The index of the document, as a hit names it."},
            "document_id": {"type": "string", "description": "The id of the document, as a hit gives it."},
            "first_chunk": {
                "type": "integer",
                "minimum": 0,
                "default": 0,
                "description": "Where to begin in a long document: `next_chunk` of the part before.",
            },
            "max_chunks": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
        },
        required=["index", "document_id"],
    )


def search_output() -> Schema:
    """Return the schema of a search's result."""
    hit = _object(
        {
            "index": TEXT,
            "document_id": TEXT,
            "citation": TEXT,
            "score": NUMBER,
            "text": TEXT,
            "matched": {"type": "array", "items": TEXT},
            "payload": {"type": "object"},
        }
    )
    return _object(
        {
            "hits": {"type": "array", "items": hit},
            "errors": {"type": "object", "additionalProperties": TEXT},
            "freshness": {"type": "object", "additionalProperties": FRESHNESS},
        },
        required=["hits", "errors", "freshness"],
    )


def document_output() -> Schema:
    """Return the schema of a document."""
    chunk = _object({"chunk": INTEGER, "text": TEXT, "payload": {"type": "object"}})
    properties = {
        "index": TEXT,
        "document_id": TEXT,
        "citation": TEXT,
        "payload": {"type": "object"},
        "chunks": {"type": "array", "items": chunk},
        "total_chunks": INTEGER,
        "next_chunk": {"type": ["integer", "null"]},
        "freshness": FRESHNESS,
    }
    return _object(properties, required=list(properties))


def indexes_output() -> Schema:
    """Return the schema of the list of indexes; it grows with what `GET /indexes` tells."""
    index = {"type": "object", "properties": {"name": TEXT, "freshness": FRESHNESS}, "required": ["name", "freshness"]}
    return _object({"indexes": {"type": "array", "items": index}}, required=["indexes"])


def _names(settings: Settings) -> list[str]:
    return [index.name for index in settings.indexes]


def _object(properties: Schema, required: Sequence[str] = ()) -> Schema:
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": list(required)} if required else schema


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
FRESHNESS: Schema = {
    "type": "object",
    "description": "When a run last ended with everything in the index that the source had (UTC), and how the newest "
    "run ended.",
    "properties": {
        "complete_at": {"type": ["string", "null"]},
        "age_seconds": {"type": ["integer", "null"]},
        "last_run": {"type": ["string", "null"]},
    },
}
