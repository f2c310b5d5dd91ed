"""What `rag-index try` needs: which rows are the newest, and how well documents are found by words of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.documents.keys import document_id
from rag_index.errors import RagIndexError, SourceError
from rag_index.retrieve.retriever import Retriever
from rag_index.sources.engine import limited, open_read_only
from rag_index.sources.scaffold import read_sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources.proposed_index import ProposedIndex

SECONDS = 5.0
"""How long the question which rows are the newest may take."""
SAMPLED = 10
"""Documents of each index that are searched for."""
QUERY_WORDS = 12
"""Words of a document by which it should be found."""
FIRST = 10
"""Hits among which a document should be."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How many documents were searched for by some of their words, and how many of them were among the first hits."""

    asked: int
    found: int


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
        with limited(connection, SECONDS, "the source"):
            value = connection.scalar(statement.order_by(newest.desc()).offset(count - 1).limit(1))
    except (exc.DBAPIError, SourceError):
        connection.rollback()
        return ""
    if value is None:
        return ""
    text = str(value).replace("'", "''")
    return str(value) if isinstance(value, int | float) else f"'{text}'"


def known_item_quality(settings: Settings) -> Quality:
    """Return how well sampled documents are found by some words from their middle."""
    asked = found = 0
    with Retriever.from_settings(settings) as retriever:
        for index in settings.indexes:
            try:
                documents = read_sample(settings, index, SAMPLED).documents
            except RagIndexError:
                continue
            for key, text in zip(documents.keys, documents.texts, strict=True):
                words = text.split()
                start = max(0, len(words) // 2 - QUERY_WORDS // 2)
                hits = retriever.search_sync(" ".join(words[start : start + QUERY_WORDS]), limit=FIRST).hits
                asked += 1
                found += (index.name, document_id(key)) in [(hit.index, hit.document_id) for hit in hits]
    return Quality(asked, found)
