"""The diff: a page of the source compared with what the ledger knows of its documents."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.documents.batches import DocumentBatch
    from rag_index.ledger import FailedDocument, Known

MAX_TRIES = 5
"""Runs that try a failed document again by themselves; after that only `retry-failed` or a changed text does."""


@dataclass(frozen=True, slots=True)
class PageDiff:
    """What to do with the documents of a page. Each document is counted once."""

    to_embed: DocumentBatch
    """New and changed documents."""
    new: int
    payload_only: DocumentBatch
    """Documents whose payload alone changed."""
    unchanged: int
    empty: int
    """Documents without text, whatever has to be done with them."""
    emptied: list[tuple[str, bytes, bytes]]
    """Those of the empty documents that have points: (key, text hash, payload hash)."""
    newly_empty: list[tuple[str, bytes, bytes, int]]
    """Ledger rows for those of the empty documents that have no points and that the ledger does not know as empty."""
    given_up: int
    """Documents that failed too often with this text."""
    recovered: list[str]
    """Unchanged and empty documents that are listed as failed, and are again as the ledger has them."""


def diff(
    page: DocumentBatch,
    known: Mapping[str, Known],
    failed: Mapping[str, FailedDocument],
    *,
    retry: bool = False,
) -> PageDiff:
    """Compare a page with the ledger. A pending document counts as changed, whatever its hashes.

    With `retry`, failed documents are tried however often they were tried, and incomplete ones are embedded again.
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
        elif not retry and not (row is not None and row.pending) and _is_given_up(failed.get(key), text_hash):
            given_up += 1
        else:
            embed.append(i)
            new += row is None or not row.text_hash
    return PageDiff(
        page.take(embed), new, page.take(payload), unchanged, empty, emptied, newly_empty, given_up, recovered
    )


def _is_given_up(failure: FailedDocument | None, text_hash: bytes) -> bool:
    return failure is not None and failure.tries >= MAX_TRIES and failure.text_hash == text_hash


def _is_incomplete(failure: FailedDocument | None) -> bool:
    return failure is not None and failure.kind == "incomplete"
