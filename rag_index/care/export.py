"""Exports of a live collection as sorted lines of JSON, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import orjson

from rag_index.components.stores import find_live, open_reader
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.files import DISK_FULL, replacement, unwritable
from rag_index.core.reports.progress import counted
from rag_index.errors import RagIndexError, SettingsError, StoreError, TerminalError

if TYPE_CHECKING:
    from rag_index.core.settings import Settings

STANDARD_OUTPUT = "-"
_JSON = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


def export(settings: Settings, name: str, out: str, *, vectors: bool = True) -> int:
    """Write an index's points as lines of JSON, and return their number.

    Args:
        out: A file, or `-` for standard output. A regular file is replaced at the end, once all
            points are written.

    Raises:
        UnknownIndex: The settings have no such index.
        StoreError: Nothing is indexed yet.
        SettingsError: The file cannot be written.
        TerminalError: The disk is full.
    """
    index = settings.index(name)
    run = settings.run
    with closing(
        open_reader(settings.store, wait=run.wait, patience=run.wait_for_recovery)
    ) as store:
        live = find_live(store, settings.alias(index.name))
        if live is None:
            raise StoreError(
                f"index {index.name} is empty: `rag-index index {index.name}` fills it"
            )
        count = 0
        with _open_output(out) as file:
            points = store.points(live.readable)
            for point in counted(points.scroll(vectors=vectors), "points written", points.count):
                file.write(json_line(point))
                count += 1
        return count


def json_line(point: StoredPoint) -> bytes:
    """Return a point as a line of JSON: id, document_id, the payload as stored, and its vectors if
    it has them."""
    ours = point.payload.get(RESERVED_KEY)
    written = {
        "id": point.id,
        "document_id": ours.get("document_id") if isinstance(ours, dict) else None,
        "payload": point.payload,
    }
    if point.vector is not None:
        written["vector"] = np.asarray(point.vector, dtype=np.float32)
    if point.sparse is not None:
        values = np.asarray(point.sparse.values, dtype=np.float32)
        written["sparse"] = {"indices": point.sparse.indices, "values": values}
    return orjson.dumps(written, option=_JSON)


@contextmanager
def _open_output(out: str) -> Iterator[BinaryIO]:
    """Open the output for writing. A regular file is replaced at the end."""
    if out == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(out)
    try:
        # A device or a pipe: /dev/stdout.
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
        else:
            with replacement(path, sync=True) as temporary, temporary.open("wb") as file:
                yield file
    except RagIndexError:
        raise
    except OSError as error:
        kind = TerminalError if error.errno in DISK_FULL else SettingsError
        raise kind(unwritable(path, error, "name another file with --out")) from error
