"""When a run holds back: what it would delete or show looks like a mistake. Each answer is a sentence, or nothing."""

from __future__ import annotations

__all__ = ["UNGUARDED_DELETES", "deletion_refused", "too_few_left", "too_many_failed"]

UNGUARDED_DELETES = 100
"""So few deletions are never guarded."""


def deletion_refused(deletions: int, before: int, share: float) -> str:
    """Why `doomed` documents of `before` are not deleted, where that is more than `share` of them."""
    if deletions <= UNGUARDED_DELETES or deletions <= share * before:
        return ""
    return (
        f"{deletions:,} of {before:,} documents would be deleted, more than delete_guard "
        f"({share:.0%}) allows; nothing was: if the source is right, run again with --allow-deletes"
    )


def too_few_left(collection: str, documents: int, before: int, share: float) -> str:
    """Why a rebuilt collection of `documents` is not shown, where what is shown now has `before`."""
    lost = before - documents
    if lost <= max(UNGUARDED_DELETES, share * before):
        return ""
    return (
        f"the rebuilt {collection} has {documents:,} documents, {lost:,} fewer than what is shown, "
        "more than delete_guard allows; it is not shown: if that is right, run again with --allow-deletes"
    )


def too_many_failed(collection: str, failed: int, documents: int, tolerated: float) -> str:
    """Why a rebuilt collection is not shown, where `failed` of `documents` could not be indexed."""
    if failed / max(1, documents) <= tolerated:
        return ""
    return (
        f"{failed:,} documents failed, so that the rebuilt {collection} is not shown; "
        "mend them and run again, or raise tolerate_failed"
    )
