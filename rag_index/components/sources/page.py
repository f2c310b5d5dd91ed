"""A page of documents, as a source gives it to whoever scans it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.sources.buckets import PageBuckets
    from rag_index.core.documents.batches import DocumentBatch, Failure


@attrs.frozen
class SourcePage:
    """A page of documents, the cursor of the next page, and the documents whose text cannot be read."""

    documents: DocumentBatch
    cursor: Any
    """The argument for the next call of `page`; None after the last page."""
    unreadable: list[Failure] = attrs.Factory(list)
    unread: list[str] = attrs.Factory(list)
    """Keys of documents that the source has but did not read, because they have not changed (see `ScanState`)."""
    stamps: dict[str, str] = attrs.Factory(dict)
    """Stamps, by key, of the documents that were read. The next scan passes its stamps to `ScanState.unchanged`."""
    buckets: PageBuckets | None = None
    """The buckets of the rows that were read, of a source with digests (`sources.digest`)."""
    groups: Mapping[str, Sequence[str]] = attrs.Factory(dict)
    """The groups that may see the unreadable documents, by key: an earlier state of them may be in the index."""
