"""The sentence about documents that a watch missed and a run mended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FIRST_IDS = 10
"""The ids that a message names."""


def missed_sentence(name: str, ids: Sequence[str], blind: str, *, unkept: int = 0) -> str:
    """Return what a person should know about documents that the watch missed, and what to do.

    `blind` is what the watch cannot see, `unkept` how many more documents the run found changed than are kept.
    """
    s = "s" if len(ids) > 1 else ""
    first = ", ".join(ids[:FIRST_IDS]) + (", …" if len(ids) > FIRST_IDS else "")
    more = f" (and {unkept:,} more were changed, which nobody has looked at)" if unkept else ""
    told = f"index {name}: a run had to mend {len(ids):,} document{s} that the watch missed: {first}{more}"
    if blind:
        return f"{told}. That is expected: {blind}"
    return (
        f"{told}. The index is right again. See `rag-index doctor` and `rag-index report`: a trigger or a publication "
        "may be incomplete or was switched off, or depends_on does not list a table or column that the documents show"
    )
