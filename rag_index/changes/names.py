"""Names of what `rag-index watch --setup` makes in a source: slots, publications, tables, triggers."""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 60
"""PostgreSQL cuts names at 63 bytes, and MariaDB refuses more than 64."""


def object_name(project: str, *parts: str) -> str:
    """Return a name of this project, which says whose it is and begins with `rag_index_`.

    It has only lower-case letters, digits and `_`, as the name of a slot must. Whatever is lost by that comes back as a
    digest at its end, so that names of different projects differ.
    """
    whole = "_".join(["rag_index", project, *parts])
    name = re.sub(r"[^a-z0-9]+", "_", whole.lower())
    if name == whole and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9].rstrip('_')}_{digest}"
