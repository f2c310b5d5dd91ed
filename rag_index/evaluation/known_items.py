"""Known items: queries that are made from the documents themselves, each of which should find its own document.

A column such as the title is a query that a person might type. But a text that contains the title is found by it
trivially, so there it has to be left out of what is searched (`with_column`).
"""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.documents.keys import document_id
from rag_index.errors import SettingsError, SourceError
from rag_index.evaluation.golden import GoldenQuery
from rag_index.settings.index import SQL
from rag_index.settings.parts import split_name
from rag_index.sources.engine import limited, open_read_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.documents.batches import DocumentBatch
    from rag_index.schema import ProposedIndex
    from rag_index.settings import IndexSettings, Settings


def in_text(index: IndexSettings, column: str) -> bool:
    """Return whether the text or the title of the index contains the column, so that it would find itself."""
    return column in index.text_columns or column in index.title_columns


def with_column(index: IndexSettings, column: str) -> IndexSettings:
    """Return the index with the column in its payload and not in its text, and without a filter that hides documents.

    A template of the text becomes the list of its other columns, and a title with the column is left out. Raises
    SettingsError if the index has no columns, or no other column of text.
    """
    if index.kind != SQL:
        raise SettingsError(
            f"index {index.name} has kind {index.kind!r} and no columns to make queries of: name other indexes with "
            f"--index"
        )
    changed: dict[str, Any] = {"payload": list(dict.fromkeys([*index.payload, column])), "required_filter": {}}
    if column in index.title_columns:
        changed["title"] = None
    if in_text(index, column):
        others = [name for name in index.text_columns if name != column]
        if not others and not index.parts:
            raise SettingsError(
                f"the text of index {index.name} is the column {column!r} alone, and nothing is left to be found: "
                f"name another column with --query-column"
            )
        changed["text"] = others
    return index.model_copy(update=changed)


def column_queries(index: IndexSettings, column: str, documents: DocumentBatch, count: int) -> list[GoldenQuery]:
    """Return at most `count` queries: the values of the column, each with the documents that have it.

    The documents with the smallest hashes of their keys are chosen, so that they are the same each time. Raises
    SettingsError if the column has no text.
    """
    join, name = split_name(column, index.joins)
    payloads = map(json.loads, documents.payloads)
    values = [(payload if join is None else payload[join]).get(name) for payload in payloads]
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


NEWEST_SECONDS = 5.0
"""How long the question which rows are the newest may take."""


def with_newest(settings: Settings, proposed: Sequence[ProposedIndex], count: int) -> Settings:
    """Return the settings with indexes that have about the newest `count` rows each."""
    engine = open_read_only(settings.source_url)
    indexes = []
    try:
        with engine.connect() as connection:
            for index, one in zip(settings.indexes, proposed, strict=True):
                bound = _bound(connection, index, one.age, count)
                quoted = connection.dialect.identifier_preparer.quote(one.age)
                where = " AND ".join(filter(None, [index.where, f"{quoted} >= {bound}"])) if bound else index.where
                indexes.append(index.model_copy(update={"where": where}))
    finally:
        engine.dispose()
    return settings.model_copy(update={"indexes": indexes})


def _bound(connection: sa.Connection, index: IndexSettings, column: str, count: int) -> str:
    """Return the value that the newest rows have at least, in SQL; "" if there are fewer rows, or it takes too long."""
    newest: sa.ColumnClause[Any] = sa.column(column)
    statement = sa.select(newest).select_from(sa.table(str(index.table), schema=index.db_schema))
    if index.where is not None:
        statement = statement.where(sa.text(index.where.replace(":", "\\:")))
    try:
        with limited(connection, NEWEST_SECONDS, "the source"):
            value = connection.scalar(statement.order_by(newest.desc()).offset(count - 1).limit(1))
    except (exc.DBAPIError, SourceError):
        connection.rollback()
        return ""
    if value is None:
        return ""
    text = str(value).replace("'", "''")
    return str(value) if isinstance(value, int | float) else f"'{text}'"
