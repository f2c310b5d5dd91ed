"""Known items: queries that are made from the documents themselves, each of which should find its own document.

A column such as the title is a query that a person might type. But a text that contains the title is found by it
trivially, so there it has to be left out of what is searched (`text_without`).
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING

from rag_index.documents.keys import document_id
from rag_index.errors import SettingsError
from rag_index.evaluation.golden import GoldenQuery
from rag_index.settings.index import SQL

if TYPE_CHECKING:
    from rag_index.documents.batches import DocumentBatch
    from rag_index.settings import IndexSettings

__all__ = ["column_queries", "in_text", "with_column"]


def in_text(index: IndexSettings, column: str) -> bool:
    """Return whether the text of the index contains the column, so that it would find itself."""
    return column in index.text_columns


def with_column(index: IndexSettings, column: str) -> IndexSettings:
    """Return the index with the column in its payload and not in its text, and without a filter that hides documents.

    A template of the text becomes the list of its other columns. Raises SettingsError if the index has no columns, or
    no other column of text.
    """
    if index.kind != SQL:
        raise SettingsError(
            f"index {index.name} has kind {index.kind!r} and no columns to make queries of: name other indexes with "
            f"--index, or use --generate"
        )
    changed = {"payload": list(dict.fromkeys([*index.payload, column])), "required_filter": {}}
    if in_text(index, column):
        others = [name for name in index.text_columns if name != column]
        if not others:
            raise SettingsError(
                f"the text of index {index.name} is the column {column!r} alone, and nothing is left to be found: "
                f"name another column with --query-column, or use --generate"
            )
        changed["text"] = others
    return index.model_copy(update=changed)


def column_queries(index: IndexSettings, column: str, documents: DocumentBatch, count: int) -> list[GoldenQuery]:
    """Return at most `count` queries: the values of the column, each with the documents that have it.

    The documents with the smallest hashes of their keys are chosen, so that they are the same each time. Raises
    SettingsError if the column has no text.
    """
    values = [json.loads(payload).get(column) for payload in documents.payloads]
    texts = [" ".join(value.split()) if isinstance(value, str) else "" for value in values]
    by_text: dict[str, dict[str, int]] = {}
    for key, text in zip(documents.keys, texts, strict=True):
        if text:
            by_text.setdefault(text, {})[document_id(key)] = 1
    if not by_text:
        other = next((value for value in values if value is not None and not isinstance(value, str)), None)
        reason = (
            "is empty in all documents" if other is None else f"holds {type(other).__name__} ({other!r:.40}), not text"
        )
        raise SettingsError(f"index {index.name}: column {column!r} {reason}; name another with --query-column")
    rows = sorted(range(len(texts)), key=lambda row: blake2b(documents.keys[row].encode(), digest_size=8).digest())
    chosen = dict.fromkeys(texts[row] for row in rows if texts[row])
    return [GoldenQuery(text, by_text[text], index.name) for text in list(chosen)[:count]]
