"""Point ids: one stable id for each chunk of each document."""

from __future__ import annotations

import hashlib
import uuid

_NAMESPACE = uuid.UUID("5f2d6a52-3c64-5a0e-9d0b-6a6f1f5b7c11")


def point_id(index: str, key: str, chunk: int) -> str:
    """Return the UUIDv5 (RFC 9562, 5.5) of an index, a typed key and a chunk number.

    Writing a chunk twice therefore writes the same point. The digest is formatted here because `uuid.uuid5` takes five
    times as long, and every chunk needs an id.
    """
    name = f"{index}\0{key}\0{chunk}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
