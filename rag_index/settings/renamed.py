"""Keys of the settings that were renamed: the old name is an error that gives the new one."""

from __future__ import annotations

RENAMED_KEYS = {
    "parallel": {
        "chunk_size": "shard_documents",
        "least_documents": "min_shard_documents",
        "most_documents": "max_shard_documents",
        "most_load": "max_load",
    },
}
"""By section: the new name of each old key."""


def new_name(section: str, key: str) -> str | None:
    """Return the new name of a renamed key of a section, or None."""
    return RENAMED_KEYS.get(section, {}).get(key)
