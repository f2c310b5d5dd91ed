"""Point ids: which point a chunk of a document is."""

from __future__ import annotations

import hashlib
import uuid

__all__ = ["point_id"]


_NAMESPACE = uuid.UUID("5f2d6a52-3c64-5a0e-9d0b-6a6f1f5b7c11")


def point_id(index: str, key: str, chunk: int) -> str:
    """UUIDv5 (RFC 9562, 5.5) of (index, typed key, chunk number): writing a chunk twice writes the same point.

    Written out, since `uuid.uuid5` costs five times as much, and every chunk has one.
    """
    name = f"{index}\0{key}\0{chunk}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
