"""Guards: when a run holds back, because what it would delete or publish looks like a mistake.

Each function returns a sentence for a person, or an empty text if nothing is held back.
"""

from __future__ import annotations

__all__ = ["UNGUARDED_DELETES", "deletion_refused", "too_few_left", "too_many_failed"]

UNGUARDED_DELETES = 100
"""Up to this many deletions are never guarded."""


def deletion_refused(deletions: int, before: int, share: float) -> str:
    """Return why `deletions` documents of `before` are not deleted, if that is more than `share` of them."""
    if deletions <= UNGUARDED_DELETES or deletions <= share * before:
        return ""
    return (
        f"{deletions:,} of {before:,} documents would be deleted, more than delete_guard "
        f"({share:.0%}) allows; nothing was deleted: if the source is right, run again with --allow-deletes"
    )


def too_few_left(collection: str, documents: int, before: int, share: float) -> str:
    """Return why a rebuilt collection of `documents` is not published, if the live one has `before`."""
    lost = before - documents
    if lost <= max(UNGUARDED_DELETES, share * before):
        return ""
    return (
        f"the rebuilt {collection} has {documents:,} documents, {lost:,} fewer than the live one, "
        "more than delete_guard allows; it was not published: if that is right, run again with --allow-deletes"
    )


def too_many_failed(collection: str, failed: int, documents: int, tolerated: float) -> str:
    """Return why a rebuilt collection is not published, if too many of its documents failed."""
    if failed / max(1, documents) <= tolerated:
        return ""
    return (
        f"{failed:,} documents failed, so the rebuilt {collection} was not published; "
        "correct them and run again, or raise tolerate_failed"
    )
