"""Every point that an alias shows, as lines of JSON sorted by id: to audit, and to compare two indexes byte by byte.

Vectors are written with as few digits as give the same float32 again; keys of objects are sorted. So equal indexes
make equal files. Memory does not grow with the index.
"""

from __future__ import annotations

import errno
import os
import sys
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import orjson

from rag_index.documents.batches import RESERVED_KEY
from rag_index.errors import RagIndexError, SettingsError, StoreError, TerminalError
from rag_index.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.documents.batches import StoredPoint
    from rag_index.settings import Settings

__all__ = ["STANDARD_OUTPUT", "export", "line"]

STANDARD_OUTPUT = "-"
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


def export(settings: Settings, name: str, out: str, *, vectors: bool = True) -> int:
    """Write an index's points to the file `out`, `-` for standard output; how many there were.

    The file is there whole or not at all: it is written beside, and renamed at the end. Raises UnknownIndex,
    StoreError (nothing indexed yet, store in use), SettingsError where the file cannot be written.
    """
    index = settings.index(name)
    store = open_store(settings.store, wait=settings.run.wait)
    try:
        live = store.aliases().get(settings.alias(index.name))
        if live is None:
            raise StoreError(f"index {index.name} is empty: `rag-index index {index.name}` fills it")
        count = 0
        with _opened(out) as file:
            for point in store.scroll(live, vectors=vectors):
                file.write(line(point))
                count += 1
        return count
    finally:
        store.close()


def line(point: StoredPoint) -> bytes:
    """A point as a line of JSON: id, document_id, payload as stored, and the vector where the point has it."""
    ours = point.payload.get(RESERVED_KEY)
    written = {
        "id": point.id,
        "document_id": ours.get("document_id") if isinstance(ours, dict) else None,
        "payload": point.payload,
    }
    if point.vector is not None:
        written["vector"] = np.asarray(point.vector, dtype=np.float32)
    return orjson.dumps(written, option=_JSON)


@contextmanager
def _opened(out: str) -> Iterator[BinaryIO]:
    """Standard output, a device or a pipe as they are; a file beside the one that is named, renamed at the end."""
    path = Path(out)
    if out == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    plain = path.is_file() or not path.exists()
    try:
        with (beside if plain else path).open("wb") as file:
            yield file
            file.flush()
            if plain:
                os.fsync(file.fileno())
        if plain:
            beside.replace(path)
    except RagIndexError:
        raise
    except OSError as error:
        kind = TerminalError if error.errno == errno.ENOSPC else SettingsError
        raise kind(f"{out} cannot be written: {error.strerror}; name another file with --out") from error
    finally:
        with suppress(OSError):
            beside.unlink()
