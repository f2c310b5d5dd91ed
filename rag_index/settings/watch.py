"""`[watch]`, and what `[[indexes]]` says about rows of other tables."""

from __future__ import annotations

from pydantic import Field

from rag_index.settings.values import Number, PositiveInt, Section


class DependsOn(Section):
    """An entry of `[[indexes]] depends_on`: a table whose rows the documents of the index show."""

    table: str = Field(min_length=1)
    """The table whose changes are followed; `schema.table` where it is not in the default schema."""
    key: str = Field(min_length=1)
    """The column of that table whose value tells which documents show a row."""
    column: str = Field(min_length=1)
    """The column of the index's `table` or `query` that holds the same value."""


class WatchSettings(Section):
    """`[watch]`: how `rag-index watch` follows changes."""

    poll_seconds: Number = Field(default=2.0, gt=0)
    """The seconds between two looks at the source, where nothing wakes the watch earlier."""
    batch_documents: PositiveInt = 5_000
    """The maximum number of documents that are indexed at once; fewer where they take longer than two seconds."""
    burst_documents: PositiveInt = 100_000
    """The number of waiting documents of an index above which an ordinary run of that index takes over."""
