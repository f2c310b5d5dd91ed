"""What a run deletes at its end because it has grown old (`[run] keep_days`): rows of the ledger, and contexts.

Each deletion is a transaction of its own that leaves ledger and cache in order, so a death in the middle leaves the
rest to the next run. Nothing is deleted that a run or a watch still needs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.chunking.context.cache import cache_url
from rag_index.chunking.context.pruning import prune_contexts, recipe_in
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.ledger import Ledger
    from rag_index.settings import Settings

__all__ = ["prune", "prune_unneeded_contexts"]

DAY = 86_400.0

logger = logging.getLogger("rag_index.indexing")


def prune(settings: Settings, ledger: Ledger) -> None:
    """Delete what is older than `[run] keep_days`. A fault is logged, and left to the next run."""
    before = max(0.0, ledger.clock() - settings.run.keep_days * DAY)
    try:
        ledger.prune(before, {settings.alias(index.name) for index in settings.indexes})
        prune_contexts(cache_url(settings.ledger_url), before, lambda: _indexed_texts(ledger), clock=ledger.clock)
    except RagIndexError as error:
        logger.warning("what is older than [run] keep_days was not deleted: %s", error)


def prune_unneeded_contexts(settings: Settings, ledger: Ledger) -> None:
    """Delete the contexts that no indexed document needs, however new they are: they repeat what the texts say."""
    tomorrow = ledger.clock() + DAY
    prune_contexts(cache_url(settings.ledger_url), tomorrow, lambda: _indexed_texts(ledger), clock=ledger.clock)


def _indexed_texts(ledger: Ledger) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the recipe of each collection that has contexts, with the text hashes of its documents, page by page."""
    for collection_id, chunking in ledger.chunkings():
        if not (recipe := recipe_in(chunking)):
            continue
        yield recipe, [failure.text_hash for failure in ledger.failures(collection_id).values()]
        after = ""
        while page := ledger.rows(collection_id, after=after):
            yield recipe, [row.text_hash for _, row in page]
            after = page[-1][0]
