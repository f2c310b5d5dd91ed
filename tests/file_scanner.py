"""Which files hold something of texts or vectors, byte by byte: a scanner that knows no index, and
no store."""

import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np

PIECE, STEP = 32, 8


def residues(folder: Path, texts=(), vectors=()) -> list[str]:
    """Return the files below a folder that hold 39 bytes in a row of one of these texts or
    vectors."""
    wanted = {
        piece
        for text in texts
        for code in ("utf-8", "utf-16-le")
        for piece in _pieces(text.encode(code), STEP)
    }
    for vector in vectors:
        values = np.asarray(vector, dtype=np.float32)
        cbor = b"".join(b"\xfa" + struct.pack(">f", one) for one in values)  # as in Qdrant's log
        wanted |= {piece for code in (values.tobytes(), cbor) for piece in _pieces(code, PIECE)}
    found = []
    # os.walk goes on where a folder was deleted meanwhile
    for path in sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names):
        with suppress(FileNotFoundError):  # it was deleted meanwhile
            content = np.fromfile(path, np.uint8)
            used = np.flatnonzero(content)  # a store keeps room for what is to come
            content = content[: used[-1] + 1].tobytes() if len(used) else b""
            if any(piece in content for piece in wanted):
                found.append(str(path.relative_to(folder)))
    return found


def _pieces(data: bytes, step: int) -> list[bytes]:
    """Return pieces that are not made of a few bytes alone, as half of all files are; a short text
    as it is."""
    pieces = [
        data[place : place + PIECE] for place in range(0, max(1, len(data) - PIECE + 1), step)
    ]
    return [piece for piece in pieces if len(set(piece)) >= PIECE // 4]
