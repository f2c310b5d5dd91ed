"""The answers of tools as text, which a model reads and a person understands."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.service.answers import Freshness, IndexInfo, SearchAnswer

MINUTE, HOUR, DAY = 60, 3600, 86400


def citation(index: str, document_id: str, freshness: Freshness | None) -> str:
    """Return how to cite a document: its index, its id, and the state of the source that the index holds."""
    as_of = f", as of {freshness.complete_at}" if freshness and freshness.complete_at else ""
    return f"{index}/{document_id}{as_of}"


def search_text(answer: SearchAnswer) -> str:
    """Return the hits, one paragraph each, then the indexes that gave no answer and how fresh the others are."""
    lines = []
    for number, hit in enumerate(answer.result.hits, 1):
        cited = citation(hit.index, hit.document_id, answer.freshness.get(hit.index))
        lines += [f"{number}. [{cited}] score {hit.score:.3f}{_fields(hit.payload)}", hit.text.strip(), ""]
    if not answer.result.hits:
        lines += ["Nothing found.", ""]
    lines += [f"{index} did not answer: {reason}" for index, reason in answer.result.errors.items()]
    lines += [f"Index {index}: {freshness_text(one)}." for index, one in answer.freshness.items()]
    return "\n".join(lines)


def document_text(document: Mapping[str, Any], freshness: Freshness) -> str:
    """Return the chunks of a document with its fields; `document` is what the tool answers to programs."""
    lines = [f"[{document['citation']}]{_fields(document['payload'])}", ""]
    lines += [f"{chunk['text'].strip()}\n" for chunk in document["chunks"]]
    if document["next_chunk"] is not None:
        lines.append(f"There are {document['total_chunks']} chunks; go on with first_chunk {document['next_chunk']}.")
    lines.append(f"Index {document['index']}: {freshness_text(freshness)}.")
    return "\n".join(lines)


def indexes_text(indexes: Sequence[IndexInfo]) -> str:
    """Return a line for each index: what it holds, by which fields it can be filtered, and how fresh it is."""
    return "\n".join(_index_line(index) for index in indexes)


def freshness_text(freshness: Freshness) -> str:
    """Return how old the content of an index is."""
    ended = {
        "running": "; a run is under way",
        "failed": "; the last run failed",
        "interrupted": "; the last run died",
        "partial": "; the last run was partial",
    }
    state = ended.get(freshness.last_run or "", "")
    if freshness.complete_at is None:
        return f"it is not known when it was last complete{state}"
    return f"last complete {age(freshness.age_seconds or 0)} ago, at {freshness.complete_at}{state}"


def age(seconds: int) -> str:
    """Return a time span in its largest unit."""
    for unit, length in (("day", DAY), ("hour", HOUR), ("minute", MINUTE)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return "less than a minute"


def _index_line(index: IndexInfo) -> str:
    if not index.live:
        return f"{index.name}: empty; it cannot be searched yet."
    if index.fields is None:
        fields = "fields known to its source alone"
    else:
        named = ", ".join(f"{field.name} ({field.kind})" if field.kind else field.name for field in index.fields)
        fields = f"fields {named}" if named else "no fields to filter by"
    count = "" if index.documents is None else f"{index.documents:,} documents, "
    return f"{index.name}: {count}{index.language}, {fields}; {freshness_text(index.freshness)}."


def _fields(payload: Mapping[str, Any]) -> str:
    shown = [f"{name}: {_value(value)}" for name, value in payload.items() if value is not None]
    return f" ({', '.join(shown)})" if shown else ""


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
