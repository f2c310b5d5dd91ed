"""What changed: a page of the source held against what the ledger knows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.documents.batches import DocumentBatch
    from rag_index.ledger import FailedDocument, Known

__all__ = ["MAX_TRIES", "PageDiff", "compare"]

MAX_TRIES = 5
"""Runs that try a failed document again by themselves; then only `retry-failed` or a changed text does."""


@dataclass(frozen=True, slots=True)
class PageDiff:
    """What is to be done with a page's documents; each is counted once."""

    to_embed: DocumentBatch
    """New documents and changed ones."""
    new: int
    payload_only: DocumentBatch
    unchanged: int
    empty: int
    """Documents without text, whatever is to be done with them."""
    emptied: list[tuple[str, bytes, bytes]]
    """Of these, the ones that have points: (key, text hash, payload hash)."""
    newly_empty: list[tuple[str, bytes, bytes, int]]
    """Of these, the ones that the ledger does not know as empty, and that have no points: rows for it."""
    given_up: int
    """Documents that failed too often with this text."""
    recovered: list[str]
    """Of the unchanged and the empty ones: those that are listed as failed, and are as the ledger has them again."""


def compare(
    page: DocumentBatch,
    known: Mapping[str, Known],
    failed: Mapping[str, FailedDocument],
    *,
    retry: bool = False,
) -> PageDiff:
    """Hold a page against the ledger. An open document counts as changed, whatever its hashes.

    With `retry` documents that failed are tried however often they were, and incomplete ones are made anew.
    """
    embed: list[int] = []
    payload: list[int] = []
    emptied: list[tuple[str, bytes, bytes]] = []
    newly_empty: list[tuple[str, bytes, bytes, int]] = []
    recovered: list[str] = []
    new = unchanged = empty = given_up = 0
    for i, (key, text_hash, payload_hash) in enumerate(
        zip(page.keys, page.text_hashes, page.payload_hashes, strict=True)
    ):
        row = known.get(key)
        same_text = row is not None and row.text_hash == text_hash and not row.pending
        if row is not None and same_text and retry and _is_incomplete(failed.get(key)):
            embed.append(i)
        elif row is not None and same_text and row.payload_hash == payload_hash:
            unchanged += row.chunks > 0
            empty += row.chunks == 0
            if key in failed and not _is_incomplete(failed[key]):
                recovered.append(key)
        elif not page.texts[i]:
            empty += 1
            if row is not None and (row.chunks or row.pending):
                emptied.append((key, text_hash, payload_hash))
            else:
                newly_empty.append((key, text_hash, payload_hash, 0))
        elif same_text:
            payload.append(i)
        elif not retry and not (row is not None and row.pending) and _given_up(failed.get(key), text_hash):
            given_up += 1
        else:
            embed.append(i)
            new += row is None or not row.text_hash
    return PageDiff(
        page.take(embed), new, page.take(payload), unchanged, empty, emptied, newly_empty, given_up, recovered
    )


def _given_up(failure: FailedDocument | None, text_hash: bytes) -> bool:
    return failure is not None and failure.tries >= MAX_TRIES and failure.text_hash == text_hash


def _is_incomplete(failure: FailedDocument | None) -> bool:
    return failure is not None and failure.kind == "incomplete"
